#include "base/log.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom {
namespace {

TEST(Log, LevelsByTheirNames) {
  const std::pair<const char*, spdlog::level::level_enum> levels[] = {
      {"trace", spdlog::level::trace}, {"debug", spdlog::level::debug}, {"warn", spdlog::level::warn},
      {"error", spdlog::level::err},   {"off", spdlog::level::off},     {"info", spdlog::level::info}};
  for (const auto& [name, level] : levels) {
    init_log(name);
    EXPECT_EQ(spdlog::get_level(), level) << name;
  }
}

TEST(Log, OtherWordsAreErrorsAndChangeNothing) {
  init_log("info");
  for (const char* word : {"", "loud", "INFO", "warning", "err", "critical", "off "}) {
    EXPECT_THROW(init_log(word), UsageError) << word;
  }
  EXPECT_EQ(spdlog::get_level(), spdlog::level::info);
}

TEST(Log, GoesToStandardErrorAlone) {
  init_log("warn");
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  spdlog::info("not this");
  spdlog::warn("this");
  spdlog::warn("red \x1b[31m");
  spdlog::default_logger()->flush();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: this\nwarning: red \\x1b[31m\n");
}

}  // namespace
}  // namespace atom
