#pragma once
// What tests of optimizers share: the documented problem of tests/golden/generate_optim_rules.py.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::optim_test {

using Make = std::function<std::unique_ptr<optim::Optimizer>(const std::vector<ParameterRef>&)>;
template <class O, class Options> Make make(Options options) {
  return [options](const std::vector<ParameterRef>& p) { return std::make_unique<O>(p, options); };
}

inline std::vector<Parameter> make_parameters(DType dtype, const std::vector<Shape>& shapes) {
  std::vector<Parameter> out;
  int64_t i = 0;
  for (const Shape& s : shapes) {
    std::vector<double> w;
    for (int64_t n = s.numel(); n > 0; --n) w.push_back(std::sin(static_cast<double>(++i)));
    out.emplace_back(cast(tensor(w, s), dtype));
  }
  return out;
}
inline std::vector<ParameterRef> refs(const std::vector<Parameter>& parameters) {
  std::vector<ParameterRef> out;
  for (const Parameter& p : parameters) out.push_back(p.ref());
  return out;
}
inline std::vector<double> values(const std::vector<Parameter>& parameters) {
  std::vector<double> out;
  for (const Parameter& p : parameters)
    for (double v : p.raw().to_vector<double>()) out.push_back(v);
  return out;
}

/// g_i = 0.1 (i mod 5) w_i + cos(0.3 t + i)
inline double gradient(int64_t i, int t, double w) {
  return 0.1 * static_cast<double>(i % 5) * w + std::cos(0.3 * t + static_cast<double>(i));
}
/// Gradients of all parameters, elements numbered through, from any function of (element, value).
template <class F> void set_gradients_by(const std::vector<Parameter>& parameters, const F& f) {
  int64_t i = 0;
  for (const Parameter& p : parameters) {
    std::vector<double> g;
    for (double w : p.raw().to_vector<double>()) g.push_back(f(i++, w));
    p.raw().set_grad(cast(tensor(g, p.shape()), p.raw().dtype()));
  }
}
inline void set_gradients(const std::vector<Parameter>& parameters, int t) {
  set_gradients_by(parameters, [t](int64_t i, double w) { return gradient(i, t, w); });
}

/// |got − want| ≤ tolerance · max(|want|, scale)
inline void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                        const std::string& what, double scale = 1) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], want[i], tolerance * std::max(scale, std::abs(want[i]))) << what << ", element " << i;
}
}  // namespace hone::optim_test
