// Rows of the losses.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

std::vector<double> log_probabilities(const Array& x, int64_t row) {
  const int64_t classes = x.shape[1];
  double most = -kInf, sum = 0;
  std::vector<double> r;
  for (int64_t k = 0; k < classes; ++k) most = std::max(most, x.at({row, k}));
  for (int64_t k = 0; k < classes; ++k) sum += std::exp(x.at({row, k}) - most);
  for (int64_t k = 0; k < classes; ++k) r.push_back(x.at({row, k}) - most - std::log(sum));
  return r;
}

Array reduce(const std::vector<double>& l, double divisor, Reduction r) {
  if (r == Reduction::none) {
    Array a(Shape{static_cast<int64_t>(l.size())});
    a.v = l;
    return a;
  }
  double sum = 0;
  for (double v : l) sum += v;
  return Array(Shape{}, r == Reduction::mean ? sum / divisor : sum);
}

// Inputs: logits, labels, weights (may be absent: no shape, no values).
Array cross_entropy_reference(const Arrays& in, const CrossEntropyOptions& o) {
  const Array &x = in[0], &t = in[1];
  const int64_t n = x.shape[0], classes = x.shape[1];
  const auto weight = [&](int64_t k) { return in.size() > 2 && !in[2].v.empty() ? in[2][k] : 1.0; };
  std::vector<double> loss;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto label = static_cast<int64_t>(t[i]);
    loss.push_back(0);
    if (label == o.ignore_index) continue;
    const auto lp = log_probabilities(x, i);
    double smooth = 0;
    for (int64_t k = 0; k < classes; ++k) smooth -= weight(k) * lp[static_cast<size_t>(k)];
    loss.back() = -(1 - o.label_smoothing) * weight(label) * lp[static_cast<size_t>(label)] +
                  o.label_smoothing / static_cast<double>(classes) * smooth;
    total += weight(label);
  }
  return reduce(loss, total, o.reduction);
}
Array soft_reference(const Arrays& in, const CrossEntropyOptions& o) {
  const Array &x = in[0], &q = in[1];
  const int64_t n = x.shape[0], classes = x.shape[1];
  std::vector<double> loss;
  for (int64_t i = 0; i < n; ++i) {
    const auto lp = log_probabilities(x, i);
    loss.push_back(0);
    for (int64_t k = 0; k < classes; ++k) {
      const double target = (1 - o.label_smoothing) * q.at({i, k}) + o.label_smoothing / static_cast<double>(classes);
      loss.back() -= (in.size() > 2 && !in[2].v.empty() ? in[2][k] : 1.0) * target * lp[static_cast<size_t>(k)];
    }
  }
  return reduce(loss, static_cast<double>(n), o.reduction);
}

CrossEntropyOptions with_weight(const Tensors& x, CrossEntropyOptions o) {
  if (x.size() > 2) o.weight = x[2];
  return o;
}

std::vector<Sample> label_samples(bool weighted) {
  const auto inputs = [&](Tensor logits, Tensor labels, uint64_t seed) {
    Tensors in = {logits, labels};
    if (weighted) in.push_back(uniform({logits.size(1)}, 0.2, 2, seed));
    return in;
  };
  std::vector<Sample> s = {
      {"a plain batch", inputs(uniform({6, 5}, -2, 2, 1), integers({6}, 0, 5, 2), 3)},
      {"more classes than a vector holds", inputs(uniform({3, 37}, -3, 3, 4), integers({3}, 0, 37, 5), 6)},
      {"one row", inputs(uniform({1, 3}, -1, 1, 7), integers({1}, 0, 3, 8), 9)},
      {"ignored rows between others",
       inputs(uniform({4, 3}, -1, 1, 10), tensor({int64_t{-100}, int64_t{1}, int64_t{-100}, int64_t{2}}), 11)},
      {"one class: the loss is 0", inputs(uniform({3, 1}, -1, 1, 12), integers({3}, 0, 1, 13), 14)},
      {"labels of another integer dtype",
       inputs(uniform({3, 4}, -1, 1, 15), cast(integers({3}, 0, 4, 16), DType::u8), 17)}};
  s.push_back({"large logits overflow exp unless the max is taken off",
               inputs(values({1000, -1000, 0, 500, 500, 501}, {2, 3}), tensor({int64_t{1}, int64_t{2}}), 18), false,
               false});
  return s;
}

OpRow label_row(const std::string& variant, bool weighted, CrossEntropyOptions o) {
  return {.op = "cross_entropy",
          .variant = variant,
          .call = [o](const Tensors& x) { return Tensors{cross_entropy(x[0], x[1], with_weight(x, o))}; },
          .samples = [weighted] { return label_samples(weighted); },
          .reference = [o](const Arrays& x) { return Arrays{cross_entropy_reference(x, o)}; },
          .constant = {2}};
}
OpRow soft_row(const std::string& variant, bool weighted, CrossEntropyOptions o) {
  return {.op = "cross_entropy",
          .variant = "soft_" + variant,
          .call = [o](const Tensors& x) { return Tensors{cross_entropy(x[0], x[1], with_weight(x, o))}; },
          .samples =
              [weighted] {
                Tensors in = {uniform({4, 5}, -2, 2, 20), uniform({4, 5}, 0, 0.5, 21)};
                if (weighted) in.push_back(uniform({5}, 0.2, 2, 22));
                return std::vector<Sample>{{"class probabilities, not summing to 1", in}};
              },
          .reference = [o](const Arrays& x) { return Arrays{soft_reference(x, o)}; },
          .bf16 = {5e-2, 5e-2},  // a composite: every step rounds
          .composite = true,
          .constant = {2}};
}

