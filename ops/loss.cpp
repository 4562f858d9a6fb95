#include "hone/ops/loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/row_kernels.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone {

const char* name(Reduction r) { return r == Reduction::none ? "none" : r == Reduction::mean ? "mean" : "sum"; }

namespace {

using detail::dense;

Reduction reduction_of(const Attrs& a) { return static_cast<Reduction>(a.as<CrossEntropyAttrs>().reduction); }
DType row_dtype(DType logits) { return logits == DType::f64 ? DType::f64 : DType::f32; }

// ------------------------------------------------------------------------------------ cross_entropy, integer labels

void check_logits_and_labels(ShapeContext& c, int logits, int labels, int weight) {
  check_floating(c, logits, "logits");
  check_ndim(c, logits, 2, "logits");
  const Shape x = c.shape(logits), t = c.shape(labels);
  HONE_CHECK(c.dtype(labels) != DType::boolean, DTypeError, c.op, ": bool labels; cast them to an integer dtype");
  HONE_CHECK(t != x || is_floating(c.dtype(labels)), ShapeError, c.op, ": integer (", c.dtype(labels),
             ") labels of shape ", t, " for logits of shape ", x, "; legal are integer labels of shape [", x[0],
             "], or class probabilities of shape ", x, " and dtype ", c.dtype(logits));
  HONE_CHECK(is_integer(c.dtype(labels)), DTypeError, c.op, ": labels of shape ", t,
             " must have an integer dtype, not ", c.dtype(labels));
  HONE_CHECK(t.ndim() == 1 && t[0] == x[0], ShapeError, c.op, ": labels of shape ", t, " for logits of shape ", x,
             "; expected [", x[0], "]");
  const auto& a = c.attrs.as<CrossEntropyAttrs>();
  HONE_CHECK(a.label_smoothing >= 0 && a.label_smoothing <= 1, ValueError, c.op,
             ": label_smoothing must be in [0, 1], not ", a.label_smoothing);
  HONE_CHECK(a.reduction >= 0 && a.reduction <= 2, ValueError, c.op, ": reduction ", a.reduction,
             " is none of 0, 1, 2");
  HONE_CHECK(reduction_of(c.attrs) != Reduction::mean || x[0] > 0, ShapeError, c.op,
             ": an empty batch (logits of shape ", x, ") has no mean; skip it, or reduce by sum");
  HONE_CHECK(x[1] > 0 || x[0] == 0, ShapeError, c.op, ": logits of shape ", x, " have no classes");
  if (!c.has(weight)) return;
  check_same_dtype(c, logits, weight);
  HONE_CHECK(c.shape(weight) == Shape{x[1]}, ShapeError, c.op, ": weight of shape ", c.shape(weight), " for ", x[1],
             " classes; expected [", x[1], "]");
}

// What forward and backward share: labels checked, weights, and 1 / Σ w_t for the mean.
template <class A> struct Labelled {
  int64_t n, classes, ignore;
  const int64_t* label;
  const A* weight;  // or nullptr
  A on, off;        // 1 − ε, ε / C
  double off_total = 0, scale = 1;

  Labelled(RunContext& c, const View& logits, const View& labels, const View* w)
      : n(logits.sizes[0]), classes(logits.sizes[1]) {
    const auto& a = c.attrs.template as<CrossEntropyAttrs>();
    ignore = a.ignore_index;
    label = dense<int64_t>(labels, c.workspace);
    weight = w ? dense<A>(*w, c.workspace) : nullptr;
    on = static_cast<A>(1 - a.label_smoothing);
    off = static_cast<A>(classes > 0 ? a.label_smoothing / static_cast<double>(classes) : 0);
    for (int64_t k = 0; k < classes && off != 0; ++k) off_total += static_cast<double>(off) * weight_of(k);
    double total = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (label[i] == ignore) continue;
      HONE_CHECK(label[i] >= 0 && label[i] < classes, ValueError, c.op, ": label ", label[i], " at position ", i,
                 " is outside [0, ", classes, ")");
      total += weight_of(label[i]);
    }
    if (reduction_of(c.attrs) == Reduction::mean) scale = 1 / total;
  }
  double weight_of(int64_t k) const { return weight ? static_cast<double>(weight[k]) : 1.0; }
  bool ignored(int64_t i) const { return label[i] == ignore; }
};

