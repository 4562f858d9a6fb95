// Rows of the losses for classes of unequal size: their definitions as plain loops, in every dtype and layout.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

Array reduce(const std::vector<double>& l, double divisor, Reduction r) {
  if (r == Reduction::none) {
    Array a(Shape{static_cast<int64_t>(l.size())});
    a.v = l;
    return a;
  }
  double sum = 0;
  for (const double v : l) sum += v;
  return Array(Shape{}, r == Reduction::mean ? sum / divisor : sum);
}

// −w_t (1 − p_t)^γ log p_t, 1 − p_t as the sum of the others: subtraction would lose it where p_t is close to 1.
Array focal_reference(const Arrays& in, const FocalOptions& o) {
  const Array &x = in[0], &labels = in[1];
  std::vector<double> loss;
  double weights = 0;
  for (int64_t i = 0; i < x.shape[0]; ++i) {
    loss.push_back(0);
    const auto t = static_cast<int64_t>(labels[i]);
    if (t == o.ignore_index) continue;
    double most = -kInf, others = 0;
    for (int64_t k = 0; k < x.shape[1]; ++k) most = std::max(most, x.at({i, k}));
    for (int64_t k = 0; k < x.shape[1]; ++k)
      if (k != t) others += std::exp(x.at({i, k}) - most);
    const double own = std::exp(x.at({i, t}) - most), total = own + others;
    const double w = in.size() > 2 ? in[2][t] : 1;
    loss.back() = -w * std::pow(others / total, o.gamma) * (x.at({i, t}) - most - std::log(total));
    weights += w;
  }
  return reduce(loss, weights, o.reduction);
}

OpRow focal_row(const std::string& variant, bool weighted, FocalOptions o) {
  return {
      .op = "focal_loss",
      .variant = variant,
      .call =
          [o](const Tensors& x) {
            FocalOptions with = o;
            if (x.size() > 2) with.weight = x[2];
            return Tensors{focal_loss(x[0], x[1], with)};
          },
      .samples =
          [=] {
            const auto inputs = [&](Tensor logits, Tensor labels, uint64_t seed) {
              Tensors in = {logits, labels};
              if (weighted) in.push_back(uniform({logits.size(1)}, 0.2, 2, seed));
              return in;
            };
            return std::vector<Sample>{
                {"a plain batch", inputs(uniform({6, 5}, -2, 2, 1), integers({6}, 0, 5, 2), 3)},
                {"more classes than a vector holds", inputs(uniform({3, 37}, -3, 3, 4), integers({3}, 0, 37, 5), 6)},
                {"ignored rows between others",
                 inputs(uniform({4, 3}, -1, 1, 7), tensor({int64_t{-100}, int64_t{1}, int64_t{-100}, int64_t{2}}), 8)},
                {"labels of another integer dtype",
                 inputs(uniform({3, 4}, -1, 1, 9), cast(integers({3}, 0, 4, 10), DType::u8), 11)},
                {"an ignored row of NaN",
                 inputs(values({kNan, 1, 0, 0.5}, {2, 2}), tensor({int64_t{-100}, int64_t{1}}), 12), false, false},
                {"surely right and surely wrong: no power of 0, no logarithm of 0",
                 inputs(values({1000, 0, 0, 1000}, {2, 2}), tensor({int64_t{0}, int64_t{0}}), 13), false, false}};
          },
      .reference =
          [o, weighted](const Arrays& x) {
            return Arrays{focal_reference(weighted ? x : Arrays{x[0], x[1]}, o)};
          },
      .bf16 = {6e-2, 6e-2},  // a composite: every step rounds
      .composite = true,
      .constant = {2}};
}

