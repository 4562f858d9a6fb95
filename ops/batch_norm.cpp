#include <algorithm>
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

constexpr int64_t kBlock = 32;  // channels that one piece accumulates at once

// x as [batch, channels, inner].
struct Extent {
  int64_t batch, channels, inner = 1;
  explicit Extent(const View& x) : batch(x.sizes[0]), channels(x.sizes[1]) {
    for (int i = 2; i < x.ndim; ++i) inner *= x.sizes[i];
  }
  int64_t count() const { return batch * inner; }
  // Channels a parallel piece: many where each is short.
  int64_t grain() const { return std::clamp<int64_t>((1 << 15) / (count() > 0 ? count() : 1), 1, kBlock); }
};

// sums[k][c] = Σ over batch and inner of term_k(index, c), for channels [begin, end) with end − begin <= kBlock; batch
// by batch, so that memory is read in order where inner is 1.
template <int K, class Term>
void channel_sums(const Extent& e, int64_t begin, int64_t end, double (&sums)[K][kBlock], Term&& term) {
  for (auto& s : sums) std::fill(s, s + kBlock, 0.0);
  for (int64_t b = 0; b < e.batch; ++b) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = (b * e.channels + c) * e.inner;
      for (int k = 0; k < K; ++k) {
        sums[k][c - begin] +=
            e.inner == 1 ? term(k, at, c) : detail::lane_sum(e.inner, [&](int64_t i) { return term(k, at + i, c); });
      }
    }
  }
}

void check_channel_input(ShapeContext& c, int i, const char* what, int x) {
  if (!c.has(i)) return;
  check_same_dtype(c, x, i);
  const int64_t channels = c.in[static_cast<size_t>(x)].sizes[1];
  HONE_CHECK(c.shape(i) == Shape{channels}, ShapeError, c.op, ": ", what, " of shape ", c.shape(i), " for input ",
             c.shape(x), "; expected [", channels, "]");
}
void check_common(ShapeContext& c, int x) {
  const auto& a = c.attrs.as<BatchNormAttrs>();
  check_floating(c, x, "input");
  HONE_CHECK(c.in[static_cast<size_t>(x)].ndim >= 2, ShapeError, c.op, ": input must be [N, C] or [N, C, …], not ",
             c.shape(x));
  HONE_CHECK(a.eps > 0, ValueError, c.op, ": eps must be above 0, not ", a.eps);
}
void batch_norm_shapes(ShapeContext& c) {
  check_inputs(c, 1, 5);
  check_common(c, 0);
  const auto& a = c.attrs.as<BatchNormAttrs>();
  check_channel_input(c, 1, "running_mean", 0);
  check_channel_input(c, 2, "running_var", 0);
  check_channel_input(c, 3, "weight", 0);
  check_channel_input(c, 4, "bias", 0);
  const Extent e(c.in[0]);
  HONE_CHECK(!a.training || e.count() >= 2, ValueError, c.op, ": training needs at least two values a channel; input ",
             c.shape(0), " has ", e.count());
  HONE_CHECK(a.training || (c.has(1) && c.has(2)), ValueError, c.op,
             ": without training, running_mean and running_var must be given");
  c.add(c.shape(0), c.dtype(0));
  c.add({2, e.channels}, DType::f64);
}
void batch_norm_grad_shapes(ShapeContext& c) {
  check_inputs(c, 3, 4);
  check_common(c, 1);
  check_same_dtype(c, 0, 1);
  check_channel_input(c, 3, "weight", 1);
  const auto& a = c.attrs.as<BatchNormAttrs>();
  const int64_t channels = c.in[1].sizes[1];
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": gradient of shape ", c.shape(0), " for an input of shape ",
             c.shape(1));
  HONE_CHECK((c.shape(2) == Shape{2, channels}) && c.dtype(2) == DType::f64, ShapeError, c.op, ": statistics of shape ",
             c.shape(2), " for an input of shape ", c.shape(1));
  c.add(a.need_x ? c.shape(1) : Shape{0}, c.dtype(1));
  c.add(a.need_affine ? Shape{channels} : Shape{0}, c.dtype(1));
  c.add(a.need_affine ? Shape{channels} : Shape{0}, c.dtype(1));
}

