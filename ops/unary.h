#pragma once
// Functions of one tensor, element by element. Each returns a new contiguous tensor of x's shape, dtype and device.
// Floating dtypes (bf16 computes in f32); where said, integers too, wrapping on overflow. Anything else: DTypeError.
// Differentiable twice; a third derivative throws GradError where the second is not made of differentiable ops.

#include <limits>

#include "hone/core/op.h"

namespace hone {

Tensor abs(const Tensor& x);     ///< |x|, integers too; derivative 0 at 0
Tensor sign(const Tensor& x);    ///< -1, 0 or 1, 0 for NaN, integers too; derivative 0
Tensor exp(const Tensor& x);     ///< e^x
Tensor log(const Tensor& x);     ///< ln x: -inf at 0, NaN below
Tensor sqrt(const Tensor& x);    ///< NaN below 0; derivative inf at 0
Tensor rsqrt(const Tensor& x);   ///< x^(-1/2)
Tensor square(const Tensor& x);  ///< x², integers too
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);  ///< 1 / (1 + e^-x)
Tensor erf(const Tensor& x);      ///< 2/√π ∫₀ˣ e^(-t²) dt
Tensor relu(const Tensor& x);     ///< max(x, 0), NaN for NaN, integers too; derivative 0 at 0
/// x for x > 0, else slope·x; the derivative at 0 is slope.
Tensor leaky_relu(const Tensor& x, double slope = 0.01);

enum class Gelu { exact, tanh };
/// x·Φ(x), Φ the standard normal distribution function; Gelu::tanh approximates it as
/// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2. Hendrycks and Gimpel, "Gaussian error linear units", 2016.
Tensor gelu(const Tensor& x, Gelu form = Gelu::exact);
Tensor silu(const Tensor& x);  ///< x·sigmoid(x)

struct ClampOptions {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
};
/// x limited to [low, high], NaN for NaN, integers too (finite bounds must then be integral: DTypeError). The
/// derivative is 1 inside and on the bounds, 0 outside. ValueError unless low <= high.
Tensor clamp(const Tensor& x, double low, double high);
Tensor clamp(const Tensor& x, ClampOptions bounds);
Tensor round(const Tensor& x);  ///< to the nearest integer, halves to even; derivative 0; integers as they are
Tensor floor(const Tensor& x);  ///< derivative 0; integers as they are
Tensor ceil(const Tensor& x);   ///< derivative 0; integers as they are

/// Attributes of leaky_relu and its gradient.
struct LeakyReluAttrs {
  double slope = 0.01;
  void fields(FieldVisitor& v) { v("slope", slope); }
};
/// Attributes of clamp and its gradient.
struct ClampAttrs {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  void fields(FieldVisitor& v) {
    v("low", low);
    v("high", high);
  }
};

extern const OpDef kAbs, kSign, kExp, kLog, kSqrt, kRsqrt, kSquare, kTanh, kSigmoid, kErf, kRelu, kLeakyRelu, kGelu,
    kGeluTanh, kSilu, kClamp, kRound, kFloor, kCeil;
// g·f′(s), s being x or the saved f(x): inputs g, s. Differentiable.
extern const OpDef kAbsGrad, kExpGrad, kLogGrad, kSqrtGrad, kRsqrtGrad, kSquareGrad, kTanhGrad, kSigmoidGrad, kErfGrad,
    kReluGrad, kLeakyReluGrad, kGeluGrad, kGeluTanhGrad, kSiluGrad, kClampGrad;
// g·h·f″(s): inputs g, h, s. Not differentiable.
extern const OpDef kExpGradGrad, kLogGradGrad, kSqrtGradGrad, kRsqrtGradGrad, kSquareGradGrad, kTanhGradGrad,
    kSigmoidGradGrad, kErfGradGrad, kGeluGradGrad, kGeluTanhGradGrad, kSiluGradGrad;

}  // namespace hone
