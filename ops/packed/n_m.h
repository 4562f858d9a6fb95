#pragma once
// N:M weights: of every M neighbouring inputs, an output uses at most N. The regularity makes them fast at a batch of
// one: each lane is an output, which picks its inputs from a vector of M by 2 or 4 bits.
//
// Layout: outputs lie in blocks of 16, inputs in groups of m. values[b][g][i][l] is the i-th weight of output 16·b + l
// in group g; its position in the group, read modulo m, is bits [l·w, l·w + w) of the words positions[b][g][i], with
// w = 2 for m up to 4, else 4 (lanes 8 to 15 are in the second word). Positions of a group rise; unused places, after
// them, hold 0.

#include <vector>

#include "hone/ops/fused.h"

namespace hone {

struct NMMatrix {
  Tensor values;     ///< [⌈rows / 16⌉, ⌈cols / m⌉, n, 16], f32
  Tensor positions;  ///< [⌈rows / 16⌉, ⌈cols / m⌉, n, 1 or 2], i32
  int64_t rows = 0, cols = 0, m = 0;

  /// A weight [rows, …], dims after the first folded into cols, that has at most n nonzeros in every m neighbouring
  /// columns of a row (ValueError: pruning is not done here); a mask of its shape is applied first. m: 2, 4 or 8; n:
  /// from 1 to m. f32. ShapeError, DTypeError, ValueError.
  static NMMatrix pack(const Tensor& weight, int64_t n, int64_t m, const Tensor& mask = {});
  /// [rows, cols], f32. Throws what check() throws.
  Tensor dense() const;
  /// FormatError unless everything above holds: for weights from a file. The ops stay within their tensors whatever the
  /// positions.
  void check() const;
  int64_t n() const { return values.size(2); }

  /// f(row, column, value) for each value in use.
  template <class F> void each(F&& f) const {
    const std::vector<float> v = values.to_vector<float>();
    const std::vector<int64_t> words = positions.to_vector<int64_t>();
    const int64_t bits = m <= 4 ? 2 : 4, per_word = 32 / bits;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t g = 0; g * m < cols; ++g)
        for (int64_t i = 0; i < n(); ++i) {
          const int64_t lane = row % 16, place = (row / 16 * values.size(1) + g) * n() + i;
          const float value = v[static_cast<size_t>(place * 16 + lane)];
          const auto word =
              static_cast<uint32_t>(words[static_cast<size_t>(place * (16 / per_word) + lane / per_word)]);
          if (value != 0) f(row, g * m + (word >> (lane % per_word * bits) & (m - 1)), value);
        }
  }
};

extern const OpDef kNMLinear, kNMConv2d;

/// linear_fused() by N:M weights: x [..., cols] f32, bias [rows] or absent; y [..., rows]. For inference: not
/// differentiable. ShapeError, DTypeError.
Tensor n_m_linear(const Tensor& x, const NMMatrix& weight, const Tensor& bias = {}, ActivationAttrs activation = {});

/// conv2d_fused() by N:M weights, which were packed from [O, C/groups, KH, KW] with {KH, KW} = `kernel`: groups of m
/// run over C/groups·KH·KW. x [N, C, H, W] f32. Any options of conv2d_fused. For inference: not differentiable.
/// ShapeError, DTypeError, ValueError.
Tensor n_m_conv2d(const Tensor& x, const NMMatrix& weight, const Shape& kernel, const Tensor& bias = {},
                  const FusedConv2dOptions& options = {});

}  // namespace hone
