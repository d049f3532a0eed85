#pragma once

#include <filesystem>

namespace atom::test_support {

/// The root of the source tree that was built: where tests find golden files and scripts.
std::filesystem::path source_root();

}  // namespace atom::test_support
