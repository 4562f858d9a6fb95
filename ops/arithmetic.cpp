#include "hone/ops/arithmetic.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/cuda/elementwise_api.h"
#include "hone/ops/simd/pointwise.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

using detail::Binary;
using detail::sum_to;

template <Binary kOp> struct BinaryOp {
  static void shapes(ShapeContext& c) {
    check_inputs(c, 2, 2);
    check_same_dtype(c, 0, 1);
    if constexpr (!detail::is_comparison(kOp))
      HONE_CHECK(c.dtype(0) != boolean, DTypeError, c.op, ": does not take bool");
    c.add(broadcast_shapes(c.op, c.shape(0), c.shape(1)), detail::is_comparison(kOp) ? boolean : c.dtype(0));
  }
  static void run(RunContext& c) {
    if constexpr (kHasCuda)
      if (c.out[0].device == DeviceType::cuda) return cuda::binary(static_cast<int>(kOp), c.in.data(), c.out[0]);
    const DType compute = compute_dtype(c.in[0].dtype);
    elementwise(c.in, c.out[0], compute, detail::is_comparison(kOp) ? boolean : compute,
                detail::binary_kernel(kOp, compute));
  }
  static constexpr OpDef define(const char* name, Saves saves, void (*backward)(BackwardContext&)) {
    return {.name = name, .shapes = shapes, .run = run, .runs_on_cuda = true, .saves = saves, .backward = backward};
  }
  static constexpr OpDef comparison(const char* name) {
    return {
        .name = name, .shapes = shapes, .run = run, .runs_on_cuda = true, .not_differentiable = "its output is bool"};
  }
};

/// Sets input i's gradient: g summed down to its shape where it was broadcast.
void set_reduced(BackwardContext& c, int i, const Tensor& g) { c.set(i, sum_to(g, c.input_shape(i))); }

void add_backward(BackwardContext& c) {
  if (c.needs(0)) set_reduced(c, 0, c.grad());
  if (c.needs(1)) set_reduced(c, 1, c.grad());
}
void sub_backward(BackwardContext& c) {
  if (c.needs(0)) set_reduced(c, 0, c.grad());
  if (c.needs(1)) c.set(1, neg(sum_to(c.grad(), c.input_shape(1))));
}
void mul_backward(BackwardContext& c) {
  if (c.needs(0)) set_reduced(c, 0, mul(c.grad(), c.input(1)));
  if (c.needs(1)) set_reduced(c, 1, mul(c.grad(), c.input(0)));
}
void div_backward(BackwardContext& c) {
  const Tensor b = c.input(1), over = div(c.grad(), b);
  if (c.needs(0)) set_reduced(c, 0, over);
  if (c.needs(1)) c.set(1, neg(sum_to(mul(over, div(c.input(0), b)), c.input_shape(1))));
}
void pow_backward(BackwardContext& c) {
  const Tensor a = c.input(0), b = c.input(1);
  if (c.needs(0)) {
    // 0·a^-1 would be NaN for a = 0; with the power 1 in its place it is 0, and so are all its derivatives by a.
    const Tensor unsafe = logical_and(eq(b, 0), logical_not(gt(abs(a), 0)));
    const Tensor power = sub(where(unsafe, detail::scalar_like("pow", 1, b), b), 1);
    set_reduced(c, 0, mul(c.grad(), mul(b, pow(where(unsafe, detail::scalar_like("pow", 1, a), a), power))));
  }
  if (c.needs(1)) {
    // a^b ln a tends to 0 at a = 0 for b > 0, and counts as 0 for b = 0.
    const Tensor unsafe = logical_and(eq(a, 0), ge(b, 0));
    const Tensor base = where(unsafe, detail::scalar_like("pow", 1, a), a);
    set_reduced(c, 1, mul(c.grad(), mul(c.output(), log(base))));
  }
}
/// g where the first comparison holds, half of it where the inputs are equal.
void choice_backward(BackwardContext& c, Tensor (*wins)(const Tensor&, const Tensor&)) {
  const Tensor g = c.grad(), zero = detail::scalar_like(c.op(), 0, g);
  const Tensor share = where(eq(c.input(0), c.input(1)), mul(g, 0.5), zero);
  for (int i = 0; i < 2; ++i)
    if (c.needs(i)) set_reduced(c, i, where(wins(c.input(i), c.input(1 - i)), g, share));
}
void maximum_backward(BackwardContext& c) { choice_backward(c, gt); }
void minimum_backward(BackwardContext& c) { choice_backward(c, lt); }