template <class A> void forward(RunContext& c) {
  const auto& a = c.attrs.as<BatchNormAttrs>();
  const Extent e(c.in[0]);
  const A* x = dense<A>(c.in[0], c.workspace);
  const A* w = c.has(3) ? dense<A>(c.in[3], c.workspace) : nullptr;
  const A* bias = c.has(4) ? dense<A>(c.in[4], c.workspace) : nullptr;
  const detail::DenseOutput<A> to(c.out[0], c.workspace);
  double *mean = c.out[1].as<double>(), *var = mean + e.channels;
  if (!a.training) {
    View m = c.out[1], v = m;
    m.ndim = v.ndim = 1;
    m.sizes[0] = v.sizes[0] = e.channels;
    m.strides[0] = v.strides[0] = 1;
    v.data = var;
    detail::copy_strided(c.in[1], m);
    detail::copy_strided(c.in[2], v);
  }
  const auto n = static_cast<double>(e.count());
  parallel_for(e.channels, e.grain(), [&](int64_t begin, int64_t end) {
    double sums[1][kBlock];
    if (a.training) {
      channel_sums(e, begin, end, sums, [&](int, int64_t i, int64_t) { return static_cast<double>(x[i]); });
      for (int64_t k = begin; k < end; ++k) mean[k] = sums[0][k - begin] / n;
      channel_sums(e, begin, end, sums, [&](int, int64_t i, int64_t k) {
        const double d = static_cast<double>(x[i]) - mean[k];
        return d * d;
      });
      for (int64_t k = begin; k < end; ++k) var[k] = sums[0][k - begin] / n;
    }
    double scale[kBlock];
    for (int64_t k = begin; k < end; ++k)
      scale[k - begin] = (w ? static_cast<double>(w[k]) : 1.0) / std::sqrt(var[k] + a.eps);
    for (int64_t b = 0; b < e.batch; ++b) {
      for (int64_t k = begin; k < end; ++k) {
        const double s = scale[k - begin], m = mean[k], shift = bias ? static_cast<double>(bias[k]) : 0.0;
        const int64_t at = (b * e.channels + k) * e.inner;
        for (int64_t i = at; i < at + e.inner; ++i)
          to.data[i] = static_cast<A>((static_cast<double>(x[i]) - m) * s + shift);
      }
    }
  });
  to.finish();
}

// With x̂ the normalized input and s = 1/√(var + eps): dw = Σ g ⊙ x̂, db = Σ g, and
// training: dx = w s (g − db/n − x̂ dw/n); else, the statistics being constants: dx = w s g.
template <class A> void backward(RunContext& c) {
  const auto& a = c.attrs.as<BatchNormAttrs>();
  const Extent e(c.in[1]);
  const A* g = dense<A>(c.in[0], c.workspace);
  const A* x = dense<A>(c.in[1], c.workspace);
  const double *mean = dense<double>(c.in[2], c.workspace), *var = mean + e.channels;
  const A* w = c.has(3) ? dense<A>(c.in[3], c.workspace) : nullptr;
  const detail::DenseOutput<A> dx(c.out[0], c.workspace), dw(c.out[1], c.workspace), db(c.out[2], c.workspace);
  const auto n = static_cast<double>(e.count());
  parallel_for(e.channels, e.grain(), [&](int64_t begin, int64_t end) {
    double sums[2][kBlock], s[kBlock];
    for (int64_t k = begin; k < end; ++k) s[k - begin] = 1 / std::sqrt(var[k] + a.eps);
    if (a.training || a.need_affine) {
      channel_sums(e, begin, end, sums, [&](int which, int64_t i, int64_t k) {
        const auto gi = static_cast<double>(g[i]);
        return which == 0 ? gi : gi * (static_cast<double>(x[i]) - mean[k]) * s[k - begin];
      });
    }
    for (int64_t k = begin; k < end && a.need_affine; ++k) {
      db.data[k] = static_cast<A>(sums[0][k - begin]);
      dw.data[k] = static_cast<A>(sums[1][k - begin]);
    }
    for (int64_t b = 0; b < e.batch && a.need_x; ++b) {
      for (int64_t k = begin; k < end; ++k) {
        const double sk = s[k - begin], scale = sk * (w ? static_cast<double>(w[k]) : 1.0);
        const double m1 = a.training ? sums[0][k - begin] / n : 0, m2 = a.training ? sums[1][k - begin] / n * sk : 0;
        const int64_t at = (b * e.channels + k) * e.inner;
        for (int64_t i = at; i < at + e.inner; ++i) {
          dx.data[i] =
              static_cast<A>(scale * (static_cast<double>(g[i]) - m1 - (static_cast<double>(x[i]) - mean[k]) * m2));
        }
      }
    }
  });
  dx.finish();
  dw.finish();
  db.finish();
}

