#pragma once
// Quantization inside training: fake_quantize (core/weight_ops.h) with the scales that papers give it. All are made of
// ops, so they are traced, saved and differentiated as such; their rounding goes straight through. x: any shape,
// floating dtype. Each throws DTypeError, and ValueError for bits outside [2, 16] (activations: [1, 16]).

#include "hone/core/weight_ops.h"

namespace hone {

extern const OpDef kStraightThrough;  // x, y → y, with the gradient of clamp(x)

/// y, with the gradient of clamp(x, low, high): ∂/∂x = 1 where low ≤ x ≤ high, else 0; none for y. So a result that
/// something else has rounded trains what it was rounded from. x, y: one shape and floating dtype; low ≤ high, infinite
/// ones too. Differentiable once. ShapeError, DTypeError, ValueError.
Tensor straight_through(const Tensor& x, const Tensor& y, double low, double high);

struct LsqOptions {
  int64_t bits = 8;
  bool is_signed = true;  ///< codes from −2^(bits−1) to 2^(bits−1) − 1; else from 0 to 2^bits − 1
};
/// x on the grid of a learned step: ŷ = Δ · clamp(round(x/Δ), low, high). scale: [1], Δ; its gradient is normalized.
/// Esser et al., "Learned step size quantization", 2020.
Tensor lsq(const Tensor& x, const Tensor& scale, LsqOptions options = {});
/// The step that the paper begins with: 2 mean|x| / √high, as [1] of x's dtype; not differentiable here.
Tensor lsq_start(const Tensor& x, LsqOptions options = {});

/// y = clip(x, 0, α) on 2^bits values from 0 to α. alpha: [1], above 0, of x's dtype. ∂y/∂x = 1 where 0 < x < α, else
/// 0; ∂y/∂α = 1 where x ≥ α, else 0. ValueError unless α is above 0 and finite. Choi et al., "PACT: parameterized
/// clipping activation", 2018.
Tensor pact(const Tensor& x, const Tensor& alpha, int64_t bits = 8);

/// 2 q(tanh w / (2 max |tanh w|) + ½) − 1, q rounding to multiples of 1/(2^bits − 1): in [−1, 1]. The gradient goes
/// through all but the rounding; w of zeros alone gives NaN. Zhou et al., "DoReFa-Net", 2016.
Tensor dorefa_weight(const Tensor& w, int64_t bits = 8);
/// q(clip(x, 0, 1)), likewise.
Tensor dorefa_activation(const Tensor& x, int64_t bits = 8);

/// x on the grid of its own range: Δ = max |x| / (2^(bits−1) − 1), found anew at every call; zeros stay zeros. The
/// gradient is 1: what is dynamic is not trained. ValueError for a NaN or infinity in x, which has no range then.
Tensor dynamic_fake_quantize(const Tensor& x, int64_t bits = 8);

}  // namespace hone
