#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/memory.h"

namespace atom {

/// Where cache lines and the widest vectors want data to begin.
inline constexpr size_t kAlignment = 64;

/// An owning, 64-byte aligned, zero-initialized array. Movable; copying is explicit through `clone`. It lies
/// in the host's memory, or in a device's, where its elements can be reached only by that device's ops and
/// through `clone`.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  /// Null `memory`: the host's.
  explicit Buffer(size_t count, Memory* memory = nullptr) : data_(nullptr, Free{memory}), count_(count) {
    if (count == 0) return;
    if (count > SIZE_MAX / sizeof(T) - kAlignment) throw std::bad_alloc();
    const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (memory != nullptr) {
      data_.reset(static_cast<T*>(memory->allocate(bytes)));
      return;
    }
    data_.reset(static_cast<T*>(::operator new (bytes, std::align_val_t{kAlignment})));
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }

  Buffer(Buffer&& other) noexcept : data_(std::move(other.data_)), count_(std::exchange(other.count_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    count_ = std::exchange(other.count_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  Memory* memory() const { return data_.get_deleter().memory; }
  T& operator[](size_t i) {
    assert(memory() == nullptr);
    return data_.get()[i];
  }
  const T& operator[](size_t i) const {
    assert(memory() == nullptr);
    return data_.get()[i];
  }
  std::span<T> span() { return {data(), count_}; }
  std::span<const T> span() const { return {data(), count_}; }
  T* begin() { return data(); }
  T* end() { return data() + count_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + count_; }

  /// A copy in the host's memory.
  Buffer clone() const {
    Buffer copy(count_);
    if (count_ == 0) return copy;
    if (memory() != nullptr) {
      memory()->download(copy.data(), data(), count_ * sizeof(T));
    } else {
      std::memcpy(copy.data(), data(), count_ * sizeof(T));
    }
    return copy;
  }

  /// A copy of the host's `values` in `memory`.
  static Buffer copy_of(std::span<const T> values, Memory* memory) {
    Buffer copy(values.size(), memory);
    if (values.empty()) return copy;
    if (memory != nullptr) {
      memory->upload(copy.data(), values.data(), values.size_bytes());
    } else {
      std::memcpy(copy.data(), values.data(), values.size_bytes());
    }
    return copy;
  }

 private:
  struct Free {
    Memory* memory = nullptr;
    void operator()(T* p) const {
      if (memory != nullptr) {
        memory->release(p);
      } else {
        ::operator delete (static_cast<void*>(p), std::align_val_t{kAlignment});
      }
    }
  };
  std::unique_ptr<T[], Free> data_;
  size_t count_ = 0;
};

/// A row-major matrix somebody else owns: element (r, c) is at data[r * stride + c].
template <class T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatrixView() = default;
  MatrixView(T* data_, int64_t rows_, int64_t cols_) : MatrixView(data_, rows_, cols_, cols_) {}
  MatrixView(T* data_, int64_t rows_, int64_t cols_, int64_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  /// A view of mutable elements is also a view of constant ones.
  operator MatrixView<const T>() const requires(!std::is_const_v<T>) { return {data, rows, cols, stride}; }

  T* row(int64_t r) const {
    assert(r >= 0 && r < rows);
    return data + r * stride;
  }
  T& operator()(int64_t r, int64_t c) const { return row(r)[c]; }
  MatrixView row_range(int64_t begin, int64_t end) const {
    return {data + begin * stride, end - begin, cols, stride};
  }
  MatrixView col_range(int64_t begin, int64_t end) const { return {data + begin, rows, end - begin, stride}; }
};

/// A row-major matrix of floats that may be f16 or bf16 as well (Void: void or const void), somebody else's.
/// The CPU's ops take f32 alone.
template <class Void>
struct FloatMatrix {
  template <class T>
  using Like = std::conditional_t<std::is_const_v<Void>, const T, T>;

  Void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  FloatMatrix() = default;
  FloatMatrix(Void* data_, DType dtype_, int64_t rows_, int64_t cols_)
      : data(data_), dtype(dtype_), rows(rows_), cols(cols_), stride(cols_) {}
  FloatMatrix(MatrixView<Like<float>> view)
      : data(view.data), rows(view.rows), cols(view.cols), stride(view.stride) {}
  FloatMatrix(MatrixView<float> view) requires(std::is_const_v<Void>)
      : FloatMatrix(MatrixView<const float>(view)) {}
  /// A view of what may be changed is also a view of what may not.
  operator FloatMatrix<const Void>() const requires(!std::is_const_v<Void>) {
    FloatMatrix<const Void> view(data, dtype, rows, cols);
    view.stride = stride;
    return view;
  }

  MatrixView<Like<float>> floats() const {
    assert(dtype == DType::f32);
    return {static_cast<Like<float>*>(data), rows, cols, stride};
  }
};
using FloatInput = FloatMatrix<const void>;
using FloatOutput = FloatMatrix<void>;

/// An owning row-major matrix without padding.
template <class T>
struct Matrix {
  Matrix() = default;
  /// Null `memory`: the host's.
  Matrix(int64_t rows, int64_t cols, Memory* memory = nullptr)
      : rows_(rows), cols_(cols), storage_(static_cast<size_t>(rows * cols), memory) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  T* data() { return storage_.data(); }
  const T* data() const { return storage_.data(); }
  MatrixView<T> view() { return {data(), rows_, cols_}; }
  MatrixView<const T> view() const { return {data(), rows_, cols_}; }
  T* row(int64_t r) { return data() + r * cols_; }
  const T* row(int64_t r) const { return data() + r * cols_; }
  T& operator()(int64_t r, int64_t c) { return data()[r * cols_ + c]; }
  const T& operator()(int64_t r, int64_t c) const { return data()[r * cols_ + c]; }
  std::span<T> span() { return storage_.span(); }
  std::span<const T> span() const { return storage_.span(); }

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  Buffer<T> storage_;
};

/// A tensor of run-time type whose bytes it owns or keeps alive (a piece of a mapped file). Row-major, dense.
struct Tensor {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  /// Keeps `bytes` valid.
  std::shared_ptr<const void> owner;

  int64_t elements() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
  template <class T>
  const T* data() const {
    assert(sizeof(T) == size_of(dtype));
    return reinterpret_cast<const T*>(bytes.data());
  }
};

/// A tensor that owns a copy of `values`. sizeof(T) must be size_of(dtype).
template <class T>
Tensor make_tensor(DType dtype, std::vector<int64_t> shape, std::span<const T> values) {
  assert(sizeof(T) == size_of(dtype));
  auto storage = std::make_shared<Buffer<T>>(values.size());
  std::copy(values.begin(), values.end(), storage->begin());
  Tensor tensor{dtype, std::move(shape), std::as_bytes(std::span<const T>(storage->data(), storage->size())),
                storage};
  assert(static_cast<size_t>(tensor.elements()) == values.size());
  return tensor;
}

/// A copy of a tensor of the host in `memory`; the tensor itself where `memory` is null.
Tensor to_memory(const Tensor& tensor, Memory* memory);

/// `elements()` values converted to float. Throws Error for an integer type.
void to_float(const Tensor& tensor, std::span<float> out);

}  // namespace atom
