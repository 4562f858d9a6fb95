#include "hone/ops/fake_quantize.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

void check_input(const char* op, const Tensor& x, int64_t bits, int64_t least_bits) {
  HONE_CHECK(x.defined(), ValueError, op, ": the input is an undefined tensor");
  HONE_CHECK(is_floating(x.dtype()), DTypeError, op, ": the input must be floating, not ", x.dtype());
  HONE_CHECK(bits >= least_bits && bits <= 16, ValueError, op, ": bits must be in [", least_bits, ", 16], got ", bits);
}
/// The points of one level without shift.
Tensor codes(double low, double high) { return tensor({0.0, low, high, 0.0}, {1, kGridColumns}); }
double power(int64_t bits) { return std::exp2(static_cast<double>(bits)); }

/// Multiples of 1/(2^bits − 1). x lies in [0, 1], which rounding may leave: the bounds are one code further out.
Tensor unit_steps(const Tensor& x, int64_t bits) {
  const double steps = power(bits) - 1;
  return fake_quantize(x, full({1}, 1 / steps, x.dtype() == DType::f64 ? DType::f64 : DType::f32), codes(-1, steps + 1),
                       {}, {ScaleGradient::none, false});
}

double least(const LsqOptions& o) { return o.is_signed ? -power(o.bits - 1) : 0; }
double most(const LsqOptions& o) { return power(o.is_signed ? o.bits - 1 : o.bits) - 1; }

void straight_through_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "x");
  check_same_dtype(c, 0, 1);
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": x ", c.shape(0), " and y ", c.shape(1),
             " must have one shape");
  const auto& a = c.attrs.as<ClampAttrs>();
  HONE_CHECK(a.low <= a.high, ValueError, c.op, ": low ", a.low, " must not be above high ", a.high);
  c.add(c.shape(1), c.dtype(1));
}

}  // namespace

const OpDef kStraightThrough = {.name = "straight_through",
                                .attributes = attributes<ClampAttrs>(),
                                .shapes = straight_through_shapes,
                                .run = [](RunContext& c) { detail::copy_strided(c.in[1], c.out[0]); },
                                .saves = {.inputs = 0b01},
                                .backward =
                                    [](BackwardContext& c) {
                                      if (c.needs(0))
                                        c.set(0, apply(kClampGrad, c.raw_attrs(), {c.grad(), c.input(0)}));
                                    }};

Tensor straight_through(const Tensor& x, const Tensor& y, double low, double high) {
  return apply(kStraightThrough, ClampAttrs{low, high}, {x, y});
}

Tensor lsq(const Tensor& x, const Tensor& scale, LsqOptions o) {
  check_input("lsq", x, o.bits, o.is_signed ? 2 : 1);
  return fake_quantize(x, scale, codes(least(o), most(o)), {}, {ScaleGradient::normalized});
}

Tensor lsq_start(const Tensor& x, LsqOptions o) {
  check_input("lsq_start", x, o.bits, o.is_signed ? 2 : 1);
  const NoGrad no_grad;
  return full({1}, 2 * mean(abs(cast(x.detach(), f64))).item() / std::sqrt(most(o)), x.dtype());
}

Tensor pact(const Tensor& x, const Tensor& alpha, int64_t bits) {
  check_input("pact", x, bits, 1);
  HONE_CHECK(alpha.defined() && alpha.shape() == Shape{1}, ShapeError, "pact: alpha must have shape [1]");
  {
    const RecorderScope unseen(nullptr);  // the check is no part of what is traced
    const double a = alpha.detach().item();
    HONE_CHECK(a > 0 && std::isfinite(a), ValueError, "pact: alpha must be above 0 and finite, got ", a);
  }
  const double steps = power(bits) - 1;
  const Tensor clipped = where(lt(x, alpha), relu(x), alpha);
  return fake_quantize(clipped, alpha * (1 / steps), codes(0, steps + 1), {}, {ScaleGradient::none, false});
}

Tensor dorefa_weight(const Tensor& w, int64_t bits) {
  check_input("dorefa_weight", w, bits, 2);
  const Tensor t = tanh(w);
  return unit_steps(t / max(abs(t)) * 0.5 + 0.5, bits) * 2.0 - 1.0;
}

Tensor dorefa_activation(const Tensor& x, int64_t bits) {
  check_input("dorefa_activation", x, bits, 1);
  return unit_steps(clamp(x, 0, 1), bits);
}

Tensor dynamic_fake_quantize(const Tensor& x, int64_t bits) {
  check_input("dynamic_fake_quantize", x, bits, 2);
  const double high = power(bits - 1) - 1;
  if (x.numel() == 0) return clone(x);
  const Tensor range = reshape(max(abs(x)), {1}), wide = x.dtype() == DType::bf16 ? cast(range, DType::f32) : range;
  return fake_quantize(x, wide * (1 / high), codes(-high - 1, high + 1), {}, {ScaleGradient::none, false});
}

}  // namespace hone
