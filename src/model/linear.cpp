#include "model/linear.h"

#include <cassert>
#include <utility>

namespace atom {
namespace {

class FloatLinear final : public Linear {
 public:
  explicit FloatLinear(Tensor weight) : weight_(std::move(weight)) {
    assert(weight_.shape.size() == 2 && is_float(weight_.dtype));
  }

  int64_t in_features() const override { return weight_.shape[1]; }
  int64_t out_features() const override { return weight_.shape[0]; }
  DType input_type(const DeviceContext& device) const override {
    return choose_input_type(device, weight_.dtype, in_features());
  }

  void forward(const DeviceContext& device, const LinearInput& x, MatrixView<float> y,
               bool accumulate) const override {
    run(device, op(x.values, y, accumulate));
  }

  LinearInfo info(const DeviceContext& device) const override {
    LinearInfo info;
    info.kind = name_of(weight_.dtype);
    const FloatInput x(nullptr, input_type(device), 1, in_features());
    info.kernel = select(device, op(x, {nullptr, 1, out_features()}, false)).name;
    info.weights = weight_.elements();
    info.bytes = weight_.elements() * static_cast<int64_t>(size_of(weight_.dtype));
    return info;
  }

 private:
  LinearFloat op(FloatInput x, MatrixView<float> y, bool accumulate) const {
    return {x, weight_.dtype, weight_.bytes.data(), y, accumulate};
  }

  Tensor weight_;
};

class LowBitLinear final : public Linear {
 public:
  LowBitLinear(const DeviceContext& device, PreparedWeight weight, int64_t bytes, const ActivationSpec& spec,
               const std::vector<int32_t>& permutation)
      : weight_(std::move(weight)),
        spec_(spec),
        permutation_(Buffer<int32_t>::copy_of(permutation, device.memory)),
        bytes_(bytes) {
    assert(spec.layout == weight_.layout && spec.bits == weight_.activation_bits);
    assert(permutation_.empty() || static_cast<int64_t>(permutation_.size()) == spec.layout.k);
  }

  int64_t in_features() const override { return spec_.layout.k; }
  int64_t out_features() const override { return weight_.n; }
  const ActivationSpec* activation_spec() const override { return &spec_; }
  const int32_t* permutation() const override { return permutation_.empty() ? nullptr : permutation_.data(); }

  void forward(const DeviceContext& device, const LinearInput& x, MatrixView<float> y,
               bool accumulate) const override {
    assert(x.quantized != nullptr && x.quantized->layout() == spec_.layout);
    run(device, LinearLowBit{x.quantized, &weight_, y, accumulate});
  }

  LinearInfo info(const DeviceContext& device) const override {
    LinearInfo info;
    info.kind = kind();
    QuantizedActivations probe(device.memory);
    probe.resize(1, spec_);
    const auto& chosen = select(device, LinearLowBit{&probe, &weight_, {nullptr, 1, weight_.n}, false});
    info.kernel = chosen.name;
    info.reason = slow_kernel_reason(device, spec_.layout, spec_.bits, weight_.weight_layout);
    info.weights = weight_.n * spec_.layout.k;
    info.bytes = bytes_;
    return info;
  }

 private:
  std::string kind() const {
    if (spec_.layout.k_normal() > 0) return fmt::format("W4A{}", spec_.bits);
    if (spec_.layout.outlier_type == OutlierType::fp16) return "F16";
    return spec_.layout.outlier_type == OutlierType::fp8 ? "FP8" : "W8A8";
  }

  PreparedWeight weight_;
  ActivationSpec spec_;
  Buffer<int32_t> permutation_;
  int64_t bytes_;
};

class WeightOnlyLinear final : public Linear {
 public:
  WeightOnlyLinear(PreparedWeight weight, int64_t bytes) : weight_(std::move(weight)), bytes_(bytes) {
    assert(weight_.layout.n_outlier == 0 && weight_.activation_bits == 16);
  }

  int64_t in_features() const override { return weight_.layout.k; }
  int64_t out_features() const override { return weight_.n; }
  DType input_type(const DeviceContext&) const override {
    return weight_.weight_layout == WeightLayout::w4a16_sm90 ? DType::f16 : DType::f32;
  }

  void forward(const DeviceContext& device, const LinearInput& x, MatrixView<float> y,
               bool accumulate) const override {
    run(device, LinearWeightOnly{x.values, &weight_, y, accumulate});
  }

