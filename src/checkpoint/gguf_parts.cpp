#include "checkpoint/gguf_parts.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace atom {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNumber = "split.no";
constexpr std::string_view kCount = "split.count";
constexpr std::string_view kTensors = "split.tensors.count";
/// Of all parts together: as many as one file may have.
constexpr uint64_t kMaxTensors = 1u << 16;

/// What a part's name ends in, for part `index` (from 0) of `count`.
std::string suffix_of(uint64_t index, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", index + 1, count);
}

uint64_t parts_of(const GgufFile& file) {
  constexpr uint64_t kMaxParts = 99999;  // What the names have room for.
  const uint64_t count = file.find_uint(kCount).value_or(1);
  require(count >= 1 && count <= kMaxParts, "{}: {}: expected 1 to {}, found {}", file.name(), kCount,
          kMaxParts, count);
  return count;
}

bool same_value(const GgufValue& a, const GgufValue& b) {
  return a.type == b.type && a.element == b.element && a.count == b.count &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

}  // namespace

GgufParts::GgufParts(const fs::path& path) {
  const auto open = [&](const fs::path& part) {
    auto mapping = std::make_shared<const MappedFile>(part);
    const auto bytes = mapping->bytes();
    add(std::move(mapping), bytes, part.string());
  };
  open(path);
  const uint64_t count = parts_of(metadata());
  if (count > 1) {
    const uint64_t given = metadata().get_uint(kNumber);
    require(given < count, "{}: {}: expected 0 to {}, found {}", path.string(), kNumber, count - 1, given);
    const std::string name = path.filename().string();
    const std::string suffix = suffix_of(given, count);
    require(name.size() > suffix.size() && name.ends_with(suffix),
            "{}: it says that it is part {} of {}: expected a name that ends in \"{}\"", path.string(),
            given + 1, count, suffix);
    const std::string stem = name.substr(0, name.size() - suffix.size());
    parts_.clear();
    tensors_ = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const fs::path part = path.parent_path() / (stem + suffix_of(i, count));
      std::error_code error;
      require(fs::exists(part, error), "{}: part {} of {} is missing", part.string(), i + 1, count);
      open(part);
      check_last(i, count);
    }
  } else {
    check_last(0, 1);
  }
  collect_items();
}

GgufParts::GgufParts(std::span<const std::span<const std::byte>> parts, const std::string& name) {
  for (size_t i = 0; i < parts.size(); ++i) {
    add(nullptr, parts[i], i == 0 ? name : fmt::format("{} part {}", name, i + 1));
    check_last(i, parts.size());
  }
  collect_items();
}

void GgufParts::add(std::shared_ptr<const MappedFile> mapping, std::span<const std::byte> bytes,
                    const std::string& name) {
  parts_.push_back({std::move(mapping), GgufFile(bytes, name)});
  tensors_ += parts_.back().file.tensors().size();
  require(tensors_ <= kMaxTensors, "{}: expected at most {} tensors up to this part, found {}", name,
          kMaxTensors, tensors_);
}

void GgufParts::check_last(uint64_t index, uint64_t count) const {
  const GgufFile& file = parts_.back().file;
  const uint64_t found = parts_of(file);
  require(found == count, "{}: {}: expected {}, found {}", file.name(), kCount, count, found);
  const uint64_t number = file.find_uint(kNumber).value_or(0);
  require(number == index, "{}: {}: expected {}, found {}", file.name(), kNumber, index, number);
  if (index == 0) return;
  for (const std::string_view key : file.keys()) {
    if (key == kNumber || key == "general.alignment") continue;
    const GgufValue* first = metadata().find(key);
    require(first != nullptr && same_value(*first, *file.find(key)),
            "{}: metadata key \"{}\": differs from {}: parts of different models", file.name(),
            printable(key), metadata().name());
  }
}

void GgufParts::collect_items() {
  std::unordered_map<std::string_view, const Part*> owners;
  for (const Part& part : parts_) {
    for (const GgufTensor& tensor : part.file.tensors()) {
      const auto [owner, fresh] = owners.emplace(tensor.name, &part);
      require(fresh, "{}: tensor \"{}\" is in {} already", part.file.name(), printable(tensor.name),
              owner->second->file.name());
      items_.push_back({&tensor, &part});
      index_.emplace(tensor.name, &tensor);
    }
  }
  if (const auto total = metadata().find_uint(kTensors)) {
    require(*total == items_.size(), "{}: {}: expected {}, as many as there are, found {}", metadata().name(),
            kTensors, items_.size(), *total);
  } else {
    require(parts_.size() == 1, "{}: metadata key \"{}\" is missing", metadata().name(), kTensors);
  }
}

const GgufTensor* GgufParts::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : it->second;
}

std::vector<fs::path> GgufParts::files() const {
  std::vector<fs::path> files;
  for (const Part& part : parts_) files.emplace_back(part.file.name());
  return files;
}

}  // namespace atom
