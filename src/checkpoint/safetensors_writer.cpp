#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

/// Small pieces are gathered so that each system call writes at least this much.
constexpr size_t kPendingBytes = size_t{1} << 20;
/// Linux writes at most about 2 GiB in a call; smaller pieces also let an interrupt through.
constexpr size_t kMaxWrite = size_t{1} << 26;

uint64_t bytes_of(const SafetensorsItem& item, const std::string& file) {
  uint64_t bytes = size_of(item.dtype);
  for (const int64_t size : item.shape) {
    require(size >= 0, "{}: tensor \"{}\": negative size {}", file, printable(item.name), size);
    require(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) && bytes >> 62 == 0,
            "{}: tensor \"{}\": its size overflows", file, printable(item.name));
  }
  return bytes;
}

/// Length and JSON text, padded with spaces so that what follows is aligned.
std::string make_header(const std::vector<SafetensorsItem>& items, const std::vector<uint64_t>& sizes,
                        const std::map<std::string, std::string>& metadata) {
  ordered_json::object_t members;
  members.reserve(items.size() + 1);
  if (!metadata.empty()) append_member(members, "__metadata__", ordered_json(metadata));
  uint64_t offset = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ordered_json entry;
    entry["dtype"] = name_of(items[i].dtype);
    entry["shape"] = items[i].shape;
    entry["data_offsets"] = {offset, offset + sizes[i]};
    append_member(members, items[i].name, std::move(entry));
    offset += sizes[i];
  }
  std::string text = ordered_json(std::move(members)).dump();
  const size_t length_bytes = sizeof(uint64_t);
  text.resize((length_bytes + text.size() + kAlignment - 1) / kAlignment * kAlignment - length_bytes, ' ');
  const uint64_t length = text.size();
  std::string header(length_bytes, '\0');
  std::memcpy(header.data(), &length, length_bytes);
  return header + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsItem> items,
                                     const std::map<std::string, std::string>& metadata)
    : output_(path), items_(std::move(items)) {
  const std::string file = path.string();
  std::unordered_set<std::string> seen;
  uint64_t total = 0;
  for (const SafetensorsItem& item : items_) {
    require(!item.name.empty() && item.name != "__metadata__" && is_valid_utf8(item.name),
            "{}: \"{}\" cannot be the name of a tensor", file, printable(item.name));
    require(seen.insert(item.name).second, "{}: tensor \"{}\" appears twice", file, printable(item.name));
    sizes_.push_back(bytes_of(item, file));
    require(!__builtin_add_overflow(total, sizes_.back(), &total) && total >> 62 == 0,
            "{}: its size overflows", file);
  }
  for (const auto& [key, value] : metadata) {
    require(is_valid_utf8(key) && is_valid_utf8(value), "{}: __metadata__: {}: not valid UTF-8", file,
            printable(key));
  }
  const std::string header = make_header(items_, sizes_, metadata);
  output_.fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(output_.fd >= 0, "{}: cannot create: {}", file, std::strerror(errno));
  output_.created = true;
  pending_.reserve(kPendingBytes);
  put(std::as_bytes(std::span<const char>(header)));
  skip_complete();
}

SafetensorsWriter::Output::~Output() {
  if (fd >= 0) ::close(fd);
  if (created && !keep) ::unlink(path.c_str());
}

void SafetensorsWriter::skip_complete() {
  while (current_ < items_.size() && written_ == sizes_[current_]) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::string expected = current_ < items_.size() ? items_[current_].name : "nothing";
  require(current_ < items_.size() && name == expected, "{}: tensor \"{}\" is not next: expected {}",
          output_.path.string(), printable(name), printable(expected));
  require(bytes.size() <= sizes_[current_] - written_,
          "{}: tensor \"{}\": expected {} bytes in all, found {}", output_.path.string(), printable(name),
          sizes_[current_], written_ + bytes.size());
  put(bytes);
  written_ += bytes.size();
  skip_complete();
}

void SafetensorsWriter::put(std::span<const std::byte> bytes) {
  if (pending_.size() + bytes.size() > kPendingBytes) flush();
  if (bytes.size() >= kPendingBytes) {
    write_all(bytes);
  } else {
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  }
}

void SafetensorsWriter::flush() {
  write_all(pending_);
  pending_.clear();
}

void SafetensorsWriter::write_all(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(output_.fd, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (count < 0 && errno == EINTR) continue;
    require(count > 0, "{}: cannot write: {}", output_.path.string(),
            std::strerror(count < 0 ? errno : ENOSPC));
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void SafetensorsWriter::finish() {
  require(current_ == items_.size(), "{}: tensor \"{}\" has {} of its {} bytes", output_.path.string(),
          current_ < items_.size() ? printable(items_[current_].name) : "", written_,
          current_ < items_.size() ? sizes_[current_] : 0);
  flush();
  require(::fsync(output_.fd) == 0, "{}: cannot write: {}", output_.path.string(), std::strerror(errno));
  const int closed = ::close(std::exchange(output_.fd, -1));
  require(closed == 0, "{}: cannot write: {}", output_.path.string(), std::strerror(errno));
  output_.keep = true;
}

}  // namespace atom
