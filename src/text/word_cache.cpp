#include "text/word_cache.h"

#include <cstring>

namespace atom::text {

uint64_t hash_bytes(std::string_view bytes) {
  // Multiply and fold, eight bytes at a time.
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t hash = bytes.size() * kMultiplier;
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  while (bytes.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes.remove_prefix(8);
  }
  uint64_t word = 0;
  if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
  mix(word);
  return hash ^ (hash >> 29);
}

WordCache::WordCache() : slots_(kSlots), locks_(kLocks) {}

bool WordCache::find(std::string_view word, uint64_t hash, std::vector<int32_t>& out) const {
  if (word.size() > kMaxBytes) return false;
  const size_t place = hash % kSlots;
  const std::lock_guard lock(locks_[place % kLocks]);
  const Slot& slot = slots_[place];
  if (slot.used == 0 || slot.bytes != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) {
    return false;
  }
  out.insert(out.end(), slot.ids, slot.ids + slot.tokens);
  return true;
}

void WordCache::store(std::string_view word, uint64_t hash, const int32_t* tokens, size_t count) {
  if (word.size() > kMaxBytes || count > kMaxTokens) return;
  const size_t place = hash % kSlots;
  const std::lock_guard lock(locks_[place % kLocks]);
  Slot& slot = slots_[place];
  slot.used = 1;
  slot.bytes = static_cast<uint8_t>(word.size());
  slot.tokens = static_cast<uint8_t>(count);
  std::memcpy(slot.word, word.data(), word.size());
  std::memcpy(slot.ids, tokens, count * sizeof(int32_t));
}

}  // namespace atom::text
