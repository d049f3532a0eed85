#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "kvcache/paged_cache.h"

namespace atom {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kBlockSize = 4;
/// A key of two floats is one word, as which the tests write what should be there.
constexpr KvShape kShape{2, 1, 2};

/// What stands for tokens[0 .. position] in the cache.
uint64_t content(std::span<const int32_t> tokens, size_t position) {
  return hash_block(position, tokens.first(position + 1));
}

struct Sequence {
  explicit Sequence(BlockTable&& taken) : table(std::move(taken)) {}
  BlockTable table;
  Tokens tokens;  // that the table holds
  std::vector<uint64_t> contents;
};

/// Random sequences over one small cache, into which real words are written. After every step every sequence
/// must read its own words, however its blocks are shared, and the index must find exactly what was indexed
/// and has not been written over since.
class TableRun {
 public:
  TableRun(uint64_t seed, int64_t n_blocks)
      : random_(seed), cache_(kShape, KvFormat::f32, n_blocks, kBlockSize) {}

  void step() {
    const uint64_t what = random_.below(20);
    if (sequences_.empty() || (what < 3 && sequences_.size() < 8)) {
      begin();
    } else {
      const size_t i = random_.below(sequences_.size());
      Sequence& sequence = *sequences_[i];
      if (what < 10) {
        append(sequence, 1 + static_cast<int64_t>(random_.below(6)));
      } else if (what < 14) {
        index(sequence);
      } else if (what < 16) {
        if (sequences_.size() < 8) fork(sequence);
      } else if (what < 17) {
        truncate(sequence, random_.below(sequence.tokens.size() + 1));
      } else if (what < 18) {
        const size_t back = std::min<size_t>(random_.below(3), sequence.tokens.size());
        truncate(sequence, sequence.tokens.size() - back);
      } else {
        sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    compare();
  }

  int64_t taken() const { return taken_; }
  int64_t refused() const { return refused_; }
  int64_t copied() const { return copied_; }
  int64_t twins() const { return twins_; }

 private:
  int32_t random_token() { return static_cast<int32_t>(random_.below(8) == 0); }

  Tokens random_prompt() {
    Tokens prompt(random_.below(30));
    for (int32_t& token : prompt) token = random_token();
    return prompt;
  }

  uint64_t* word(int64_t layer, int64_t slot) {
    const KvLayerView view = cache_.layer(layer);
    const int64_t row = view.row_index(slot / kBlockSize, 0, slot % kBlockSize);
    return reinterpret_cast<uint64_t*>((layer == 0 ? view.keys : view.values) + row * view.row_bytes());
  }

  /// How many tokens of `tokens` were indexed and are still there.
  int64_t expected_match(const Tokens& tokens, int64_t most) const {
    int64_t length = 0;
    while (length + kBlockSize <= std::min(most, static_cast<int64_t>(tokens.size()))) {
      const Tokens beginning(tokens.begin(), tokens.begin() + length + kBlockSize);
      if (std::ranges::none_of(known_, [&](const auto& item) { return item.second == beginning; })) break;
      length += kBlockSize;
    }
    return length;
  }

  /// Block `block` holds other tokens now; what came behind the old ones can't be reached any more.
  void forget(int32_t block) {
    const auto found = known_.find(block);
    if (found == known_.end()) return;
    const Tokens old = found->second;
    std::erase_if(known_, [&](const auto& item) {
      return item.second.size() >= old.size() && std::equal(old.begin(), old.end(), item.second.begin());
    });
  }

  void begin() {
    const Tokens prompt = random_prompt();
    const auto most = static_cast<int64_t>(random_.below(32));
    auto sequence = std::make_unique<Sequence>(BlockTable(cache_));
    const int64_t expected = expected_match(prompt, most);
    ASSERT_EQ(cache_.pool().count_prefix(prompt, most).tokens, expected);
    ASSERT_EQ(sequence->table.take_prefix(prompt, most), expected);
    for (int64_t i = 0; i < expected; ++i) push(*sequence, prompt[static_cast<size_t>(i)]);
    taken_ += expected;
    sequences_.push_back(std::move(sequence));
  }

  static void push(Sequence& sequence, int32_t token) {
    sequence.tokens.push_back(token);
    sequence.contents.push_back(content(sequence.tokens, sequence.contents.size()));
  }

  void append(Sequence& sequence, int64_t count) {
    std::vector<int64_t> slots;
    const int64_t free = cache_.free_blocks();
    const int64_t needed = sequence.table.blocks_for(count);
    const auto before = blocks_of(sequence);
    if (needed > free) {
      ASSERT_THROW(sequence.table.append(count, slots), Error);
      ASSERT_TRUE(slots.empty());
      ASSERT_EQ(cache_.free_blocks(), free);
      ASSERT_EQ(blocks_of(sequence), before);
      ++refused_;
      return;
    }
    sequence.table.append(count, slots);
    ASSERT_EQ(cache_.free_blocks(), free - needed);
    ASSERT_EQ(slots.size(), static_cast<size_t>(count));
    if (!before.empty() && blocks_of(sequence)[before.size() - 1] != before.back()) ++copied_;
    for (const int64_t slot : slots) {
      const auto block = static_cast<int32_t>(slot / kBlockSize);
      ASSERT_EQ(cache_.pool().references(block), 1);
      ASSERT_EQ(cache_.pool().node(block), kNoPrefix);
      forget(block);
      push(sequence, random_token());
      for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
        *word(layer, slot) = sequence.contents.back();
      }
    }
  }

  void index(Sequence& sequence) {
    const auto before = blocks_of(sequence);
    // More tokens than the table holds, as where the newest one has been drawn but not computed.
    Tokens tokens = sequence.tokens;
    tokens.insert(tokens.end(), random_.below(6), 1);
    if (random_.below(4) == 0) tokens.resize(random_.below(tokens.size() + 1));
    sequence.table.index(tokens);
    const auto after = blocks_of(sequence);
    ASSERT_EQ(after.size(), before.size());
    if (after != before) ++twins_;
    const size_t whole = std::min(tokens.size(), sequence.tokens.size()) / kBlockSize;
    for (size_t i = 0; i < whole; ++i) {
      const Tokens beginning(tokens.begin(), tokens.begin() + (i + 1) * kBlockSize);
      for (const auto& [block, held] : known_) ASSERT_TRUE(held != beginning || block == after[i]);
      known_[after[i]] = beginning;
    }
  }

  void fork(const Sequence& sequence) {
    auto copy = std::make_unique<Sequence>(sequence.table.fork());
    copy->tokens = sequence.tokens;
    copy->contents = sequence.contents;
    ASSERT_EQ(blocks_of(*copy), blocks_of(sequence));
    sequences_.push_back(std::move(copy));
  }

  static void truncate(Sequence& sequence, size_t length) {
    sequence.table.truncate(static_cast<int64_t>(length));
    sequence.tokens.resize(length);
    sequence.contents.resize(length);
  }

  static std::vector<int32_t> blocks_of(const Sequence& sequence) {
    return {sequence.table.block_list().begin(), sequence.table.block_list().end()};
  }

  void compare() {
    std::vector<int32_t> owned;
    for (const auto& sequence : sequences_) {
      const BlockTable& table = sequence->table;
      ASSERT_EQ(table.length(), static_cast<int64_t>(sequence->tokens.size()));
      ASSERT_EQ(table.block_list().size(), (sequence->tokens.size() + kBlockSize - 1) / kBlockSize);
      owned.insert(owned.end(), table.block_list().begin(), table.block_list().end());
      for (int64_t i = 0; i < table.length(); ++i) {
        const int64_t slot = table.blocks()[i / kBlockSize] * kBlockSize + i % kBlockSize;
        for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
          ASSERT_EQ(*word(layer, slot), sequence->contents[static_cast<size_t>(i)]) << "position " << i;
        }
      }
    }
    ASSERT_NO_THROW(cache_.pool().check(owned));
    const Tokens prompt = random_prompt();
    ASSERT_EQ(cache_.pool().count_prefix(prompt, 1000).tokens, expected_match(prompt, 1000));
  }

  Random random_;
  PagedKvCache cache_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  /// All tokens up to the end of a block that the index must find.
  std::map<int32_t, Tokens> known_;
  int64_t taken_ = 0;
  int64_t refused_ = 0;
  int64_t copied_ = 0;
  int64_t twins_ = 0;
};

TEST(BlockTableRandom, EverySequenceReadsItsOwnWords) {
  int64_t taken = 0, refused = 0, copied = 0, twins = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    TableRun run(seed, seed % 2 == 0 ? 12 : 40);
    for (int i = 0; i < 10'000; ++i) {
      run.step();
      if (HasFatalFailure()) FAIL() << "seed " << seed << ", step " << i;
    }
    taken += run.taken();
    refused += run.refused();
    copied += run.copied();
    twins += run.twins();
  }
  // What it is about did happen.
  EXPECT_GT(taken, 1000);
  EXPECT_GT(refused, 1000);
  EXPECT_GT(copied, 1000);
  EXPECT_GT(twins, 1000);
}

}  // namespace
}  // namespace atom