template <class A> void cross_entropy_forward(RunContext& c) {
  const View& logits = c.in[0];
  const A* x = dense<A>(logits, c.workspace);
  const Labelled<A> l(c, logits, c.in[1], c.has(2) ? &c.in[2] : nullptr);
  A *most = c.out[1].as<A>(), *log_sum = most + l.n, *factor = log_sum + l.n;
  detail::logsumexp_rows(x, most, log_sum, l.n, l.classes);
  double* loss = c.workspace.get<double>(std::max<int64_t>(1, l.n));  // one even for the sum of an empty batch
  parallel_for(l.n, detail::row_grain(l.off != 0 ? l.classes : 1), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const A* row = x + i * l.classes;
      const auto minus_log_p = [&](int64_t k) {
        return static_cast<double>(most[i]) - static_cast<double>(row[k]) + static_cast<double>(log_sum[i]);
      };
      loss[i] = factor[i] = 0;
      if (l.ignored(i)) continue;
      factor[i] = static_cast<A>(l.scale * (static_cast<double>(l.on) * l.weight_of(l.label[i]) + l.off_total));
      loss[i] = static_cast<double>(l.on) * l.weight_of(l.label[i]) * minus_log_p(l.label[i]);
      if (l.off == 0) continue;
      loss[i] += static_cast<double>(l.off) *
                 detail::lane_sum(l.classes, [&](int64_t k) { return l.weight_of(k) * minus_log_p(k); });
    }
  });
  double* values = loss;
  View result = c.out[0];
  if (reduction_of(c.attrs) != Reduction::none) {
    double sum = detail::lane_sum(l.n, [&](int64_t i) { return loss[i]; });
    *values = reduction_of(c.attrs) == Reduction::mean ? sum * l.scale : sum;
  }
  detail::copy_strided(detail::dense_view(result, values, DType::f64), result);
}

template <class A> void cross_entropy_backward_run(RunContext& c) {
  const View& logits = c.in[1];
  const A* g = dense<A>(c.in[0], c.workspace);
  const A* x = dense<A>(logits, c.workspace);
  const A* rows = dense<A>(c.in[3], c.workspace);
  const Labelled<A> l(c, logits, c.in[2], c.has(4) ? &c.in[4] : nullptr);
  const A *most = rows, *log_sum = most + l.n, *factor = log_sum + l.n;
  const detail::DenseOutput<A> to(c.out[0], c.workspace);
  const bool per_row = reduction_of(c.attrs) == Reduction::none;
  A* scale = c.workspace.get<A>(l.n);
  for (int64_t i = 0; i < l.n; ++i) scale[i] = g[per_row ? i : 0] * factor[i];
  detail::scaled_softmax_rows(x, most, log_sum, scale, to.data, l.n, l.classes);
  parallel_for(l.n, detail::row_grain(l.classes), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      A* row = to.data + i * l.classes;
      if (l.ignored(i)) {  // also where its logits are NaN
        std::fill(row, row + l.classes, A(0));
        continue;
      }
      const double s = static_cast<double>(g[per_row ? i : 0]) * l.scale;
      if (l.off != 0) {
        for (int64_t k = 0; k < l.classes; ++k) {
          row[k] = static_cast<A>(static_cast<double>(row[k]) - s * static_cast<double>(l.off) * l.weight_of(k));
        }
      }
      A& own = row[l.label[i]];
      own = static_cast<A>(static_cast<double>(own) - s * static_cast<double>(l.on) * l.weight_of(l.label[i]));
    }
  });
  to.finish();
}

void cross_entropy_shapes(ShapeContext& c) {
  check_inputs(c, 2, 3);
  check_logits_and_labels(c, 0, 1, 2);
  const int64_t n = c.in[0].sizes[0];
  c.add(reduction_of(c.attrs) == Reduction::none ? Shape{n} : Shape{}, c.dtype(0));
  c.add({3, n}, row_dtype(c.dtype(0)));
}
void cross_entropy_grad_shapes(ShapeContext& c) {
  check_inputs(c, 4, 5);
  check_logits_and_labels(c, 1, 2, 4);
  check_same_dtype(c, 0, 1);
  const int64_t n = c.in[1].sizes[0];
  const Shape g = reduction_of(c.attrs) == Reduction::none ? Shape{n} : Shape{};
  HONE_CHECK(c.shape(0) == g, ShapeError, c.op, ": gradient of shape ", c.shape(0), "; expected ", g);
  HONE_CHECK((c.shape(3) == Shape{3, n}) && c.dtype(3) == row_dtype(c.dtype(1)), ShapeError, c.op, ": input 3 must be ",
             row_dtype(c.dtype(1)), " [3, ", n, "]");
  c.add(c.shape(1), c.dtype(1));
}
void cross_entropy_run(RunContext& c) {
  if (row_dtype(c.in[0].dtype) == DType::f64)
    cross_entropy_forward<double>(c);
  else
    cross_entropy_forward<float>(c);
}
void cross_entropy_grad_run(RunContext& c) {
  if (row_dtype(c.in[1].dtype) == DType::f64)
    cross_entropy_backward_run<double>(c);
  else
    cross_entropy_backward_run<float>(c);
}

