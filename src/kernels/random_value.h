#pragma once

#include "base/host_device.h"
#include "base/random.h"
#include "kernels/numerics.h"
#include "kernels/ops.h"
#include "tensor/float8.h"
#include "tensor/half.h"

namespace atom {

/// Element `i` of a RandomFill, the definition for host and device.
ATOM_HOST_DEVICE inline void put_random_value(const RandomFill& op, int64_t i) {
  const uint64_t word = random_word(op.seed, static_cast<uint64_t>(i));
  float value = op.offset + op.scale * numerics::random_normal(word);
  if (op.quantum > 0.0f) {
    value = op.quantum * static_cast<float>(numerics::quantize(value, 1.0f / op.quantum, 1.0f, 16.0f));
  }
  switch (op.dtype) {
    case DType::f32:
      static_cast<float*>(op.out)[i] = value;
      return;
    case DType::f16:
      static_cast<uint16_t*>(op.out)[i] = float_to_half(value);
      return;
    case DType::bf16:
      static_cast<uint16_t*>(op.out)[i] = float_to_bfloat16(value);
      return;
    case DType::f8:
      static_cast<uint8_t*>(op.out)[i] = float_to_float8(value);
      return;
    case DType::u8:
      static_cast<uint8_t*>(op.out)[i] = static_cast<uint8_t>(word);
      return;
    case DType::i8:
      static_cast<int8_t*>(op.out)[i] = static_cast<int8_t>(static_cast<int>(word % 255) - 127);
      return;
    default:
      return;
  }
}

}  // namespace atom