OpRow sigmoid_row(const std::string& variant, SigmoidFocalOptions o) {
  return {.op = "sigmoid_focal_loss",
          .variant = variant,
          .call = [o](const Tensors& x) { return Tensors{sigmoid_focal_loss(x[0], x[1], o)}; },
          .samples =
              [] {
                return std::vector<Sample>{
                    {"random", {uniform({3, 4}, -3, 3, 20), uniform({3, 4}, 0.05, 0.95, 21)}},
                    {"0-d", {scalar(0.4, DType::f64), scalar(0.25, DType::f64)}},
                    {"0, where |z| has a kink and the loss none", {values({0, 0}), values({0.25, 0.75})}},
                    {"surely right and surely wrong",
                     {values({800, -800, 800, -800}), values({1, 0, 0, 1})},
                     false,
                     false}};
              },
          .reference =
              [o](const Arrays& x) {
                std::vector<double> loss;
                for (int64_t i = 0; i < x[0].numel(); ++i) {
                  const double z = x[0][i], y = x[1][i], a = o.alpha.value_or(1), b = o.alpha ? 1 - a : 1;
                  const double p = 1 / (1 + std::exp(-z)), q = 1 / (1 + std::exp(z));
                  const double log_p = -std::max(-z, 0.0) - std::log1p(std::exp(-std::abs(z)));
                  const double log_q = -std::max(z, 0.0) - std::log1p(std::exp(-std::abs(z)));
                  loss.push_back(-a * y * std::pow(q, o.gamma) * log_p - b * (1 - y) * std::pow(p, o.gamma) * log_q);
                }
                Array l = reduce(loss, static_cast<double>(loss.size()), o.reduction);
                if (o.reduction == Reduction::none) l.shape = x[0].shape;
                return Arrays{l};
              },
          .bf16 = {6e-2, 6e-2},
          .composite = true};
}

std::vector<Sample> adjustment_samples(bool labelled) {
  Tensors in = {uniform({5, 4}, -2, 2, 30)};
  if (labelled) in.push_back(integers({5}, 0, 4, 31));
  in.push_back(uniform({4}, -4, -0.1, 32));
  return {{"random", in}};
}

OpRow post_hoc_row(double tau) {
  return {.op = "logit_adjusted",
          .variant = str(tau < 0 ? "minus_" : "", static_cast<int64_t>(std::abs(tau) * 10)),
          .call = [tau](const Tensors& x) { return Tensors{logit_adjusted(x[0], x[1], tau)}; },
          .samples = [] { return adjustment_samples(false); },
          .reference =
              [tau](const Arrays& x) {
                return Arrays{broadcast(x[0], x[1], [&](double z, double prior) { return z - tau * prior; })};
              },
          .bf16 = {3e-2, 3e-2},
          .composite = true,
          .constant = {1}};
}

OpRow adjusted_row(double tau) {
  return {
      .op = "logit_adjusted_cross_entropy",
      .variant = str(static_cast<int64_t>(tau * 10)),
      .call = [tau](const Tensors& x) { return Tensors{logit_adjusted_cross_entropy(x[0], x[1], x[2], {.tau = tau})}; },
      .samples = [] { return adjustment_samples(true); },
      .reference =
          [tau](const Arrays& x) {
            std::vector<double> loss;
            for (int64_t i = 0; i < x[0].shape[0]; ++i) {
              double sum = 0;
              for (int64_t k = 0; k < x[2].numel(); ++k) sum += std::exp(x[0].at({i, k}) + tau * x[2][k]);
              const auto t = static_cast<int64_t>(x[1][i]);
              loss.push_back(std::log(sum) - x[0].at({i, t}) - tau * x[2][t]);
            }
            return Arrays{reduce(loss, static_cast<double>(loss.size()), Reduction::mean)};
          },
      .bf16 = {6e-2, 6e-2},
      .composite = true,
      .constant = {2}};
}

}  // namespace

std::vector<OpRow> focal_rows() {
  std::vector<OpRow> rows;
  for (const double gamma : {0.0, 0.5, 2.0}) {
    const std::string g = str("gamma_", static_cast<int64_t>(gamma * 10));
    rows.push_back(focal_row(g, false, {.gamma = gamma}));
    rows.push_back(focal_row(g + "_weight", true, {.gamma = gamma}));
    rows.push_back(focal_row(g + "_weight_none", true, {.gamma = gamma, .reduction = Reduction::none}));
    rows.push_back(sigmoid_row(g, {.gamma = gamma}));
    rows.push_back(sigmoid_row(g + "_alpha_none", {.gamma = gamma, .alpha = 0.25, .reduction = Reduction::none}));
  }
  rows.push_back(focal_row("sum", false, {.reduction = Reduction::sum}));
  for (const double tau : {-0.5, 1.0}) rows.push_back(post_hoc_row(tau));
  for (const double tau : {0.0, 1.5}) rows.push_back(adjusted_row(tau));
  return rows;
}

}  // namespace hone::test