// The gradient is g_i (f_i p_ic − s q_ic), with f the per-row factor and s q constants. Against the cotangent u:
// dg_i = Σ_c u_ic (f_i p_ic − s q_ic), which is the same op with g = 1; dlogits = p ⊙ (v − <v, p>) with v = g_i f_i u.
void cross_entropy_grad_backward(BackwardContext& c) {
  const Tensor u = c.grad(), g = c.input(0), logits = c.input(1), labels = c.input(2), rows = c.input(3);
  if (c.needs(0)) {
    const Tensor weight = c.has(4) ? c.input(4) : Tensor();
    const Tensor unit = apply(kCrossEntropyGrad, c.raw_attrs(), {ones_like(g), logits, labels, rows, weight});
    c.set(0, reduction_of(c.raw_attrs()) == Reduction::none ? sum(u * unit, {1}) : sum(u * unit));
  }
  if (c.needs(1)) {
    const Tensor factor = select(rows, 0, 2), f = factor.dtype() == u.dtype() ? factor : cast(factor, u.dtype());
    const Tensor v = reshape(g * f, {f.size(0), 1}) * u;
    c.set(1, apply(kSoftmaxGrad, SoftmaxAttrs{1}, {v, softmax(logits, 1)}));
  }
}

// ----------------------------------------------------------------------------------------------------- composites

Tensor reduced(const Tensor& x, Reduction r) {
  return r == Reduction::mean ? mean(x) : r == Reduction::sum ? sum(x) : x;
}

void check_pair(const char* op, const Tensor& x, const Tensor& target, bool has_mean) {
  HONE_CHECK(x.defined() && target.defined(), ValueError, op, ": an undefined tensor");
  HONE_CHECK(is_floating(x.dtype()), DTypeError, op, ": input must be floating, not ", x.dtype());
  HONE_CHECK(x.dtype() == target.dtype(), DTypeError, op, ": dtypes ", x.dtype(), " and ", target.dtype(),
             " differ; cast one of them");
  HONE_CHECK(x.shape() == target.shape(), ShapeError, op, ": input of shape ", x.shape(), " and target of shape ",
             target.shape(), " differ");
  HONE_CHECK(!has_mean || x.numel() > 0, ShapeError, op, ": an empty batch (shape ", x.shape(),
             ") has no mean; skip it, or reduce by sum");
}

// log p with 0 for −inf where `zero` says that its factor is 0: there 0 · log 0 = 0, in value and gradient.
Tensor finite_beside(const Tensor& zero, const Tensor& log_probs) {
  return masked_fill(log_probs, logical_and(zero, eq(log_probs, -std::numeric_limits<double>::infinity())), 0);
}

Tensor soft_cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& o) {
  HONE_CHECK(logits.ndim() == 2, ShapeError, "cross_entropy: logits must have 2 dims, not shape ", logits.shape());
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, "cross_entropy: logits must be floating, not ", logits.dtype());
  HONE_CHECK(target.dtype() == logits.dtype(), DTypeError, "cross_entropy: class probabilities of dtype ",
             target.dtype(), " for logits of dtype ", logits.dtype(),
             "; cast one of them (labels must have an integer dtype)");
  HONE_CHECK(target.shape() == logits.shape(), ShapeError, "cross_entropy: class probabilities of shape ",
             target.shape(), " for logits of shape ", logits.shape(), "; legal are integer labels of shape [",
             logits.size(0), "], or class probabilities of shape ", logits.shape());
  HONE_CHECK(o.reduction != Reduction::mean || logits.numel() > 0, ShapeError,
             "cross_entropy: an empty batch (logits of shape ", logits.shape(),
             ") has no mean; skip it, or reduce by sum");
  HONE_CHECK(o.label_smoothing >= 0 && o.label_smoothing <= 1, ValueError,
             "cross_entropy: label_smoothing must be in [0, 1], not ", o.label_smoothing);
  Tensor q = target;
  if (o.label_smoothing > 0) q = q * (1 - o.label_smoothing) + o.label_smoothing / static_cast<double>(logits.size(1));
  if (o.weight.defined()) {
    HONE_CHECK(o.weight.shape() == Shape{logits.size(1)}, ShapeError, "cross_entropy: weight of shape ",
               o.weight.shape(), " for ", logits.size(1), " classes; expected [", logits.size(1), "]");
    q = q * o.weight;
  }
  const Tensor loss = -sum(q * finite_beside(eq(q, 0.0), log_softmax(logits, 1)), {1});
  return reduced(loss, o.reduction);
}

}  // namespace

