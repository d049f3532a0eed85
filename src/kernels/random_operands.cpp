#include "kernels/random_operands.h"

namespace atom {
namespace {

/// With these, INT4 and INT8 values of every magnitude have the standard deviation of kDeviation.
constexpr float kDeviation = 0.02f;
constexpr float kScale = 0.0045f;
constexpr float kOutlierScale = 0.0003f;
/// What integer scales are multiples of: 12 of it are near kScale, one is near kOutlierScale.
constexpr float kUnit = 0x1.8p-12f;
/// FP8 values of this deviation are 0.02 with a scale of 2^-11.
constexpr float kFloat8Deviation = 41.0f;
constexpr float kFloat8Scale = 0x1.0p-11f;

}  // namespace

PreparedWeight random_weight(const DeviceContext& device, int64_t n, const ChannelLayout& layout,
                             int activation_bits, uint64_t seed) {
  const LowBitWeight shape{n, layout};
  Random seeds(seed);
  const auto scales = [&](int64_t count, float scale) {
    return random_buffer<uint16_t>(device, count, DType::f16, scale / 8, scale, seeds.next(),
                                   layout.integer_scales ? kUnit : 0.0f);
  };
  PreparedWeight weight;
  weight.n = n;
  weight.layout = layout;
  weight.activation_bits = activation_bits;
  weight.values = random_buffer<uint8_t>(device, shape.value_count(), DType::u8, 0, 0, seeds.next());
  weight.scales = scales(shape.scale_count(), kScale);
  const bool fp8 = layout.outlier_type == OutlierType::fp8;
  weight.outliers = random_buffer<int8_t>(device, shape.outlier_count(), fp8 ? DType::f8 : DType::i8,
                                          kFloat8Deviation, 0, seeds.next());
  weight.outlier_scales = fp8 ? random_buffer<uint16_t>(device, shape.outlier_scale_count(), DType::f16, 0,
                                                        kFloat8Scale, seeds.next())
                              : scales(shape.outlier_scale_count(), kOutlierScale);
  weight.outliers_fp16 =
      random_buffer<uint16_t>(device, shape.outlier_fp16_count(), DType::f16, kDeviation, 0, seeds.next());
  return weight;
}

void random_fill_cache(const DeviceContext& device, const KvLayerView& cache, uint64_t& seed) {
  const bool quantized = is_quantized(cache.format);
  const int64_t rows = cache.n_blocks * cache.n_kv_heads * cache.block_size;
  const DType dtype = quantized ? DType::u8 : DType::f16;
  const int64_t count = rows * cache.row_bytes() / static_cast<int64_t>(size_of(dtype));
  for (std::byte* data : {cache.keys, cache.values}) {
    run(device, RandomFill{data, count, dtype, 1.0f, 0.0f, ++seed});
  }
  if (!quantized) return;
  const float scale = cache.format == KvFormat::int4 ? 0.1f : 0.006f;
  for (uint16_t* params : {cache.key_params, cache.value_params}) {
    run(device, RandomFill{params, rows * 2, DType::f16, scale / 10, scale, ++seed});
  }
}

}  // namespace atom
