#include "base/atomic_output.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include "base/error.h"

namespace atom {
namespace {

namespace fs = std::filesystem;

void sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, "{}: cannot open to sync: {}", path.string(), std::strerror(errno));
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  require(result == 0 || error == EINVAL, "{}: cannot sync: {}", path.string(), std::strerror(error));
}

fs::path temporary_sibling(const fs::path& target) {
  return target.parent_path() / fmt::format(".{}.tmp-{}", target.filename().string(), ::getpid());
}

}  // namespace

bool holds(const fs::path& directory, const fs::path& path) {
  std::error_code error;
  const fs::path outer = fs::weakly_canonical(directory, error);
  const fs::path inner = fs::weakly_canonical(path, error);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

AtomicDirectory::AtomicDirectory(fs::path target, bool overwrite) : overwrite_(overwrite) {
  require(!target.empty(), "the output path is empty");
  std::error_code error;
  require(!fs::is_symlink(target) || fs::exists(target, error), "{}: is a symbolic link to nothing",
          target.string());
  // Links are followed: what is replaced is the directory, not the link.
  target_ = fs::weakly_canonical(fs::absolute(target), error);
  if (!error && !target_.has_filename()) target_ = target_.parent_path();
  require(!error, "{}: cannot find where it would be: {}", target.string(), error.message());
  // Replacing it would leave the process in a directory that has no name.
  require(!holds(target_, fs::current_path(error)), "{}: is the current directory, or holds it",
          target_.string());
  temporary_ = temporary_sibling(target_);
  const fs::file_status status = fs::status(target_, error);
  if (fs::exists(status) && !overwrite_) {
    const bool empty = fs::is_directory(status) && fs::is_empty(target_, error);
    require(empty, "{}: already exists (use --overwrite to replace it)", target_.string());
  }
  if (fs::exists(status) && !fs::is_directory(status))
    fail("{}: exists and is not a directory", target_.string());
  fs::remove_all(temporary_, error);
  fs::create_directory(temporary_, error);
  require(!error, "{}: cannot create the output directory: {}", target_.string(), error.message());
}

AtomicDirectory::~AtomicDirectory() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  std::error_code error;
  if (overwrite_ && fs::exists(target_, error)) {
    // rename() replaces only an empty directory; the old one steps aside first so that no moment has neither.
    const fs::path old =
        target_.parent_path() / fmt::format(".{}.old-{}", target_.filename().string(), ::getpid());
    fs::rename(target_, old, error);
    require(!error, "{}: cannot replace: {}", target_.string(), error.message());
    fs::rename(temporary_, target_, error);
    if (error) {
      std::error_code ignored;
      fs::rename(old, target_, ignored);
      fail("{}: cannot rename the finished output: {}", target_.string(), error.message());
    }
    fs::remove_all(old, error);
  } else {
    // Replaces an empty directory; fails when somebody has filled it meanwhile.
    fs::rename(temporary_, target_, error);
    require(!error, "{}: cannot rename the finished output: {}", target_.string(), error.message());
  }
  committed_ = true;
  sync_path(target_.parent_path());
}

void write_file(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = temporary_sibling(path);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  require(fd >= 0, "{}: cannot create: {}", path.string(), std::strerror(errno));
  int error = 0;
  while (!bytes.empty() && error == 0) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (written == 0 || errno != EINTR) {
      error = written == 0 ? EIO : errno;
    }
  }
  if (error == 0 && ::fsync(fd) != 0 && errno != EINVAL) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    fail("{}: cannot write: {}", path.string(), std::strerror(error));
  }
}

}  // namespace atom
