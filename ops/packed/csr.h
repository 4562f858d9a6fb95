#pragma once
// Compressed sparse rows: the nonzero weights of each output, one after the other.
//
//   CsrMatrix w = CsrMatrix::pack(fc1.weight.value());      // [out, in] or [O, C/groups, KH, KW]
//   Tensor y = csr_linear(x, w, bias);                      // = linear(x, w.dense(), bias)
//
// Layout: row r of the matrix has values[k] at column columns[k] for k in [row_starts[r], row_starts[r + 1]).

#include <vector>

#include "hone/ops/fused.h"

namespace hone {

struct CsrMatrix {
  Tensor values;      ///< [stored], f32
  Tensor columns;     ///< [stored], i32, rising within a row
  Tensor row_starts;  ///< [rows + 1], i32, from 0 to `stored`
  int64_t rows = 0, cols = 0;

  /// The nonzeros of a weight [rows, …], dims after the first folded into cols; where a mask of its shape is given,
  /// those alone where it is not 0. f32; rows and cols up to 2^24. ShapeError, DTypeError, ValueError.
  static CsrMatrix pack(const Tensor& weight, const Tensor& mask = {});
  /// [rows, cols], f32. Throws what check() throws.
  Tensor dense() const;
  /// FormatError unless everything above holds: for weights from a file. The ops check what they need to stay within
  /// their tensors, not that columns rise.
  void check() const;
  int64_t stored() const { return values.defined() ? values.numel() : 0; }

  /// f(row, column, value) for each stored value, in order.
  template <class F> void each(F&& f) const {
    const std::vector<float> v = values.to_vector<float>();
    const std::vector<int64_t> c = columns.to_vector<int64_t>(), starts = row_starts.to_vector<int64_t>();
    for (size_t r = 0; r + 1 < starts.size(); ++r)
      for (auto k = static_cast<size_t>(starts[r]); k < static_cast<size_t>(starts[r + 1]); ++k)
        f(static_cast<int64_t>(r), c[k], v[k]);
  }
};

extern const OpDef kCsrLinear, kCsrConv2d;

/// linear_fused() by a sparse weight: y[…, r] = activation(bias[r] + sum_k values[k] x[…, columns[k]] over row r's k).
/// x [..., cols] f32; bias [rows] or absent; y [..., rows]. For inference: not differentiable. From a batch of 3 on
/// vectors run over the batch. ShapeError, DTypeError; ValueError for row starts or columns outside the tensors.
Tensor csr_linear(const Tensor& x, const CsrMatrix& weight, const Tensor& bias = {}, ActivationAttrs activation = {});

/// conv2d_fused() by a sparse weight, which was packed from [O, C/groups, KH, KW] with {KH, KW} = `kernel`: each stored
/// value adds a shifted plane of x to a plane of y. x [N, C, H, W] f32. Any options of conv2d_fused. For inference: not
/// differentiable. ShapeError, DTypeError, ValueError.
Tensor csr_conv2d(const Tensor& x, const CsrMatrix& weight, const Shape& kernel, const Tensor& bias = {},
                  const FusedConv2dOptions& options = {});

}  // namespace hone
