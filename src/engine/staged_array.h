#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace atom {

/// A small array that the host fills and a device's ops read, or the other way round; on a CPU (null
/// `memory`) one and the same. Keeps its memory from one use to the next.
template <class T>
class StagedArray {
 public:
  /// What the host fills, of any size, or has downloaded.
  std::vector<T>& host() { return host_; }

  /// What the host filled, where ops can read it.
  std::span<const T> upload(Memory* memory) {
    if (memory == nullptr) return host_;
    reserve(host_.size(), memory);
    if (!host_.empty()) memory->upload(device_.data(), host_.data(), host_.size() * sizeof(T));
    return {device_.data(), host_.size()};
  }

  /// Room for `count` elements that an op writes.
  std::span<T> room(size_t count, Memory* memory) {
    host_.resize(count);
    if (memory == nullptr) return host_;
    reserve(count, memory);
    return {device_.data(), count};
  }

  /// What ops wrote to room(), on the host.
  std::span<const T> download(Memory* memory) {
    if (memory != nullptr && !host_.empty()) {
      memory->download(host_.data(), device_.data(), host_.size() * sizeof(T));
    }
    return host_;
  }

 private:
  void reserve(size_t count, Memory* memory) {
    if (device_.size() < count) device_ = Buffer<T>(std::max(count, 2 * device_.size()), memory);
  }

  std::vector<T> host_;
  Buffer<T> device_;
};

}  // namespace atom
