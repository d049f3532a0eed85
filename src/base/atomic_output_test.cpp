#include "base/atomic_output.h"

#include <csignal>
#include <set>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/testing/temp_dir.h"

namespace atom {
namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  return names;
}

/// The message of the Error that `action` throws, empty when it throws none.
template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(AtomicDirectory, AppearsOnlyWithCommit) {
  const test_support::TempDir temporary;
  AtomicDirectory output(temporary / "out", false);
  write_file(output.path() / "a", "alpha");
  fs::create_directory(output.path() / "sub");
  write_file(output.path() / "sub" / "b", "beta");
  EXPECT_FALSE(fs::exists(temporary / "out"));
  output.commit();
  EXPECT_EQ(names_in(temporary.path()), std::set<std::string>{"out"});
  EXPECT_EQ(read_text_file(temporary / "out" / "a"), "alpha");
  EXPECT_EQ(read_text_file(temporary / "out" / "sub" / "b"), "beta");
}

TEST(AtomicDirectory, LeavesNothingWithoutCommit) {
  const test_support::TempDir temporary;
  {
    const AtomicDirectory output(temporary / "out/", false);
    write_file(output.path() / "a", "alpha");
  }
  EXPECT_TRUE(names_in(temporary.path()).empty());
}

TEST(AtomicDirectory, RefusesWhatExistsUnlessToldToReplaceIt) {
  const test_support::TempDir temporary;
  const fs::path target = temporary / "out";
  fs::create_directory(target);
  write_file(target / "old", "old");
  const std::string message = error_of([&] { AtomicDirectory(target, false); });
  EXPECT_NE(message.find(target.string()), std::string::npos) << message;
  EXPECT_NE(message.find("already exists"), std::string::npos);

  { const AtomicDirectory abandoned(target, true); }
  EXPECT_EQ(names_in(target), std::set<std::string>{"old"});

  AtomicDirectory output(target, true);
  write_file(output.path() / "new", "new");
  EXPECT_EQ(names_in(target), std::set<std::string>{"old"});
  output.commit();
  EXPECT_EQ(names_in(target), std::set<std::string>{"new"});
  EXPECT_EQ(names_in(temporary.path()), std::set<std::string>{"out"});
}

TEST(AtomicDirectory, FillsAnEmptyDirectory) {
  const test_support::TempDir temporary;
  fs::create_directory(temporary / "out");
  AtomicDirectory output(temporary / "out", false);
  write_file(output.path() / "a", "alpha");
  output.commit();
  EXPECT_EQ(names_in(temporary / "out"), std::set<std::string>{"a"});
}

TEST(AtomicDirectory, NeverReplacesWhatAppearedMeanwhile) {
  const test_support::TempDir temporary;
  {
    AtomicDirectory output(temporary / "out", false);
    write_file(output.path() / "a", "alpha");
    fs::create_directory(temporary / "out");
    write_file(temporary / "out" / "precious", "x");
    EXPECT_THROW(output.commit(), Error);
  }
  EXPECT_EQ(names_in(temporary.path()), std::set<std::string>{"out"});
  EXPECT_EQ(names_in(temporary / "out"), std::set<std::string>{"precious"});
}

TEST(AtomicDirectory, RefusesFilesMissingParentsAndEmptyPaths) {
  const test_support::TempDir temporary;
  write_file(temporary / "file", "x");
  EXPECT_NE(error_of([&] { AtomicDirectory(temporary / "file", true); }).find("not a directory"),
            std::string::npos);
  EXPECT_THROW(AtomicDirectory(temporary / "no" / "such" / "parent", false), Error);
  EXPECT_THROW(AtomicDirectory(fs::path(), false), Error);
  EXPECT_THROW(AtomicDirectory("/", true).commit(), Error);
  EXPECT_EQ(read_text_file(temporary / "file"), "x");
}

TEST(WriteFile, ReplacesWholeFiles) {
  const test_support::TempDir temporary;
  write_file(temporary / "a", "first, longer");
  write_file(temporary / "a", "second");
  EXPECT_EQ(read_text_file(temporary / "a"), "second");
  write_file(temporary / "empty", "");
  EXPECT_EQ(read_text_file(temporary / "empty"), "");
  EXPECT_EQ(names_in(temporary.path()), (std::set<std::string>{"a", "empty"}));
}

TEST(WriteFile, FailureNamesThePathAndLeavesNothing) {
  const test_support::TempDir temporary;
  fs::create_directory(temporary / "directory");
  EXPECT_NE(error_of([&] { write_file(temporary / "directory", "x"); }).find("directory"), std::string::npos);
  EXPECT_THROW(write_file(temporary / "no" / "parent", "x"), Error);
  EXPECT_EQ(names_in(temporary.path()), std::set<std::string>{"directory"});
}

TEST(WriteFile, AFullDiskKeepsTheOldFile) {
  const test_support::TempDir temporary;
  write_file(temporary / "a", "old");
  // A limit on the size of files fails in write() as a full disk does.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = error_of([&] { write_file(temporary / "a", std::string(5000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
  EXPECT_EQ(read_text_file(temporary / "a"), "old");
  EXPECT_EQ(names_in(temporary.path()), std::set<std::string>{"a"});
}

}  // namespace
}  // namespace atom
