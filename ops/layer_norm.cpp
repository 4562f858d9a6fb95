#include <cmath>

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/norm.h"
#include "hone/ops/reduce.h"
#include "hone/ops/row_kernels.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

using detail::dense;
using detail::lane_sum;

constexpr int64_t kColumnRows = 256;  // rows a parallel piece when summing over rows: fixes the order of the sums

struct Extent {
  int64_t rows = 1, n = 1;
};
Extent extent(const View& x, int64_t dims) {
  Extent e;
  for (int i = 0; i < x.ndim; ++i) (i < x.ndim - dims ? e.rows : e.n) *= x.sizes[i];
  return e;
}
Shape trailing(const Shape& x, int64_t dims) {
  return Shape(std::span<const int64_t>(x.data() + x.ndim() - dims, static_cast<size_t>(dims)));
}

void check_common(ShapeContext& c, int x, int weight, int bias) {
  const auto& a = c.attrs.as<LayerNormAttrs>();
  check_floating(c, x, "input");
  HONE_CHECK(a.eps > 0, ValueError, c.op, ": eps must be above 0, not ", a.eps);
  HONE_CHECK(a.dims >= 1 && a.dims <= c.in[static_cast<size_t>(x)].ndim, ShapeError, c.op, ": ", a.dims,
             " normalized dims for an input of shape ", c.shape(x));
  for (int i : {weight, bias}) {
    if (i < 0 || !c.has(i)) continue;
    check_same_dtype(c, x, i);
    HONE_CHECK(c.shape(i) == trailing(c.shape(x), a.dims), ShapeError, c.op, ": ", i == weight ? "weight" : "bias",
               " of shape ", c.shape(i), " for normalized shape ", trailing(c.shape(x), a.dims));
  }
}
void layer_norm_shapes(ShapeContext& c) {
  check_inputs(c, 1, 3);
  check_common(c, 0, 1, 2);
  c.add(c.shape(0), c.dtype(0));
  c.add({2, extent(c.in[0], c.attrs.as<LayerNormAttrs>().dims).rows}, DType::f64);
}
void layer_norm_grad_shapes(ShapeContext& c) {
  check_inputs(c, 3, 4);
  check_common(c, 1, 3, -1);
  check_same_dtype(c, 0, 1);
  const auto& a = c.attrs.as<LayerNormAttrs>();
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": gradient of shape ", c.shape(0), " for an input of shape ",
             c.shape(1));
  HONE_CHECK((c.shape(2) == Shape{2, extent(c.in[1], a.dims).rows}) && c.dtype(2) == DType::f64, ShapeError, c.op,
             ": statistics of shape ", c.shape(2), " for an input of shape ", c.shape(1));
  const Shape none{0}, affine = trailing(c.shape(1), a.dims);
  c.add(a.need_x ? c.shape(1) : none, c.dtype(1));
  c.add(a.need_affine ? affine : none, c.dtype(1));
  c.add(a.need_affine ? affine : none, c.dtype(1));
}

template <class A> void forward(RunContext& c) {
  const auto& a = c.attrs.as<LayerNormAttrs>();
  const Extent e = extent(c.in[0], a.dims);
  const A* x = dense<A>(c.in[0], c.workspace);
  const A* w = c.has(1) ? dense<A>(c.in[1], c.workspace) : nullptr;
  const A* b = c.has(2) ? dense<A>(c.in[2], c.workspace) : nullptr;
  const detail::DenseOutput<A> to(c.out[0], c.workspace);
  double *means = c.out[1].as<double>(), *scales = means + e.rows;
  const auto n = static_cast<double>(e.n);
  parallel_for(e.rows, detail::row_grain(e.n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const A* row = x + r * e.n;
      A* y = to.data + r * e.n;
      const double mean = lane_sum(e.n, [&](int64_t i) { return static_cast<double>(row[i]); }) / n;
      const double var = lane_sum(e.n,
                                  [&](int64_t i) {
                                    const double d = static_cast<double>(row[i]) - mean;
                                    return d * d;
                                  }) /
                         n;
      const double scale = 1 / std::sqrt(var + a.eps);
      means[r] = mean;
      scales[r] = scale;
      for (int64_t i = 0; i < e.n; ++i) {
        double v = (static_cast<double>(row[i]) - mean) * scale;
        if (w) v *= static_cast<double>(w[i]);
        if (b) v += static_cast<double>(b[i]);
        y[i] = static_cast<A>(v);
      }
    }
  });
  to.finish();
}

