#pragma once
// Block-sparse weights: a matrix cut into blocks of, say, 4×4, of which those with a nonzero are stored whole. One
// index serves many weights, and their vectors need no gathering.
//
// Layout: block row i (outputs [i·height, (i + 1)·height)) has the blocks columns[b] for b in [row_starts[i],
// row_starts[i + 1]); values[b][c][r] is the weight of output i·height + r and input columns[b]·width + c, 0 outside
// the matrix.

#include <vector>

#include "hone/ops/fused.h"

namespace hone {

struct BlockSparseMatrix {
  Tensor values;      ///< [blocks, width, height], f32
  Tensor columns;     ///< [blocks], i32, rising within a block row
  Tensor row_starts;  ///< [⌈rows / height⌉ + 1], i32, from 0 to `blocks`
  int64_t rows = 0, cols = 0;

  /// Blocks of height × width with a nonzero of a weight [rows, …], dims after the first folded into cols; where a mask
  /// of its shape is given, what it leaves. height, width: 1, 2, 4, 8 or 16. f32. ShapeError, DTypeError, ValueError.
  static BlockSparseMatrix pack(const Tensor& weight, int64_t height, int64_t width, const Tensor& mask = {});
  /// [rows, cols], f32. Throws what check() throws.
  Tensor dense() const;
  /// FormatError unless everything above holds: for weights from a file. The ops check what they need to stay within
  /// their tensors.
  void check() const;
  int64_t height() const { return values.size(2); }
  int64_t width() const { return values.size(1); }
  int64_t blocks() const { return values.size(0); }

  /// f(row, column, value) for each stored value inside the matrix, in order.
  template <class F> void each(F&& f) const {
    const std::vector<float> v = values.to_vector<float>();
    const std::vector<int64_t> at = columns.to_vector<int64_t>(), starts = row_starts.to_vector<int64_t>();
    const int64_t h = height(), w = width();
    for (int64_t i = 0; i * h < rows; ++i)
      for (int64_t b = starts[static_cast<size_t>(i)]; b < starts[static_cast<size_t>(i) + 1]; ++b)
        for (int64_t c = 0; c < w; ++c)
          for (int64_t r = 0; r < h; ++r) {
            const int64_t row = i * h + r, col = at[static_cast<size_t>(b)] * w + c;
            if (row < rows && col < cols) f(row, col, v[static_cast<size_t>((b * w + c) * h + r)]);
          }
  }
};

extern const OpDef kBlockSparseLinear, kBlockSparseConv2d;

/// linear_fused() by block-sparse weights: x [..., cols] f32, bias [rows] or absent; y [..., rows]. For inference: not
/// differentiable. ShapeError, DTypeError; ValueError for row starts or columns outside the tensors.
Tensor block_sparse_linear(const Tensor& x, const BlockSparseMatrix& weight, const Tensor& bias = {},
                           ActivationAttrs activation = {});

/// conv2d_fused() by block-sparse weights, which were packed from [O, C/groups, KH, KW] with {KH, KW} = `kernel`. x [N,
/// C, H, W] f32. Any options of conv2d_fused; with groups, blocks must not straddle them: O/groups is a multiple of the
/// height. For inference: not differentiable. ShapeError, DTypeError, ValueError.
Tensor block_sparse_conv2d(const Tensor& x, const BlockSparseMatrix& weight, const Shape& kernel,
                           const Tensor& bias = {}, const FusedConv2dOptions& options = {});

}  // namespace hone
