#include "hone/compress/prune/criteria.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/random.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/unary.h"

namespace hone::compress {
namespace {

Tensor as_f64(const Tensor& t) { return cast(to(t.detach(), cpu), f64); }

const char* name(Reduce r) {
  constexpr const char* names[] = {"abs_of_mean", "mean_of_abs", "mean_of_square"};
  return names[static_cast<int>(r)];
}

/// Sets the two functions of an average of x(p, g).
template <class X> void set_average(Criterion& c, Reduce reduce, X x) {
  c.order = 1;
  c.term = [reduce, x](const ParameterRef& p, const Tensor& g) {
    const Tensor v = x(p, g);
    return reduce == Reduce::abs_of_mean ? v : reduce == Reduce::mean_of_abs ? abs(v) : square(v);
  };
  c.finish = [reduce](const ParameterRef&, const Tensor& mean) {
    return reduce == Reduce::abs_of_mean ? abs(mean) : mean;
  };
}
Tensor weight_times_gradient(const ParameterRef& p, const Tensor& g) { return as_f64(p.raw()) * g; }

// A pruned weight that learns on behind its mask (Surgery) competes by what it would be among those that stay.
Tensor lamp_scores(const ParameterRef& p, const Tensor&) {
  const Tensor squares = square(as_f64(p.raw()));
  const Tensor kept = p.mask().defined() ? to(p.mask(), cpu) : ones(squares.shape(), DType::boolean);
  const double* w = squares.data<double>();
  const bool* stays = kept.data<bool>();
  std::vector<int64_t> order(static_cast<size_t>(squares.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return w[a] > w[b]; });
  Tensor scores = zeros_like(squares);
  double sum = 0;
  for (const int64_t i : order) {
    if (stays[i]) sum += w[i];
    const double all = stays[i] ? sum : sum + w[i];
    scores.data<double>()[i] = all > 0 ? w[i] / all : 0;
  }
  return scores;
}

/// Differentiable with respect to the parameters' raw values: their tensors, checked.
std::vector<Tensor> leaves(const Criterion& c, std::span<const nn::NamedParameter> parameters) {
  std::vector<Tensor> raws;
  for (const auto& [name, p] : parameters) {
    HONE_CHECK(p.raw().requires_grad(), ValueError, c.name, ": parameter '", name,
               "' is frozen (requires_grad is off): it has no gradient to be scored by");
    raws.push_back(p.raw());
  }
  return raws;
}

/// The number that is differentiated.
Tensor objective(const Criterion& c, const Tensor& value) {
  HONE_CHECK(value.defined(), ValueError, c.name, ": a batch gave an undefined tensor");
  if (c.of == GradientOf::loss) {
    HONE_CHECK(value.numel() == 1, ValueError, c.name, ": a batch must give its loss, one number, not shape ",
               value.shape());
    return value;
  }
  HONE_CHECK(value.ndim() >= 1 && value.numel() > 0, ValueError, c.name,
             ": a batch must give the network's outputs [N, …], not shape ", value.shape());
  return sum(square(value)) / static_cast<double>(value.size(0));
}

std::vector<Tensor> gradients_of(const Tensor& y, const std::vector<Tensor>& raws, GradOptions options) {
  options.allow_unused = true;
  if (!y.requires_grad()) return std::vector<Tensor>(raws.size());
  return grad({y}, raws, options);
}

/// One probe for each parameter: signs of the random vector times row k of the Hadamard matrix.
std::vector<Tensor> probe(const std::vector<Tensor>& raws, const Philox& signs, uint64_t k) {
  std::vector<Tensor> v;
  uint64_t at = 0;
  for (const Tensor& raw : raws) {
    Tensor t = empty(raw.shape(), f64);
    for (int64_t i = 0; i < t.numel(); ++i, ++at) {
      const bool negative = ((signs.word(at) & 1) ^ (std::popcount(k & at) & 1)) != 0;
      t.data<double>()[i] = negative ? -1 : 1;
    }
    v.push_back(to(cast(t, raw.dtype()), raw.device()));
  }
  return v;
}

/// The estimate of ∂²y/∂w² for each parameter.
std::vector<Tensor> hessian_diagonal(const Tensor& y, const std::vector<Tensor>& raws, int64_t probes,
                                     const Philox& signs) {
  const std::vector<Tensor> g = gradients_of(y, raws, {.create_graph = true});
  std::vector<Tensor> mean;
  for (const Tensor& raw : raws) mean.push_back(zeros(raw.shape(), f64));
  for (int64_t k = 0; k < probes; ++k) {
    const std::vector<Tensor> v = probe(raws, signs, static_cast<uint64_t>(k));
    Tensor dot;
    for (size_t i = 0; i < g.size(); ++i) {
      if (!g[i].defined()) continue;
      const Tensor part = sum(g[i] * v[i]);
      dot = dot.defined() ? dot + part : part;
    }
    if (!dot.defined()) break;
    const std::vector<Tensor> hv = gradients_of(dot, raws, {.retain_graph = true});
    const NoGrad no_grad;
    for (size_t i = 0; i < hv.size(); ++i)
      if (hv[i].defined()) mean[i] = mean[i] + as_f64(hv[i] * v[i]) / static_cast<double>(probes);
  }
  return mean;
}

/// A criterion's functions give one number a weight.
void check_form(const Criterion& c, const char* what, const nn::NamedParameter& n, const Tensor& t) {
  const Shape& shape = n.parameter.shape();
  HONE_CHECK(t.defined() && t.dtype() == f64 && t.shape() == shape, ShapeError, c.name, ": the ", what,
             " of parameter '", n.name, "' must be f64 of its shape ", shape, ", not ",
             t.defined() ? str(t.dtype(), " ", t.shape()) : "undefined");
}

}  // namespace

Criterion magnitude() {
  // The raw value: a pruned weight that learns on behind its mask (Surgery) competes by what it would be.
  return {.name = "magnitude", .finish = [](const ParameterRef& p, const Tensor&) { return abs(as_f64(p.raw())); }};
}
Criterion lamp() { return {.name = "lamp", .finish = lamp_scores}; }
Criterion random() {
  return {.name = "random", .finish = [](const ParameterRef& p, const Tensor&) { return rand(p.raw().shape(), f64); }};
}

Criterion gradient(GradientOptions options) {
  Criterion c{.name = str("gradient(", name(options.reduce), ")"), .of = options.of};
  set_average(c, options.reduce, [](const ParameterRef&, const Tensor& g) { return g; });
  return c;
}
Criterion taylor(Reduce reduce) {
  Criterion c{.name = str("taylor(", name(reduce), ")")};
  set_average(c, reduce, weight_times_gradient);
  return c;
}
Criterion movement() {
  return {.name = "movement",
          .order = 1,
          .lasting = true,
          .term = [](const ParameterRef& p, const Tensor& g) { return -weight_times_gradient(p, g); },
          .finish = [](const ParameterRef&, const Tensor& mean) { return mean; }};
}
Criterion snip() {
  Criterion c{.name = "snip", .normalized = true};
  set_average(c, Reduce::abs_of_mean, weight_times_gradient);
  return c;
}
Criterion hessian(HessianOptions options) {
  HONE_CHECK(options.probes >= 1, ValueError, "hessian: probes must be at least 1, got ", options.probes);
  return {.name = "hessian",
          .order = 2,
          .probes = options.probes,
          .term = [](const ParameterRef&, const Tensor& h) { return h; },
          .finish = [](const ParameterRef& p, const Tensor& h) { return 0.5 * h * square(as_f64(p.raw())); }};
}

namespace detail {

void ScoreSum::add(const Criterion& c, std::span<const nn::NamedParameter> parameters,
                   std::span<const Tensor> gradients, double samples) {
  HONE_CHECK(samples > 0, ValueError, c.name, ": a batch must stand for at least 1 sample, got ", samples);
  const NoGrad no_grad;
  std::vector<Tensor> next;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, p] = parameters[i];
    Tensor sum = sums.empty() ? zeros(p.shape(), f64) : sums[i];
    HONE_CHECK(sum.shape() == p.shape(), ShapeError, c.name, ": parameter '", name, "' changed its shape from ",
               sum.shape(), " to ", p.shape(), " while its score was added up; hand the Shrink to apply()");
    if (gradients[i].defined()) {
      const Tensor term = c.term(p, as_f64(gradients[i]));
      check_form(c, "term", parameters[i], term);
      sum = sum + term * samples;
    }
    next.push_back(std::move(sum));
  }
  sums = std::move(next);
  weight += samples;
}