  LinearInfo info(const DeviceContext& device) const override {
    LinearInfo info;
    info.kind = "W4A16";
    const FloatInput x(nullptr, input_type(device), 1, in_features());
    info.kernel = select(device, LinearWeightOnly{x, &weight_, {nullptr, 1, weight_.n}, false}).name;
    info.reason = slow_kernel_reason(device, weight_.layout, weight_.activation_bits, weight_.weight_layout);
    info.weights = weight_.n * weight_.layout.k;
    info.bytes = bytes_;
    return info;
  }

 private:
  PreparedWeight weight_;
  int64_t bytes_;
};

std::unique_ptr<Linear> make_prepared(const DeviceContext& device, PreparedWeight weight, int64_t bytes,
                                      const ActivationSpec& spec, const std::vector<int32_t>& permutation) {
  if (spec.bits != 16) {
    return std::make_unique<LowBitLinear>(device, std::move(weight), bytes, spec, permutation);
  }
  assert(permutation.empty());
  return std::make_unique<WeightOnlyLinear>(std::move(weight), bytes);
}

template <class T>
void append(Buffer<T>& out, size_t& at, const Buffer<T>& part) {
  std::copy(part.begin(), part.end(), out.begin() + at);
  at += part.size();
}

}  // namespace

std::unique_ptr<Linear> make_float_linear(Tensor weight) {
  return std::make_unique<FloatLinear>(std::move(weight));
}

LowBitStorage::LowBitStorage(int64_t rows, const ChannelLayout& channel_layout, Memory* memory)
    : n(rows), layout(channel_layout) {
  const LowBitWeight shape{rows, layout};
  const auto size = [](int64_t count) { return static_cast<size_t>(count); };
  values = Buffer<uint8_t>(size(shape.value_count()), memory);
  scales = Buffer<uint16_t>(size(shape.scale_count()), memory);
  outliers = Buffer<int8_t>(size(shape.outlier_count()), memory);
  outlier_scales = Buffer<uint16_t>(size(shape.outlier_scale_count()), memory);
  outliers_fp16 = Buffer<uint16_t>(size(shape.outlier_fp16_count()), memory);
}

LowBitWeight LowBitStorage::view() const {
  return {
      n, layout, values.data(), scales.data(), outliers.data(), outlier_scales.data(), outliers_fp16.data()};
}

LowBitStorage stack_rows(const std::vector<const LowBitStorage*>& parts) {
  int64_t rows = 0;
  for (const auto* part : parts) rows += part->n;
  LowBitStorage stacked(rows, parts.front()->layout);
  size_t values = 0, scales = 0, outliers = 0, outlier_scales = 0, outliers_fp16 = 0;
  for (const auto* part : parts) {
    assert(part->layout == stacked.layout);
    append(stacked.values, values, part->values);
    append(stacked.scales, scales, part->scales);
    append(stacked.outliers, outliers, part->outliers);
    append(stacked.outlier_scales, outlier_scales, part->outlier_scales);
    append(stacked.outliers_fp16, outliers_fp16, part->outliers_fp16);
  }
  return stacked;
}

std::string slow_kernel_reason(const DeviceContext& device, const ChannelLayout& layout, int activation_bits,
                               WeightLayout weight_layout) {
  const bool weight_only = activation_bits == 16, fp8 = layout.outlier_type == OutlierType::fp8;
  const bool has_faster = device.cuda != nullptr || (device.isa != CpuIsa::reference && !weight_only);
  if (weight_layout != WeightLayout::canonical || !has_faster) return "";
  if (device.cuda != nullptr && device.exact && (weight_only || fp8)) return "the fast kernel is not exact";
  if (fp8) return "no fast kernel for FP8 layers of this size";
  if (device.cuda != nullptr && layout.k_normal() > 0 && layout.outlier_type == OutlierType::int8 &&
      !layout.integer_scales && !weight_only) {
    return "no fast kernel for FP16 scales";
  }
  if (weight_only) return fmt::format("no fast kernel for {} inputs in groups of {}", layout.k, layout.group);
  return fmt::format("no fast kernel for {} of {}",
                     layout.outlier_type == OutlierType::fp16 ? "FP16 outliers and groups" : "groups",
                     layout.group);
}

std::unique_ptr<Linear> make_low_bit_linear(const DeviceContext& device, const LowBitStorage& weight,
                                            const ActivationSpec& spec,
                                            const std::vector<int32_t>& permutation) {
  return make_prepared(device, prepare(device, weight.view(), spec.bits), weight.view().bytes(), spec,
                       permutation);
}

std::unique_ptr<Linear> make_low_bit_linear(const DeviceContext& device, PreparedWeight canonical,
                                            const ActivationSpec& spec,
                                            const std::vector<int32_t>& permutation) {
  const int64_t bytes = canonical.view().bytes();
  return make_prepared(device, prepare(device, std::move(canonical)), bytes, spec, permutation);
}

}  // namespace atom
