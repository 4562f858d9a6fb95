// Rows of arithmetic, comparisons and where; and of the ops that the engine itself needs.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

// Pairs that broadcast in every way; values away from 0 and from each other where a kink could be.
std::vector<Sample> pairs(double low, double high) {
  return {{"same shape", {uniform({3, 4}, low, high, 100), uniform({3, 4}, low, high, 101)}},
          {"a row against a matrix", {uniform({3, 4}, low, high, 102), uniform({4}, low, high, 103)}},
          {"a column against a row", {uniform({3, 1}, low, high, 104), uniform({1, 5}, low, high, 105)}},
          {"0-d against a matrix", {scalar(low + 0.4 * (high - low), DType::f64), uniform({2, 3}, low, high, 106)}},
          {"0-d against 0-d", {scalar(low + 0.3 * (high - low), DType::f64), scalar(high, DType::f64)}},
          {"empty", {uniform({0, 3}, low, high, 0), uniform({1, 3}, low, high, 107)}},
          {"longer than one chunk, odd", {uniform({4099}, low, high, 108), uniform({4099}, low, high, 109)}, false}};
}
const Tensor kSpecialA = values({0, -0.0, kInf, -kInf, kNan, 1, kInf, 2, -3});
const Tensor kSpecialB = values({0, 1, kInf, 1, 1, kNan, -kInf, 2, -3});

OpRow binary(const std::string& op, Tensor (*f)(const Tensor&, const Tensor&), double (*reference)(double, double),
             double low, double high, bool differentiable = true) {
  OpRow r = {.op = op,
             .call = [f](const Tensors& x) { return Tensors{f(x[0], x[1])}; },
             .samples =
                 [=] {
                   auto s = pairs(low, high);
                   if (op != "pow") s.push_back({"zeros, infinities, NaN, ties", {kSpecialA, kSpecialB}, false, false});
                   return s;
                 },
             .reference = [reference](const Arrays& x) { return Arrays{broadcast(x[0], x[1], reference)}; }};
  r.differentiable = r.second_order = differentiable;
  return r;
}

std::vector<Sample> conditions() {
  const Tensor mask = cast(integers({3, 4}, 0, 2, 110), DType::boolean);
  return {{"same shape", {mask, uniform({3, 4}, -1, 1, 111), uniform({3, 4}, -1, 1, 112)}},
          {"all three broadcast", {mask, uniform({4}, -1, 1, 113), uniform({3, 1}, -1, 1, 114)}},
          {"NaN in what is not chosen", {tensor({true, false}), values({1, kNan}), values({kNan, 2})}, false, false}};
}
OpRow logical(const std::string& op, std::function<Tensor(const Tensors&)> f, double (*reference)(double, double)) {
  return {.op = op,
          .call = [f](const Tensors& x) { return Tensors{f(x)}; },
          .samples =
              [] {
                return std::vector<Sample>{
                    {"all four pairs", {tensor({true, true, false, false}), tensor({true, false, true, false})}},
                    {"broadcast", {cast(integers({3, 1}, 0, 2, 115), DType::boolean), tensor({true, false})}}};
              },
          .reference = [reference](const Arrays& x) { return Arrays{broadcast(x[0], x[1], reference)}; },
          .differentiable = false,
          .dtypes = {DType::f64}};
}

}  // namespace

