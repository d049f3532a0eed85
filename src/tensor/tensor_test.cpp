#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include "tensor/device.h"
#include "tensor/half.h"

namespace atom {
namespace {

TEST(Buffer, IsAlignedAndZero) {
  for (const size_t count : {1, 3, 64, 1000}) {
    const Buffer<float> buffer(count);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment, 0u);
    for (const float x : buffer) EXPECT_EQ(x, 0.0f);
  }
  EXPECT_TRUE(Buffer<float>(0).empty());
}

TEST(Buffer, MovedFromIsEmptyAndClonesAreIndependent) {
  Buffer<int> a(5);
  a[2] = 7;
  Buffer<int> b(std::move(a));
  EXPECT_EQ(b.size(), 5u);
  EXPECT_EQ(a.size(), 0u);  // NOLINT(bugprone-use-after-move): this is what is tested
  EXPECT_EQ(a.data(), nullptr);
  Buffer<int> c = b.clone();
  c[2] = 8;
  EXPECT_EQ(b[2], 7);
  b = std::move(c);
  EXPECT_EQ(b[2], 8);
  EXPECT_EQ(c.size(), 0u);  // NOLINT(bugprone-use-after-move)
}

TEST(Buffer, AnImpossibleSizeIsRefused) {
  EXPECT_THROW(Buffer<double>(SIZE_MAX / 4), std::bad_alloc);
  EXPECT_THROW(Buffer<char>(SIZE_MAX - 3), std::bad_alloc);
}

TEST(MatrixView, RowsAndRanges) {
  Matrix<int> m(4, 6);
  for (int i = 0; i < 24; ++i) m.data()[i] = i;
  const MatrixView<int> view = m.view();
  EXPECT_EQ(view(2, 3), 15);
  const auto part = view.row_range(1, 3).col_range(2, 5);
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part.cols, 3);
  EXPECT_EQ(part(0, 0), 8);
  EXPECT_EQ(part(1, 2), 16);
  const MatrixView<const int> constant = part;
  EXPECT_EQ(constant(1, 2), 16);
}

TEST(Tensor, WidensFloatsAndRefusesIntegers) {
  const std::vector<uint16_t> half = {float_to_half(1.5f), float_to_half(-2.0f)};
  const std::vector<uint16_t> bfloat16 = {float_to_bfloat16(1.5f), float_to_bfloat16(-2.0f)};
  const std::vector<float> full = {1.5f, -2.0f};
  std::vector<float> out(2);
  to_float(make_tensor<uint16_t>(DType::f16, {2}, half), out);
  EXPECT_EQ(out, full);
  to_float(make_tensor<uint16_t>(DType::bf16, {1, 2}, bfloat16), out);
  EXPECT_EQ(out, full);
  to_float(make_tensor<float>(DType::f32, {2, 1}, full), out);
  EXPECT_EQ(out, full);
  const std::vector<int32_t> integers = {1, 2};
  const Tensor tensor = make_tensor<int32_t>(DType::i32, {2}, integers);
  EXPECT_THROW(to_float(tensor, out), Error);
  to_float(make_tensor<float>(DType::f32, {0}, {}), {});
}

TEST(Tensor, ReadsUnalignedBytes) {
  std::vector<std::byte> bytes(9);
  const float x = 3.25f;
  std::memcpy(bytes.data() + 1, &x, 4);
  Tensor tensor{DType::f32, {1}, std::span<const std::byte>(bytes).subspan(1, 4), nullptr};
  std::vector<float> out(1);
  to_float(tensor, out);
  EXPECT_EQ(out[0], x);
}

TEST(CpuIsa, NamesAndParsing) {
  const CpuIsa best = detect_cpu_isa();
  for (const CpuIsa isa : {CpuIsa::reference, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512vnni}) {
    if (isa <= best) {
      EXPECT_EQ(parse_cpu_isa(name_of(isa)), isa);
    } else {
      EXPECT_THROW(parse_cpu_isa(name_of(isa)), UsageError);
    }
  }
  EXPECT_THROW(parse_cpu_isa("sse9"), UsageError);
  EXPECT_THROW(parse_cpu_isa(""), UsageError);
}

}  // namespace
}  // namespace atom
