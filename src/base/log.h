#pragma once

#include <string>

#include <spdlog/spdlog.h>

namespace atom {

/// Sends the log to standard error as `level: text`. `level` is one of trace, debug, info, warn, error, off.
/// Throws UsageError for another word. Standard output belongs to results alone.
void init_log(const std::string& level);

}  // namespace atom
