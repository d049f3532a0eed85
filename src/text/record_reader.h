#pragma once

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace atom::text {

/// Reads the top-level objects of a JSON array, or of a sequence of JSON objects, one at a time and without
/// parsing them, from a file of any size.
class RecordReader {
 public:
  /// Throws Error naming `path` when it cannot be opened.
  explicit RecordReader(const std::filesystem::path& path);

  /// The text of the next object; nothing at the end or where the file is cut off. Throws Error naming the
  /// file and the byte for anything but objects.
  std::optional<std::string> next();

  /// Whether the file ended inside a record or an array, and what was read of that record.
  bool cut_off() const { return cut_off_; }
  const std::string& unfinished() const { return unfinished_; }
  /// Objects returned so far.
  size_t count() const { return count_; }

 private:
  int get();
  int next_visible();

  std::string path_;
  std::ifstream file_;
  std::string buffer_;
  std::string unfinished_;
  size_t position_ = 0;
  size_t offset_ = 0;  // of the buffer's end in the file
  size_t count_ = 0;
  bool started_ = false;
  bool in_array_ = false;
  bool done_ = false;
  bool cut_off_ = false;
};

}  // namespace atom::text
