// Rows of the elementwise functions of one tensor.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

OpRow unary(const std::string& op, std::function<Tensor(const Tensor&)> f, std::function<double(double)> reference,
            double low, double high, std::initializer_list<double> adversarial) {
  const std::vector<double> special(adversarial);
  return {.op = op,
          .call = [f](const Tensors& x) { return Tensors{f(x[0])}; },
          .samples =
              [=] {
                return std::vector<Sample>{{"random", {uniform({3, 7}, low, high, 200)}},
                                           {"0-d", {scalar(low + 0.37 * (high - low), DType::f64)}},
                                           {"empty", {uniform({0, 4}, 0, 1, 0)}},
                                           {"longer than one chunk, odd", {uniform({4101}, low, high, 201)}, false},
                                           {"kinks, limits, NaN and infinities", {tensor(special)}, false, false}};
              },
          .reference = [reference](const Arrays& x) { return Arrays{map(x[0], reference)}; }};
}
OpRow flat(OpRow r) {  // derivative 0 almost everywhere: rounded inputs may lie on the steps
  r.second_order = false;
  return r;
}

double gelu_of(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
double gelu_tanh_of(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

}  // namespace

std::vector<OpRow> unary_rows() {
  using std::isnan;
  std::vector<OpRow> rows = {
      unary("abs", abs, [](double x) { return std::abs(x); }, -2, 2, {0, -0.0, kInf, -kInf, kNan}),
      flat(unary("sign", sign, [](double x) { return double((x > 0) - (x < 0)); }, 0.1, 2,
                 {0, -0.0, kInf, -kInf, kNan, -1e-30})),
      unary("exp", exp, [](double x) { return std::exp(x); }, -3, 3,
            {0, -0.0, kInf, -kInf, kNan, 80, -80, -1000, 1000}),
      unary("log", log, [](double x) { return std::log(x); }, 0.2, 4, {0, 1, kInf, -1, kNan, 1e-30, 1e30}),
      unary("sqrt", sqrt, [](double x) { return std::sqrt(x); }, 0.2, 4, {0, 1, kInf, -1, kNan, 1e-30, 1e30}),
      unary("rsqrt", rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0.2, 4, {0, 1, kInf, -1, kNan, 1e-30, 1e30}),
      unary("square", square, [](double x) { return x * x; }, -2, 2, {0, kInf, -kInf, kNan, 1e10}),
      unary("tanh", tanh, [](double x) { return std::tanh(x); }, -2, 2, {0, kInf, -kInf, kNan, 20, -20, 1e-10, 0.3}),
      unary("sigmoid", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -3, 3,
            {0, kInf, -kInf, kNan, 30, -30}),
      unary("erf", erf, [](double x) { return std::erf(x); }, -2, 2, {0, kInf, -kInf, kNan, 6, -6, 1e-10, 0.5}),
      unary(
          "relu", [](const Tensor& x) { return relu(x); }, [](double x) { return isnan(x) ? kNan : std::max(x, 0.0); },
          -2, 2, {0, -0.0, kInf, -kInf, kNan}),
      unary(
          "leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.2); },
          [](double x) { return x > 0 ? x : 0.2 * x; }, -2, 2, {0, kInf, -kInf, kNan}),
      unary("gelu", [](const Tensor& x) { return gelu(x); }, gelu_of, -3, 3, {0, kInf, kNan, 10, -5}),
      unary("gelu_tanh", [](const Tensor& x) { return gelu(x, Gelu::tanh); }, gelu_tanh_of, -3, 3,
            {0, kInf, kNan, 10, -4}),
      unary("silu", silu, [](double x) { return x / (1 + std::exp(-x)); }, -3, 3, {0, kInf, kNan, 30, -20}),
      unary(
          "clamp", [](const Tensor& x) { return clamp(x, -1, 1.5); },
          [](double x) { return isnan(x) ? kNan : std::clamp(x, -1.0, 1.5); }, -2, 2, {-1, 1.5, kInf, -kInf, kNan}),
      flat(unary("round", round, [](double x) { return std::nearbyint(x); }, 0.6, 1.4,
                 {0.5, 1.5, -2.5, kInf, kNan, 1e20})),
      flat(unary("floor", floor, [](double x) { return std::floor(x); }, 1.1, 1.9, {0.5, -0.5, -2, kInf, kNan, 1e20})),
      flat(unary("ceil", ceil, [](double x) { return std::ceil(x); }, 1.1, 1.9, {0.5, -1.5, -2, kInf, kNan, 1e20}))};
  return rows;
}

}  // namespace hone::test
