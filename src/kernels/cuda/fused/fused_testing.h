#pragma once

#include <cuda_runtime.h>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/fused/fused.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"
#include "kernels/fused_test_support.h"
#include "tensor/half.h"

/// Device memory and comparisons for the tests of the fused ops.
namespace atom::cuda::fused_test {

using namespace ::atom::fused_test;

inline bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#define ATOM_NEEDS_GPU() \
  if (!has_gpu()) GTEST_SKIP() << "no GPU"

/// An array on the device; without values it is poisoned with 0xA5, as is a guard behind it that must stay
/// so.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    ATOM_CUDA_CHECK(cudaMalloc(&data_, bytes() + kGuard));
    ATOM_CUDA_CHECK(cudaMemset(data_, 0xA5, bytes() + kGuard));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.data(), values.size()) {}
  DeviceArray(const T* values, size_t count) : DeviceArray(count) {
    if (count > 0) ATOM_CUDA_CHECK(cudaMemcpy(data_, values, bytes(), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() { return static_cast<T*>(data_); }
  /// The values, once all launches have ended; the guard is checked.
  std::vector<T> read() const {
    ATOM_CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<uint8_t> all(bytes() + kGuard);
    ATOM_CUDA_CHECK(cudaMemcpy(all.data(), data_, all.size(), cudaMemcpyDeviceToHost));
    for (size_t i = bytes(); i < all.size(); ++i) {
      if (all[i] != 0xA5) {
        ADD_FAILURE() << "written behind an array, byte " << i - bytes();
        break;
      }
    }
    std::vector<T> values(count_);
    if (count_ > 0) std::memcpy(values.data(), all.data(), bytes());
    return values;
  }

 private:
  static constexpr size_t kGuard = 256;
  size_t bytes() const { return count_ * sizeof(T); }
  size_t count_;
  void* data_ = nullptr;
};

inline std::vector<float> to_vector(const Matrix<float>& m) {
  return {m.span().begin(), m.span().end()};
}

/// `values` as bytes of `dtype`, and in `values` what they are then.
inline std::vector<uint8_t> encode(DType dtype, std::span<float> values) {
  std::vector<uint8_t> bytes(values.size() * size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      continue;
    }
    const uint16_t bits = dtype == DType::f16 ? float_to_half(values[i]) : float_to_bfloat16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
    values[i] = dtype == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
  return bytes;
}

/// The floats that bytes of `dtype` are.
inline std::vector<float> decode(DType dtype, const std::vector<uint8_t>& bytes) {
  std::vector<float> values(bytes.size() / size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits = 0;
    if (dtype == DType::f32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
    } else {
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      values[i] = dtype == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
    }
  }
  return values;
}

/// A matrix of a type on the device, its rows `pad` elements longer than its columns.
struct DeviceMatrix {
  DeviceMatrix(DType dtype_, Matrix<float>& values, int64_t pad)
      : dtype(dtype_), rows(values.rows()), cols(values.cols()), stride(cols + pad), bytes(padded(values)) {}

  ConstMatrix view() { return {bytes.data(), dtype, rows, cols, stride}; }

  DType dtype;
  int64_t rows, cols, stride;
  DeviceArray<uint8_t> bytes;

 private:
  std::vector<uint8_t> padded(Matrix<float>& values) const {
    std::vector<uint8_t> out(static_cast<size_t>(rows * stride) * size_of(dtype), 0xA5);
    const std::vector<uint8_t> in = encode(dtype, values.span());
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(out.data() + static_cast<size_t>(r * stride) * size_of(dtype),
                  in.data() + static_cast<size_t>(r * cols) * size_of(dtype),
                  static_cast<size_t>(cols) * size_of(dtype));
    }
    return out;
  }
};

/// Quantized activations on the device in one of the forms, and their comparison with the CPU's.
class DeviceActivations {
 public:
  DeviceActivations(int64_t tokens, const ActivationSpec& spec, ActivationForm form)
      : out_{spec, form},
        tokens_(tokens),
        blocks_{tokens, spec.layout.groups(), spec.layout.n_outlier},
        values_(static_cast<size_t>(is_blocked() ? blocks_.value_bytes() : tokens * out_.row_stride())),
        scales_(static_cast<size_t>(is_blocked() ? blocks_.scale_count() : tokens * (blocks_.groups + 1))),
        units_(static_cast<size_t>(tokens)),
        outliers_fp16_(static_cast<size_t>(tokens * spec.layout.n_outlier)) {
    out_.values = values_.data();
    out_.scales = scales_.data();
    out_.units = units_.data();
    out_.outliers_fp16 = outliers_fp16_.data();
  }

  const QuantizedOutput& output() const { return out_; }

  ::testing::AssertionResult equals(const QuantizedActivations& expected) const {
    const auto values = values_.read();
    const auto scales = scales_.read();
    const auto units = units_.read();
    const auto outliers_fp16 = outliers_fp16_.read();
    const ChannelLayout& layout = out_.spec.layout;
    const bool fp16 = layout.outlier_type == OutlierType::fp16;
    for (int64_t t = 0; t < tokens_; ++t) {
      const auto differs = [&](const char* what, int64_t i, double a, double b) {
        return ::testing::AssertionFailure()
               << "token " << t << ' ' << what << ' ' << i << ": " << a << ", expected " << b;
      };
      const int64_t normal_end = is_blocked() ? blocks_.groups * 128 : out_.outlier_offset();
      for (int64_t i = 0; i < normal_end; ++i) {
        const int a = values[static_cast<size_t>(
            is_blocked() ? blocks_.value(t, i / 128, static_cast<int>(i % 128)) : t * out_.row_stride() + i)];
        int b = i < layout.k_normal() ? expected.values(t)[i] : 0;
        if (is_blocked()) b *= static_cast<int>(expected.scales(t)[i / 128]);
        if (a != b) return differs("channel", i, a, b);
      }
      const int64_t outlier_end =
          is_blocked() ? blocks_.outlier_blocks() * 128 : out_.row_stride() - normal_end;
      for (int64_t i = 0; i < outlier_end; ++i) {
        const int a = values[static_cast<size_t>(
            is_blocked() ? blocks_.value(t, blocks_.groups + i / 128, static_cast<int>(i % 128))
                         : t * out_.row_stride() + normal_end + i)];
        const int b = i < layout.n_outlier && !fp16 ? expected.values(t)[expected.outlier_offset() + i] : 0;
        if (a != b) return differs("outlier", i, a, b);
      }
      if (layout.integer_scales) {
        const float a =
            is_blocked() ? scales[static_cast<size_t>(blocks_.unit(t))] : units[static_cast<size_t>(t)];
        if (!same_bits(a, expected.unit(t))) return differs("unit", 0, a, expected.unit(t));
      }
      // Of blocks, only the outliers' one is stored.
      for (int64_t g = is_blocked() ? blocks_.groups : 0; g <= blocks_.groups; ++g) {
        const float a = scales[static_cast<size_t>(is_blocked() ? blocks_.outlier_multiplier(t)
                                                                : t * (blocks_.groups + 1) + g)];
        if (!same_bits(a, expected.scales(t)[g])) return differs("scale", g, a, expected.scales(t)[g]);
      }
      if (is_blocked() && blocks_.summed()) {
        int a = 0, b = 0;
        for (int i = 0; i < ActivationBlocks::kSumParts; ++i) {
          int part;
          std::memcpy(&part, &scales[static_cast<size_t>(blocks_.sum(t, i))], sizeof(part));
          a += part;
        }
        for (int64_t g = 0; g < blocks_.groups; ++g)
          b += expected.sums(t)[g] * static_cast<int>(expected.scales(t)[g]);
        if (a != b) return differs("sum", 0, a, b);
      }
      for (int64_t i = 0; fp16 && i < layout.n_outlier; ++i) {
        const float a = outliers_fp16[static_cast<size_t>(t * layout.n_outlier + i)];
        if (!same_bits(a, expected.outliers_fp16(t)[i]))
          return differs("FP16 outlier", i, a, expected.outliers_fp16(t)[i]);
      }
    }
    return ::testing::AssertionSuccess();
  }

 private:
  bool is_blocked() const { return out_.form == ActivationForm::blocks; }
  QuantizedOutput out_;
  int64_t tokens_;
  ActivationBlocks blocks_;
  DeviceArray<int8_t> values_;
  DeviceArray<float> scales_;
  DeviceArray<float> units_;
  DeviceArray<float> outliers_fp16_;
};

/// The reference implementation of an op, on the host.
template <class Op>
void run_reference(const Op& op) {
  implementations<Op>().back().run(DeviceContext{}, op);
}

/// A case of the quantizing ops.
struct QuantizeCase {
  int64_t tokens;
  ActivationSpec spec;
  ActivationForm form;
};

/// Edges and what models have: hidden sizes 1 to 33, 576, 1536, 4096; all kinds of outliers; W4A4 and W4A8;
/// integer scales in both forms.
inline std::vector<QuantizeCase> quantize_cases() {
  const auto int8 = OutlierType::int8, fp16 = OutlierType::fp16, fp8 = OutlierType::fp8;
  const auto blocks = ActivationForm::blocks, rows = ActivationForm::rows;
  std::vector<QuantizeCase> cases = {
      {5, {{576, 64, 128, int8}, 4, 0.9f}, blocks},
      {5, {{576, 64, 128, int8}, 8, 0.9f}, rows},
      {501, {{576, 64, 128, int8}, 4, 0.9f}, blocks},
      {17, {{576, 0, 128, int8}, 4, 1.0f}, blocks},
      {3, {{576, 576, 128, int8}, 4, 0.9f}, blocks},
      {3, {{512, 512, 128, fp16}, 4, 0.9f}, rows},
      {16, {{4096, 128, 128, int8}, 4, 0.9f}, blocks},
      {280, {{4096, 128, 128, int8}, 4, 0.9f}, blocks},
      {1201, {{4096, 128, 128, int8}, 4, 0.9f}, blocks},
      {403, {{4096, 100, 128, int8}, 8, 0.9f}, blocks},
      {405, {{1280, 192, 128, int8}, 4, 0.9f}, blocks},
      {402, {{2048, 192, 128, int8}, 4, 0.9f}, blocks},
      {409, {{300, 4, 128, int8}, 4, 0.9f}, blocks},
      {33, {{4096, 0, 128, int8}, 8, 1.0f}, blocks},
      {401, {{4096, 0, 128, int8}, 4, 1.0f}, blocks},
      {9, {{4096, 100, 128, int8}, 4, 0.9f}, blocks},
      {9, {{4096, 256, 128, int8}, 4, 0.9f}, blocks},
      {270, {{1536, 300, 128, int8}, 4, 0.9f}, blocks},
      {4, {{4096, 128, 128, fp16}, 4, 0.9f}, rows},
      {129, {{1536, 128, 128, int8}, 4, 0.9f}, rows},
      {2, {{4097, 129, 128, int8}, 4, 0.9f}, blocks},
      {3, {{4096, 128, 4096, int8}, 4, 0.9f}, rows},
      {7, {{100, 7, 32, int8}, 8, 1.0f}, rows},
      {7, {{33, 1, 5, fp16}, 8, 0.8f}, rows},
      {2, {{8192, 128, 128, int8}, 4, 0.9f}, blocks},
      {400, {{8192, 128, 128, int8}, 4, 0.9f}, blocks},
      {1, {{16384, 128, 128, int8}, 4, 0.9f}, blocks},
      {267, {{16384, 128, 128, int8}, 4, 0.9f}, blocks},
      {1, {{20480, 128, 128, int8}, 4, 0.9f}, blocks},
      {1, {{28672, 128, 128, int8}, 4, 0.9f}, blocks},
      {1, {{36864, 128, 128, int8}, 4, 0.9f}, blocks},
      {50, {{11008, 128, 128, int8}, 4, 0.9f}, blocks},
      {100, {{1536, 200, 128, int8}, 4, 0.9f}, blocks},
      {150, {{5504, 128, 128, int8}, 8, 0.9f}, blocks},
      {16, {{4096, 4096, 128, int8}, 8, 1.0f}, rows},
      {270, {{1536, 1536, 128, int8}, 8, 1.0f}, rows},
      {3, {{80, 80, 128, int8}, 8, 1.0f}, rows},
      {1, {{28672, 28672, 128, int8}, 8, 1.0f}, rows},
      {16, {{4096, 4096, 128, fp8}, 8, 1.0f, 0.0625f}, rows},
      {270, {{576, 576, 128, fp8}, 8, 1.0f, 0.01f}, rows},
      {3, {{16, 16, 128, fp8}, 8, 1.0f, 0.5f}, rows},
      {5, {{100, 100, 128, fp8}, 8, 1.0f, 0.0625f}, rows},
  };
  for (int64_t k = 1; k <= 33; ++k) {
    cases.push_back({1 + k % 3, {{k, k % 5 == 0 ? k / 2 : 0, 128, int8}, k % 2 == 0 ? 4 : 8, 0.9f}, blocks});
    cases.push_back({1 + k % 3, {{k, k / 3, 1 + k % 7, k % 2 == 0 ? int8 : fp16}, 4, 0.9f}, rows});
  }
  for (QuantizeCase& c : cases) c.spec.layout.integer_scales = c.form == blocks;
  for (size_t i = 0, given = cases.size(); i < given; ++i) {
    QuantizeCase c = cases[i];
    if (c.spec.layout.outlier_type != int8) continue;
    c.tokens = std::min<int64_t>(c.tokens, 20);
    c.spec.layout.integer_scales = true;
    c.form = rows;
    cases.push_back(c);
  }
  return cases;
}

inline std::string name_of(const QuantizeCase& c) {
  return std::to_string(c.tokens) + " tokens, k " + std::to_string(c.spec.layout.k) + ", outliers " +
         std::to_string(c.spec.layout.n_outlier) + ", group " + std::to_string(c.spec.layout.group) +
         (c.form == ActivationForm::blocks ? ", blocks" : ", rows") +
         (c.spec.layout.integer_scales ? ", integer scales" : "");
}

}  // namespace atom::cuda::fused_test
