#pragma once
// What the tests of regularizers share.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::regularizer_test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInf = std::numeric_limits<double>::infinity();

using test::expect_error;

/// Sines with another phase for each seed, in f64.
inline Tensor wave(const Shape& shape, double phase) {
  std::vector<double> v;
  for (int64_t i = 0; i < shape.numel(); ++i) v.push_back(std::sin(1.7 * static_cast<double>(i) + phase));
  return tensor(v, shape);
}
inline std::vector<ParameterRef> refs(const std::vector<Parameter>& parameters) {
  return {parameters.begin(), parameters.end()};
}
/// A convolution's weight, a bias, and a linear weight.
inline std::vector<Parameter> some_parameters(DType dtype = f64) {
  std::vector<Parameter> p;
  p.emplace_back(cast(wave({3, 2, 2, 2}, 0.1), dtype));
  p.emplace_back(cast(wave({3}, 0.5), dtype));
  p.emplace_back(cast(wave({4, 6}, 1.3), dtype));
  return p;
}
inline std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

/// Makes `leaf` the raw value itself. Not by replace(), which copies: gradcheck differentiates by these very leaves.
inline void put(const ParameterRef& p, const Tensor& leaf) { const_cast<ParameterState*>(p.id())->raw = leaf; }

/// The errors that every function over a list of parameters has.
template <class F> void expect_list_errors(const std::string& name, const F& f) {
  const std::vector<Parameter> p = some_parameters();
  expect_error<ValueError>([&] { f({}); }, name + ": the list of parameters is empty");
  expect_error<ValueError>([&] { f({p[0], ParameterRef()}); }, name + ": parameter 1 is undefined");
  expect_error<ValueError>(
      [&] {
        f({p[0], p[1], p[0]});
      },
      name + ": parameter 2 of shape [3, 2, 2, 2] is listed twice");
}

}  // namespace hone::regularizer_test
