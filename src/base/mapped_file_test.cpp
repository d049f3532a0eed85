#include "base/mapped_file.h"

#include <cstring>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "base/atomic_output.h"
#include "base/error.h"
#include "base/testing/temp_dir.h"

namespace atom {
namespace {

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, HoldsTheBytes) {
  const test_support::TempDir temporary;
  std::string content(100'000, 'x');
  content[99'999] = 'y';
  write_file(temporary / "a", content);
  const MappedFile file(temporary / "a");
  EXPECT_EQ(text_of(file), content);
  EXPECT_EQ(file.path(), temporary / "a");
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const test_support::TempDir temporary;
  write_file(temporary / "a", "");
  EXPECT_TRUE(MappedFile(temporary / "a").bytes().empty());
  EXPECT_EQ(read_text_file(temporary / "a"), "");
}

TEST(MappedFile, MovesItsMapping) {
  const test_support::TempDir temporary;
  write_file(temporary / "a", "alpha");
  write_file(temporary / "b", "beta");
  MappedFile a(temporary / "a");
  MappedFile moved(std::move(a));
  EXPECT_EQ(text_of(moved), "alpha");
  MappedFile b(temporary / "b");
  b = std::move(moved);
  EXPECT_EQ(text_of(b), "alpha");
  EXPECT_EQ(b.path(), temporary / "a");
}

TEST(MappedFile, ReleasedPagesCanBeReadAgain) {
  const test_support::TempDir temporary;
  const std::string content(1 << 16, 'z');
  write_file(temporary / "a", content);
  const MappedFile file(temporary / "a");
  file.release(file.bytes());
  file.release(file.bytes().subspan(1, 3));
  file.release(file.bytes().subspan(5000, 20'000));
  file.release({});
  EXPECT_EQ(text_of(file), content);
}

TEST(MappedFile, RefusesWhatIsNoReadableFile) {
  const test_support::TempDir temporary;
  const auto message = [](const std::filesystem::path& path) -> std::string {
    try {
      const MappedFile file(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(temporary / "missing").find("missing: cannot open"), std::string::npos);
  EXPECT_NE(message(temporary.path()).find("not a regular file"), std::string::npos);
  EXPECT_NE(message("/dev/null").find("not a regular file"), std::string::npos);
  // A named pipe without a writer must not make anybody wait.
  ASSERT_EQ(::mkfifo((temporary / "pipe").c_str(), 0600), 0);
  EXPECT_NE(message(temporary / "pipe").find("not a regular file"), std::string::npos);
}

TEST(ReadTextFile, HasALimit) {
  const test_support::TempDir temporary;
  write_file(temporary / "a", "12345");
  EXPECT_EQ(read_text_file(temporary / "a", 5), "12345");
  EXPECT_THROW(read_text_file(temporary / "a", 4), Error);
}

}  // namespace
}  // namespace atom