// The gradient written with ops: what its own derivative is taken of. Without training the statistics are constants.
Outputs gradient_composite(std::span<const Tensor> in, const Attrs& attrs) {
  const auto& a = attrs.as<BatchNormAttrs>();
  const Tensor &g = in[0], &x = in[1];
  Shape dims{0}, channel = Shape::filled(static_cast<int>(x.ndim()), 1);
  for (int64_t d = 2; d < x.ndim(); ++d) dims.push_back(d);
  channel[1] = x.size(1);
  const auto statistic = [&](int64_t k) { return cast(reshape(select(in[2], 0, k), channel), x.dtype()); };
  const Tensor centred = x - (a.training ? mean(x, dims, true) : statistic(0));
  const Tensor s = rsqrt((a.training ? mean(square(centred), dims, true) : statistic(1)) + a.eps), hat = centred * s;
  const Tensor scale = in.size() > 3 && in[3].defined() ? s * reshape(in[3], channel) : s;
  Outputs out;
  if (!a.need_x)
    out.push_back({});
  else if (a.training)
    out.push_back(scale * (g - mean(g, dims, true) - hat * mean(g * hat, dims, true)));
  else
    out.push_back(scale * g);
  out.push_back(a.need_affine ? sum(g * hat, dims) : Tensor());
  out.push_back(a.need_affine ? sum(g, dims) : Tensor());
  return out;
}

// apply(), and in training the running buffers are updated.
Outputs normalize(const BatchNormAttrs& a, std::span<const Tensor> inputs) {
  Outputs out = apply(kBatchNorm, a, inputs);
  const Tensor& x = inputs[0];
  if (a.training && x.size(1) > 0)
    detail::update_running(out[1], x.numel() / x.size(1), a.momentum, inputs[1], inputs[2]);
  return out;
}

}  // namespace

const OpDef kBatchNorm = {
    .name = "batch_norm",
    .attributes = attributes<BatchNormAttrs>(),
    .shapes = batch_norm_shapes,
    .run = [](RunContext& c) { c.out[0].dtype == DType::f64 ? forward<double>(c) : forward<float>(c); },
    // Not the running buffers: training changes them before backward runs.
    .saves = {.inputs = 0b1001, .outputs = 0b10},
    .backward =
        [](BackwardContext& c) {
          BatchNormAttrs a = c.attrs<BatchNormAttrs>();
          const bool w = c.has(3) && c.needs(3), b = c.has(4) && c.needs(4);
          HONE_CHECK(a.training || !((c.has(1) && c.needs(1)) || (c.has(2) && c.needs(2))), GradError,
                     "backward of batch_norm: running statistics have no gradient; detach them");
          a.need_x = c.needs(0);
          a.need_affine = w || b;
          const Outputs d =
              apply(kBatchNormGrad, a, {c.grad(), c.input(0), c.output(1), c.has(3) ? c.input(3) : Tensor()});
          if (c.needs(0)) c.set(0, d[0]);
          if (w) c.set(3, d[1]);
          if (b) c.set(4, d[2]);
        },
    .replay = [](const Attrs& a, std::span<const Tensor> x) { return normalize(a.as<BatchNormAttrs>(), x); },
    .aux_outputs = 0b10};
const OpDef kBatchNormGrad = {
    .name = "batch_norm_grad",
    .attributes = attributes<BatchNormAttrs>(),
    .shapes = batch_norm_grad_shapes,
    .run = [](RunContext& c) { c.in[1].dtype == DType::f64 ? backward<double>(c) : backward<float>(c); },
    .saves = {.inputs = kAllInputs},
    .backward = [](BackwardContext& c) { composite_backward(c, gradient_composite); }};

namespace detail {
void update_running(const Tensor& statistics, int64_t count, double momentum, const Tensor& running_mean,
                    const Tensor& running_var) {
  const double* batch = statistics.data<double>();
  const int64_t channels = statistics.size(1);
  const auto update = [&](const Tensor& running, const double* values, double factor) {
    if (!running.defined()) return;
    HONE_CHECK(!running.requires_grad(), GradError, "batch_norm: running buffers must not require grad");
    visit_floating(running.dtype(), [&]<class T>() {
      T* p = running.data<T>();
      const int64_t stride = running.strides()[0];
      for (int64_t k = 0; k < channels; ++k) {
        const auto old = static_cast<double>(static_cast<accumulator_t<T>>(p[k * stride]));
        p[k * stride] = T(static_cast<accumulator_t<T>>((1 - momentum) * old + momentum * factor * values[k]));
      }
    });
    running.bump_version();
  };
  update(running_mean, batch, 1);
  update(running_var, batch + channels, static_cast<double>(count) / static_cast<double>(count - 1));
}
}  // namespace detail

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, const BatchNormOptions& o) {
  HONE_CHECK(o.momentum >= 0 && o.momentum <= 1, ValueError, "batch_norm: momentum must be in [0, 1], not ",
             o.momentum);
  const Tensor inputs[] = {x, running_mean, running_var, weight, bias};
  return normalize({.training = o.training, .momentum = o.momentum, .eps = o.eps}, inputs)[0];
}

}  // namespace hone
