#pragma once
// AdaRound: which way to round each weight, so that a layer's result, not its weight, is nearest to what it was.
//
//   quantize_static(network, data, {.bits = 4, .ada_round = AdaRoundOptions()});
//   const Tensor codes = ada_round(weight, affine, moment);                         // one layer by hand
//
// Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020.

#include <cstdint>

#include "hone/compress/graph/network.h"
#include "hone/compress/quantize/affine.h"

namespace hone::compress::quantize {

struct AdaRoundOptions {
  int64_t iterations = 1000;  ///< of Adam; 0: single weights are turned over, no more
  double lr = 0.05;
  double lambda = 1;         ///< of the regularizer
  double from = 20, to = 2;  ///< β goes linearly from one to the other
  double warm_up = 0.2;      ///< this share of the iterations has no regularizer; in [0, 1)
};

/// The codes ⌊w/s⌋ or ⌊w/s⌋ + 1, within the codes that a has, of each weight: i8, w's shape. With d = ⌊w/s⌋ + h(V) −
/// w/s and h(V) = clip(1.2 σ(V) − 0.1, 0, 1), V minimizes Σ_o taps · (d_o M d_oᵀ)/e_o + λ Σ (1 − |2h − 1|^β), d_o a row
/// of d, e_o what rounding to the nearest makes of d_o M d_oᵀ; then h is rounded. M = E[x xᵀ] of the inputs x that an
/// output sums over makes d_o M d_oᵀ the mean squared error of the result, in units of s_o². Beyond the paper, each
/// row, and the same row rounded to the nearest, is then improved by turning single weights over, the best first, while
/// that lessens its error; the better of the two is taken. What lies on the grid, or off it by no more than
/// f32 rounds (|w/s − q| ≤ 10⁻⁶ |q|), stays: zeros are code 0. w: floating, [out, …]. a: symmetric, a scale a tensor or
/// channel. moment: floating [groups, taps, taps], symmetric, groups of consecutive outputs. The same bits at any
/// thread count. ShapeError, DTypeError, ValueError, NumericError.
Tensor ada_round(const Tensor& w, const Affine& a, const Tensor& moment, AdaRoundOptions options = {});

namespace detail {

/// The moment of a convolution's or linear layer's input over the batches that it was shown.
class InputMoment {
 public:
  /// ValueError naming the node for more taps than a matrix [taps, taps] is to be made for.
  InputMoment(const graph::Node& node, const Shape& weight);
  void see(const Tensor& x);
  Tensor value() const;  ///< f64 [groups, taps, taps]

 private:
  const OpDef* op_;
  Attrs attrs_;  // of a convolution in one group
  Shape weight_;
  int64_t groups_ = 1, taps_ = 0, rows_ = 0;
  Tensor sum_;
};

}  // namespace detail
}  // namespace hone::compress::quantize
