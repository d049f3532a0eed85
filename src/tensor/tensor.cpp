#include "tensor/tensor.h"

#include "tensor/half.h"

namespace atom {

Tensor to_memory(const Tensor& tensor, Memory* memory) {
  if (memory == nullptr) return tensor;
  auto storage = std::make_shared<Buffer<std::byte>>(Buffer<std::byte>::copy_of(tensor.bytes, memory));
  return {tensor.dtype, tensor.shape, storage->span(), storage};
}

void to_float(const Tensor& tensor, std::span<float> out) {
  const auto n = static_cast<size_t>(tensor.elements());
  assert(out.size() == n);
  if (n == 0) return;
  // Bytes of a mapped file need not be aligned for their type.
  const std::byte* in = tensor.bytes.data();
  const auto half_bits = [in](size_t i) {
    uint16_t bits = 0;
    std::memcpy(&bits, in + 2 * i, sizeof(bits));
    return bits;
  };
  switch (tensor.dtype) {
    case DType::f32:
      std::memcpy(out.data(), in, n * sizeof(float));
      return;
    case DType::f16:
      for (size_t i = 0; i < n; ++i) out[i] = half_to_float(half_bits(i));
      return;
    case DType::bf16:
      for (size_t i = 0; i < n; ++i) out[i] = bfloat16_to_float(half_bits(i));
      return;
    default:
      fail("expected a float tensor, found {}", name_of(tensor.dtype));
  }
}

}  // namespace atom