std::vector<Tensor> ScoreSum::finish(const Criterion& c, std::span<const nn::NamedParameter> parameters) const {
  const NoGrad no_grad;
  std::vector<Tensor> scores;
  double total = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, p] = parameters[i];
    Tensor s = c.finish(p, c.order > 0 ? sums[i] / weight : Tensor());
    check_form(c, "scores", parameters[i], s);
    s = contiguous(s);
    for (int64_t k = 0; k < s.numel(); ++k) {
      const double v = s.data<double>()[k];
      HONE_CHECK(std::isfinite(v), NumericError, c.name, ": the score of element ", k, " of parameter '", name, "' is ",
                 std::isnan(v) ? "NaN" : "infinite");
    }
    if (c.normalized) total += sum(s).item();
    HONE_CHECK(std::isfinite(total), NumericError, c.name, ": the sum of the scores is infinite at parameter '", name,
               "'");
    scores.push_back(std::move(s));
  }
  if (c.normalized && total > 0)
    for (Tensor& s : scores) s = s / total;
  return scores;
}

}  // namespace detail

std::vector<Tensor> scores(const Criterion& c, std::span<const nn::NamedParameter> parameters, const Losses& losses) {
  detail::ScoreSum sum;
  if (c.order > 0) {
    HONE_CHECK(losses, ValueError, c.name, ": this criterion scores by gradients; give it data (.losses)");
    const std::vector<Tensor> raws = leaves(c, parameters);
    const EnableGrad enable;
    const Philox signs = c.order == 2 ? next_stream() : Philox();
    losses([&](const Tensor& value, int64_t samples) {
      const Tensor y = objective(c, value);
      const std::vector<Tensor> g =
          c.order == 2 ? hessian_diagonal(y, raws, c.probes, signs) : gradients_of(y, raws, {});
      sum.add(c, parameters, g, static_cast<double>(samples));
    });
    HONE_CHECK(sum.weight > 0, ValueError, c.name, ": the data held no batch");
  }
  return sum.finish(c, parameters);
}

std::vector<Tensor> scores(const Criterion& c, std::span<const ParameterRef> parameters, const Losses& losses) {
  std::vector<nn::NamedParameter> named;
  for (const ParameterRef& p : parameters) named.push_back({std::to_string(named.size()), p});
  return scores(c, named, losses);
}

}  // namespace hone::compress
