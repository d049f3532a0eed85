#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace atom::text {

class WordCache;

/// Byte-pair encoding (Sennrich et al. 2016): a word starts as its bytes or its characters, and the adjacent
/// pair of the lowest rank (the leftmost among equals) is merged until no pair has a rank.
class Bpe {
 public:
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t merged;
    int32_t rank;
  };
  struct Config {
    /// What a word starts as. Bytes: `byte_ids` has the token of each. Characters (words must be well-formed
    /// UTF-8): `char_ids` has the token of each; one without a token becomes its bytes by `byte_ids` when all
    /// of those have one.
    bool characters = false;
    std::array<int32_t, 256> byte_ids;  ///< token of each single byte, -1 where the vocabulary has none
    std::vector<std::pair<char32_t, int32_t>> char_ids;
    std::vector<Merge> merges;  ///< of a pair that comes again, the last counts
    int32_t unknown_id = -1;    ///< stands for bytes or characters without a token; -1 drops them
    bool fuse_unknown = false;  ///< a run of such is one unknown token
    /// Tokens that are taken apart again where merges have led to them, the way that was last open in the
    /// word.
    std::vector<int32_t> unused;
    /// Words of characters may be cut in front of a space mark, unless it follows one of `joined_to_mark`
    /// (ascending): no merge crosses such a place, so that the parts can be merged one by one.
    bool cut_at_marks = false;
    std::vector<char32_t> joined_to_mark;
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
    std::unordered_map<int32_t, std::pair<int32_t, int32_t>> parts;  ///< of unused tokens
    bool dropped = false;  ///< set when a byte or character had no token and was dropped
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
  void start_bytes(std::string_view word, Scratch& scratch) const;
  void start_characters(std::string_view word, Scratch& scratch) const;
  void encode_part(std::string_view part, Scratch& scratch, std::vector<int32_t>& out) const;
  bool may_cut(std::string_view word, size_t mark) const;
  void add_token(int32_t id, const Scratch& scratch, std::vector<int32_t>& out) const;
  int32_t char_id(char32_t code_point) const;
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
  std::array<uint16_t, 0x1100> char_page_{};
  std::vector<std::array<int32_t, 256>> char_pages_;  // token of each character, by its upper bits
  std::unordered_set<int32_t> unused_;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace atom::text
