// Rows of softmax and log_softmax.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

// f(slice) for each slice along dim, the slice's elements replaced by the result.
Array along(const Array& x, int64_t dim, const std::function<void(std::vector<double>&)>& f) {
  if (x.shape.ndim() == 0) {
    std::vector<double> one = x.v;
    f(one);
    Array r = x;
    r.v = one;
    return r;
  }
  if (dim < 0) dim += x.shape.ndim();
  Array r = x;
  for (int64_t i = 0; i < x.numel(); ++i) {
    Shape index = index_of(x.shape, i);
    if (index[dim] != 0) continue;
    std::vector<double> slice;
    for (index[dim] = 0; index[dim] < x.shape[dim]; ++index[dim]) slice.push_back(x.at(index));
    f(slice);
    for (index[dim] = 0; index[dim] < x.shape[dim]; ++index[dim]) r.at(index) = slice[static_cast<size_t>(index[dim])];
  }
  return r;
}
void softmax_of(std::vector<double>& s) {
  double most = -kInf, sum = 0;
  bool nan = false;
  for (double v : s) {
    most = std::max(most, v);
    nan = nan || std::isnan(v);
  }
  for (double v : s) sum += std::exp(v - most);
  for (double& v : s) v = nan ? kNan : std::exp(v - most) / sum;
}
void log_softmax_of(std::vector<double>& s) {
  double most = -kInf, sum = 0;
  bool nan = false;
  for (double v : s) {
    most = std::max(most, v);
    nan = nan || std::isnan(v);
  }
  for (double v : s) sum += std::exp(v - most);
  for (double& v : s) v = nan ? kNan : v - most - std::log(sum);
}

std::vector<Sample> samples_for(int64_t dim) {
  std::vector<Sample> s = {{"a plain matrix", {uniform({4, 5}, -2, 2, 1)}},
                           {"rows longer than a vector, with a tail", {uniform({3, 37}, -4, 4, 2)}},
                           {"one element a slice", {dim == 0 ? uniform({1, 3}, -1, 1, 3) : uniform({3, 1}, -1, 1, 3)}},
                           {"no slices", {dim == 0 ? uniform({3, 0}, 0, 1, 0) : uniform({0, 3}, 0, 1, 0)}},
                           {"empty slices", {dim == 0 ? uniform({0, 3}, 0, 1, 0) : uniform({3, 0}, 0, 1, 0)}}};
  const Shape across = dim == 0 ? Shape{4, 1} : Shape{1, 4};
  s.push_back(
      {"large values overflow exp unless the max is taken off", {values({1000, 1001, 999, -1000}, across)}, false});
  s.push_back({"a slice of equal values", {values({3, 3, 3, 3}, across)}});
  s.push_back({"-inf beside numbers is probability 0", {values({0, -kInf, 1, -kInf}, across)}, false, false});
  s.push_back({"-inf alone gives NaN", {values({-kInf, -kInf, -kInf, -kInf}, across)}, false});
  s.push_back({"NaN takes its whole slice", {values({0, 1, kNan, 2}, across)}, false, false});
  s.push_back({"+inf gives NaN", {values({0, kInf, 1, 2}, across)}, false, false});
  return s;
}

void add(std::vector<OpRow>& rows, const std::string& variant, int64_t dim,
         std::function<std::vector<Sample>()> samples) {
  rows.push_back({.op = "softmax",
                  .variant = variant,
                  .call = [dim](const Tensors& x) { return Tensors{softmax(x[0], dim)}; },
                  .samples = samples,
                  .reference = [dim](const Arrays& x) { return Arrays{along(x[0], dim, softmax_of)}; }});
  rows.push_back({.op = "log_softmax",
                  .variant = variant,
                  .call = [dim](const Tensors& x) { return Tensors{log_softmax(x[0], dim)}; },
                  .samples = samples,
                  .reference = [dim](const Arrays& x) { return Arrays{along(x[0], dim, log_softmax_of)}; }});
}

// −Σ p log p of each slice; what is left of the dim goes.
OpRow entropy_row(const std::string& variant, int64_t dim, std::function<std::vector<Sample>()> samples) {
  const auto reference = [dim](const Arrays& in) {
    const Array log_p = along(in[0], dim, log_softmax_of);
    const int64_t ndim = log_p.shape.ndim(), d = dim < 0 ? dim + ndim : dim;
    Shape shape = log_p.shape;
    if (ndim > 0) shape.erase(static_cast<int>(d));
    Array h(shape);
    for (int64_t i = 0; i < log_p.numel(); ++i) {
      Shape index = index_of(log_p.shape, i);
      if (ndim > 0) index.erase(static_cast<int>(d));
      const double l = log_p[i], p = std::exp(l);
      if (p != 0) h.at(index) -= p * l;
    }
    return Arrays{h};
  };
  return {.op = "entropy",
          .variant = variant,
          .call = [dim](const Tensors& x) { return Tensors{entropy(x[0], dim)}; },
          .samples = std::move(samples),
          .reference = reference,
          .bf16 = {5e-2, 5e-2},  // a composite: every step rounds
          .composite = true};
}

}  // namespace

std::vector<OpRow> softmax_rows() {
  std::vector<OpRow> rows;
  add(rows, "last", -1, [] { return samples_for(1); });
  add(rows, "first", 0, [] { return samples_for(0); });
  add(rows, "middle", 1, [] {
    return std::vector<Sample>{{"three dims, the middle one", {uniform({2, 5, 3}, -3, 3, 4)}},
                               {"four dims", {uniform({2, 3, 2, 2}, -3, 3, 5)}}};
  });
  add(rows, "scalar", 0, [] {
    return std::vector<Sample>{{"0-d: the only probability is 1", {scalar(2.5, DType::f64)}}};
  });
  rows.push_back(entropy_row("last", -1, [] { return samples_for(1); }));
  rows.push_back(entropy_row("first", 0, [] { return samples_for(0); }));
  rows.push_back(entropy_row("middle", 1, [] {
    return std::vector<Sample>{{"three dims, the middle one", {uniform({2, 5, 3}, -3, 3, 4)}}};
  }));
  return rows;
}

}  // namespace hone::test
