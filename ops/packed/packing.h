#pragma once
// Between dense weights and packed ones: reading what is to be packed, checking what was stored.

#include <vector>

#include "hone/core/tensor.h"

namespace hone::detail {

/// Most rows, and most columns, of a sparse weight: places in packed inputs fit 32 bits.
inline constexpr int64_t kMostSparse = int64_t{1} << 24;

/// A weight [rows, …] as a matrix, 0 where its mask is. ShapeError, DTypeError, ValueError: f32, at least 2 dims, the
/// mask of the same shape, up to kMostSparse rows and columns and 2^31 - 1 elements.
struct DenseSource {
  DenseSource(const char* what, const Tensor& weight, const Tensor& mask);
  /// 0 outside the matrix.
  float at(int64_t row, int64_t col) const {
    return row < rows && col < cols ? values[static_cast<size_t>(row * cols + col)] : 0.0f;
  }
  int64_t rows, cols;
  std::vector<float> values;
};

/// The matrix that a packed weight stands for; throws what its check() throws.
template <class W> Tensor dense_of(const W& w) {
  w.check();
  Tensor dense = zeros({w.rows, w.cols});
  float* const to = dense.data<float>();
  w.each([&](int64_t row, int64_t col, float v) { to[row * w.cols + col] = v; });
  return dense;
}

// FormatError unless …
void check_size(const char* what, int64_t rows, int64_t cols);  ///< both are in [0, kMostSparse]
/// … `t` has that dtype and shape.
void check_stored(const char* what, const char* name, const Tensor& t, DType dtype, const Shape& shape);
/// … starts rise from 0 to the count of columns, and columns, each in [0, cols), rise within a list.
void check_lists(const char* what, const Tensor& starts, const Tensor& columns, int64_t cols);
/// … `used`, the nonzeros that the matrix has, are all that are stored.
void check_padding(const char* what, const Tensor& values, int64_t used);

}  // namespace hone::detail
