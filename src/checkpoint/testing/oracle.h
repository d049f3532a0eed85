#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/testing/source_tree.h"

namespace atom::test_support {

/// An environment variable that names something a test needs ("ATOM_TEST_PYTHON"), or an empty string.
inline std::string test_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Runs scripts/oracles/SCRIPT with the Python of ATOM_TEST_PYTHON and gives what it prints. Throws when it
/// fails.
inline std::string run_oracle(const std::string& script, const std::vector<std::string>& arguments) {
  const auto quoted = [](const std::string& text) {
    std::string out = "'";
    for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
  };
  std::string command = quoted(test_environment("ATOM_TEST_PYTHON"));
  command += ' ';
  command += quoted((source_root() / "scripts" / "oracles" / script).string());
  for (const std::string& argument : arguments) {
    command += ' ';
    command += quoted(argument);
  }
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  std::string output;
  std::array<char, 4096> piece{};
  while (const size_t count = std::fread(piece.data(), 1, piece.size(), pipe))
    output.append(piece.data(), count);
  if (::pclose(pipe) != 0) throw std::runtime_error("failed: " + command);
  return output;
}

}  // namespace atom::test_support
