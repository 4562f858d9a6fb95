// Rows of the reductions.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

// f(values along the reduced dims, in row-major order) for each place of the other dims.
Array reduce(const Array& x, const Shape& dims, bool keepdim,
             const std::function<double(const std::vector<double>&)>& f) {
  const int nd = x.shape.ndim();
  std::vector<bool> gone(static_cast<size_t>(nd), dims.empty());
  for (int64_t d : dims) gone[static_cast<size_t>(d < 0 ? d + nd : d)] = true;
  Shape kept = x.shape, result;
  for (int d = 0; d < nd; ++d) {
    if (gone[static_cast<size_t>(d)]) kept[d] = 1;
    if (keepdim || !gone[static_cast<size_t>(d)]) result.push_back(kept[d]);
  }
  Array y(kept);
  std::vector<std::vector<double>> lists(y.v.size());
  for (int64_t i = 0; i < x.numel(); ++i) {
    Shape at = index_of(x.shape, i);
    for (int d = 0; d < nd; ++d) at[d] = gone[static_cast<size_t>(d)] ? 0 : at[d];
    lists[static_cast<size_t>(y.offset(at))].push_back(x[i]);
  }
  for (size_t i = 0; i < lists.size(); ++i) y.v[i] = f(lists[i]);
  y.shape = result;
  return y;
}

double sum_of(const std::vector<double>& v) {
  double s = 0;
  for (double x : v) s += x;
  return s;
}
double mean_of(const std::vector<double>& v) { return sum_of(v) / static_cast<double>(v.size()); }
double var_of(const std::vector<double>& v, double less) {
  const double mean = mean_of(v);
  double s = 0;
  for (double x : v) s += (x - mean) * (x - mean);
  const double n = static_cast<double>(v.size()) - less;
  return n > 0 ? s / n : kNan;
}
double logsumexp_of(const std::vector<double>& v) {
  double most = -kInf, s = 0;
  for (double x : v) {
    if (std::isnan(x)) return kNan;
    most = std::max(most, x);
  }
  if (std::isinf(most)) return most;
  for (double x : v) s += std::exp(x - most);
  return most + std::log(s);
}
int64_t first_extreme(const std::vector<double>& v, bool largest) {
  size_t best = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    if (std::isnan(v[best])) break;
    if (std::isnan(v[i]) || (largest ? v[i] > v[best] : v[i] < v[best])) best = i;
  }
  return static_cast<int64_t>(best);
}

std::vector<Sample> samples(bool may_be_empty, bool one_value_fits = true) {
  std::vector<Sample> s = {{"three dims", {uniform({3, 4, 5}, -2, 2, 300)}},
                           {"long enough for several pieces", {uniform({3, 5000, 2}, -1, 1, 301)}, false},
                           {"NaN", {values({1, kNan, 2, 3, kNan, -1, 0, 5}, {2, 2, 2})}, false, false},
                           {"infinities", {values({1, kInf, 2, -kInf, 3, -1, 0, 5}, {2, 2, 2})}, false, false}};
  if (one_value_fits) s.push_back({"one value each", {uniform({1, 1, 1}, -1, 1, 302)}});
  if (may_be_empty) s.push_back({"nothing to reduce", {uniform({2, 0, 3}, 0, 1, 0)}});
  return s;
}

template <class F, class R>
void each_dims(std::vector<OpRow>& rows, const std::string& op, F f, R reference, bool may_be_empty,
               bool one_value_fits = true) {
  struct Variant {
    const char* name;
    Shape dims;
    bool keep;
  };
  for (const Variant& v : {Variant{"all", {}, false}, Variant{"last", {-1}, false}, Variant{"first_keep", {0}, true},
                           Variant{"outer", {0, 2}, false}, Variant{"middle_keep", {1}, true}}) {
    const Shape dims = v.dims;
    const bool keep = v.keep;
    rows.push_back({.op = op,
                    .variant = v.name,
                    .call = [=](const Tensors& x) { return Tensors{f(x[0], dims, keep)}; },
                    .samples = [=] { return samples(may_be_empty, one_value_fits); },
                    .reference = [=](const Arrays& x) { return Arrays{reduce(x[0], dims, keep, reference)}; },
                    .f64 = {1e-11, 1e-12},
                    .f32 = {2e-5, 2e-5}});
  }
}

}  // namespace

std::vector<OpRow> reduce_rows() {
  std::vector<OpRow> rows;
  each_dims(
      rows, "sum", [](const Tensor& x, const Shape& d, bool k) { return sum(x, d, k); }, sum_of, true);
  each_dims(
      rows, "mean", [](const Tensor& x, const Shape& d, bool k) { return mean(x, d, k); }, mean_of, true);
  each_dims(
      rows, "var", [](const Tensor& x, const Shape& d, bool k) { return var(x, d, {.unbiased = false, .keepdim = k}); },
      [](const std::vector<double>& v) { return var_of(v, 0); }, true);
  each_dims(
      rows, "logsumexp", [](const Tensor& x, const Shape& d, bool k) { return logsumexp(x, d, k); }, logsumexp_of,
      true);
  rows.push_back({.op = "var",
                  .variant = "unbiased",
                  .call = [](const Tensors& x) { return Tensors{var(x[0], {1})}; },
                  .samples = [] { return samples(true, false); },
                  .reference =
                      [](const Arrays& x) {
                        return Arrays{
                            reduce(x[0], {1}, false, [](const std::vector<double>& v) { return var_of(v, 1); })};
                      },
                  .f32 = {2e-5, 2e-5}});
  for (bool largest : {true, false}) {
    const std::string n = largest ? "max" : "min";
    const auto value = [largest](const std::vector<double>& v) {
      return v[static_cast<size_t>(first_extreme(v, largest))];
    };
    const auto place = [largest](const std::vector<double>& v) {
      return static_cast<double>(first_extreme(v, largest));
    };
    rows.push_back({.op = n,
                    .variant = "dim",
                    .call =
                        [largest](const Tensors& x) {
                          auto r = largest ? max_with_indices(x[0], 1) : min_with_indices(x[0], 1);
                          return Tensors{r.values, r.indices};
                        },
                    .samples = [] { return samples(false); },
                    .reference =
                        [=](const Arrays& x) {
                          return Arrays{reduce(x[0], {1}, false, value), reduce(x[0], {1}, false, place)};
                        }});
    rows.push_back({.op = n,
                    .variant = "all",
                    .call = [largest](const Tensors& x) { return Tensors{largest ? max(x[0]) : min(x[0])}; },
                    .samples = [] { return samples(false); },
                    .reference = [=](const Arrays& x) { return Arrays{reduce(x[0], {}, false, value)}; }});
    rows.push_back({.op = "arg" + n,
                    .call =
                        [largest](const Tensors& x) {
                          return Tensors{largest ? argmax(x[0], 2, true) : argmin(x[0], 2, true),
                                         largest ? argmax(x[0]) : argmin(x[0])};
                        },
                    .samples = [] { return samples(false); },
                    .reference =
                        [=](const Arrays& x) {
                          return Arrays{reduce(x[0], {2}, true, place), reduce(x[0], {}, false, place)};
                        },
                    .differentiable = false});
  }
  return rows;
}

}  // namespace hone::test
