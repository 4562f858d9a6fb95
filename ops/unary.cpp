#include "hone/ops/unary.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/cuda/elementwise_api.h"
#include "hone/ops/simd/pointwise.h"

namespace hone {
namespace {

using detail::Unary;

enum Takes : bool { floating = false, integers = true };
enum Saved : bool { input = false, output = true };

/// The functions of one op's OpDefs: f, g·f′(s) and g·h·f″(s). All that tells ops apart is in the template arguments,
/// because an OpDef's functions get no other context. kGrad is nullptr where f′ = 0 almost everywhere, kGradGrad where
/// f″ is; A: the attributes, all doubles.
template <Unary kOp, Takes kTakes, Saved kSaved, const OpDef* kGrad, const OpDef* kGradGrad, class A = void>
struct UnaryOp {
  static const double* scalars(const Attrs& attrs) {
    if constexpr (std::is_void_v<A>)
      return nullptr;
    else if constexpr (std::is_same_v<A, LeakyReluAttrs>)
      return &attrs.as<A>().slope;
    else
      return &attrs.as<A>().low;
  }
  static constexpr const AttrType* attributes() {
    if constexpr (std::is_void_v<A>)
      return nullptr;
    else
      return hone::attributes<A>();
  }

  static void shapes(ShapeContext& c) {
    check_inputs(c, 1, 1);
    if constexpr (kTakes == integers)
      HONE_CHECK(c.dtype(0) != boolean, DTypeError, c.op, ": does not take bool");
    else
      check_floating(c, 0, "input");
    if constexpr (kOp == Unary::clamp) check_bounds(c);
    c.add(c.shape(0), c.dtype(0));
  }
  static void check_bounds(const ShapeContext& c) {
    const double low = c.attrs.as<ClampAttrs>().low, high = c.attrs.as<ClampAttrs>().high;
    HONE_CHECK(low <= high, ValueError, c.op, ": low ", low, " is not at most high ", high);
    for (double bound : {low, high})
      HONE_CHECK(is_floating(c.dtype(0)) || std::isinf(bound) || bound == std::floor(bound), DTypeError, c.op,
                 ": bound ", bound, " is not integral, the tensor is ", c.dtype(0));
  }
  template <int kOrder> static void grad_shapes(ShapeContext& c) {
    check_inputs(c, kOrder + 1, kOrder + 1);
    check_floating(c, 0, "gradient");
    for (int i = 1; i <= kOrder; ++i) {
      check_same_dtype(c, 0, i);
      HONE_CHECK(c.shape(0) == c.shape(i), ShapeError, c.op, ": shapes ", c.shape(0), " and ", c.shape(i), " differ");
    }
    c.add(c.shape(0), c.dtype(0));
  }
  template <int kOrder> static void run(RunContext& c) {
    if constexpr (kHasCuda)
      if (c.out[0].device == DeviceType::cuda)
        return cuda::unary(static_cast<int>(kOp), kOrder, c.in.data(), c.out[0], scalars(c.attrs));
    const DType compute = compute_dtype(c.out[0].dtype);
    elementwise(c.in, c.out[0], compute, compute, detail::unary_kernel(kOp, kOrder, compute), scalars(c.attrs));
  }

  static void backward(BackwardContext& c) {
    if constexpr (kGrad == nullptr)
      c.set(0, zeros_like(c.grad()));
    else
      c.set(0, apply(*kGrad, c.raw_attrs(), {c.grad(), kSaved == output ? c.output() : c.input(0)}));
  }
  /// Of g·f′(s) with the cotangent h: h·f′(s) for g, g·h·f″(s) for s.
  static void grad_backward(BackwardContext& c) {
    const Tensor h = c.grad(), s = c.input(1);
    if (c.needs(0)) c.set(0, apply(*kGrad, c.raw_attrs(), {h, s}));
    if (!c.needs(1)) return;
    if constexpr (kGradGrad == nullptr)
      c.set(1, zeros_like(s));
    else
      c.set(1, apply(*kGradGrad, c.raw_attrs(), {c.input(0), h, s}));
  }

