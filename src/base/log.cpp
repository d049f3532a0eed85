#include "base/log.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include <spdlog/sinks/stdout_color_sinks.h>

#include "base/error.h"

namespace atom {

void init_log(const std::string& level) {
  // spdlog has other words for some levels, and takes an unknown one for "off".
  constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};
  if (std::find(std::begin(kLevels), std::end(kLevels), level) == std::end(kLevels)) {
    throw UsageError(
        fmt::format("unknown log level '{}' (trace, debug, info, warn, error, off)", printable(level)));
  }
  auto logger =
      std::make_shared<spdlog::logger>("atom", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace atom
