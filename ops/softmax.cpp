#include "hone/ops/softmax.h"

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/row_kernels.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

using detail::dense;

// The inputs as rows along the attributes' dim, in the type they are computed in; kernel(in…, out, rows, n).
template <class A, class Kernel> void run_rows(RunContext& c, Kernel kernel) {
  const View& out = c.out[0];
  if (out.numel() == 0) return;
  if (out.ndim == 0) {
    const A x = *dense<A>(c.in[0], c.workspace);
    const A y = c.in.size() > 1 ? *dense<A>(c.in[1], c.workspace) : A(0);
    const detail::DenseOutput<A> to(out, c.workspace);
    if (c.in.size() > 1)
      kernel(&x, &y, to.data, 1, 1);
    else
      kernel(&x, nullptr, to.data, 1, 1);
    return to.finish();
  }
  const int64_t dim = wrap_dim(c.op, c.attrs.as<SoftmaxAttrs>().dim, out.ndim), n = out.sizes[dim];
  const A* a = dense<A>(detail::dim_last(c.in[0], dim), c.workspace);
  const A* b = c.in.size() > 1 ? dense<A>(detail::dim_last(c.in[1], dim), c.workspace) : nullptr;
  const detail::DenseOutput<A> to(detail::dim_last(out, dim), c.workspace);
  kernel(a, b, to.data, out.numel() / n, n);
  to.finish();
}

template <class Kernel> void visit_compute(DType d, Kernel kernel) {
  if (d == DType::f64)
    kernel.template operator()<double>();
  else
    kernel.template operator()<float>();
}

void softmax_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_floating(c, 0, "input");
  wrap_dim(c.op, c.attrs.as<SoftmaxAttrs>().dim, c.in[0].ndim);
  c.add(c.shape(0), c.dtype(0));
}
void softmax_grad_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "gradient");
  check_same_dtype(c, 0, 1);
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": gradient of shape ", c.shape(0), " for a result of shape ",
             c.shape(1));
  wrap_dim(c.op, c.attrs.as<SoftmaxAttrs>().dim, c.in[0].ndim);
  c.add(c.shape(0), c.dtype(0));
}

void softmax_run(RunContext& c) {
  visit_compute(c.out[0].dtype, [&]<class A>() {
    run_rows<A>(c, [](const A* x, const A*, A* y, int64_t rows, int64_t n) { detail::softmax_rows(x, y, rows, n); });
  });
}
void log_softmax_run(RunContext& c) {
  visit_compute(c.out[0].dtype, [&]<class A>() {
    run_rows<A>(c,
                [](const A* x, const A*, A* y, int64_t rows, int64_t n) { detail::log_softmax_rows(x, y, rows, n); });
  });
}
void softmax_grad_run(RunContext& c) {
  visit_compute(c.out[0].dtype, [&]<class A>() {
    run_rows<A>(c, [](const A* g, const A* y, A* dx, int64_t rows, int64_t n) {
      detail::softmax_grad_rows(g, y, dx, rows, n);
    });
  });
}
void log_softmax_grad_run(RunContext& c) {
  visit_compute(c.out[0].dtype, [&]<class A>() {
    run_rows<A>(c, [](const A* g, const A* y, A* dx, int64_t rows, int64_t n) {
      detail::log_softmax_grad_rows(g, y, dx, rows, n);
    });
  });
}

int64_t dim_of(BackwardContext& c) { return c.attrs<SoftmaxAttrs>().dim; }

// dx = y (g − <g, y>), linear in g; with the cotangent u: dg = y (u − <u, y>), dy = u (g − <g, y>) − g <u, y>.
void softmax_grad_backward(BackwardContext& c) {
  const Tensor u = c.grad(), g = c.input(0), y = c.input(1);
  if (c.needs(0)) c.set(0, apply(kSoftmaxGrad, c.raw_attrs(), {u, y}));
  if (c.needs(1)) c.set(1, u * (g - sum(g * y, {dim_of(c)}, true)) - g * sum(u * y, {dim_of(c)}, true));
}
// dx = g − e^y sum g; with u: dg = u − <u, e^y>, dy = −u e^y sum g.
void log_softmax_grad_backward(BackwardContext& c) {
  const Tensor u = c.grad(), g = c.input(0), p = exp(c.input(1));
  if (c.needs(0)) c.set(0, u - sum(u * p, {dim_of(c)}, true));
  if (c.needs(1)) c.set(1, -(u * p * sum(g, {dim_of(c)}, true)));
}

}  // namespace

const OpDef kSoftmax = {.name = "softmax",
                        .attributes = attributes<SoftmaxAttrs>(),
                        .shapes = softmax_shapes,
                        .run = softmax_run,
                        .saves = {.outputs = 1},
                        .backward = [](BackwardContext& c) {
                          c.set(0, apply(kSoftmaxGrad, c.raw_attrs(), {c.grad(), c.output()}));
                        }};
const OpDef kLogSoftmax = {.name = "log_softmax",
                           .attributes = attributes<SoftmaxAttrs>(),
                           .shapes = softmax_shapes,
                           .run = log_softmax_run,
                           .saves = {.outputs = 1},
                           .backward = [](BackwardContext& c) {
                             c.set(0, apply(kLogSoftmaxGrad, c.raw_attrs(), {c.grad(), c.output()}));
                           }};
const OpDef kSoftmaxGrad = {.name = "softmax_grad",
                            .attributes = attributes<SoftmaxAttrs>(),
                            .shapes = softmax_grad_shapes,
                            .run = softmax_grad_run,
                            .saves = {.inputs = kAllInputs},
                            .backward = softmax_grad_backward};
const OpDef kLogSoftmaxGrad = {.name = "log_softmax_grad",
                               .attributes = attributes<SoftmaxAttrs>(),
                               .shapes = softmax_grad_shapes,
                               .run = log_softmax_grad_run,
                               .saves = {.inputs = kAllInputs},
                               .backward = log_softmax_grad_backward};

Tensor softmax(const Tensor& x, int64_t dim) { return apply(kSoftmax, SoftmaxAttrs{dim}, {x}); }
Tensor log_softmax(const Tensor& x, int64_t dim) { return apply(kLogSoftmax, SoftmaxAttrs{dim}, {x}); }

}  // namespace hone
