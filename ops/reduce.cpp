#include "hone/ops/reduce.h"

#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/convert.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/elementwise.h"
#include "hone/ops/reduce_kernel.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone {

namespace detail {
ReducePlan plan_reduction(const View& in, uint32_t mask) {
  ReducePlan p;
  for (int d = 0; d < in.ndim; ++d) {
    const bool reduce = mask >> d & 1;
    (reduce ? p.terms : p.outputs) *= in.sizes[d];
    if (in.sizes[d] == 1) continue;
    ReducePlan::Dim* dims = reduce ? p.reduced : p.kept;
    int& count = reduce ? p.reduced_dims : p.kept_dims;
    if (count > 0 && dims[count - 1].stride == in.sizes[d] * in.strides[d]) {
      dims[count - 1] = {dims[count - 1].size * in.sizes[d], in.strides[d]};
    } else {
      dims[count++] = {in.sizes[d], in.strides[d]};
    }
  }
  if (p.kept_dims == 0) p.kept[p.kept_dims++] = {1, 1};
  if (p.reduced_dims == 0) p.reduced[p.reduced_dims++] = {1, 1};
  return p;
}
Shape reduced_shape(const Shape& shape, uint32_t mask, bool keepdim) {
  Shape out;
  for (int d = 0; d < shape.ndim(); ++d) {
    if (!(mask >> d & 1))
      out.push_back(shape[d]);
    else if (keepdim)
      out.push_back(1);
  }
  return out;
}
Tensor sum_to(const Tensor& g, const Shape& shape) {
  const Shape& from = g.shape();
  if (from == shape) return g;
  const int lead = from.ndim() - shape.ndim();
  HONE_CHECK(lead >= 0, ShapeError, "sum_to: shape ", shape, " does not broadcast to ", from);
  Shape dims;
  for (int d = 0; d < from.ndim(); ++d) {
    const bool broadcast = d < lead || (shape[d - lead] == 1 && from[d] != 1);
    HONE_CHECK(broadcast || shape[d - lead] == from[d], ShapeError, "sum_to: shape ", shape, " does not broadcast to ",
               from);
    if (broadcast) dims.push_back(d);
  }
  if (dims.ndim() == lead) return sum(g, dims);
  const Tensor s = sum(g, dims, true);
  return lead > 0 ? reshape(s, shape) : s;
}
}  // namespace detail

namespace {
using detail::plan_reduction;
using detail::ReducePlan;

struct ReduceAttrs {
  Shape dims;  // empty: all
  bool keepdim = false;
  void fields(FieldVisitor& v) {
    v("dims", dims);
    v("keepdim", keepdim);
  }
};
struct VarAttrs {
  Shape dims;
  bool keepdim = false, unbiased = true;
  void fields(FieldVisitor& v) {
    v("dims", dims);
    v("keepdim", keepdim);
    v("unbiased", unbiased);
  }
};

template <class A> void reduce_shapes(ShapeContext& c, DType out) {
  const auto& a = c.attrs.as<A>();
  c.add(detail::reduced_shape(c.shape(0), dim_mask(c.op, a.dims, c.in[0].ndim), a.keepdim), out);
}
template <class A> void floating_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_floating(c, 0, "x");
  reduce_shapes<A>(c, c.dtype(0));
}
template <class A> uint32_t mask_of(const RunContext& c) { return dim_mask(c.op, c.attrs.as<A>().dims, c.in[0].ndim); }

