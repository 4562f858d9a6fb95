#include "hone/hone.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layouts.h"

namespace hone {
namespace {
using test::layouts;
using test::ravel;
using test::same_at_any_thread_count;
using test::unravel;
const double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(IndexSelect, PicksEntries) {
  manual_seed(1);
  for (DType dtype : {f64, f32, bf16, i64, i8, boolean}) {
    const Tensor base = cast(randint(0, 100, {4, 5, 3}), dtype);
    for (int64_t dim : {0, 1, 2, -1}) {
      const int64_t d = dim < 0 ? dim + 3 : dim, n = base.size(d);
      const Tensor index0 = randint(0, n, {7});
      for (const auto& [layout, x] : layouts(base)) {
        for (const auto& [li, index] : layouts(index0)) {
          const Tensor y = index_select(x, dim, index);
          Shape shape = base.shape();
          shape[d] = 7;
          ASSERT_EQ(y.shape(), shape);
          const auto v = y.to_vector<double>(), from = base.to_vector<double>();
          const auto at = index0.to_vector<int64_t>();
          for (size_t i = 0; i < v.size(); ++i) {
            auto where = unravel(static_cast<int64_t>(i), shape);
            where[static_cast<size_t>(d)] = at[static_cast<size_t>(where[static_cast<size_t>(d)])];
            ASSERT_EQ(v[i], from[static_cast<size_t>(ravel(where, base.shape()))]) << layout << li;
          }
        }
      }
    }
  }
  EXPECT_EQ(index_select(ones({3, 2}), 0, empty({0}, i64)).shape(), (Shape{0, 2}));
}

// A few rows of a transposed table: the table itself is not copied.
TEST(IndexSelect, TakesNoCopyOfAStridedInput) {
  const Tensor x = transpose(randn({1000, 500})), index = tensor(std::vector<int64_t>{3, 499});
  reset_peak_memory();
  const int64_t before = memory_stats().live_bytes;
  const Tensor y = index_select(x, 0, index);
  EXPECT_LT(memory_stats().peak_bytes - before, x.numel() * 4 / 10);
  EXPECT_TRUE(equal(select(y, 0, 0), select(x, 0, 3)));
  EXPECT_TRUE(equal(select(y, 0, 1), select(x, 0, 499)));
}

TEST(Gather, PicksAlongADimAndScatterPutsBack) {
  manual_seed(2);
  for (DType dtype : {f64, f32, bf16, i64, i32, u8}) {
    const Tensor base = cast(randint(0, 9, {4, 5, 3}), dtype);
    for (int64_t dim : {0, 1, 2}) {
      for (Shape shape : {Shape{4, 5, 3}, Shape{2, 3, 1}}) {
        shape[dim] = 6;  // may be larger along the dim alone
        const Tensor index0 = randint(0, base.size(dim), shape), source0 = cast(randint(0, 9, shape), dtype);
        std::vector<double> picked, sums = base.to_vector<double>();
        const auto from = base.to_vector<double>(), add = source0.to_vector<double>();
        const auto at = index0.to_vector<int64_t>();
        for (size_t i = 0; i < at.size(); ++i) {
          auto where = unravel(static_cast<int64_t>(i), shape);
          where[static_cast<size_t>(dim)] = at[i];
          const auto k = static_cast<size_t>(ravel(where, base.shape()));
          picked.push_back(from[k]);
          sums[k] += add[i];
        }
        for (const auto& [layout, x] : layouts(base)) {
          for (const auto& [li, index] : layouts(index0)) {
            EXPECT_EQ(gather(x, dim, index).to_vector<double>(), picked) << layout << li;
            for (const auto& [ls, source] : layouts(source0)) {
              EXPECT_EQ(scatter_add(x, dim, index, source).to_vector<double>(), sums)
                  << layout << li << ls << name(dtype);
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(gather(scalar(5), 0, full({}, 0, i64)).item(), 5);
  EXPECT_EQ(gather(ones({3, 2}), 0, empty({0, 2}, i64)).shape(), (Shape{0, 2}));
}

TEST(IndexAdd, SumsRepeatedEntriesInOrder) {
  manual_seed(3);
  const Tensor x = randn({4, 6}, f64), source0 = randn({4, 9}, f64), index = randint(0, 6, {9});
  auto want = x.to_vector<double>();
  const auto add = source0.to_vector<double>();
  const auto at = index.to_vector<int64_t>();
  std::vector<double> sums(want.size(), 0);
  for (size_t r = 0; r < 4; ++r)
    for (size_t i = 0; i < 9; ++i) sums[r * 6 + static_cast<size_t>(at[i])] += add[r * 9 + i];
  for (size_t i = 0; i < want.size(); ++i) want[i] += sums[i];
  for (const auto& [layout, source] : layouts(source0))
    EXPECT_EQ(index_add(x, 1, index, source).to_vector<double>(), want) << layout;
  // bf16 sums in f32: 300 ones are 300, not the 256 at which bf16 stops counting.
  const Tensor many = index_add(zeros({1}, bf16), 0, zeros({300}, i64), ones({300}, bf16));
  EXPECT_EQ(many.item(), 300);
  EXPECT_EQ(index_add(full({1}, 127, i8), 0, zeros({1}, i64), ones({1}, i8)).item(), -128);
  EXPECT_EQ(index_add(ones({2}), 0, empty({0}, i64), empty({0})).to_vector<double>(), (std::vector<double>{1, 1}));
}

TEST(Indexing, SameBitsAtAnyThreadCount) {
  manual_seed(4);
  const Tensor source = randn({5000, 300}), index = randint(0, 10, {5000}), base = zeros({10, 300});
  EXPECT_TRUE(same_at_any_thread_count([&] { return index_add(base, 0, index, source); }));
  const Tensor at = randint(0, 10, {500, 300});
  EXPECT_TRUE(same_at_any_thread_count([&] { return scatter_add(base, 0, at, slice(source, 0, 0, 500)); }));
  EXPECT_TRUE(same_at_any_thread_count([&] { return topk(source, 7, 0).indices; }));
}

TEST(OneHot, MarksLabels) {
  const Tensor y = one_hot(tensor<int64_t>({2, 0, 1}), 3);
  EXPECT_EQ(y.dtype(), f32);
  EXPECT_EQ(y.to_vector<double>(), (std::vector<double>{0, 0, 1, 1, 0, 0, 0, 1, 0}));
  EXPECT_EQ(one_hot(full({2, 3}, 1, i64), 4, bf16).shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(one_hot(full({}, 1, i64), 2, boolean).to_vector<double>(), (std::vector<double>{0, 1}));
  EXPECT_THROW(one_hot(tensor<int64_t>({3}), 3), ValueError);
  EXPECT_THROW(one_hot(tensor<int64_t>({-1}), 3), ValueError);
  EXPECT_THROW(one_hot(tensor<int64_t>({0}), 0), ValueError);
  EXPECT_THROW(one_hot(ones({2}), 3), DTypeError);
}

// NaN above every number; ties by rising index.
std::vector<int64_t> plain_order(const std::vector<double>& lane, bool descending) {
  std::vector<int64_t> order(lane.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  const auto key = [&](int64_t i) {
    const double v = lane[static_cast<size_t>(i)];
    return std::make_pair(std::isnan(v), std::isnan(v) ? 0 : v);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return descending ? key(b) < key(a) : key(a) < key(b); });
  return order;
}
TEST(Sort, MatchesStableSortForEveryLayoutAndDtype) {
  manual_seed(5);
  for (const Shape& shape : {Shape{1}, Shape{200}, Shape{6, 50}, Shape{3, 40, 4}}) {
    for (DType dtype : {f64, f32, bf16, i64, i32, i8, u8, boolean}) {
      Tensor base = cast(randint(0, 15, shape), dtype);
      if (is_floating(dtype)) {
        base = masked_fill(base, eq(base, 3), kNan);
        base = masked_fill(base, eq(base, 4), -kInf);
        base = masked_fill(base, eq(base, 5), kInf);
      }
      const auto v = base.to_vector<double>();
      for (const auto& [layout, x] : layouts(base)) {
        for (int64_t d = 0; d < shape.ndim(); ++d) {
          for (bool descending : {false, true}) {
            const auto [values, indices] = sort(x, d - shape.ndim(), descending);
            const int64_t n = shape[d], k = n / 3 + 1;
            const auto [top, top_at] = topk(x, k, d, descending);
            EXPECT_TRUE(equal(values, gather(x, d, indices)));
            EXPECT_TRUE(equal(top, slice(values, d, 0, k)));
            EXPECT_TRUE(equal(top_at, slice(indices, d, 0, k)));
            EXPECT_EQ(values.dtype(), dtype);
            const auto got = contiguous(transpose(indices, d, -1)).to_vector<int64_t>();
            const auto lanes = contiguous(transpose(base, d, -1)).to_vector<double>();
            for (size_t lane = 0; lane < got.size() / static_cast<size_t>(n); ++lane) {
              const auto begin = static_cast<int64_t>(lane) * n;
              ASSERT_EQ(std::vector<int64_t>(got.begin() + begin, got.begin() + begin + n),
                        plain_order(std::vector<double>(lanes.begin() + begin, lanes.begin() + begin + n), descending))
                  << layout << name(dtype) << to_string(shape) << d;
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(sort(scalar(3)).values.item(), 3);
  EXPECT_EQ(topk(scalar(3), 1).indices.item<int64_t>(), 0);
  EXPECT_EQ(topk(ones({3, 4}), 0).values.shape(), (Shape{3, 0}));
  EXPECT_EQ(sort(empty({0, 3}), 0).values.shape(), (Shape{0, 3}));
  EXPECT_THROW(topk(ones({3}), 4), ValueError);
  EXPECT_THROW(topk(ones({3}), -1), ValueError);
  EXPECT_THROW(topk(ones({3}), 1, 1), ShapeError);
  EXPECT_THROW(sort(ones({3}), 1), ShapeError);
}

TEST(Indexing, Gradients) {
  manual_seed(6);
  Tensor x = randn({3, 4}, f64).requires_grad_(), s = randn({3, 5}, f64).requires_grad_();
  const Tensor index = randint(0, 4, {5}), at = randint(0, 4, {3, 5}), small = randint(0, 3, {2, 3});
  const std::vector<std::pair<const char*, std::function<Tensor(const Tensor&, const Tensor&)>>> rows = {
      {"index_select", [&](auto& a, auto&) { return index_select(a, 1, index); }},
      {"index_add", [&](auto& a, auto& b) { return index_add(a, -1, index, b); }},
      {"gather", [&](auto& a, auto&) { return gather(a, 1, at); }},
      {"gather of fewer lanes", [&](auto& a, auto&) { return gather(a, 0, small); }},
      {"scatter_add", [&](auto& a, auto& b) { return scatter_add(a, 1, at, b); }},
      {"topk", [](auto& a, auto&) { return topk(a, 2, 1).values; }},
      {"smallest", [](auto& a, auto&) { return topk(a, 2, 0, false).values; }},
      {"sort", [](auto& a, auto&) { return sort(a, 0, true).values; }},
  };
  for (const auto& [what, f] : rows) {
    SCOPED_TRACE(what);
    const auto& g = f;
    const GradCheckFn h = [&g](auto& v) { return std::vector<Tensor>{tanh(g(v[0], v[1])), sum(v[0]) + sum(v[1])}; };
    EXPECT_NO_THROW(gradcheck(h, {x, s}));
    EXPECT_NO_THROW(gradgradcheck(h, {x, s}));
  }
  EXPECT_FALSE(sort(x).indices.requires_grad());
}

TEST(Indexing, ErrorsNameValuePositionAndRange) {
  const Tensor x = ones({3, 4});
  try {
    index_select(x, 1, tensor<int64_t>({0, 3, 4, 9}));
    FAIL();
  } catch (const ValueError& e) {
    for (const char* part : {"index_select", "index 4", "position 2", "[0, 4)"})
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
  EXPECT_THROW(index_select(x, 0, tensor<int64_t>({-1})), ValueError);
  EXPECT_THROW(index_select(x, 0, ones({2})), DTypeError);
  EXPECT_THROW(index_select(x, 0, zeros({2, 2}, i64)), ShapeError);
  EXPECT_THROW(index_select(x, 2, zeros({2}, i64)), ShapeError);
  EXPECT_THROW(index_select(scalar(1), 0, zeros({2}, i64)), ShapeError);
  EXPECT_THROW(gather(x, 1, full({3, 4}, 4, i64)), ValueError);
  EXPECT_THROW(gather(x, 1, zeros({4, 4}, i64)), ShapeError);
  EXPECT_THROW(gather(x, 1, zeros({3}, i64)), ShapeError);
  EXPECT_THROW(scatter_add(x, 1, full({3, 4}, 4, i64), x), ValueError);
  EXPECT_THROW(scatter_add(x, 1, zeros({3, 2}, i64), x), ShapeError);
  EXPECT_THROW(scatter_add(x, 1, zeros({3, 4}, i64), ones({3, 4}, f64)), DTypeError);
  EXPECT_THROW(index_add(x, 0, zeros({2}, i64), ones({3, 4})), ShapeError);
  EXPECT_THROW(index_add(x, 0, zeros({2}, i64), ones({2, 5})), ShapeError);
  EXPECT_THROW(index_add(x, 0, tensor<int64_t>({0, 3}), ones({2, 4})), ValueError);
  EXPECT_THROW(index_add(ones({3}, boolean), 0, zeros({1}, i64), ones({1}, boolean)), DTypeError);
}
}  // namespace
}  // namespace hone
