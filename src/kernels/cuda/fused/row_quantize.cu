#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/dense_quantize.cuh"
#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/general_quantize.cuh"
#include "kernels/cuda/fused/row_single.cuh"
#include "kernels/cuda/fused/row_stream.cuh"
#include "kernels/cuda/runtime.h"

// rms_norm_quantize and reorder_quantize: a row kernel or that of bytes alone where the layout is theirs,
// else the general one.
namespace atom::cuda {
namespace {

using namespace fused;

template <class In, bool norm, int units>
void launch_single(const RowQuantize& a, int warps, cudaStream_t stream) {
  launch(row_single_kernel<In, norm, units>, dim3(static_cast<unsigned>(a.tokens)),
         32 * (warps + (norm ? 1 : 0)), static_cast<size_t>(copied_bytes<In>(a.k)), stream, {}, a);
}

template <class In, bool norm>
void launch_single(const RowQuantize& a, const SingleConfig& config, cudaStream_t stream) {
  switch (config.units_per_warp) {
    case 2:
      return launch_single<In, norm, 2>(a, config.warps, stream);
    case 4:
      return launch_single<In, norm, 4>(a, config.warps, stream);
    default:
      return launch_single<In, norm, 8>(a, config.warps, stream);
  }
}

template <class In, bool norm>
void launch_stream(const RowQuantize& a, const StreamConfig& config, int sms, cudaStream_t stream) {
  const auto kernel =
      config.slot_tokens == 1 ? row_stream_kernel<In, norm, 1> : row_stream_kernel<In, norm, 2>;
  const int64_t tiles = (int64_t{a.tokens} + config.slot_tokens - 1) / config.slot_tokens;
  const int64_t blocks = std::min(tiles, int64_t{sms} * config.blocks);
  ATOM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100));
  launch(kernel, dim3(static_cast<unsigned>(blocks)), 32 * (config.warps + (norm ? 2 : 1)),
         static_cast<size_t>(config.slots * config.slot_bytes()), stream, {}, a, config);
}

template <bool norm>
void quantize_rows(const ConstMatrix& x, const float* weight, float eps, const int32_t* permutation,
                   const QuantizedOutput& out, cudaStream_t stream) {
  check_output(out, x.cols);
  if (x.rows == 0) return;
  constexpr Before kBefore = norm ? Before::rms_norm : Before::nothing;
  const ChannelLayout& layout = out.spec.layout;
  const bool aligned = is_aligned(x.data, x.stride, x.dtype) &&
                       x.stride * size_of(x.dtype) >= (x.cols * size_of(x.dtype) + 15) / 16 * 16 &&
                       is_aligned(weight, 0, DType::f32) && is_aligned(permutation, 0, DType::i32) &&
                       is_aligned(out.values, 0, DType::i8);
  with_type(x.dtype, [&](auto type) {
    using In = typename decltype(type)::type;
    if (out.form == ActivationForm::blocks && aligned && is_fast_row(layout)) {
      const int sms = sm_count();
      const RowQuantize a(x, weight, eps, permutation, out);
      const StreamConfig ring = stream_config(layout, sizeof(In));
      if (is_stream(ring, x.rows, sms)) return launch_stream<In, norm>(a, ring, sms, stream);
      return launch_single<In, norm>(a, single_config(layout, x.rows, sms), stream);
    }
    if (takes_dense(x, weight, permutation, out)) {
      return dense_quantize<In, kBefore>(x, weight, eps, out, stream);
    }
    const GeneralQuantize a{x.data, x.stride, x.rows, weight, eps, permutation, out};
    launch(general_quantize_kernel<In, kBefore>, dim3(static_cast<unsigned>(x.rows)), kGeneralThreads,
           static_cast<size_t>(layout.k) * sizeof(float), stream, {}, a, layout.groups());
  });
}

}  // namespace

void rms_norm_quantize(const RmsNormQuantizeArgs& args, cudaStream_t stream) {
  quantize_rows<true>(args.x, args.weight, args.eps, args.permutation, args.out, stream);
}

void reorder_quantize(const ReorderQuantizeArgs& args, cudaStream_t stream) {
  quantize_rows<false>(args.x, nullptr, 0.0f, args.permutation, args.out, stream);
}

}  // namespace atom::cuda