void neg_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  HONE_CHECK(c.dtype(0) != boolean, DTypeError, c.op, ": does not take bool");
  c.add(c.shape(0), c.dtype(0));
}
void neg_run(RunContext& c) {
  constexpr auto op = detail::Unary::neg;
  if constexpr (kHasCuda)
    if (c.out[0].device == DeviceType::cuda)
      return cuda::unary(static_cast<int>(op), 0, c.in.data(), c.out[0], nullptr);
  const DType compute = compute_dtype(c.out[0].dtype);
  elementwise(c.in, c.out[0], compute, compute, detail::unary_kernel(op, 0, compute));
}
void neg_backward(BackwardContext& c) { c.set(0, neg(c.grad())); }

void where_shapes(ShapeContext& c) {
  check_inputs(c, 3, 3);
  HONE_CHECK(c.dtype(0) == boolean, DTypeError, c.op, ": the condition must be bool, not ", c.dtype(0));
  check_same_dtype(c, 1, 2);
  c.add(broadcast_shapes(c.op, c.shape(0), broadcast_shapes(c.op, c.shape(1), c.shape(2))), c.dtype(1));
}
template <class T> void where_kernel(const void* const* in, void* out, int64_t n, const double*) {
  const auto* condition = static_cast<const uint8_t*>(in[0]);
  const T *a = static_cast<const T*>(in[1]), *b = static_cast<const T*>(in[2]);
  T* y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) {  // by mask: a branch would be mispredicted, and keeps the loop from vectors
    const T mask = static_cast<T>(-static_cast<T>(condition[i]));
    y[i] = static_cast<T>((a[i] & mask) | (b[i] & static_cast<T>(~mask)));
  }
}
void where_run(RunContext& c) {
  if constexpr (kHasCuda)
    if (c.out[0].device == DeviceType::cuda) return cuda::where(c.in[0], c.in[1], c.in[2], c.out[0]);
  const DType d = c.out[0].dtype;  // bits are moved, not computed with
  const int64_t size = size_of(d);
  elementwise(c.in, c.out[0], d, d,
              size == 4   ? detail::simd_select32_kernel()
              : size == 8 ? where_kernel<uint64_t>
              : size == 2 ? where_kernel<uint16_t>
                          : where_kernel<uint8_t>);
}
void where_backward(BackwardContext& c) {
  const Tensor condition = c.input(0), g = c.grad(), zero = detail::scalar_like(c.op(), 0, g);
  if (c.needs(1)) set_reduced(c, 1, where(condition, g, zero));
  if (c.needs(2)) set_reduced(c, 2, where(condition, zero, g));
}

template <int kInputs> void logical_shapes(ShapeContext& c) {
  check_inputs(c, kInputs, kInputs);
  for (int i = 0; i < kInputs; ++i)
    HONE_CHECK(c.dtype(i) == boolean, DTypeError, c.op, ": takes bool, not ", c.dtype(i));
  c.add(kInputs == 1 ? c.shape(0) : broadcast_shapes(c.op, c.shape(0), c.shape(kInputs - 1)), boolean);
}
enum class Logical { conjunction, disjunction, negation };
template <Logical kOp> void logical_kernel(const void* const* in, void* out, int64_t n, const double*) {
  const auto *a = static_cast<const bool*>(in[0]), *b = static_cast<const bool*>(in[1]);
  auto* y = static_cast<bool*>(out);
  for (int64_t i = 0; i < n; ++i)
    y[i] = kOp == Logical::negation ? !a[i] : kOp == Logical::conjunction ? a[i] && b[i] : a[i] || b[i];
}
template <Logical kOp> void logical_run(RunContext& c) {
  if constexpr (kHasCuda)
    if (c.out[0].device == DeviceType::cuda) return cuda::logical(static_cast<int>(kOp), c.in.data(), c.out[0]);
  elementwise(c.in, c.out[0], boolean, boolean, logical_kernel<kOp>);
}

}  // namespace

