#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

namespace atom::text {

uint64_t hash_bytes(std::string_view bytes);

/// Remembers the tokens of short words: a table of fixed size in which a new word replaces the one whose
/// place it needs. Any number of threads may use it at once.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 27;
  static constexpr size_t kMaxTokens = 8;

  WordCache();

  /// Appends the tokens of `word` to `out` when it is known.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& out) const;
  void store(std::string_view word, uint64_t hash, const int32_t* tokens, size_t count);

 private:
  struct Slot {
    uint8_t bytes = 0;
    uint8_t tokens = 0;
    uint8_t used = 0;
    char word[kMaxBytes + 2];
    int32_t ids[kMaxTokens];
  };
  static_assert(sizeof(Slot) == 64);
  static constexpr size_t kSlots = 1 << 15;
  static constexpr size_t kLocks = 64;

  std::vector<Slot> slots_;
  mutable std::vector<std::mutex> locks_;
};

}  // namespace atom::text
