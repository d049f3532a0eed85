#include "quant/rounding.h"

#include <utility>

namespace atom {

Matrix<float> float_columns(const DeviceContext& device, const Tensor& weight, const int32_t* columns) {
  Matrix<float> out(weight.shape[0], weight.shape[1], device.memory);
  const Tensor placed = to_memory(weight, device.memory);
  run(device, GatherColumns{placed.dtype, placed.bytes.data(), columns, out.view()});
  return out;
}

LowBitTarget target_of(LowBitStorage& storage) {
  return {storage.n,
          storage.layout,
          storage.values.data(),
          storage.scales.data(),
          storage.outliers.data(),
          storage.outlier_scales.data(),
          storage.outliers_fp16.data()};
}

LowBitStorage to_host(LowBitStorage storage) {
  const auto move_to_host = [](auto& buffer) {
    if (buffer.memory() != nullptr) buffer = buffer.clone();
  };
  move_to_host(storage.values);
  move_to_host(storage.scales);
  move_to_host(storage.outliers);
  move_to_host(storage.outlier_scales);
  move_to_host(storage.outliers_fp16);
  return storage;
}

LowBitStorage round_to_nearest(const DeviceContext& device, MatrixView<const float> weight,
                               const ChannelLayout& layout, const ScaleChooser& chooser) {
  LowBitStorage storage(weight.rows, layout, device.memory);
  run(device, RoundWeight{weight, chooser.rule(), target_of(storage)});
  return to_host(std::move(storage));
}

}  // namespace atom