// ---- The sums. f32 and bf16 are summed in f64: a term is never lost against a large partial sum.
struct FloatSum {
  using Acc = double;
  double identity() const { return 0; }
  template <class T> void add(double& a, T x, int64_t, int64_t) const {
    if constexpr (std::is_same_v<T, BFloat16>)
      a += static_cast<float>(x);
    else
      a += static_cast<double>(x);
  }
  void merge(double& a, double b) const { a += b; }
};
struct IntegerSum {
  using Acc = uint64_t;  // wraps
  uint64_t identity() const { return 0; }
  template <class T> void add(uint64_t& a, T x, int64_t, int64_t) const {
    a += static_cast<uint64_t>(static_cast<int64_t>(x));
  }
  void merge(uint64_t& a, uint64_t b) const { a += b; }
};
struct SquaredDeviations : FloatSum {
  const double* center;
  template <class T> void add(double& a, T x, int64_t o, int64_t) const {
    const double d = static_cast<double>(x) - center[o];
    a += d * d;
  }
};
struct Exponentials : FloatSum {
  const double* shift;
  template <class T> void add(double& a, T x, int64_t o, int64_t) const {
    a += std::exp(static_cast<double>(x) - shift[o]);
  }
};
struct Largest {
  using Acc = double;
  double identity() const { return -std::numeric_limits<double>::infinity(); }
  void merge(double& a, double x) const {
    if (x > a || x != x) a = x;
  }  // a NaN stays: nothing compares above it
  template <class T> void add(double& a, T x, int64_t, int64_t) const { merge(a, static_cast<double>(x)); }
};

// The number that f64 results are rounded to.
template <class T> T rounded(double v) { return detail::convert<T>(v); }

void sum_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  reduce_shapes<ReduceAttrs>(c, is_floating(c.dtype(0)) ? c.dtype(0) : DType::i64);
}
void sum_run(RunContext& c) {
  const ReducePlan plan = plan_reduction(c.in[0], mask_of<ReduceAttrs>(c));
  visit_dtype(c.in[0].dtype, [&]<class T>() {
    const T* x = c.in[0].as<T>();
    if constexpr (is_floating(dtype_of<T>)) {
      T* y = c.out[0].as<T>();
      detail::reduce(plan, x, FloatSum{}, c.workspace, [y](int64_t o, double s) { y[o] = rounded<T>(s); });
    } else {
      int64_t* y = c.out[0].as<int64_t>();
      detail::reduce(plan, x, IntegerSum{}, c.workspace,
                     [y](int64_t o, uint64_t s) { y[o] = static_cast<int64_t>(s); });
    }
  });
}
// `g`, the gradient of a reduction, with the reduced dims back as size 1.
Tensor with_dims(const Tensor& g, const Shape& input, const Shape& dims, bool keepdim) {
  if (keepdim || input.ndim() == 0) return g;
  return reshape(g, detail::reduced_shape(input, dim_mask("sum", dims, input.ndim()), true));
}
int64_t terms_of(const Shape& input, const Shape& dims) {
  const uint32_t mask = dim_mask("mean", dims, input.ndim());
  int64_t n = 1;
  for (int d = 0; d < input.ndim(); ++d) n *= mask >> d & 1 ? input[d] : 1;
  return n;
}
void sum_backward(BackwardContext& c) {
  const auto& a = c.attrs<ReduceAttrs>();
  c.set(0, expand(with_dims(c.grad(), c.input_shape(0), a.dims, a.keepdim), c.input_shape(0)));
}

void mean_run(RunContext& c) {
  const ReducePlan plan = plan_reduction(c.in[0], mask_of<ReduceAttrs>(c));
  const double n = static_cast<double>(plan.terms);
  visit_floating(c.in[0].dtype, [&]<class T>() {
    T* y = c.out[0].as<T>();
    detail::reduce(plan, c.in[0].as<T>(), FloatSum{}, c.workspace,
                   [y, n](int64_t o, double s) { y[o] = rounded<T>(s / n); });
  });
}
void mean_backward(BackwardContext& c) {
  const auto& a = c.attrs<ReduceAttrs>();
  const Tensor g = c.grad() / static_cast<double>(terms_of(c.input_shape(0), a.dims));
  c.set(0, expand(with_dims(g, c.input_shape(0), a.dims, a.keepdim), c.input_shape(0)));
}

