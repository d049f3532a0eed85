#include "base/interrupt.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/progress.h"

namespace atom {
namespace {

// The flag cannot be taken back, so every test that raises it runs in a process of its own.

TEST(InterruptDeathTest, FirstSignalSetsTheFlagAndProgressThrows) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_FALSE(interrupted());
  EXPECT_NO_THROW(throw_if_interrupted());
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        std::raise(SIGINT);
        bool thrown = false;
        try {
          Progress progress("work", 10, true);
          progress.update(1);
        } catch (const Interrupted&) {
          thrown = true;
        }
        std::_Exit(interrupted() && thrown ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(InterruptDeathTest, SecondSignalEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        std::raise(SIGTERM);
        std::raise(SIGTERM);
        std::_Exit(0);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST(Progress, PrintsPlainLinesWhenNotOnATerminal) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("layers", 4);
    for (int i = 1; i <= 4; ++i) progress.update(i, "note");
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  // The first update and the last one; those between come too soon after it.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_NE(text.find("layers 4/4 (100%)"), std::string::npos) << text;
  EXPECT_NE(text.find("note"), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(Progress, SaysNothingWhenQuiet) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("layers", 0, true);
    progress.update(1);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace atom
