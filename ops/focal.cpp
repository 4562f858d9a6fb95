#include "hone/ops/focal.h"

#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/indexing.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

void check_gamma(const char* op, double gamma) {
  HONE_CHECK(std::isfinite(gamma) && gamma >= 0, ValueError, op, ": gamma must be finite and at least 0, got ", gamma);
}

void check_weight(const Tensor& weight, const Tensor& logits) {
  const int64_t classes = logits.size(1);
  HONE_CHECK(weight.shape() == Shape{classes}, ShapeError, "focal_loss: weight of shape ", weight.shape(), " for ",
             classes, " classes; expected [", classes, "]");
  HONE_CHECK(weight.dtype() == logits.dtype(), DTypeError, "focal_loss: weight of dtype ", weight.dtype(),
             " for logits of dtype ", logits.dtype(), "; cast one of them");
  const double low = min(weight).item(), high = max(weight).item();  // NaN comes through both
  HONE_CHECK(low >= 0 && std::isfinite(high), ValueError, "focal_loss: weights must be finite and at least 0, got ",
             low >= 0 ? high : low);
}

// Labels with 0 in place of the ignored ones, and where those were (undefined: nowhere).
struct Labels {
  Tensor index, ignored;
};

Labels check_labels(const Tensor& logits, const Tensor& labels, int64_t ignore_index) {
  const int64_t n = logits.size(0), classes = logits.size(1);
  HONE_CHECK(is_integer(labels.dtype()), DTypeError, "focal_loss: labels must have an integer dtype, not ",
             labels.dtype());
  HONE_CHECK(labels.shape() == Shape{n}, ShapeError, "focal_loss: labels of shape ", labels.shape(),
             " for logits of shape ", logits.shape(), "; expected [", n, "]");
  Labels l{labels.dtype() == i64 ? labels : cast(labels, i64), {}};
  if (n == 0) return l;
  const auto bad = [&](int64_t v) { return v < 0 || v >= classes; };
  int64_t low = min(l.index).item<int64_t>(), high = max(l.index).item<int64_t>();
  // An ignore_index inside the range cannot be told by the bounds.
  if (bad(low) || bad(high) || !bad(ignore_index)) {
    l.ignored = eq(l.index, static_cast<double>(ignore_index));
    l.index = masked_fill(l.index, l.ignored, 0);
    low = min(l.index).item<int64_t>(), high = max(l.index).item<int64_t>();
  }
  HONE_CHECK(!bad(low) && !bad(high), ValueError, "focal_loss: label ", bad(low) ? low : high, " is outside [0, ",
             classes, ")");
  return l;
}

Tensor reduced(const Tensor& x, Reduction r) {
  return r == Reduction::mean ? mean(x) : r == Reduction::sum ? sum(x) : x;
}

}  // namespace

Tensor focal_loss(const Tensor& logits, const Tensor& labels, const FocalOptions& o) {
  HONE_CHECK(logits.defined() && labels.defined(), ValueError, "focal_loss: an undefined tensor");
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, "focal_loss: logits must be floating, not ", logits.dtype());
  HONE_CHECK(logits.ndim() == 2, ShapeError, "focal_loss: logits must have 2 dims, not shape ", logits.shape());
  HONE_CHECK(logits.size(1) > 0, ShapeError, "focal_loss: logits of shape ", logits.shape(), " have no classes");
  HONE_CHECK(o.reduction != Reduction::mean || logits.size(0) > 0, ShapeError,
             "focal_loss: an empty batch (logits of shape ", logits.shape(),
             ") has no mean; skip it, or reduce by sum");
  check_gamma("focal_loss", o.gamma);
  if (o.weight.defined()) check_weight(o.weight, logits);
  const auto [index, ignored] = check_labels(logits, labels, o.ignore_index);

  // An ignored row counts nowhere even where it is NaN: its values go before anything is computed.
  const Tensor x = ignored.defined() ? masked_fill(logits, unsqueeze(ignored, 1), 0) : logits;
  const Tensor column = unsqueeze(index, 1), log_p = log_softmax(x, 1);
  Tensor loss = -squeeze(gather(log_p, 1, column), 1);
  if (o.gamma > 0) {
    // (1 − p_t)^γ = exp(γ log Σ_{k≠t} p_k). Its derivative is bounded at any γ; that of a power is not where p_t = 1.
    const Tensor own = one_hot(index, logits.size(1), boolean);
    const Tensor rest = masked_fill(log_p, own, -std::numeric_limits<double>::infinity());
    loss = exp(logsumexp(rest, {1}) * o.gamma) * loss;
  }
  Tensor weight = o.weight.defined() ? index_select(o.weight.detach(), 0, index) : Tensor();
  if (weight.defined()) loss = loss * weight;
  if (ignored.defined()) {
    loss = masked_fill(loss, ignored, 0);
    if (!weight.defined()) weight = ones_like(loss.detach());
    weight = masked_fill(weight, ignored, 0);
  }
  if (o.reduction == Reduction::mean && weight.defined()) return sum(loss) / sum(weight);
  return reduced(loss, o.reduction);
}

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& targets, const SigmoidFocalOptions& o) {
  const char* op = "sigmoid_focal_loss";
  HONE_CHECK(logits.defined() && targets.defined(), ValueError, op, ": an undefined tensor");
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, op, ": logits must be floating, not ", logits.dtype());
  HONE_CHECK(targets.dtype() == logits.dtype(), DTypeError, op, ": targets of dtype ", targets.dtype(),
             " for logits of dtype ", logits.dtype(), "; cast one of them");
  HONE_CHECK(targets.shape() == logits.shape(), ShapeError, op, ": targets of shape ", targets.shape(),
             " for logits of shape ", logits.shape());
  HONE_CHECK(o.reduction != Reduction::mean || logits.numel() > 0, ShapeError, op, ": an empty batch (shape ",
             logits.shape(), ") has no mean; skip it, or reduce by sum");
  check_gamma(op, o.gamma);
  HONE_CHECK(!o.alpha || (*o.alpha >= 0 && *o.alpha <= 1), ValueError, op, ": alpha must be in [0, 1], got ",
             o.alpha.value_or(0));
  if (targets.numel() > 0) {
    const Tensor y = targets.detach();
    const double low = min(y).item(), high = max(y).item();
    HONE_CHECK(low >= 0 && high <= 1, ValueError, op, ": targets must be in [0, 1], got ", low >= 0 ? high : low);
  }
  // sigmoid(z) is the softmax of (0, z): both logarithms at once, exact at either end and smooth at 0.
  const Tensor both = log_softmax(stack({zeros_like(logits), logits}, -1), -1);
  const Tensor log_q = select(both, -1, 0), log_p = select(both, -1, 1);
  Tensor yes = targets * log_p, no = (1.0 - targets) * log_q;
  if (o.gamma > 0) {
    yes = yes * exp(log_q * o.gamma);
    no = no * exp(log_p * o.gamma);
  }
  if (o.alpha) {
    yes = yes * *o.alpha;
    no = no * (1 - *o.alpha);
  }
  return reduced(-(yes + no), o.reduction);
}

}  // namespace hone
