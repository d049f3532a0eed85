#pragma once

#include <cstdint>

#include "kernels/cuda/layout.h"
#include "tensor/dtype.h"

/// Tiles of the GEMM (tile_kernel.cuh): how a CTA's registers and shared memory are divided,
/// and the order in which tiles are worked on.
namespace atom::cuda::tiles {

struct Arguments {
  const uint8_t* weight;
  const float* row_units;  ///< Behind the weight's tiles; outlier multipliers `rows` further
  const int8_t* x;
  const float* token_units;  ///< Outlier multipliers `stride` further
  void* y;
  int64_t y_stride;
  int64_t stride;  ///< token_stride
  int n, tokens, groups, outlier_units;
  int rows;  ///< Of the packed weight
  int row_tiles, token_tiles;
  int super;        ///< Token tiles that are worked on together before the next rows
  int whole_tiles;  ///< Tiles that one CTA computes alone, the first ones; clusters share the others
  DType y_dtype;
  bool accumulate;
  bool vector_stores;  ///< n is a multiple of 16, y and y_stride of 16 bytes
};

/// A CTA's tile: kRowGroups times 64 rows by kTokens tokens. A row group's work is that of kTurns warpgroups,
/// which take turns with the units of channels: more warps, so that one issues while another waits. kSplits
/// CTAs, a cluster, share a tile: each multiplies a part of K. A tile whose sums warpgroups exchange is a
/// CTA's last one.
template <int kRowGroupsOf, int kTokensOf, int kSplitsOf, int kTurnsOf>
struct Tile {
  static constexpr int kRowGroups = kRowGroupsOf;
  static constexpr int kTokens = kTokensOf;
  static constexpr int kSplits = kSplitsOf;
  static constexpr int kTurns = kTurnsOf;
  static constexpr int kRows = kRowGroups * kHalfTileRows;
  static constexpr int kWarpgroups = kRowGroups * kTurns;
  static constexpr int kConsumers = kWarpgroups * 128;
  /// Warpgroups that have sums of the same outputs, and how many of them finish as many of the tokens each.
  static constexpr int kParts = kSplits * kTurns;
  static constexpr int kFinishers = kParts < kTokens / 8 ? kParts : kTokens / 8;
  static constexpr int kOwnTokens = kTokens / kFinishers;
  static_assert(kFinishers * kOwnTokens == kTokens && kOwnTokens % 8 == 0);

  /// Loops of the loading threads: where units are small, the time that they take counts, elsewhere their
  /// code.
  static constexpr int kUnrolled = kRowGroups == 1 ? 4 : 1;

  /// Weights are unpacked to unsigned bytes where instructions count, not power.
  static constexpr bool kUnsigned = kTokens < 256;

  static constexpr int kThreads = kConsumers + 128;
  // Registers of a thread: the producer's give some of theirs to the consumers. With few tokens a CTA takes
  // what it needs and no more, of shared memory, too, so that small kernels behind it begin beside it and
  // have loaded what they can when they may go on. (What counts are the 16 Ki registers of each quarter of
  // the multiprocessor: beside two consumer warpgroups a norm of 4,096 channels fits. Beside three it does up
  // to 32 tokens; with 64 tokens it was made to fit, and a step took longer.)
  static constexpr bool kFew = kTokens <= 64;
  static constexpr bool kTight = kRowGroups == 3 && kTokens < 64;
  static constexpr int kConsumerRegisters = kFew               ? (kWarpgroups == 2 ? 96
                                                                  : kTight         ? 80
                                                                                   : 88)
                                            : kWarpgroups == 2 ? 224
                                                               : 152;
  static constexpr int kProducerRegisters = kFew && kRowGroups < 3 ? 40 : kTight ? 48 : 56;
  static constexpr int kAllRegisters = kWarpgroups * kConsumerRegisters + kProducerRegisters;
  static constexpr int kRegisters = (kAllRegisters / (kWarpgroups + 1) + 7) / 8 * 8;  ///< At launch
  static constexpr int kLeftBytes = kFew ? 36 * 1024 : 0;

