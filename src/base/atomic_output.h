#pragma once

#include <filesystem>

namespace atom {

/// Whether `path` is `directory` or lies in it, links followed.
bool holds(const std::filesystem::path& directory, const std::filesystem::path& path);

/// A directory that appears under its final name only when everything in it is complete: files are written
/// into a hidden sibling, synced, and the sibling is renamed by `commit`. Destroyed without `commit` (an
/// error, Ctrl-C), it removes the sibling and leaves whatever was at the final name untouched.
class AtomicDirectory {
 public:
  /// Throws Error when `target` exists and is not an empty directory (unless `overwrite`), when it is or
  /// holds the current directory, or when the sibling cannot be made.
  AtomicDirectory(std::filesystem::path target, bool overwrite);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  /// Where to write the files meanwhile.
  const std::filesystem::path& path() const { return temporary_; }

  /// Syncs every file and the directory, then renames. Throws Error and leaves no output when that fails.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  bool overwrite_;
  bool committed_ = false;
};

/// Writes `bytes` to `path` (temporary name, synced, renamed). Throws Error naming `path` on failure.
void write_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace atom