std::vector<OpRow> arithmetic_rows() {
  std::vector<OpRow> rows = {
      binary(
          "add", add, [](double a, double b) { return a + b; }, -2, 2),
      binary(
          "sub", sub, [](double a, double b) { return a - b; }, -2, 2),
      binary(
          "mul", mul, [](double a, double b) { return a * b; }, -2, 2),
      binary(
          "div", div, [](double a, double b) { return a / b; }, 0.5, 2),
      binary(
          "pow", pow, [](double a, double b) { return std::pow(a, b); }, 0.5, 2),
      binary(
          "maximum", maximum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNan : std::max(a, b); },
          -2, 2),
      binary(
          "minimum", minimum, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNan : std::min(a, b); },
          -2, 2),
      binary(
          "eq", eq, [](double a, double b) { return double(a == b); }, -2, 2, false),
      binary(
          "ne", ne, [](double a, double b) { return double(a != b); }, -2, 2, false),
      binary(
          "lt", lt, [](double a, double b) { return double(a < b); }, -2, 2, false),
      binary(
          "le", le, [](double a, double b) { return double(a <= b); }, -2, 2, false),
      binary(
          "gt", gt, [](double a, double b) { return double(a > b); }, -2, 2, false),
      binary(
          "ge", ge, [](double a, double b) { return double(a >= b); }, -2, 2, false),
      logical(
          "logical_and", [](const Tensors& x) { return logical_and(x[0], x[1]); },
          [](double a, double b) { return double(a && b); }),
      logical(
          "logical_or", [](const Tensors& x) { return logical_or(x[0], x[1]); },
          [](double a, double b) { return double(a || b); })};
  rows.push_back({.op = "neg",
                  .call = [](const Tensors& x) { return Tensors{neg(x[0])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{{"random", {uniform({3, 4}, -2, 2, 116)}},
                                                   {"special", {kSpecialA}, false, false}};
                      },
                  .reference = [](const Arrays& x) { return Arrays{map(x[0], [](double v) { return -v; })}; }});
  rows.push_back({.op = "logical_not",
                  .call = [](const Tensors& x) { return Tensors{logical_not(x[0])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{{"both", {tensor({true, false, true})}}};
                      },
                  .reference = [](const Arrays& x) { return Arrays{map(x[0], [](double v) { return double(!v); })}; },
                  .differentiable = false,
                  .dtypes = {DType::f64}});
  rows.push_back({.op = "where",
                  .call = [](const Tensors& x) { return Tensors{where(x[0], x[1], x[2])}; },
                  .samples = conditions,
                  .reference =
                      [](const Arrays& x) {
                        // Through an index, so that NaN in the branch not taken stays out.
                        const Array a = broadcast(broadcast(x[0], x[2], [](double c, double) { return c; }), x[1],
                                                  [](double, double v) { return v; });
                        const Array b = broadcast(a, x[2], [](double, double v) { return v; });
                        Array r = broadcast(x[0], a, [](double c, double) { return c; });
                        for (int64_t i = 0; i < r.numel(); ++i) r[i] = r[i] != 0 ? a[i] : b[i];
                        return Arrays{r};
                      }});
  rows.push_back(
      {.op = "masked_fill",
       .call = [](const Tensors& x) { return Tensors{masked_fill(x[1], x[0], -7)}; },
       .samples =
           [] {
             return std::vector<Sample>{
                 {"random", {cast(integers({3, 4}, 0, 2, 117), DType::boolean), uniform({3, 4}, -1, 1, 118)}},
                 {"mask broadcasts", {tensor({true, false, false, true}), uniform({3, 4}, -1, 1, 119)}}};
           },
       .reference =
           [](const Arrays& x) {
             return Arrays{broadcast(x[0], x[1], [](double m, double v) { return m != 0 ? -7 : v; })};
           },
       .composite = true});
  return rows;
}

std::vector<OpRow> basic_rows() {
  const auto samples = [] {
    return std::vector<Sample>{{"random", {uniform({3, 4, 2}, -2, 2, 120)}},
                               {"0-d", {scalar(1.5, DType::f64)}},
                               {"empty", {uniform({2, 0}, 0, 1, 0)}},
                               {"special", {kSpecialA}, false, false}};
  };
  const auto same = [](const Arrays& x) { return Arrays{x[0]}; };
  std::vector<OpRow> rows;
  rows.push_back({.op = "cast",
                  .variant = "clone",
                  .call = [](const Tensors& x) { return Tensors{clone(x[0])}; },
                  .samples = samples,
                  .reference = same});
  rows.push_back({.op = "cast",
                  .variant = "f64",
                  .call = [](const Tensors& x) { return Tensors{cast(x[0], DType::f64)}; },
                  .samples = samples,
                  .reference = same});
  rows.push_back({.op = "contiguous",
                  .call = [](const Tensors& x) { return Tensors{contiguous(x[0])}; },
                  .samples = samples,
                  .reference = same,
                  .composite = true});
  rows.push_back({.op = "alias",
                  .call = [](const Tensors& x) { return Tensors{apply(kAlias, {}, {x[0]})}; },
                  .samples = samples,
                  .reference = same});
  rows.push_back(
      {.op = "accumulate",
       .call =
           [](const Tensors& x) {
             return Tensors{apply(kAccumulate, {}, {x[0], x[1]})};
           },
       .samples =
           [] {
             return std::vector<Sample>{{"random", {uniform({3, 4}, -2, 2, 121), uniform({3, 4}, -2, 2, 122)}}};
           },
       .reference =
           [](const Arrays& x) { return Arrays{broadcast(x[0], x[1], [](double a, double b) { return a + b; })}; }});
  rows.push_back({.op = "masked",
                  .call = [](const Tensors& x) { return Tensors{masked(x[0], x[1])}; },
                  .samples =
                      [] {
                        const Tensor mask = cast(integers({3, 4}, 0, 2, 123), DType::boolean);
                        return std::vector<Sample>{
                            {"random", {uniform({3, 4}, -2, 2, 124), mask}},
                            {"0-d", {scalar(1.5, DType::f64), scalar(0, DType::boolean)}},
                            {"empty", {uniform({2, 0}, 0, 1, 0), zeros({2, 0}, DType::boolean)}},
                            {"what is masked is 0, not NaN",
                             {values({kNan, kInf, 1, -kInf}), tensor({false, false, true, false})},
                             false}};
                      },
                  .reference =
                      [](const Arrays& x) {
                        return Arrays{broadcast(x[0], x[1], [](double a, double m) { return m != 0 ? a : 0; })};
                      }});
  return rows;
}

}  // namespace hone::test