  static constexpr Saves saves() {
    if constexpr (kGrad == nullptr) return {};
    return kSaved == output ? Saves{.outputs = 1} : Saves{.inputs = 1};
  }
  static constexpr OpDef forward(const char* name) {
    return {.name = name,
            .attributes = attributes(),
            .shapes = shapes,
            .run = run<0>,
            .runs_on_cuda = true,
            .saves = saves(),
            .backward = backward};
  }
  static constexpr OpDef gradient(const char* name) {
    return {.name = name,
            .attributes = attributes(),
            .shapes = grad_shapes<1>,
            .run = run<1>,
            .runs_on_cuda = true,
            .saves = {.inputs = kAllInputs},
            .backward = grad_backward};
  }
  static constexpr OpDef second(const char* name) {
    return {.name = name,
            .attributes = attributes(),
            .shapes = grad_shapes<2>,
            .run = run<2>,
            .runs_on_cuda = true,
            .not_differentiable = "third derivatives of elementwise functions are not provided"};
  }
};

}  // namespace

// One line an op: constant, name, number, what it takes, what it saves, attributes.
#define HONE_STEP(Name, name, ...) \
  const OpDef k##Name =            \
      UnaryOp<Unary::name, integers, input, nullptr, nullptr __VA_OPT__(, ) __VA_ARGS__>::forward(#name);
#define HONE_LINEAR(Name, name, takes, saved, ...)                                                         \
  using Name##Op = UnaryOp<Unary::name, takes, saved, &k##Name##Grad, nullptr __VA_OPT__(, ) __VA_ARGS__>; \
  const OpDef k##Name = Name##Op::forward(#name), k##Name##Grad = Name##Op::gradient(#name "_grad");
#define HONE_SMOOTH(Name, name, takes, saved)                                                        \
  using Name##Op = UnaryOp<Unary::name, takes, saved, &k##Name##Grad, &k##Name##GradGrad>;           \
  const OpDef k##Name = Name##Op::forward(#name), k##Name##Grad = Name##Op::gradient(#name "_grad"), \
              k##Name##GradGrad = Name##Op::second(#name "_grad_grad");

HONE_STEP(Sign, sign)
HONE_STEP(Round, round)
HONE_STEP(Floor, floor)
HONE_STEP(Ceil, ceil)
HONE_LINEAR(Abs, abs, integers, input)
HONE_LINEAR(Relu, relu, integers, output)
HONE_LINEAR(LeakyRelu, leaky_relu, floating, input, LeakyReluAttrs)
HONE_LINEAR(Clamp, clamp, integers, input, ClampAttrs)
HONE_SMOOTH(Exp, exp, floating, output)
HONE_SMOOTH(Log, log, floating, input)
HONE_SMOOTH(Sqrt, sqrt, floating, output)
HONE_SMOOTH(Rsqrt, rsqrt, floating, output)
HONE_SMOOTH(Square, square, integers, input)
HONE_SMOOTH(Tanh, tanh, floating, output)
HONE_SMOOTH(Sigmoid, sigmoid, floating, output)
HONE_SMOOTH(Erf, erf, floating, input)
HONE_SMOOTH(Gelu, gelu, floating, input)
HONE_SMOOTH(GeluTanh, gelu_tanh, floating, input)
HONE_SMOOTH(Silu, silu, floating, input)

#undef HONE_STEP
#undef HONE_LINEAR
#undef HONE_SMOOTH

Tensor abs(const Tensor& x) { return apply(kAbs, {}, {x}); }
Tensor sign(const Tensor& x) { return apply(kSign, {}, {x}); }
Tensor exp(const Tensor& x) { return apply(kExp, {}, {x}); }
Tensor log(const Tensor& x) { return apply(kLog, {}, {x}); }
Tensor sqrt(const Tensor& x) { return apply(kSqrt, {}, {x}); }
Tensor rsqrt(const Tensor& x) { return apply(kRsqrt, {}, {x}); }
Tensor square(const Tensor& x) { return apply(kSquare, {}, {x}); }
Tensor tanh(const Tensor& x) { return apply(kTanh, {}, {x}); }
Tensor sigmoid(const Tensor& x) { return apply(kSigmoid, {}, {x}); }
Tensor erf(const Tensor& x) { return apply(kErf, {}, {x}); }
Tensor relu(const Tensor& x) { return apply(kRelu, {}, {x}); }
Tensor leaky_relu(const Tensor& x, double slope) { return apply(kLeakyRelu, LeakyReluAttrs{slope}, {x}); }
Tensor gelu(const Tensor& x, Gelu form) { return apply(form == Gelu::exact ? kGelu : kGeluTanh, {}, {x}); }
Tensor silu(const Tensor& x) { return apply(kSilu, {}, {x}); }
Tensor clamp(const Tensor& x, double low, double high) { return apply(kClamp, ClampAttrs{low, high}, {x}); }
Tensor clamp(const Tensor& x, ClampOptions bounds) { return clamp(x, bounds.low, bounds.high); }
Tensor round(const Tensor& x) { return apply(kRound, {}, {x}); }
Tensor floor(const Tensor& x) { return apply(kFloor, {}, {x}); }
Tensor ceil(const Tensor& x) { return apply(kCeil, {}, {x}); }

}  // namespace hone