// With x̂ the normalized input and h = g ⊙ w: dx = s (h − mean h − x̂ mean(h ⊙ x̂)); dw = Σ_rows g ⊙ x̂; db = Σ_rows g.
template <class A> void backward(RunContext& c) {
  const auto& a = c.attrs.as<LayerNormAttrs>();
  const Extent e = extent(c.in[1], a.dims);
  const A* g = dense<A>(c.in[0], c.workspace);
  const A* x = dense<A>(c.in[1], c.workspace);
  const double* means = dense<double>(c.in[2], c.workspace);
  const double* scales = means + e.rows;
  const A* w = c.has(3) ? dense<A>(c.in[3], c.workspace) : nullptr;
  const auto n = static_cast<double>(e.n);
  if (a.need_x) {
    const detail::DenseOutput<A> to(c.out[0], c.workspace);
    parallel_for(e.rows, detail::row_grain(e.n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const A *gr = g + r * e.n, *xr = x + r * e.n;
        A* dx = to.data + r * e.n;
        const double mean = means[r], s = scales[r];
        const auto h = [&](int64_t i) {
          return w ? static_cast<double>(gr[i]) * static_cast<double>(w[i]) : static_cast<double>(gr[i]);
        };
        const auto hat = [&](int64_t i) { return (static_cast<double>(xr[i]) - mean) * s; };
        const double m1 = lane_sum(e.n, h) / n, m2 = lane_sum(e.n, [&](int64_t i) { return h(i) * hat(i); }) / n;
        for (int64_t i = 0; i < e.n; ++i) dx[i] = static_cast<A>(s * (h(i) - m1 - hat(i) * m2));
      }
    });
    to.finish();
  }
  if (!a.need_affine) return;
  const detail::DenseOutput<A> dw(c.out[1], c.workspace), db(c.out[2], c.workspace);
  const int64_t pieces = (e.rows + kColumnRows - 1) / kColumnRows;
  double* partial = c.workspace.get<double>(pieces * 2 * e.n);
  parallel_for(e.rows, kColumnRows, [&](int64_t begin, int64_t end) {
    double *pw = partial + begin / kColumnRows * 2 * e.n, *pb = pw + e.n;
    std::fill(pw, pw + 2 * e.n, 0.0);
    for (int64_t r = begin; r < end; ++r) {
      const A *gr = g + r * e.n, *xr = x + r * e.n;
      for (int64_t i = 0; i < e.n; ++i) {
        pw[i] += static_cast<double>(gr[i]) * (static_cast<double>(xr[i]) - means[r]) * scales[r];
        pb[i] += static_cast<double>(gr[i]);
      }
    }
  });
  for (int64_t i = 0; i < e.n; ++i) {
    double sw = 0, sb = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      sw += partial[p * 2 * e.n + i];
      sb += partial[p * 2 * e.n + e.n + i];
    }
    dw.data[i] = static_cast<A>(sw);
    db.data[i] = static_cast<A>(sb);
  }
  dw.finish();
  db.finish();
}

// The gradient written with ops, a function of g, x and weight: what its own derivative is taken of.
Outputs gradient_composite(std::span<const Tensor> in, const Attrs& attrs) {
  const auto& a = attrs.as<LayerNormAttrs>();
  const Tensor &g = in[0], &x = in[1];
  const int64_t nd = x.ndim();
  Shape last, first;
  for (int64_t d = 0; d < nd; ++d) (d < nd - a.dims ? first : last).push_back(d);
  const Tensor centred = x - mean(x, last, true);
  const Tensor s = rsqrt(mean(square(centred), last, true) + a.eps), hat = centred * s;
  const Tensor h = in.size() > 3 && in[3].defined() ? g * in[3] : g;
  Outputs out;
  out.push_back(a.need_x ? s * (h - mean(h, last, true) - hat * mean(h * hat, last, true)) : Tensor());
  const auto over_rows = [&](const Tensor& t) { return first.empty() ? t : sum(t, first); };
  out.push_back(a.need_affine ? over_rows(g * hat) : Tensor());
  out.push_back(a.need_affine ? over_rows(g) : Tensor());
  return out;
}

}  // namespace

const OpDef kLayerNorm = {
    .name = "layer_norm",
    .attributes = attributes<LayerNormAttrs>(),
    .shapes = layer_norm_shapes,
    .run = [](RunContext& c) { c.out[0].dtype == DType::f64 ? forward<double>(c) : forward<float>(c); },
    .saves = {.inputs = 0b11, .outputs = 0b10},
    .backward =
        [](BackwardContext& c) {
          LayerNormAttrs a = c.attrs<LayerNormAttrs>();
          const bool w = c.has(1) && c.needs(1), b = c.has(2) && c.needs(2);
          a.need_x = c.needs(0);
          a.need_affine = w || b;
          const Outputs d =
              apply(kLayerNormGrad, a, {c.grad(), c.input(0), c.output(1), c.has(1) ? c.input(1) : Tensor()});
          if (c.needs(0)) c.set(0, d[0]);
          if (w) c.set(1, d[1]);
          if (b) c.set(2, d[2]);
        },
    .aux_outputs = 0b10};
const OpDef kLayerNormGrad = {
    .name = "layer_norm_grad",
    .attributes = attributes<LayerNormAttrs>(),
    .shapes = layer_norm_grad_shapes,
    .run = [](RunContext& c) { c.in[1].dtype == DType::f64 ? backward<double>(c) : backward<float>(c); },
    .saves = {.inputs = kAllInputs},
    .backward = [](BackwardContext& c) { composite_backward(c, gradient_composite); }};

Tensor layer_norm(const Tensor& x, const Shape& normalized_shape, const Tensor& weight, const Tensor& bias,
                  double eps) {
  const Shape& s = x.shape();
  const int64_t dims = normalized_shape.ndim();
  HONE_CHECK(dims >= 1 && dims <= s.ndim() && trailing(s, dims) == normalized_shape, ShapeError,
             "layer_norm: normalized shape ", normalized_shape, " is not the end of the input's shape ", s);
  return apply(kLayerNorm, LayerNormAttrs{.dims = dims, .eps = eps}, {x, weight, bias});
}

}  // namespace hone