  // The ring: all stages' tokens (1024-byte aligned for the swizzle), then all stages' weights.
  static constexpr int kXBytes = kTokens * kUnitChannels;
  static constexpr int kWeightBytes = kRowGroups * kHalfUnitBytes;
  static constexpr int kStageBytes = kXBytes + kWeightBytes;
  // Behind it, the sums that others leave those who finish: [turn][kParts - 1][quad][row group][thread] of 16
  // bytes; for each warp a buffer in which the epilogue transposes 16 rows of up to 128 tokens of 16 bits, or
  // half as many of float; then the scales of the tokens of this tile and the next one.
  static constexpr int kBufferBytes = kTokens == 256 ? 2048 : kOwnTokens <= 16 ? 1024 : kOwnTokens * 32;
  static constexpr int kBuffersBytes = kWarpgroups * 4 * kBufferBytes;
  static constexpr int kPartBytes = kRows * kOwnTokens * 4;
  static constexpr int kSumBytes = kTurns * (kParts - 1) * kPartBytes;
  static constexpr int kScaleBytes = 10 * kTokens;
  static constexpr int kBarrierBytes = 40 * 8;
  static constexpr int kFit =
      (232448 - kLeftBytes - kSumBytes - kBuffersBytes - 2 * kScaleBytes - kBarrierBytes) / kStageBytes;
  static constexpr int kStages = (kFit < 16 ? kFit : 16) / kTurns * kTurns;
  static constexpr int kWeightsAt = kStages * kXBytes;
  static constexpr int kSumsAt = kStages * kStageBytes;
  static constexpr int kBuffersAt = kSumsAt + kSumBytes;
  static constexpr int kScalesAt = kBuffersAt + kBuffersBytes;
  /// Those of the ring, full and empty, then those of the scales, then one for sums.
  static constexpr int kBarriersAt = kScalesAt + 2 * kScaleBytes;
  static constexpr int kScaleBarriersAt = kBarriersAt + 2 * kStages * 8;
  static constexpr int kSumBarrierAt = kScaleBarriersAt + 4 * 8;
  static constexpr int kSharedBytes = kBarriersAt + kBarrierBytes;
  static_assert(kRegisters * (kWarpgroups + 1) >= kAllRegisters && kRegisters * kThreads <= 65536);
  // Where a unit is waited for before the one ahead of it is released, three are on their way.
  static_assert(kWarpgroups >= 2 && kWarpgroups <= 4 && kStages >= (kFew ? 3 : 2) * kTurns);
};

struct Place {
  int row_tile, token_tile;
};

/// Tiles in an order that keeps what runs at the same time in L2: `super` token tiles, all rows, then the
/// next.
__device__ __forceinline__ Place place_of(int item, const Arguments& p) {
  const int band_items = p.super * p.row_tiles;
  const int band = item / band_items, within = item - band * band_items;
  const int width = min(p.super, p.token_tiles - band * p.super);
  const int row = within / width;
  return {row, band * p.super + within - row * width};
}

/// What a CTA does of a tile: units [begin, end), in an order in which outliers come first, because their
/// sums have a multiplier of their own. (All CTAs ask for the same tokens' values at about the same time; a
/// first group of its own for each row tile is slower.)
struct Job {
  Place place;
  int groups, outlier_units, begin, end;
  bool shared;  ///< Others have a part of the same sums

  __device__ int outliers_end() const { return min(end, outlier_units); }
  /// Of the i-th unit: its weights' unit, and the block of its tokens' values. Two units of outliers have
  /// halves of one block.
  __device__ int unit(int i) const { return i < outlier_units ? groups + i : i - outlier_units; }
  __device__ int block(int i) const { return i < outlier_units ? groups + i / 2 : i - outlier_units; }
};

/// A CTA's jobs: whole tiles, as many as it takes, then a part of one.
template <class T>
class Jobs {
 public:
  __device__ explicit Jobs(const Arguments& p)
      : p_(p), tile_(static_cast<int>(blockIdx.x)), left_(tile_ < p.whole_tiles ? 2 : 1) {
    if (left_ == 1) begin_shared();
  }
  __device__ explicit operator bool() const { return left_ > 0; }
  __device__ Job operator*() const {
    const int units = p_.groups + p_.outlier_units;
    Job job{place_of(tile_, p_), p_.groups, p_.outlier_units, 0, units, T::kParts > 1 && left_ == 1};
    if (T::kSplits > 1 && job.shared) {
      const int part = static_cast<int>(blockIdx.x) % T::kSplits;
      job.begin = units * part / T::kSplits, job.end = units * (part + 1) / T::kSplits;
    }
    return job;
  }
  __device__ void next() {
    if (left_ == 2) {
      tile_ += static_cast<int>(gridDim.x);
      if (tile_ < p_.whole_tiles) return;
      left_ = 1;
      begin_shared();
    } else {
      left_ = 0;
    }
  }

 private:
  __device__ void begin_shared() {
    tile_ = p_.whole_tiles + static_cast<int>(blockIdx.x) / T::kSplits;
    if (T::kParts == 1 || tile_ >= p_.row_tiles * p_.token_tiles) left_ = 0;
  }

  const Arguments& p_;
  int tile_;
  int left_;  // 2: whole tiles, 1: a shared one, 0: nothing
};

}  // namespace atom::cuda::tiles