const OpDef kCrossEntropy = {
    .name = "cross_entropy",
    .attributes = attributes<CrossEntropyAttrs>(),
    .shapes = cross_entropy_shapes,
    .run = cross_entropy_run,
    .saves = {.inputs = kAllInputs, .outputs = 2},
    .backward =
        [](BackwardContext& c) {
          HONE_CHECK(!c.has(2) || !c.needs(2), GradError,
                     "backward of cross_entropy: class weights have no gradient; detach them");
          c.set(0, apply(kCrossEntropyGrad, c.raw_attrs(),
                         {c.grad(), c.input(0), c.input(1), c.output(1), c.has(2) ? c.input(2) : Tensor()}));
        },
    .aux_outputs = 2};
const OpDef kCrossEntropyGrad = {.name = "cross_entropy_grad",
                                 .attributes = attributes<CrossEntropyAttrs>(),
                                 .shapes = cross_entropy_grad_shapes,
                                 .run = cross_entropy_grad_run,
                                 .saves = {.inputs = kAllInputs},
                                 .backward = cross_entropy_grad_backward};

Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& o) {
  HONE_CHECK(logits.defined() && target.defined(), ValueError, "cross_entropy: an undefined tensor");
  if (is_floating(target.dtype())) return soft_cross_entropy(logits, target, o);
  return apply(kCrossEntropy, CrossEntropyAttrs{o.label_smoothing, o.ignore_index, static_cast<int64_t>(o.reduction)},
               {logits, target, o.weight});
}

Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  check_pair("mse_loss", x, target, reduction == Reduction::mean);
  return reduced(square(x - target), reduction);
}
Tensor l1_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  check_pair("l1_loss", x, target, reduction == Reduction::mean);
  return reduced(abs(x - target), reduction);
}
Tensor huber_loss(const Tensor& x, const Tensor& target, double delta, Reduction reduction) {
  check_pair("huber_loss", x, target, reduction == Reduction::mean);
  HONE_CHECK(delta > 0, ValueError, "huber_loss: delta must be above 0, not ", delta);
  // With c = d clamped to [−δ, δ]: c (d − c/2) is d²/2 inside and δ|d| − δ²/2 outside.
  const Tensor d = x - target, c = clamp(d, -delta, delta);
  return reduced(c * (d - c * 0.5), reduction);
}

Tensor kl_div(const Tensor& log_probs, const Tensor& target, const KlDivOptions& o) {
  const bool divides = o.reduction == KlReduction::mean || o.reduction == KlReduction::batchmean;
  check_pair("kl_div", log_probs, target, divides);
  HONE_CHECK(o.reduction != KlReduction::batchmean || log_probs.ndim() > 0, ShapeError,
             "kl_div: batchmean needs a batch dimension, not a 0-d tensor");
  Tensor terms;
  if (o.log_target) {
    const Tensor q = exp(target), none = eq(q, 0.0);  // log q may be −inf, log p too
    terms = q * (masked_fill(target, none, 0) - masked_fill(log_probs, none, 0));
  } else {
    // log 0 is replaced before it is taken: 0 · −inf would be NaN.
    const Tensor none = eq(target, 0.0), safe = masked_fill(target, none, 1);
    terms = target * (log(safe) - finite_beside(none, log_probs));
  }
  switch (o.reduction) {
    case KlReduction::none: return terms;
    case KlReduction::mean: return mean(terms);
    case KlReduction::sum: return sum(terms);
    default: return sum(terms) / static_cast<double>(log_probs.size(0));
  }
}

}  // namespace hone