const OpDef kAdd = BinaryOp<Binary::add>::define("add", {}, add_backward);
const OpDef kSub = BinaryOp<Binary::sub>::define("sub", {}, sub_backward);
const OpDef kMul = BinaryOp<Binary::mul>::define("mul", {.inputs = kAllInputs}, mul_backward);
const OpDef kDiv = BinaryOp<Binary::div>::define("div", {.inputs = kAllInputs}, div_backward);
const OpDef kPow = BinaryOp<Binary::pow>::define("pow", {.inputs = kAllInputs, .outputs = 1}, pow_backward);
const OpDef kMaximum = BinaryOp<Binary::maximum>::define("maximum", {.inputs = kAllInputs}, maximum_backward);
const OpDef kMinimum = BinaryOp<Binary::minimum>::define("minimum", {.inputs = kAllInputs}, minimum_backward);
const OpDef kNeg = {
    .name = "neg", .shapes = neg_shapes, .run = neg_run, .runs_on_cuda = true, .backward = neg_backward};
const OpDef kEq = BinaryOp<Binary::eq>::comparison("eq"), kNe = BinaryOp<Binary::ne>::comparison("ne"),
            kLt = BinaryOp<Binary::lt>::comparison("lt"), kLe = BinaryOp<Binary::le>::comparison("le"),
            kGt = BinaryOp<Binary::gt>::comparison("gt"), kGe = BinaryOp<Binary::ge>::comparison("ge");
const OpDef kWhere = {.name = "where",
                      .shapes = where_shapes,
                      .run = where_run,
                      .runs_on_cuda = true,
                      .saves = {.inputs = 1},
                      .backward = where_backward};
const OpDef kLogicalAnd = {.name = "logical_and",
                           .shapes = logical_shapes<2>,
                           .run = logical_run<Logical::conjunction>,
                           .runs_on_cuda = true,
                           .not_differentiable = "its output is bool"};
const OpDef kLogicalOr = {.name = "logical_or",
                          .shapes = logical_shapes<2>,
                          .run = logical_run<Logical::disjunction>,
                          .runs_on_cuda = true,
                          .not_differentiable = "its output is bool"};
const OpDef kLogicalNot = {.name = "logical_not",
                           .shapes = logical_shapes<1>,
                           .run = logical_run<Logical::negation>,
                           .runs_on_cuda = true,
                           .not_differentiable = "its output is bool"};

namespace detail {
Tensor scalar_like(const char* op, double value, const Tensor& x) {
  check_scalar(op, value, x.dtype());
  return scalar(value, {x.dtype(), x.device()});
}
}  // namespace detail

// An op on two tensors, and on a tensor and a scalar.
#define HONE_BINARY(name, kOp)                                                     \
  Tensor name(const Tensor& a, const Tensor& b) { return apply(kOp, {}, {a, b}); } \
  Tensor name(const Tensor& a, double b) { return apply(kOp, {}, {a, detail::scalar_like(#name, b, a)}); }
#define HONE_BINARY_BOTH(name, kOp) \
  HONE_BINARY(name, kOp)            \
  Tensor name(double a, const Tensor& b) { return apply(kOp, {}, {detail::scalar_like(#name, a, b), b}); }

HONE_BINARY_BOTH(add, kAdd)
HONE_BINARY_BOTH(sub, kSub)
HONE_BINARY_BOTH(mul, kMul)
HONE_BINARY_BOTH(div, kDiv)
HONE_BINARY_BOTH(pow, kPow)
HONE_BINARY(maximum, kMaximum)
HONE_BINARY(minimum, kMinimum)
HONE_BINARY(eq, kEq)
HONE_BINARY(ne, kNe)
HONE_BINARY(lt, kLt)
HONE_BINARY(le, kLe)
HONE_BINARY(gt, kGt)
HONE_BINARY(ge, kGe)

#undef HONE_BINARY
#undef HONE_BINARY_BOTH

Tensor neg(const Tensor& x) { return apply(kNeg, {}, {x}); }
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) { return apply(kWhere, {}, {condition, a, b}); }
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  HONE_CHECK(broadcast_shapes("masked_fill", mask.shape(), x.shape()) == x.shape(), ShapeError,
             "masked_fill: a mask of shape ", mask.shape(), " does not broadcast to ", x.shape());
  return where(mask, detail::scalar_like("masked_fill", value, x), x);
}
Tensor logical_and(const Tensor& a, const Tensor& b) { return apply(kLogicalAnd, {}, {a, b}); }
Tensor logical_or(const Tensor& a, const Tensor& b) { return apply(kLogicalOr, {}, {a, b}); }
Tensor logical_not(const Tensor& x) { return apply(kLogicalNot, {}, {x}); }

}  // namespace hone
