#include "text/record_reader.h"

#include "base/error.h"

namespace atom::text {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr size_t kMaxRecordBytes = size_t{256} << 20;
constexpr int kEnd = -1;

}  // namespace

RecordReader::RecordReader(const std::filesystem::path& path)
    : path_(path.string()), file_(path, std::ios::binary) {
  require(file_.is_open() && !std::filesystem::is_directory(path), "{}: cannot be opened for reading", path_);
}

int RecordReader::get() {
  if (position_ == buffer_.size()) {
    buffer_.resize(kBufferBytes);
    file_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    require(!file_.bad(), "{}: cannot be read behind byte {}", path_, offset_);
    buffer_.resize(static_cast<size_t>(file_.gcount()));
    offset_ += buffer_.size();
    position_ = 0;
    if (buffer_.empty()) return kEnd;
  }
  return static_cast<unsigned char>(buffer_[position_++]);
}

int RecordReader::next_visible() {
  int c = get();
  while (c == ' ' || c == '\t' || c == '\n' || c == '\r') c = get();
  return c;
}

std::optional<std::string> RecordReader::next() {
  if (done_) return std::nullopt;
  const auto expect = [&](bool condition, const char* what) {
    require(condition, "{}: expected {} at byte {}, found something else", path_, what,
            offset_ - buffer_.size() + position_ - 1);
  };
  int c = next_visible();
  if (!started_) {
    started_ = true;
    if (c == 0xEF) {  // byte order mark
      expect(get() == 0xBB && get() == 0xBF, "JSON");
      c = next_visible();
    }
    in_array_ = c == '[';
    if (in_array_) c = next_visible();
  } else if (in_array_ && c != kEnd) {
    if (c != ']') {
      expect(c == ',', "',' or ']'");
      c = next_visible();
      expect(c == '{' || c == kEnd, "an object");
    }
  }
  if (in_array_ && c == ']') {
    c = next_visible();
    expect(c == kEnd, "nothing behind the array");
    done_ = true;
    return std::nullopt;
  }
  if (c == kEnd) {
    done_ = true;
    cut_off_ = in_array_;
    return std::nullopt;
  }
  expect(c == '{', "an object");

  std::string record = "{";
  size_t depth = 1;
  bool in_string = false;
  while (depth > 0) {
    c = get();
    if (c == kEnd) {
      done_ = true;
      cut_off_ = true;
      unfinished_ = std::move(record);
      return std::nullopt;
    }
    require(record.size() < kMaxRecordBytes, "{}: record {} is larger than {} bytes", path_, count_ + 1,
            kMaxRecordBytes);
    record += static_cast<char>(c);
    if (in_string) {
      if (c == '\\') {
        c = get();
        if (c != kEnd) record += static_cast<char>(c);
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  ++count_;
  return record;
}

}  // namespace atom::text
