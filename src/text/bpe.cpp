#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"
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
  unused_.insert(config_.unused.begin(), config_.unused.end());
  for (const Merge& merge : config_.merges) {
    const uint64_t key = pair_key(merge.left, merge.right);
    size_t slot = mix(key) & (pairs_.size() - 1);
    while (pairs_[slot].key != kEmptyKey && pairs_[slot].key != key) slot = (slot + 1) & (pairs_.size() - 1);
    pairs_[slot] = {key, {merge.rank, merge.merged}};
  }
  char_pages_.emplace_back().fill(-1);
  for (const auto& [code_point, id] : config_.char_ids) {
    uint16_t& page = char_page_[code_point >> 8];
    if (page == 0) {
      page = static_cast<uint16_t>(char_pages_.size());
      char_pages_.emplace_back().fill(-1);
    }
    char_pages_[page][code_point & 0xFF] = id;
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

int32_t Bpe::char_id(char32_t code_point) const {
  return char_pages_[char_page_[code_point >> 8]][code_point & 0xFF];
}

void Bpe::start_bytes(std::string_view word, Scratch& scratch) const {
  scratch.ids.clear();
  bool after_unknown = false;
  for (const char c : word) {
    const int32_t id = config_.byte_ids[static_cast<uint8_t>(c)];
    if (id >= 0) {
      scratch.ids.push_back(id);
    } else if (config_.unknown_id < 0) {
      scratch.dropped = true;
    } else if (!after_unknown || !config_.fuse_unknown) {
      scratch.ids.push_back(config_.unknown_id);
    }
    after_unknown = id < 0;
  }
}

void Bpe::start_characters(std::string_view word, Scratch& scratch) const {
  scratch.ids.clear();
  // `tokenizers` writes an unknown token when the next character comes that has a token of its own, behind
  // any bytes that stand between them.
  bool pending = false;
  const auto write_pending = [&] {
    if (pending) scratch.ids.push_back(config_.unknown_id);
    pending = false;
  };
  while (!word.empty()) {
    const Utf8Char c = decode_utf8(word);
    const std::string_view bytes = word.substr(0, c.length);
    word.remove_prefix(c.length);
    if (const int32_t id = char_id(c.code_point); id >= 0) {
      write_pending();
      scratch.ids.push_back(id);
      continue;
    }
    const auto byte_id = [&](char byte) { return config_.byte_ids[static_cast<uint8_t>(byte)]; };
    if (std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : bytes) scratch.ids.push_back(byte_id(byte));
    } else if (config_.unknown_id < 0) {
      scratch.dropped = true;
    } else {
      if (!config_.fuse_unknown) write_pending();
      pending = true;
    }
  }
  write_pending();
}

bool Bpe::may_cut(std::string_view word, size_t mark) const {
  size_t i = mark - 1;
  while (i > 0 && (static_cast<uint8_t>(word[i]) & 0xC0) == 0x80) --i;
  return !std::binary_search(config_.joined_to_mark.begin(), config_.joined_to_mark.end(),
                             decode_utf8(word.substr(i)).code_point);
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  require(word.size() <= kMaxWordBytes, "text: expected words of at most {} bytes, found {}", kMaxWordBytes,
          word.size());
  if (const int32_t* whole = find_whole(word)) {
    out.push_back(*whole);
    return;
  }
  size_t begin = 0;
  if (config_.cut_at_marks && unused_.empty()) {
    for (size_t mark = word.find(kSpaceMark, 1); mark != std::string_view::npos;
         mark = word.find(kSpaceMark, mark + kSpaceMark.size())) {
      if (!may_cut(word, mark)) continue;
      encode_part(word.substr(begin, mark - begin), scratch, out);
      begin = mark;
    }
  }
  encode_part(word.substr(begin), scratch, out);
}

void Bpe::encode_part(std::string_view part, Scratch& scratch, std::vector<int32_t>& out) const {
  const uint64_t hash = hash_bytes(part);
  if (cache_->find(part, hash, out)) return;
  const bool dropped_before = scratch.dropped;
  scratch.dropped = false;
  if (config_.characters) {
    start_characters(part, scratch);
  } else {
    start_bytes(part, scratch);
  }
  scratch.parts.clear();
  if (scratch.ids.size() <= kScanLimit && unused_.empty()) {
    merge_by_scan(scratch);
  } else {
    merge_by_heap(scratch);
  }
  const size_t before = out.size();
  if (unused_.empty()) {
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
  } else {
    for (const int32_t id : scratch.ids) add_token(id, scratch, out);
  }
  // Words that lose something stay out of the cache, so that the loss is noticed whenever they come.
  if (!scratch.dropped) cache_->store(part, hash, out.data() + before, out.size() - before);
  scratch.dropped |= dropped_before;
}

void Bpe::add_token(int32_t id, const Scratch& scratch, std::vector<int32_t>& out) const {
  const auto parts = scratch.parts.find(id);
  if (parts == scratch.parts.end()) {
    out.push_back(id);
    return;
  }
  // As deep as the token has characters: both parts are shorter than the whole.
  add_token(parts->second.first, scratch, out);
  add_token(parts->second.second, scratch, out);
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
    const int32_t right = symbols[static_cast<size_t>(left.next)].id;
    const Rank rank = find(left.id, right);
    if (rank.rank >= 0 && left.id != rank.merged && right != rank.merged && unused_.count(rank.merged) != 0)
      scratch.parts[rank.merged] = {left.id, right};
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
    // An entry is stale when one of its symbols has been merged since: together they make another token.
    if (find(left.id, right.id).merged != top.merged) continue;
    left.id = top.merged;
    right.id = kRemoved;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.position;
    if (left.previous >= 0) push(left.previous);
    if (left.next >= 0) push(top.position);
  }
  scratch.ids.clear();
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.id != kRemoved) scratch.ids.push_back(symbol.id);
  }
}

}  // namespace atom::text
