#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

class WordCache;

/// Byte-pair encoding (Sennrich et al. 2016) over bytes: a word starts as its bytes, and the adjacent pair of
/// the lowest rank (the leftmost among equals) is merged until no pair has a rank.
class Bpe {
 public:
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t merged;
  };
  struct Config {
    std::array<int32_t, 256> byte_ids;  ///< token of each single byte, -1 where the vocabulary has none
    std::vector<Merge> merges;          ///< by rank; a pair that comes again takes the later rank
    int32_t unknown_id = -1;            ///< stands for bytes without a token; -1 drops them
    bool fuse_unknown = false;          ///< a run of such bytes is one unknown token
    /// With `ignore_merges`, a word that is a token as a whole stays whole: its bytes and its id.
    std::vector<std::pair<std::string, int32_t>> whole_words;
  };

  /// Buffers that calls of one thread share.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous;
      int32_t next;
    };
    struct Candidate {
      int32_t rank;
      int32_t position;
      int32_t merged;
    };
    std::vector<int32_t> ids;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    std::vector<Candidate> pairs;
    bool dropped_bytes = false;  ///< set when a byte had no token and was dropped
  };

  explicit Bpe(Config config);
  ~Bpe();
  Bpe(Bpe&&) noexcept;
  Bpe& operator=(Bpe&&) noexcept;

  /// Appends the tokens of `word` (its bytes) to `out`. O(n log n) in the bytes of the word. Thread-safe.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  /// Words of at most this many symbols are merged by scanning for the best pair, longer ones with a heap.
  static constexpr size_t kScanLimit = 24;

 private:
  struct Rank {
    int32_t rank;
    int32_t merged;
  };

  /// Rank of a pair, or rank -1.
  Rank find(int32_t left, int32_t right) const;
  void start_symbols(std::string_view word, Scratch& scratch) const;
  void merge_by_scan(Scratch& scratch) const;
  void merge_by_heap(Scratch& scratch) const;
  const int32_t* find_whole(std::string_view word) const;

  struct PairSlot {
    uint64_t key;
    Rank rank;
  };
  Config config_;
  std::vector<PairSlot> pairs_;       // open addressing, size a power of two
  std::vector<int32_t> whole_slots_;  // open addressing over config_.whole_words
  std::unique_ptr<WordCache> cache_;
};

}  // namespace atom::text
