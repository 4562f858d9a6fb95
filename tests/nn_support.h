#pragma once
// What the tests of layers share.

#include <algorithm>
#include <cmath>
#include <vector>

#include "hone/hone.h"

namespace hone::nn_test {

/// gradcheck of x and every parameter of a module made f64.
inline void check_gradients(nn::Module& m, const Tensor& x, GradCheckOptions options = {}) {
  m.to(f64);
  std::vector<Tensor> inputs{x};
  const auto parameters = m.parameters();
  for (const auto& p : parameters) inputs.push_back(p.raw());
  gradcheck(
      [&](const std::vector<Tensor>& in) {
        // Not by replace(), which copies: the check differentiates by these very leaves and moves their elements.
        for (size_t i = 0; i < parameters.size(); ++i) const_cast<ParameterState*>(parameters[i].id())->raw = in[i + 1];
        return std::vector<Tensor>{m(in[0])};
      },
      inputs, options);
}

inline Tensor input(const Shape& shape) {
  Tensor x = randn(shape, f64);
  return x.requires_grad_();
}

inline std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

struct Moments {
  double mean, sd, low, high;
};
inline Moments moments(const Tensor& t) {
  const auto v = values(t);
  double sum = 0, squares = 0;
  for (double x : v) sum += x;
  const double mean = sum / static_cast<double>(v.size());
  for (double x : v) squares += (x - mean) * (x - mean);
  const auto [low, high] = std::minmax_element(v.begin(), v.end());
  return {mean, std::sqrt(squares / static_cast<double>(v.size())), *low, *high};
}

}  // namespace hone::nn_test
