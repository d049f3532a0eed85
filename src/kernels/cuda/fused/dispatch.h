#pragma once

#include <cstdint>

#include "kernels/cuda/fused/device.cuh"
#include "kernels/cuda/fused/fused.h"
#include "kernels/cuda/runtime.h"

/// From run-time types to template arguments, and the checks that all ops share.
namespace atom::cuda::fused {

template <class T>
struct Type {
  using type = T;
};

/// Calls body(Type<T>{}) with the element type of `dtype`.
template <class Body>
void with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(Type<float>{});
    case DType::f16:
      return body(Type<Half>{});
    case DType::bf16:
      return body(Type<BFloat16>{});
    default:
      throw Error("CUDA: a fused op was given elements that are not f32, f16 or bf16");
  }
}

/// Calls body(Type<In>{}, Type<Out>{}) for In = f32 or In = Out.
template <class Body>
void with_types(DType in, DType out, const Body& body) {
  with_type(out, [&](auto to) {
    if (in == out) return body(to, to);
    if (in != DType::f32) throw Error("CUDA: a fused op reads f32 or what it writes");
    body(Type<float>{}, to);
  });
}

/// Whether rows may be read or written 16 bytes at a time.
inline bool is_aligned(const void* data, int64_t stride, DType dtype) {
  const auto bytes = static_cast<int64_t>(size_of(dtype));
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * bytes % 16 == 0;
}

inline void expect(bool condition, const char* what) {
  if (!condition) throw Error(std::string("CUDA: ") + what);
}

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

/// Rows and columns as the output wants them, and a layout that its form can hold.
inline void check_output(const QuantizedOutput& out, int64_t cols) {
  const ChannelLayout& layout = out.spec.layout;
  expect(layout.k == cols, "quantized activations: the input has other channels than the layout");
  expect(layout.group > 0 && layout.n_outlier >= 0 && layout.n_outlier <= layout.k &&
             (out.spec.bits == 4 || out.spec.bits == 8),
         "quantized activations: invalid layout");
  const bool int8_outliers = layout.outlier_type == OutlierType::int8 || layout.n_outlier == 0;
  expect(!layout.integer_scales || int8_outliers, "quantized activations: integer scales have INT8 outliers");
  expect(out.form == ActivationForm::rows || (layout.group == 128 && layout.integer_scales),
         "quantized activations: blocks have integer scales and groups of 128");
  expect(out.form == ActivationForm::blocks || !layout.integer_scales || out.units != nullptr,
         "quantized activations: no place for the units");
}

}  // namespace atom::cuda::fused
