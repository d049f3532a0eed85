#include "kernels/cpu/attention.h"
#include "kernels/ops.h"
#include "kernels/reference/attention.h"

namespace atom {
namespace {

constexpr Implementation<Attention> kTable[] = {
    {"avx512", cpu::supports_attention_avx512, cpu::attention_avx512},
    {"avx2", cpu::supports_attention_avx2, cpu::attention_avx2},
    {"reference", always, reference::attention},
};

}  // namespace

template <>
std::span<const Implementation<Attention>> implementations() {
  return kTable;
}

}  // namespace atom
