#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/word_cache.h"

namespace atom::text {
namespace {

constexpr uint64_t kEmptyKey = ~uint64_t{0};
// Positions inside a word are 32-bit.
constexpr size_t kMaxWordBytes = size_t{1} << 30;

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

uint64_t mix(uint64_t key) {
  key *= 0x9E3779B97F4A7C15u;
  return key ^ (key >> 32);
}

/// Orders a heap so that the lowest rank, and then the leftmost position, is on top.
struct LaterFirst {
  bool operator()(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

}  // namespace

Bpe::Bpe(Config config) : config_(std::move(config)), cache_(std::make_unique<WordCache>()) {
  pairs_.assign(std::bit_ceil(config_.merges.size() * 2 + 2), {kEmptyKey, {-1, -1}});
  for (size_t rank = 0; rank < config_.merges.size(); ++rank) {
    const Merge& merge = config_.merges[rank];
    const uint64_t key = pair_key(merge.left, merge.right);
    size_t slot = mix(key) & (pairs_.size() - 1);
    while (pairs_[slot].key != kEmptyKey && pairs_[slot].key != key) slot = (slot + 1) & (pairs_.size() - 1);
    pairs_[slot] = {key, {static_cast<int32_t>(rank), merge.merged}};
  }
  config_.merges.clear();
  config_.merges.shrink_to_fit();
  if (!config_.whole_words.empty()) {
    whole_slots_.assign(std::bit_ceil(config_.whole_words.size() * 2), -1);
    for (size_t i = 0; i < config_.whole_words.size(); ++i) {
      size_t slot = hash_bytes(config_.whole_words[i].first) & (whole_slots_.size() - 1);
      while (whole_slots_[slot] >= 0) slot = (slot + 1) & (whole_slots_.size() - 1);
      whole_slots_[slot] = static_cast<int32_t>(i);
    }
  }
}

Bpe::~Bpe() = default;
Bpe::Bpe(Bpe&&) noexcept = default;
Bpe& Bpe::operator=(Bpe&&) noexcept = default;

Bpe::Rank Bpe::find(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  size_t slot = mix(key) & (pairs_.size() - 1);
  while (pairs_[slot].key != key) {
    if (pairs_[slot].key == kEmptyKey) return {-1, -1};
    slot = (slot + 1) & (pairs_.size() - 1);
  }
  return pairs_[slot].rank;
}

const int32_t* Bpe::find_whole(std::string_view word) const {
  if (whole_slots_.empty()) return nullptr;
  size_t slot = hash_bytes(word) & (whole_slots_.size() - 1);
  while (whole_slots_[slot] >= 0) {
    const auto& [bytes, id] = config_.whole_words[static_cast<size_t>(whole_slots_[slot])];
    if (bytes == word) return &id;
    slot = (slot + 1) & (whole_slots_.size() - 1);
  }
  return nullptr;
}

void Bpe::start_symbols(std::string_view word, Scratch& scratch) const {
  scratch.ids.clear();
  bool after_unknown = false;
  for (const char c : word) {
    const int32_t id = config_.byte_ids[static_cast<uint8_t>(c)];
    if (id >= 0) {
      scratch.ids.push_back(id);
    } else if (config_.unknown_id < 0) {
      scratch.dropped_bytes = true;
    } else if (!after_unknown || !config_.fuse_unknown) {
      scratch.ids.push_back(config_.unknown_id);
    }
    after_unknown = id < 0;
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  require(word.size() <= kMaxWordBytes, "text: expected words of at most {} bytes, found {}", kMaxWordBytes,
          word.size());
  if (const int32_t* whole = find_whole(word)) {
    out.push_back(*whole);
    return;
  }
  const uint64_t hash = hash_bytes(word);
  if (cache_->find(word, hash, out)) return;
  const bool dropped_before = scratch.dropped_bytes;
  scratch.dropped_bytes = false;
  start_symbols(word, scratch);
  if (scratch.ids.size() <= kScanLimit) {
    merge_by_scan(scratch);
  } else {
    merge_by_heap(scratch);
  }
  // Words that lose bytes stay out of the cache, so that the loss is noticed whenever they come.
  if (!scratch.dropped_bytes) cache_->store(word, hash, scratch.ids.data(), scratch.ids.size());
  scratch.dropped_bytes |= dropped_before;
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
}

void Bpe::merge_by_scan(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  if (ids.size() < 2) return;
  // pairs[i] is the rank of (ids[i], ids[i + 1]).
  std::vector<Scratch::Candidate>& pairs = scratch.pairs;
  const auto lookup = [&](size_t i) {
    const Rank rank = find(ids[i], ids[i + 1]);
    return Scratch::Candidate{rank.rank, 0, rank.merged};
  };
  pairs.resize(ids.size() - 1);
  for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = lookup(i);
  while (!pairs.empty()) {
    size_t best = pairs.size();
    uint32_t best_rank = ~uint32_t{0};
    for (size_t i = 0; i < pairs.size(); ++i) {
      // A missing rank (-1) is the largest number without a sign.
      const auto rank = static_cast<uint32_t>(pairs[i].rank);
      if (rank < best_rank) {
        best_rank = rank;
        best = i;
      }
    }
    if (best == pairs.size()) return;
    ids[best] = pairs[best].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(best));
    if (best > 0) pairs[best - 1] = lookup(best - 1);
    if (best < pairs.size()) pairs[best] = lookup(best);
  }
}

void Bpe::merge_by_heap(Scratch& scratch) const {
  const auto count = static_cast<int32_t>(scratch.ids.size());
  std::vector<Scratch::Symbol>& symbols = scratch.symbols;
  std::vector<Scratch::Candidate>& heap = scratch.heap;
  symbols.resize(scratch.ids.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {scratch.ids[static_cast<size_t>(i)], i - 1,
                                       i + 1 < count ? i + 1 : -1};
  }
  heap.clear();
  const auto candidate = [&](int32_t position, Scratch::Candidate& found) {
    const Scratch::Symbol& left = symbols[static_cast<size_t>(position)];
    const Rank rank = find(left.id, symbols[static_cast<size_t>(left.next)].id);
    found = {rank.rank, position, rank.merged};
    return rank.rank >= 0;
  };
  const auto push = [&](int32_t position) {
    Scratch::Candidate found;
    if (!candidate(position, found)) return;
    heap.push_back(found);
    std::push_heap(heap.begin(), heap.end(), LaterFirst{});
  };
  for (int32_t i = 0; i + 1 < count; ++i) {
    Scratch::Candidate found;
    if (candidate(i, found)) heap.push_back(found);
  }
  std::make_heap(heap.begin(), heap.end(), LaterFirst{});

  constexpr int32_t kRemoved = -2;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), LaterFirst{});
    const Scratch::Candidate top = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(top.position)];
    if (left.id == kRemoved || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    // An entry is stale when one of its symbols has been merged since.
    const Rank current = find(left.id, right.id);
    if (current.rank != top.rank) continue;
    left.id = top.merged;
    right.id = kRemoved;
    left.next = right.next;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.position;
      push(top.position);
    }
    if (left.previous >= 0) push(left.previous);
  }
  scratch.ids.clear();
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.id != kRemoved) scratch.ids.push_back(symbol.id);
  }
}

}  // namespace atom::text
