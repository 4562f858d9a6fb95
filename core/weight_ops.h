#pragma once
// The ops that codebook and fake-quantized Parameters are made of (masked: basic_ops.h). On the CPU.

#include "hone/core/op.h"

namespace hone {

extern const OpDef kCodebook;          // centroids, codes → centroids[codes]
extern const OpDef kCodebookGrad;      // g, codes → for each centroid the sum of its g
extern const OpDef kFakeQuantize;      // x, scale, points, levels → x on the levels' grids
extern const OpDef kFakeQuantizeGrad;  // g, x, scale, points, levels → gradients of x and scale

/// centroids[codes]. centroids: [k], floating; codes: u8, any shape; a code of k or above gives NaN. Returns the codes'
/// shape. The gradient of a centroid is the sum over its elements (Han et al., "Deep compression", 2016), in a fixed
/// order; any order of derivative. ShapeError, DTypeError.
Tensor codebook(const Tensor& centroids, const Tensor& codes);

/// The columns of fake_quantize's `points`: the shift μ, the least and the largest code, and whether rounding truncates
/// (1) or goes to the nearest code, halves to even (0).
inline constexpr int64_t kGridColumns = 4;

enum class ScaleGradient : uint8_t {
  none,
  plain,
  normalized,  ///< times 1/√(n·high), n the level's elements (−low where high is 0). Esser et al., 2020
};
struct FakeQuantizeOptions {
  ScaleGradient scale_gradient = ScaleGradient::plain;
  bool clip_gradient = true;  ///< x has no gradient where a bound is hit
  Tensor kept = {};           ///< bool, x's shape: the elements that the scale learns from; undefined: all
};
/// x on a grid: with level l's scale Δ and points (μ, low, high, ·), and q = (x − μ)/Δ,
///   ŷ = Δ · clamp(round(q), low, high) + μ,
/// computed in f64 and rounded to x's dtype; where Δ = 0, x as it is (no grid), and a Δ below 0 counts as |Δ|.
/// x: any shape, floating. scale: [L], floating, finite. points: [L, 4], f64; codes are integers within ±2³¹. levels:
/// the level of each element, u8, x's shape, L ≤ 256, and an element of a level ≥ L is NaN; without levels one for all
/// (L = 1), or one for each index of dim 0. Straight-through gradients (Bengio et al., "Estimating or propagating
/// gradients through stochastic neurons", 2013; for the scale Esser et al., "Learned step size quantization", 2020):
///   ∂ŷ/∂x = 1 where low ≤ q ≤ high, else 0;  ∂ŷ/∂Δ = round(q) − q there, else the bound that is hit.
/// Differentiable once. ShapeError, DTypeError, ValueError for a scale, points or `kept` against the above.
Tensor fake_quantize(const Tensor& x, const Tensor& scale, const Tensor& points, const Tensor& levels = {},
                     FakeQuantizeOptions options = {});

}  // namespace hone
