#include "hone/optim/clip.h"

#include <algorithm>
#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/optim/optimizer.h"
#include "hone/optim/parameter_list.h"

namespace hone::optim {
namespace {

constexpr int64_t kGrain = 1 << 14;

// Calls change(T&) for each element.
template <class Change> void change_each(const Tensor& t, const Change& change) {
  detail::change_elements(t, [&]<class T>(T* x) {
    parallel_for(t.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) change(x[i]);
    });
  });
}

// piece(x, n) of each piece of t, combined in their order.
template <class T, class Piece, class Combine>
double over_pieces(const T* x, int64_t n, const Piece& piece, const Combine& combine) {
  Workspace workspace;
  const int64_t count = (n + kGrain - 1) / kGrain;
  double* parts = workspace.get<double>(count);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) { parts[begin / kGrain] = piece(x + begin, end - begin); });
  double result = 0;
  for (int64_t i = 0; i < count; ++i) result = combine(result, parts[i]);
  return result;
}

// The larger one; NaN if either is.
double worse(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b); }

// The largest magnitude; NaN or infinity if there is one.
double largest(const Tensor& g) {
  return detail::visit_elements(g, [&]<class T>(const T* x) {
    return over_pieces(
        x, g.numel(),
        [](const T* v, int64_t n) {
          double most = 0;
          for (int64_t i = 0; i < n; ++i) most = worse(most, std::abs(static_cast<double>(v[i])));
          return most;
        },
        worse);
  });
}

// Σ |x/scale|^p.
double power_sum(const Tensor& g, double p, double scale) {
  const auto add = [](double a, double b) { return a + b; };
  return detail::visit_elements(g, [&]<class T>(const T* x) {
    const auto sum = [&](const auto& term) {
      return over_pieces(
          x, g.numel(), [&](const T* v, int64_t n) { return detail::sum_terms(v, n, term); }, add);
    };
    if (scale != 1) return sum([&](double v) { return std::pow(std::abs(v / scale), p); });
    if (p == 2) return sum([](double v) { return v * v; });
    if (p == 1) return sum([](double v) { return std::abs(v); });
    return sum([&](double v) { return std::pow(std::abs(v), p); });
  });
}

double checked_norm(const char* what, const std::vector<ParameterRef>& parameters, const ClipNormOptions& options) {
  detail::check_cpu_list(what, parameters);
  HONE_CHECK(options.p > 0, ValueError, what, ": p must be above 0 or infinity, got ", options.p);
  const NoGrad no_grad;
  const auto total = [&](double scale) {
    double sum = 0;
    for (const ParameterRef& p : parameters)
      if (const Tensor g = detail::writable_gradient(p); g.defined()) sum += power_sum(g, options.p, scale);
    return sum;
  };
  if (!std::isinf(options.p)) {
    const double sum = total(1);
    if (sum >= 1e-290 && sum <= 1e290) return std::pow(sum, 1 / options.p);
  }
  // The largest norm; or the sum has left f64's range, or there is a NaN or infinity to be named.
  double most = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor g = detail::writable_gradient(parameters[i]);
    if (!g.defined()) continue;
    const double v = largest(g);
    HONE_CHECK(std::isfinite(v) || !options.error_if_non_finite, NumericError, what, ": the gradient of parameter ", i,
               " (shape ", g.shape(), ") holds ", std::isnan(v) ? "NaN" : "infinity", "; no gradient was changed");
    most = worse(most, v);
  }
  if (std::isinf(options.p) || most == 0 || !std::isfinite(most)) return most;
  return most * std::pow(total(most), 1 / options.p);
}

// Calls change(parameter, its gradient) for those that have one.
template <class Change> void for_gradients(const std::vector<ParameterRef>& parameters, const Change& change) {
  const NoGrad no_grad;
  for (const ParameterRef& p : parameters)
    if (Tensor g = detail::writable_gradient(p); g.defined()) change(p, g);
}

}  // namespace

void clip_grad_value(const std::vector<ParameterRef>& parameters, double limit) {
  detail::check_cpu_list("clip_grad_value", parameters);
  detail::check_above_zero("clip_grad_value", "limit", limit);
  for_gradients(parameters, [&](const ParameterRef&, const Tensor& g) {
    change_each(g, [=]<class T>(T& v) {
      using A = detail::Compute<T>;
      const A x = static_cast<A>(v), most = static_cast<A>(limit);
      if (x > most) v = static_cast<T>(most);
      if (x < -most) v = static_cast<T>(-most);
    });
  });
}

double grad_norm(const std::vector<ParameterRef>& parameters, ClipNormOptions options) {
  return checked_norm("grad_norm", parameters, options);
}

double clip_grad_norm(const std::vector<ParameterRef>& parameters, double max, ClipNormOptions options) {
  detail::check_above_zero("clip_grad_norm", "max", max);
  const double norm = checked_norm("clip_grad_norm", parameters, options);
  const double factor = max / (norm + 1e-6);
  if (!std::isfinite(norm) || factor >= 1) return norm;
  for_gradients(parameters, [&](const ParameterRef&, const Tensor& g) {
    change_each(g, [=]<class T>(T& v) {
      using A = detail::Compute<T>;
      v = static_cast<T>(static_cast<A>(v) * static_cast<A>(factor));
    });
  });
  return norm;
}

void clip_grad_adaptive(const std::vector<ParameterRef>& parameters, AdaptiveClipOptions options) {
  detail::check_cpu_list("clip_grad_adaptive", parameters);
  detail::check_above_zero("clip_grad_adaptive", "clip", options.clip);
  detail::check_above_zero("clip_grad_adaptive", "eps", options.eps);
  for_gradients(parameters, [&](const ParameterRef& p, const Tensor& g) {
    const Tensor w = p.raw().detach();
    const detail::Slices units = detail::Slices::of(g.shape(), 0);
    detail::change_elements(g, [&]<class T>(T* x) {
      const T* weights = w.data<T>();
      detail::for_slices(units, x, [&](T* unit, int64_t i) {
        const double most = options.clip * std::max(detail::slice_norm(units, weights + i * units.inner), options.eps);
        const double norm = detail::slice_norm(units, unit);
        if (std::isfinite(norm) && norm > most) detail::scale_slice(units, unit, most / norm);
      });
    });
  });
}

void add_gradient_noise(const std::vector<ParameterRef>& parameters, int64_t step, GradientNoiseOptions options) {
  detail::check_cpu_list("add_gradient_noise", parameters);
  HONE_CHECK(step >= 0, ValueError, "add_gradient_noise: step must be at least 0, got ", step);
  detail::check_at_least_zero("add_gradient_noise", "eta", options.eta);
  detail::check_at_least_zero("add_gradient_noise", "gamma", options.gamma);
  const double sigma = std::sqrt(options.eta / std::pow(1 + static_cast<double>(step), options.gamma));
  for_gradients(parameters, [&](const ParameterRef&, Tensor& g) { g.copy_(g + randn(g.shape(), g.dtype()) * sigma); });
}

void centralize_gradients(const std::vector<ParameterRef>& parameters) {
  detail::check_cpu_list("centralize_gradients", parameters);
  for_gradients(parameters, [](const ParameterRef&, Tensor& g) {
    if (g.ndim() < 2 || g.numel() == 0) return;
    Shape dims;
    for (int64_t d = 1; d < g.ndim(); ++d) dims.push_back(d);
    g.copy_(g - mean(g, dims, true));
  });
}

}  // namespace hone::optim
