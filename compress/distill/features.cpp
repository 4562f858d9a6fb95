#include "hone/compress/distill/features.h"

#include "hone/compress/distill/checks.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/loss.h"
#include "hone/ops/matmul.h"
#include "hone/ops/nn/conv.h"
#include "hone/ops/nn/linear.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress {
namespace {

constexpr double kEps = 1e-12;  // the least norm that is divided by

struct Pair {
  DType dtype;
  Tensor student, teacher;
};

/// Floating, of one dtype, not empty, of one batch; in the dtype that is computed in, the teacher's as a constant.
Pair checked(const char* op, const Tensor& s, const Tensor& t) {
  HONE_CHECK(s.defined() && t.defined(), ValueError, op, ": ", s.defined() ? "the teacher's" : "the student's",
             " features are an undefined tensor");
  HONE_CHECK(is_floating(s.dtype()), DTypeError, op, ": features must be floating, not ", s.dtype());
  HONE_CHECK(s.dtype() == t.dtype(), DTypeError, op, ": the student's features are ", s.dtype(), ", the teacher's ",
             t.dtype(), "; cast one of them");
  HONE_CHECK(s.ndim() >= 1 && t.ndim() >= 1 && s.numel() > 0 && t.numel() > 0 && s.size(0) == t.size(0), ShapeError, op,
             ": the student's features ", s.shape(), " and the teacher's ", t.shape(),
             " must be [N, …] of one batch and not empty");
  return {s.dtype(), detail::widened(s), detail::widened(t.detach())};
}

/// ‖x‖ along `dim`, at least kEps; where it is less the gradient is 0, not 0/0.
Tensor norm_along(const Tensor& x, int64_t dim) { return sqrt(maximum(sum(square(x), dim, true), kEps * kEps)); }

Tensor attention(const Tensor& x) {
  const Tensor map = flatten(sum(square(x), 1), 1);
  return map / norm_along(map, 1);
}

/// [N, N]: distances over their mean.
Tensor relative_distances(const Tensor& differences) {
  const int64_t n = differences.size(0);
  const Tensor squares = sum(square(differences), 2);
  const Tensor same = eq(squares.detach(), 0);  // the root's derivative there is infinite
  const Tensor distances = masked_fill(sqrt(masked_fill(squares, same, 1)), same, 0);
  const double pairs = static_cast<double>(n) * static_cast<double>(n - 1);
  return n < 2 ? distances : distances / maximum(sum(distances) / pairs, kEps);
}

/// [N, N, N]: at each row, the cosines between its differences to all others.
Tensor cosines(const Tensor& differences) {
  const Tensor directions = differences / norm_along(differences, 2);
  return matmul(directions, transpose(directions));
}

}  // namespace

Taps::Taps(nn::Module& network, const std::vector<std::string>& names) {
  const std::vector<nn::NamedModule> modules = network.named_modules();
  for (const std::string& name : names) {
    nn::Module* found = nullptr;
    std::string all;
    for (const nn::NamedModule& m : modules) {
      if (m.name == name) found = m.module;
      if (!m.name.empty()) all += (all.empty() ? "" : ", ") + m.name;
    }
    HONE_CHECK(found, ValueError, "Taps: there is no module '", name, "' in ", network.type_name(), "; it has ",
               all.empty() ? "none (of a graph::Network set_outputs() and run() give any value)" : all);
    auto output = std::make_shared<Tensor>();
    HookHandle hook =
        found->register_forward_hook([output](nn::Module&, const Tensor&, Tensor& result) { *output = result; });
    taps_.push_back({name, std::move(output), std::move(hook)});
  }
}
Taps::~Taps() { remove(); }
Taps& Taps::operator=(Taps&& o) noexcept {
  if (this == &o) return *this;
  remove();
  taps_ = std::move(o.taps_);
  return *this;
}
void Taps::remove() {
  for (Tap& tap : taps_) tap.hook.remove();
  taps_.clear();
}
const Tensor& Taps::operator[](int64_t i) const {
  HONE_CHECK(i >= 0 && i < size(), ValueError, "Taps: output ", i, " of ", size());
  const Tap& tap = taps_[static_cast<size_t>(i)];
  HONE_CHECK(tap.output->defined(), ValueError, "Taps: module '", tap.name, "' was not called yet");
  return *tap.output;
}

Tensor hint_loss(const Tensor& student, const Tensor& teacher) {
  const Pair f = checked("hint_loss", student, teacher);
  HONE_CHECK(student.shape() == teacher.shape(), ShapeError, "hint_loss: the student's features ", student.shape(),
             " and the teacher's ", teacher.shape(), " differ; bring them to one shape with a regressor");
  return detail::narrowed(mse_loss(f.student, f.teacher), f.dtype);
}

nn::AnyModule hint_regressor(const Shape& student, const Shape& teacher) {
  const int64_t dims = student.ndim();
  HONE_CHECK(dims == teacher.ndim() && (dims == 2 || dims == 4), ShapeError, "hint_regressor: features ", student,
             " and ", teacher, " must both be [N, F] or [N, C, H, W]");
  if (dims == 2) return nn::AnyModule(nn::Linear({.in = student[1], .out = teacher[1]}).clone());
  HONE_CHECK(student[2] == teacher[2] && student[3] == teacher[3], ShapeError, "hint_regressor: the student's images ",
             student, " and the teacher's ", teacher, " differ in size; pool the larger ones");
  return nn::AnyModule(nn::Conv2d({.in = student[1], .out = teacher[1], .kernel = 1}).clone());
}

Tensor attention_transfer_loss(const Tensor& student, const Tensor& teacher) {
  const Pair f = checked("attention_transfer_loss", student, teacher);
  const Shape &s = student.shape(), &t = teacher.shape();
  HONE_CHECK(s.ndim() == 4 && t.ndim() == 4 && s[2] == t[2] && s[3] == t[3], ShapeError,
             "attention_transfer_loss: the student's features ", s, " and the teacher's ", t,
             " must be [N, C, H, W] with images of one size; pool the larger ones");
  return detail::narrowed(mse_loss(attention(f.student), attention(f.teacher)), f.dtype);
}

Tensor relational_kd_loss(const Tensor& student, const Tensor& teacher, const RelationalKdOptions& o) {
  const char* op = "relational_kd_loss";
  const Pair f = checked(op, student, teacher);
  detail::check_weight(op, "distance", o.distance);
  detail::check_weight(op, "angle", o.angle);
  // x_j − x_i at [i, j]: from the differences themselves, so that nothing cancels.
  const auto differences = [](const Tensor& x) {
    const Tensor rows = reshape(x, {x.size(0), x.numel() / x.size(0)});
    return unsqueeze(rows, 0) - unsqueeze(rows, 1);
  };
  const Tensor s = differences(f.student), t = differences(f.teacher);
  const Tensor loss = huber_loss(relative_distances(s), relative_distances(t)) * o.distance +
                      huber_loss(cosines(s), cosines(t)) * o.angle;
  return detail::narrowed(loss, f.dtype);
}

}  // namespace hone::compress
