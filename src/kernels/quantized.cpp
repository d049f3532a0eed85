#include "kernels/quantized.h"

#include <cassert>

namespace atom {
namespace {

constexpr int64_t kPad = 64;

int64_t padded(int64_t n) {
  return (n + kPad - 1) / kPad * kPad;
}

template <class T>
void grow(Buffer<T>& buffer, int64_t count, Memory* memory) {
  if (buffer.size() < static_cast<size_t>(count)) buffer = Buffer<T>(static_cast<size_t>(count), memory);
}

}  // namespace

void QuantizedActivations::resize(int64_t tokens, const ActivationSpec& spec) {
  const ChannelLayout& layout = spec.layout;
  assert(tokens >= 0 && layout.k > 0 && layout.n_outlier >= 0 && layout.n_outlier <= layout.k &&
         layout.group > 0);
  const bool same_shape = layout == spec_.layout;
  spec_ = spec;
  tokens_ = tokens;
  outlier_offset_ = padded(layout.k_normal());
  stride_ = outlier_offset_ + padded(layout.n_outlier);
  if (is_blocked()) {
    grow(values_, blocks().value_bytes(), memory_);
    grow(scales_, blocks().scale_count(), memory_);
    return;
  }
  const size_t had = values_.size();
  grow(values_, tokens * stride_, memory_);
  grow(scales_, tokens * scale_stride(), memory_);
  if (layout.integer_scales) grow(units_, tokens, memory_);
  grow(sums_, tokens * scale_stride(), memory_);
  if (layout.outlier_type == OutlierType::fp16) grow(outliers_fp16_, tokens * layout.n_outlier, memory_);
  // A GPU's ops write the padding themselves.
  if (memory_ != nullptr) return;
  // A fresh buffer is zero; one that held another shape has that shape's values where padding is now.
  if (!same_shape && had > 0 && values_.size() == had) std::memset(values_.data(), 0, values_.size());
}

}  // namespace atom
