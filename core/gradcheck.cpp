#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/random.h"

namespace hone {

namespace {
// Values in [-1, 1) that no symmetry of f can cancel.
Tensor cotangent(const Tensor& y, uint64_t seed, uint64_t k) {
  const Philox stream{seed, k};
  Tensor c = empty(y.shape(), y.dtype());
  visit_floating(y.dtype(), [&]<class T>() {
    T* p = c.data<T>();
    for (int64_t i = 0; i < c.numel(); ++i)
      p[i] = static_cast<T>(2.0f * uniform_f32(stream.word(static_cast<uint64_t>(i))) - 1.0f);
  });
  return c;
}

double inner(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

bool checked_input(const Tensor& x) { return x.defined() && x.requires_grad(); }

// Fresh contiguous leaves with the inputs' values.
std::vector<Tensor> leaves_of(const std::vector<Tensor>& inputs) {
  NoGrad guard;
  std::vector<Tensor> xs;
  for (const Tensor& x : inputs) {
    if (!checked_input(x)) {
      xs.push_back(x);
      continue;
    }
    HONE_CHECK(x.dtype() == DType::f64, DTypeError, "gradcheck: inputs that require grad must be f64, not ", x.dtype());
    xs.push_back(clone(x).requires_grad_());
  }
  return xs;
}
}  // namespace

void gradcheck(const GradCheckFn& f, const std::vector<Tensor>& inputs, GradCheckOptions o) {
  std::vector<Tensor> xs = leaves_of(inputs), wanted;
  for (const Tensor& x : xs) {
    if (checked_input(x)) wanted.push_back(x);
  }
  HONE_CHECK(!wanted.empty(), ValueError, "gradcheck: no input requires grad");

  std::vector<Tensor> analytic(wanted.size()), outputs, seeds, cotangents;
  {
    EnableGrad on;
    const std::vector<Tensor> ys = f(xs);
    for (size_t k = 0; k < ys.size(); ++k) {
      cotangents.push_back(ys[k].defined() && is_floating(ys[k].dtype()) ? cotangent(ys[k], o.seed, k) : Tensor());
      if (!cotangents[k].defined() || !ys[k].requires_grad()) continue;
      outputs.push_back(ys[k]);
      seeds.push_back(cotangents[k]);
    }
    if (!outputs.empty()) analytic = grad(outputs, wanted, {.allow_unused = true}, seeds);
  }

  // The inputs keep requires_grad, for an f that differentiates inside; elements are moved under the graph's feet.
  const auto value = [&] {
    const std::vector<Tensor> ys = f(xs);
    double sum = 0;
    for (size_t k = 0; k < ys.size(); ++k) {
      if (cotangents[k].defined()) sum += inner(ys[k], cotangents[k]);
    }
    return sum;
  };
  size_t w = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    if (!checked_input(xs[i])) continue;
    double* p = xs[i].data<double>();
    const std::vector<double> g = analytic[w].defined() ? analytic[w].to_vector<double>()
                                                        : std::vector<double>(static_cast<size_t>(xs[i].numel()), 0.0);
    ++w;
    for (int64_t e = 0; e < xs[i].numel(); ++e) {
      const double x = p[e], h = o.eps * std::max(1.0, std::abs(x));
      p[e] = x + h;
      const double up = value();
      p[e] = x - h;
      const double down = value();
      p[e] = x;
      const double numeric = (up - down) / (2 * h), got = g[static_cast<size_t>(e)];
      HONE_CHECK(std::isfinite(numeric) && std::abs(got - numeric) <= o.atol + o.rtol * std::abs(numeric), GradError,
                 "gradcheck: input ", i, " of shape ", xs[i].shape(), ", element ", e, " (value ", x, "): gradient ",
                 got, ", central difference ", numeric);
    }
  }
}

void gradgradcheck(const GradCheckFn& f, const std::vector<Tensor>& inputs, GradCheckOptions o) {
  // g(x, c) = d<f(x), c>/dx, with the cotangents c inputs too: both of its derivatives are checked.
  std::vector<Tensor> all = leaves_of(inputs);
  const size_t n = all.size();
  std::vector<size_t> used;  // outputs of f that carry a gradient
  {
    EnableGrad on;
    const std::vector<Tensor> ys = f(all);
    for (size_t k = 0; k < ys.size(); ++k) {
      if (!ys[k].requires_grad()) continue;
      used.push_back(k);
      all.push_back(cotangent(ys[k], o.seed + 1, k).requires_grad_());
    }
  }
  HONE_CHECK(!used.empty(), GradError, "gradgradcheck: no output requires grad");
  gradcheck(
      [&](const std::vector<Tensor>& xc) {
        EnableGrad on;
        const std::vector<Tensor> xs(xc.begin(), xc.begin() + static_cast<std::ptrdiff_t>(n));
        const std::vector<Tensor> ys = f(xs);
        std::vector<Tensor> outputs, seeds(xc.begin() + static_cast<std::ptrdiff_t>(n), xc.end()), wanted;
        for (size_t k : used) outputs.push_back(ys[k]);
        for (const Tensor& x : xs) {
          if (checked_input(x)) wanted.push_back(x);
        }
        return grad(outputs, wanted, {.create_graph = true, .allow_unused = true}, seeds);
      },
      all, o);
}

}  // namespace hone
