#pragma once

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

namespace atom::test_support {

/// What opening the model fails with; "no error" where it does not.
inline std::string open_error(const std::filesystem::path& path) {
  try {
    Checkpoint::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

}  // namespace atom::test_support
