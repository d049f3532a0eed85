#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/host_device.h"

namespace atom {

/// The `i`-th word of the stream of a seed, by SplitMix64 (Steele, Lea, Flood 2014): small, fast, the same
/// words on every platform, in whatever order they are made.
ATOM_HOST_DEVICE inline uint64_t random_word(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// The words of a stream, one after the other.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  uint64_t next() { return random_word(seed_, count_++); }

  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  /// Uniform in [0, bound), bound >= 1, without modulo bias.
  uint64_t below(uint64_t bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (true) {
      const uint64_t value = next();
      if (value >= threshold) return value % bound;
    }
  }

 private:
  uint64_t seed_;
  uint64_t count_ = 0;
};

/// The numbers below `n` in random order.
inline std::vector<int32_t> random_permutation(Random& random, int64_t n) {
  std::vector<int32_t> permutation(static_cast<size_t>(n));
  for (size_t i = 0; i < permutation.size(); ++i) {
    const auto j = static_cast<size_t>(random.below(i + 1));
    permutation[i] = permutation[j];
    permutation[j] = static_cast<int32_t>(i);
  }
  return permutation;
}
inline std::vector<int32_t> random_permutation(Random&& random, int64_t n) {
  return random_permutation(random, n);
}

}  // namespace atom
