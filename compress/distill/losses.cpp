#include "hone/compress/distill/losses.h"

#include <cmath>
#include <limits>

#include "hone/compress/distill/checks.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/indexing.h"
#include "hone/ops/loss.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone::compress {
namespace {

void check_logits(const char* op, const char* whose, const Tensor& logits) {
  HONE_CHECK(logits.defined(), ValueError, op, ": ", whose, " logits are an undefined tensor");
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, op, ": ", whose, " logits must be floating, not ",
             logits.dtype());
  HONE_CHECK(logits.ndim() == 2 && logits.numel() > 0, ShapeError, op, ": ", whose,
             " logits must be [N, C] and not empty, but have shape ", logits.shape());
}

/// The pair in the dtype that is computed in, the teacher's as a constant.
struct Pair {
  DType dtype;
  Tensor student, teacher;

  Pair(const char* op, const Tensor& s, const Tensor& t) {
    check_logits(op, "the student's", s);
    check_logits(op, "the teacher's", t);
    HONE_CHECK(s.dtype() == t.dtype(), DTypeError, op, ": the student's logits are ", s.dtype(), ", the teacher's ",
               t.dtype(), "; cast one of them");
    HONE_CHECK(s.size(1) == t.size(1), ShapeError, op, ": the student's logits ", s.shape(), " are of ", s.size(1),
               " classes, the teacher's ", t.shape(), " of ", t.size(1));
    HONE_CHECK(s.size(0) == t.size(0), ShapeError, op, ": the student's logits ", s.shape(), " and the teacher's ",
               t.shape(), " are of batches of different size");
    dtype = s.dtype();
    student = detail::widened(s);
    teacher = detail::widened(t.detach());
  }
};

/// T²/N Σ_n KL(softmax(t_n/T) ‖ softmax(s_n/T)).
Tensor softened_kl(const Tensor& student, const Tensor& teacher, double temperature) {
  const Tensor log_p = log_softmax(student / temperature, 1), log_q = log_softmax(teacher / temperature, 1);
  return kl_div(log_p, log_q, {.log_target = true}) * (temperature * temperature);
}

/// Cross-entropy over the whole batch's size: samples without a label add 0.
Tensor labelled_part(const Tensor& logits, const Tensor& labels) {
  return cross_entropy(logits, detail::widened(labels), {.reduction = Reduction::sum}) /
         static_cast<double>(logits.size(0));
}

}  // namespace

Tensor kd_loss(const Tensor& student, const Tensor& teacher, const Tensor& labels, const KdOptions& o) {
  const Pair logits("kd_loss", student, teacher);
  detail::check_temperature("kd_loss", o.temperature);
  HONE_CHECK(o.alpha >= 0 && o.alpha <= 1, ValueError, "kd_loss: alpha must be in [0, 1], not ", o.alpha);
  HONE_CHECK(o.alpha > 0 || labels.defined(), ValueError, "kd_loss: alpha is 0 and there are no labels to learn from");
  Tensor loss;  // a part of weight 0 is left out: it might be infinite
  if (o.alpha > 0) loss = softened_kl(logits.student, logits.teacher, o.temperature) * o.alpha;
  if (o.alpha < 1 && labels.defined()) {
    const Tensor own = labelled_part(logits.student, labels) * (1 - o.alpha);
    loss = loss.defined() ? loss + own : own;
  }
  return detail::narrowed(loss, logits.dtype);
}

Tensor teacher_class_loss(const Tensor& student, const Tensor& teacher) {
  const Pair logits("teacher_class_loss", student, teacher);
  // argmax names a class where the teacher says NaN: what makes the sample's loss and gradient NaN as well.
  const Tensor& t = logits.teacher;
  const Tensor no_answer =
      masked_fill(zeros(t.shape(), {t.dtype(), t.device()}), ne(t, t), std::numeric_limits<double>::quiet_NaN());
  return detail::narrowed(cross_entropy(logits.student + no_answer, argmax(t, 1)), logits.dtype);
}

Tensor decoupled_kd_loss(const Tensor& student, const Tensor& teacher, const Tensor& labels,
                         const DecoupledKdOptions& o) {
  const char* op = "decoupled_kd_loss";
  const Pair logits(op, student, teacher);
  const int64_t n = student.size(0), classes = student.size(1);
  detail::check_temperature(op, o.temperature);
  detail::check_weight(op, "alpha", o.alpha);
  detail::check_weight(op, "beta", o.beta);
  HONE_CHECK(classes >= 2, ShapeError, op, ": logits ", student.shape(), " have no class besides the label's");
  HONE_CHECK(labels.defined() && is_integer(labels.dtype()), DTypeError, op, ": labels must be integers [N], not ",
             labels.defined() ? str(labels.dtype()) : std::string("undefined"));
  HONE_CHECK(labels.shape() == Shape{n}, ShapeError, op, ": labels of shape ", labels.shape(), " for logits of shape ",
             student.shape(), "; expected [", n, "]");
  const Tensor own = one_hot(cast(labels, DType::i64), classes, DType::boolean);

  // (log p_y, log(1 − p_y)), and the logarithms of the softmax over the rest: −inf at y, where the divergence adds 0.
  const double nothing = -std::numeric_limits<double>::infinity();
  struct Parts {
    Tensor binary, rest;
  };
  const auto parts = [&](const Tensor& z) {
    const Tensor scaled = z / o.temperature, others = masked_fill(scaled, own, nothing);
    const Tensor all = logsumexp(scaled, 1);
    const Tensor target = sum(masked_fill(scaled, logical_not(own), 0), 1);
    return Parts{stack({target - all, logsumexp(others, 1) - all}, 1), log_softmax(others, 1)};
  };
  const Parts s = parts(logits.student), t = parts(logits.teacher);
  const Tensor loss = kl_div(s.binary, t.binary, {.log_target = true}) * o.alpha +
                      kl_div(s.rest, t.rest, {.log_target = true}) * o.beta;
  return detail::narrowed(loss * (o.temperature * o.temperature), logits.dtype);
}

Tensor mutual_loss(std::span<const Tensor> logits, const Tensor& labels, const MutualOptions& o) {
  const char* op = "mutual_loss";
  HONE_CHECK(logits.size() >= 2, ValueError, op, ": two networks at least must learn together, not ", logits.size());
  detail::check_temperature(op, o.temperature);
  detail::check_weight(op, "weight", o.weight);
  Tensor total;
  const double share = o.weight / static_cast<double>(logits.size() - 1);
  for (size_t k = 0; k < logits.size(); ++k) {
    Tensor loss;
    for (size_t l = 0; l < logits.size(); ++l) {
      if (l == k) continue;
      const Pair pair(op, logits[k], logits[l]);
      const Tensor taught = softened_kl(pair.student, pair.teacher, o.temperature) * share;
      loss = loss.defined() ? loss + taught : taught;
    }
    if (labels.defined()) loss = loss + labelled_part(detail::widened(logits[k]), labels);
    total = total.defined() ? total + loss : loss;
  }
  return detail::narrowed(total, logits[0].dtype());
}

}  // namespace hone::compress
