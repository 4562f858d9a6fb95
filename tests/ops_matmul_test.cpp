// Rows of the matrix products.

#include "op_rows.h"

namespace hone::test {
namespace {

Array matmul_reference(Array a, Array b) {
  const bool row = a.shape.ndim() == 1, column = b.shape.ndim() == 1;
  if (row) a.shape.insert(0, 1);
  if (column) b.shape.push_back(1);
  const int an = a.shape.ndim(), bn = b.shape.ndim();
  const int64_t n = a.shape[an - 2], k = a.shape[an - 1], m = b.shape[bn - 1];
  const auto batch = [](const Shape& s) {
    return Shape(std::span<const int64_t>(s.data(), static_cast<size_t>(s.ndim() - 2)));
  };
  const Array shape = broadcast(Array(batch(a.shape)), Array(batch(b.shape)), [](double, double) { return 0.0; });
  Shape out = shape.shape;
  out.push_back(n);
  out.push_back(m);
  Array y(out);
  for (int64_t i = 0; i < y.numel(); ++i) {
    const Shape at = index_of(out, i);
    const auto own = [&](const Shape& s, int64_t r, int64_t c) {
      Shape index;
      for (int d = 0; d < s.ndim() - 2; ++d) index.push_back(s[d] == 1 ? 0 : at[out.ndim() - s.ndim() + d]);
      index.push_back(r);
      index.push_back(c);
      return index;
    };
    for (int64_t j = 0; j < k; ++j)
      y[i] += a.at(own(a.shape, at[out.ndim() - 2], j)) * b.at(own(b.shape, j, at[out.ndim() - 1]));
  }
  if (column) y.shape.erase(y.shape.ndim() - 1);
  if (row) y.shape.erase(y.shape.ndim() - (column ? 1 : 2));
  return y;
}

Tensor draw(const Shape& s, uint64_t seed) { return uniform(s, -1, 1, seed); }

}  // namespace

std::vector<OpRow> matmul_rows() {
  std::vector<OpRow> rows;
  rows.push_back({.op = "matmul",
                  .call = [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"matrices", {draw({3, 4}, 500), draw({4, 5}, 501)}},
                            {"a row", {draw({4}, 502), draw({4, 3}, 503)}},
                            {"a column", {draw({2, 4}, 504), draw({4}, 505)}},
                            {"a row by a column", {draw({4}, 506), draw({4}, 507)}},
                            {"batches", {draw({2, 3, 4}, 508), draw({2, 4, 2}, 509)}},
                            {"batches that broadcast both ways", {draw({2, 1, 3, 4}, 510), draw({3, 4, 2}, 511)}},
                            {"a batch by a row", {draw({4}, 512), draw({2, 4, 3}, 513)}},
                            {"an inner size of 0 gives zeros", {draw({2, 0}, 0), draw({0, 3}, 0)}},
                            {"no rows", {draw({0, 3}, 0), draw({3, 2}, 514)}},
                            {"larger than a block", {draw({70, 130}, 515), draw({130, 65}, 516)}, false}};
                      },
                  .reference = [](const Arrays& x) { return Arrays{matmul_reference(x[0], x[1])}; },
                  .f32 = {2e-5, 2e-5},
                  .bf16 = {2e-2, 2e-2}});
  for (bool bias : {true, false}) {
    rows.push_back({.op = "linear",
                    .variant = bias ? "bias" : "plain",
                    .call = [bias](const Tensors& x) { return Tensors{linear(x[0], x[1], bias ? x[2] : Tensor())}; },
                    .samples =
                        [bias] {
                          const auto inputs = [bias](const Shape& x, const Shape& w, uint64_t seed) {
                            Tensors in = {draw(x, seed), draw(w, seed + 1)};
                            if (bias) in.push_back(draw({w[0]}, seed + 2));
                            return in;
                          };
                          return std::vector<Sample>{{"a batch", inputs({3, 4}, {5, 4}, 520)},
                                                     {"one vector", inputs({4}, {3, 4}, 523)},
                                                     {"three dims", inputs({2, 3, 4}, {2, 4}, 526)},
                                                     {"no rows", inputs({0, 4}, {2, 4}, 529)}};
                        },
                    .reference =
                        [](const Arrays& x) {
                          const Shape s = x[1].shape;
                          Array wt(Shape{s[1], s[0]});
                          for (int64_t i = 0; i < wt.numel(); ++i) {
                            const Shape at = index_of(wt.shape, i);
                            wt[i] = x[1].at({at[1], at[0]});
                          }
                          Array y = matmul_reference(x[0], wt);
                          if (x.size() > 2) y = broadcast(y, x[2], [](double a, double b) { return a + b; });
                          return Arrays{y};
                        },
                    .f32 = {2e-5, 2e-5},
                    .bf16 = {2e-2, 2e-2}});
  }
  return rows;
}

}  // namespace hone::test