void var_run(RunContext& c) {
  const auto& a = c.attrs.as<VarAttrs>();
  const ReducePlan plan = plan_reduction(c.in[0], mask_of<VarAttrs>(c));
  const double n = static_cast<double>(plan.terms), divisor = n - (a.unbiased ? 1 : 0);
  double* center = c.workspace.get<double>(plan.outputs);
  visit_floating(c.in[0].dtype, [&]<class T>() {
    T* y = c.out[0].as<T>();
    const T* x = c.in[0].as<T>();
    detail::reduce(plan, x, FloatSum{}, c.workspace, [center, n](int64_t o, double s) { center[o] = s / n; });
    SquaredDeviations squares;
    squares.center = center;
    detail::reduce(plan, x, squares, c.workspace, [y, divisor](int64_t o, double s) {
      y[o] = rounded<T>(divisor > 0 ? s / divisor : std::numeric_limits<double>::quiet_NaN());
    });
  });
}
// d var / dx = 2 (x − mean x) / divisor: the mean's own dependence on x cancels out.
void var_backward(BackwardContext& c) {
  const auto& a = c.attrs<VarAttrs>();
  const Tensor x = c.input(0);
  const double divisor = static_cast<double>(terms_of(x.shape(), a.dims)) - (a.unbiased ? 1 : 0);
  const Tensor g = with_dims(c.grad(), x.shape(), a.dims, a.keepdim) * (2 / std::max(divisor, 0.0));
  c.set(0, (x - mean(x, a.dims, true)) * g);
}

void logsumexp_run(RunContext& c) {
  const ReducePlan plan = plan_reduction(c.in[0], mask_of<ReduceAttrs>(c));
  double* shift = c.workspace.get<double>(plan.outputs);
  visit_floating(c.in[0].dtype, [&]<class T>() {
    T* y = c.out[0].as<T>();
    const T* x = c.in[0].as<T>();
    // An infinite maximum is no shift: inf − inf would be NaN.
    detail::reduce(plan, x, Largest{}, c.workspace, [shift](int64_t o, double m) { shift[o] = std::isinf(m) ? 0 : m; });
    Exponentials terms;
    terms.shift = shift;
    detail::reduce(plan, x, terms, c.workspace,
                   [y, shift](int64_t o, double s) { y[o] = rounded<T>(std::log(s) + shift[o]); });
  });
}
void logsumexp_backward(BackwardContext& c) {
  const auto& a = c.attrs<ReduceAttrs>();
  const Shape& shape = c.input_shape(0);
  Tensor y = with_dims(c.output(), shape, a.dims, a.keepdim);
  y = masked_fill(y, eq(y, -std::numeric_limits<double>::infinity()), 0);  // exp(−inf − 0) = 0, not NaN
  c.set(0, exp(c.input(0) - y) * with_dims(c.grad(), shape, a.dims, a.keepdim));
}
}  // namespace

const OpDef kSum = {.name = "sum",
                    .attributes = attributes<ReduceAttrs>(),
                    .shapes = sum_shapes,
                    .run = sum_run,
                    .backward = sum_backward};
const OpDef kMean = {.name = "mean",
                     .attributes = attributes<ReduceAttrs>(),
                     .shapes = floating_shapes<ReduceAttrs>,
                     .run = mean_run,
                     .backward = mean_backward};
const OpDef kVar = {.name = "var",
                    .attributes = attributes<VarAttrs>(),
                    .shapes = floating_shapes<VarAttrs>,
                    .run = var_run,
                    .saves = {.inputs = 1},
                    .backward = var_backward};
const OpDef kLogsumexp = {.name = "logsumexp",
                          .attributes = attributes<ReduceAttrs>(),
                          .shapes = floating_shapes<ReduceAttrs>,
                          .run = logsumexp_run,
                          .saves = {.inputs = 1, .outputs = 1},
                          .backward = logsumexp_backward};

Tensor sum(const Tensor& x, const Shape& dims, bool keepdim) { return apply(kSum, ReduceAttrs{dims, keepdim}, {x}); }
Tensor mean(const Tensor& x, const Shape& dims, bool keepdim) { return apply(kMean, ReduceAttrs{dims, keepdim}, {x}); }
Tensor var(const Tensor& x, const Shape& dims, VarOptions options) {
  return apply(kVar, VarAttrs{dims, options.keepdim, options.unbiased}, {x});
}
Tensor logsumexp(const Tensor& x, const Shape& dims, bool keepdim) {
  return apply(kLogsumexp, ReduceAttrs{dims, keepdim}, {x});
}

}  // namespace hone
