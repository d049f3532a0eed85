#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "checkpoint/gguf_file.h"

namespace atom {

/// A GGUF model, which may be split over several files, `NAME-00001-of-00003.gguf` and so on: metadata are in
/// the first, tensors in all of them. Each file says in its metadata which part it is (`split.no`, from 0),
/// how many there are (`split.count`), and how many tensors all of them have (`split.tensors.count`).
class GgufParts {
 public:
  struct Part {
    /// Null for one in memory.
    std::shared_ptr<const MappedFile> mapping;
    GgufFile file;
  };
  struct Item {
    const GgufTensor* tensor;
    const Part* part;
  };

  /// Opens the file and, when it is one of several parts, whichever it is, the others beside it. Throws Error
  /// naming the file for a part that is missing, malformed, repeats a tensor, or belongs to another model.
  explicit GgufParts(const std::filesystem::path& path);
  /// All parts, in memory that somebody else keeps; `name` is for errors.
  GgufParts(std::span<const std::span<const std::byte>> parts, const std::string& name);
  GgufParts(GgufParts&&) = default;
  GgufParts(const GgufParts&) = delete;  // A copy's views would point into the original.

  /// The first part, which has the metadata.
  const GgufFile& metadata() const { return parts_.front().file; }
  /// The tensors of all parts, in order.
  const std::vector<Item>& items() const { return items_; }
  /// The tensor, or null.
  const GgufTensor* find(std::string_view name) const;
  std::vector<std::filesystem::path> files() const;

 private:
  void add(std::shared_ptr<const MappedFile> mapping, std::span<const std::byte> bytes,
           const std::string& name);
  /// Checks that the part added last is number `index` of `count`, and belongs to the first.
  void check_last(uint64_t index, uint64_t count) const;
  void collect_items();

  // A deque, whose elements stay where they are: items and views point into them.
  std::deque<Part> parts_;
  uint64_t tensors_ = 0;
  std::vector<Item> items_;
  std::unordered_map<std::string_view, const GgufTensor*> index_;
};

}  // namespace atom