template <class Loss>
OpRow pair_row(const std::string& op, Reduction r, Loss loss, double (*each)(double), double low = -2,
               double high = 2) {
  return {.op = op,
          .variant = hone::name(r),
          .call = [=](const Tensors& x) { return Tensors{loss(x[0], x[1], r)}; },
          .samples =
              [=] {
                return std::vector<Sample>{{"random", {uniform({3, 4}, low, high, 30), uniform({3, 4}, low, high, 31)}},
                                           {"0-d", {scalar(0.4, DType::f64), scalar(-0.7, DType::f64)}},
                                           {"NaN comes through", {values({kNan, 1}), values({0, 2})}, false, false}};
              },
          .reference =
              [=](const Arrays& x) {
                const Array l = broadcast(x[0], x[1], [&](double a, double b) { return each(a - b); });
                return Arrays{r == Reduction::none ? l : reduce(l.v, static_cast<double>(l.numel()), r)};
              },
          .bf16 = {3e-2, 3e-2},
          .composite = true};
}

OpRow kl_row(const std::string& variant, KlDivOptions o) {
  return {
      .op = "kl_div",
      .variant = variant,
      .call = [o](const Tensors& x) { return Tensors{kl_div(x[0], x[1], o)}; },
      .samples =
          [o] {
            std::vector<Sample> s = {{"random",
                                      {uniform({3, 4}, -3, -0.1, 40),
                                       o.log_target ? uniform({3, 4}, -3, -0.1, 41) : uniform({3, 4}, 0.05, 0.6, 41)}}};
            if (!o.log_target)
              s.push_back(
                  {"0 log 0 is 0", {uniform({2, 2}, -3, -0.1, 42), values({0, 1, 0.5, 0}, {2, 2})}, false, false});
            return s;
          },
      .reference =
          [o](const Arrays& x) {
            const Array l = broadcast(x[0], x[1], [&](double p, double q) {
              if (o.log_target) return std::exp(q) * (q - p);
              return q == 0 ? 0.0 : q * (std::log(q) - p);
            });
            if (o.reduction == KlReduction::none) return Arrays{l};
            const double n = o.reduction == KlReduction::sum
                                 ? 1
                                 : static_cast<double>(o.reduction == KlReduction::mean ? l.numel() : l.shape[0]);
            return Arrays{reduce(l.v, n, Reduction::mean)};
          },
      .bf16 = {5e-2, 5e-2},
      .composite = true};
}

// The stream is part of the op's attributes: forward against the definition, element by element.
Array dropout_reference(const Array& x, double p, const Philox& stream) {
  Array y = x;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double u = static_cast<double>(stream.word(static_cast<uint64_t>(i))) * 0x1p-32;
    y[i] = u >= p ? x[i] / (1 - p) : 0;
  }
  return y;
}
OpRow dropout_row(const std::string& variant, double p) {
  return {.op = "dropout",
          .variant = variant,
          .call = [p](const Tensors& x) { return Tensors{dropout(x[0], p)}; },
          .samples =
              [] {
                return std::vector<Sample>{{"random", {uniform({5, 7}, -2, 2, 50)}},
                                           {"0-d", {scalar(3, DType::f64)}},
                                           {"empty", {uniform({0, 3}, 0, 1, 0)}},
                                           {"longer than a parallel piece", {uniform({20001}, -1, 1, 51)}, false}};
              },
          .reference =
              [p](const Arrays& x) {
                manual_seed(11);  // as the harness before the call
                return Arrays{dropout_reference(x[0], p, next_stream())};
              }};
}

}  // namespace

std::vector<OpRow> loss_rows() {
  std::vector<OpRow> rows;
  for (Reduction r : {Reduction::mean, Reduction::sum, Reduction::none}) {
    const std::string n = hone::name(r);
    rows.push_back(label_row(n, false, {.reduction = r}));
    rows.push_back(label_row(n + "_weight", true, {.reduction = r}));
    rows.push_back(label_row(n + "_smooth", false, {.label_smoothing = 0.1, .reduction = r}));
    rows.push_back(label_row(n + "_weight_smooth", true, {.label_smoothing = 0.3, .reduction = r}));
    rows.push_back(soft_row(n, false, {.reduction = r}));
    rows.push_back(soft_row(n + "_weight_smooth", true, {.label_smoothing = 0.2, .reduction = r}));
    rows.push_back(pair_row(
        "mse_loss", r, [](const Tensor& a, const Tensor& b, Reduction red) { return mse_loss(a, b, red); },
        [](double d) { return d * d; }));
    rows.push_back(pair_row(
        "l1_loss", r, [](const Tensor& a, const Tensor& b, Reduction red) { return l1_loss(a, b, red); },
        [](double d) { return std::abs(d); }));
    rows.push_back(pair_row(
        "huber_loss", r, [](const Tensor& a, const Tensor& b, Reduction red) { return huber_loss(a, b, 0.7, red); },
        [](double d) { return std::abs(d) <= 0.7 ? d * d / 2 : 0.7 * (std::abs(d) - 0.35); }));
  }
  rows.push_back(kl_row("batchmean", {}));
  rows.push_back(kl_row("mean", {.reduction = KlReduction::mean}));
  rows.push_back(kl_row("sum_log_target", {.log_target = true, .reduction = KlReduction::sum}));
  rows.push_back(kl_row("none", {.reduction = KlReduction::none}));
  rows.push_back(dropout_row("half", 0.5));
  rows.push_back(dropout_row("tenth", 0.1));
  return rows;
}

}  // namespace hone::test
