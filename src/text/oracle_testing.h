#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/testing/source_tree.h"
#include "base/testing/temp_dir.h"

namespace atom::text {

using test_support::read_file;
using test_support::TempDir;

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Runs an oracle script with the Python of ATOM_TEST_PYTHON; true when it succeeds.
inline bool run_oracle(const std::string& script, const std::string& arguments) {
  const std::string command =
      fmt::format("'{}' '{}' {}", environment("ATOM_TEST_PYTHON"),
                  (test_support::source_root() / "scripts/oracles" / script).string(), arguments);
  return std::system(command.c_str()) == 0;
}

inline void save_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace atom::text
