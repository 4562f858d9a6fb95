// Rows of changes of shape and of indexing.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "op_rows.h"

namespace hone::test {
namespace {

// y[i] = x[source(i)].
Array rearranged(const Array& x, const Shape& shape, const std::function<Shape(const Shape&)>& source) {
  Array y(shape);
  for (int64_t i = 0; i < y.numel(); ++i) y[i] = x.at(source(index_of(shape, i)));
  return y;
}

struct Movement {
  std::string op, variant;
  Shape from;
  std::function<Tensor(const Tensor&)> call;
  Shape to;
  std::function<Shape(const Shape&)> source;  // none: the same elements in row-major order
};
OpRow row(const Movement& m) {
  return {.op = m.op,
          .variant = m.variant,
          .call = [m](const Tensors& x) { return Tensors{m.call(x[0])}; },
          .samples =
              [m] {
                std::vector<Sample> s = {{"distinct values", {uniform(m.from, -2, 2, 400)}}};
                if (m.from.numel() > 1)
                  s.push_back({"NaN and infinity move too",
                               {[&] {
                                 Tensor t = uniform(m.from, -2, 2, 401);
                                 t.data<double>()[0] = kNan;
                                 t.data<double>()[t.numel() - 1] = kInf;
                                 return t;
                               }()},
                               false});
                return s;
              },
          .reference =
              [m](const Arrays& x) {
                if (m.source) return Arrays{rearranged(x[0], m.to, m.source)};
                Array y = x[0];
                y.shape = m.to;
                return Arrays{y};
              }};
}

// Index tensors are constants of the sample.
Array gathered(const Array& x, const Array& index, int dim) {
  return rearranged(x, index.shape, [&](const Shape& at) {
    Shape s = at;
    s[dim] = static_cast<int64_t>(index.at(at));
    return s;
  });
}

std::vector<int64_t> order(const std::vector<double>& v, bool descending) {
  std::vector<int64_t> p(v.size());
  std::iota(p.begin(), p.end(), 0);
  const auto less = [&](double a, double b) { return std::isnan(b) ? !std::isnan(a) : a < b; };
  std::stable_sort(p.begin(), p.end(), [&](int64_t a, int64_t b) {
    const double x = v[static_cast<size_t>(a)], y = v[static_cast<size_t>(b)];
    return descending ? less(y, x) : less(x, y);
  });
  return p;
}
// The first k of each row in order, values and places.
Arrays sorted_rows(const Array& x, int64_t k, bool descending) {
  Array values(Shape{x.shape[0], k}), places(Shape{x.shape[0], k});
  for (int64_t r = 0; r < x.shape[0]; ++r) {
    std::vector<double> v;
    for (int64_t i = 0; i < x.shape[1]; ++i) v.push_back(x.at({r, i}));
    const auto p = order(v, descending);
    for (int64_t i = 0; i < k; ++i) {
      values.at({r, i}) = v[static_cast<size_t>(p[static_cast<size_t>(i)])];
      places.at({r, i}) = static_cast<double>(p[static_cast<size_t>(i)]);
    }
  }
  return {values, places};
}

}  // namespace

std::vector<OpRow> shape_rows() {
  std::vector<OpRow> rows;
  for (const Movement& m :
       std::vector<Movement>{{"reshape",
                              "merge",
                              {2, 3, 4},
                              [](const Tensor& x) {
                                return reshape(x, {6, -1});
                              },
                              {6, 4},
                              {}},
                             {"reshape",
                              "scalar",
                              {},
                              [](const Tensor& x) {
                                return reshape(x, {1, 1});
                              },
                              {1, 1},
                              {}},
                             {"reshape",
                              "empty",
                              {0, 3},
                              [](const Tensor& x) {
                                return reshape(x, {3, 0});
                              },
                              {3, 0},
                              {}},
                             {"flatten", "tail", {2, 3, 4}, [](const Tensor& x) { return flatten(x, 1); }, {2, 12}, {}},
                             {"permute",
                              "",
                              {2, 3, 4},
                              [](const Tensor& x) {
                                return permute(x, {2, 0, -2});
                              },
                              {4, 2, 3},
                              [](const Shape& i) {
                                return Shape{i[1], i[2], i[0]};
                              }},
                             {"permute",
                              "transpose",
                              {3, 4},
                              [](const Tensor& x) { return transpose(x); },
                              {4, 3},
                              [](const Shape& i) {
                                return Shape{i[1], i[0]};
                              }},
                             {"slice",
                              "step",
                              {3, 7},
                              [](const Tensor& x) { return slice(x, 1, 1, -1, 2); },
                              {3, 3},
                              [](const Shape& i) {
                                return Shape{i[0], 1 + 2 * i[1]};
                              }},
                             {"slice",
                              "nothing",
                              {3, 4},
                              [](const Tensor& x) { return slice(x, 0, 2, 1); },
                              {0, 4},
                              [](const Shape& i) { return i; }},
                             {"select",
                              "",
                              {3, 4},
                              [](const Tensor& x) { return select(x, 0, -1); },
                              {4},
                              [](const Shape& i) {
                                return Shape{2, i[0]};
                              }},
                             {"squeeze", "all", {1, 3, 1}, [](const Tensor& x) { return squeeze(x); }, {3}, {}},
                             {"squeeze", "one", {1, 3, 1}, [](const Tensor& x) { return squeeze(x, -1); }, {1, 3}, {}},
                             {"unsqueeze", "", {3, 4}, [](const Tensor& x) { return unsqueeze(x, 1); }, {3, 1, 4}, {}},
                             {"expand",
                              "",
                              {3, 1},
                              [](const Tensor& x) {
                                return expand(x, {2, -1, 4});
                              },
                              {2, 3, 4},
                              [](const Shape& i) {
                                return Shape{i[1], 0};
                              }},
                             {"flip",
                              "",
                              {2, 3, 4},
                              [](const Tensor& x) {
                                return flip(x, {0, 2});
                              },
                              {2, 3, 4},
                              [](const Shape& i) {
                                return Shape{1 - i[0], i[1], 3 - i[2]};
                              }}}) {
    rows.push_back(row(m));
  }
  const auto two = [] {
    return std::vector<Sample>{{"two of one shape", {uniform({2, 3}, -1, 1, 402), uniform({2, 3}, -1, 1, 403)}}};
  };
  rows.push_back({.op = "concat",
                  .call =
                      [](const Tensors& x) {
                        return Tensors{concat({x[0], x[1]}, 1)};
                      },
                  .samples = two,
                  .reference =
                      [](const Arrays& x) {
                        Array y(Shape{2, 6});
                        for (int64_t i = 0; i < 12; ++i) {
                          const Shape at = index_of(y.shape, i);
                          y[i] = at[1] < 3 ? x[0].at(at) : x[1].at({at[0], at[1] - 3});
                        }
                        return Arrays{y};
                      }});
  rows.push_back({.op = "stack",
                  .call =
                      [](const Tensors& x) {
                        return Tensors{stack({x[0], x[1]}, -1)};
                      },
                  .samples = two,
                  .reference =
                      [](const Arrays& x) {
                        Array y(Shape{2, 3, 2});
                        for (int64_t i = 0; i < 12; ++i) {
                          const Shape at = index_of(y.shape, i);
                          y[i] = x[static_cast<size_t>(at[2])].at({at[0], at[1]});
                        }
                        return Arrays{y};
                      },
                  .composite = true});
  const auto whole = [] { return std::vector<Sample>{{"seven rows", {uniform({7, 2}, -1, 1, 404)}}}; };
  const auto pieces = [](std::vector<int64_t> sizes) {
    return [sizes](const Arrays& x) {
      Arrays out;
      int64_t start = 0;
      for (int64_t n : sizes) {
        out.push_back(rearranged(x[0], {n, 2}, [&](const Shape& i) { return Shape{start + i[0], i[1]}; }));
        start += n;
      }
      return out;
    };
  };
  rows.push_back({.op = "split",
                  .variant = "size",
                  .call = [](const Tensors& x) { return split(x[0], 3); },
                  .samples = whole,
                  .reference = pieces({3, 3, 1}),
                  .composite = true});
  rows.push_back({.op = "split",
                  .variant = "sizes",
                  .call =
                      [](const Tensors& x) {
                        return split(x[0], std::vector<int64_t>{1, 4, 2});
                      },
                  .samples = whole,
                  .reference = pieces({1, 4, 2}),
                  .composite = true});
  rows.push_back({.op = "chunk",
                  .call = [](const Tensors& x) { return chunk(x[0], 2); },
                  .samples = whole,
                  .reference = pieces({4, 3}),
                  .composite = true});
  rows.push_back({.op = "pad",
                  .call =
                      [](const Tensors& x) {
                        return Tensors{pad(x[0], {{1, 0}, {2, 1}}, 0.5)};
                      },
                  .samples =
                      [] {
                        return std::vector<Sample>{{"random", {uniform({2, 2, 3}, -1, 1, 405)}},
                                                   {"empty inside", {uniform({1, 0, 3}, 0, 1, 0)}}};
                      },
                  .reference =
                      [](const Arrays& x) {
                        const Shape s = x[0].shape;
                        Array y(Shape{s[0], s[1] + 1, s[2] + 3}, 0.5);
                        for (int64_t i = 0; i < x[0].numel(); ++i) {
                          const Shape at = index_of(s, i);
                          y.at({at[0], at[1] + 1, at[2] + 2}) = x[0][i];
                        }
                        return Arrays{y};
                      }});
  return rows;
}

std::vector<OpRow> indexing_rows() {
  std::vector<OpRow> rows;
  rows.push_back({.op = "index_select",
                  .call = [](const Tensors& x) { return Tensors{index_select(x[0], 1, x[1])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"repeated and reversed indices",
                             {uniform({2, 4, 3}, -1, 1, 410), tensor({int64_t{3}, int64_t{0}, int64_t{3}})}},
                            {"no indices", {uniform({2, 4, 3}, -1, 1, 411), integers({0}, 0, 1, 0)}}};
                      },
                  .reference =
                      [](const Arrays& x) {
                        return Arrays{rearranged(x[0], {2, x[1].numel(), 3}, [&](const Shape& i) {
                          return Shape{i[0], static_cast<int64_t>(x[1][i[1]]), i[2]};
                        })};
                      }});
  rows.push_back({.op = "index_add",
                  .call = [](const Tensors& x) { return Tensors{index_add(x[0], 0, x[1], x[2])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"two land on one place",
                             {uniform({4, 3}, -1, 1, 412), tensor({int64_t{2}, int64_t{0}, int64_t{2}}),
                              uniform({3, 3}, -1, 1, 413)}}};
                      },
                  .reference =
                      [](const Arrays& x) {
                        Array y = x[0];
                        for (int64_t i = 0; i < x[2].numel(); ++i) {
                          const Shape at = index_of(x[2].shape, i);
                          y.at({static_cast<int64_t>(x[1][at[0]]), at[1]}) += x[2][i];
                        }
                        return Arrays{y};
                      }});
  rows.push_back({.op = "gather",
                  .call = [](const Tensors& x) { return Tensors{gather(x[0], 1, x[1])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"fewer rows than the source", {uniform({3, 4}, -1, 1, 414), integers({2, 5}, 0, 4, 415)}}};
                      },
                  .reference = [](const Arrays& x) { return Arrays{gathered(x[0], x[1], 1)}; }});
  rows.push_back({.op = "scatter_add",
                  .call = [](const Tensors& x) { return Tensors{scatter_add(x[0], 1, x[1], x[2])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"several land on one place",
                             {uniform({3, 4}, -1, 1, 416), integers({2, 6}, 0, 4, 417), uniform({2, 6}, -1, 1, 418)}}};
                      },
                  .reference =
                      [](const Arrays& x) {
                        Array y = x[0];
                        for (int64_t i = 0; i < x[2].numel(); ++i) {
                          const Shape at = index_of(x[2].shape, i);
                          y.at({at[0], static_cast<int64_t>(x[1][i])}) += x[2][i];
                        }
                        return Arrays{y};
                      },
                  .bf16 = {3e-2, 3e-2}});
  rows.push_back(
      {.op = "one_hot",
       .call = [](const Tensors& x) { return Tensors{one_hot(x[0], 5, DType::f64)}; },
       .samples =
           [] {
             return std::vector<Sample>{{"labels", {integers({2, 3}, 0, 5, 419)}}, {"none", {integers({0}, 0, 5, 0)}}};
           },
       .reference =
           [](const Arrays& x) {
             Shape s = x[0].shape;
             s.push_back(5);
             Array y(s);
             for (int64_t i = 0; i < x[0].numel(); ++i) y[i * 5 + static_cast<int64_t>(x[0][i])] = 1;
             return Arrays{y};
           },
       .differentiable = false,
       .dtypes = {DType::f64}});
  const auto matrices = [] {
    return std::vector<Sample>{
        {"random", {uniform({3, 6}, -1, 1, 420)}},
        {"ties, NaN and infinities", {values({1, 0, 1, kNan, -kInf, kInf, 2, 2, 2, 1, 1, 1}, {2, 6})}, false, false}};
  };
  rows.push_back({.op = "topk",
                  .call =
                      [](const Tensors& x) {
                        auto r = topk(x[0], 3);
                        return Tensors{r.values, r.indices};
                      },
                  .samples = matrices,
                  .reference = [](const Arrays& x) { return sorted_rows(x[0], 3, true); }});
  rows.push_back({.op = "topk",
                  .variant = "smallest",
                  .call =
                      [](const Tensors& x) {
                        auto r = topk(x[0], 2, 1, false);
                        return Tensors{r.values, r.indices};
                      },
                  .samples = matrices,
                  .reference = [](const Arrays& x) { return sorted_rows(x[0], 2, false); }});
  for (bool descending : {false, true}) {
    rows.push_back({.op = "sort",
                    .variant = descending ? "falling" : "rising",
                    .call =
                        [descending](const Tensors& x) {
                          auto r = sort(x[0], -1, descending);
                          return Tensors{r.values, r.indices};
                        },
                    .samples = matrices,
                    .reference = [descending](const Arrays& x) { return sorted_rows(x[0], 6, descending); }});
  }
  return rows;
}

}  // namespace hone::test
