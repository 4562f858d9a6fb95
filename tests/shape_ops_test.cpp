#include "hone/hone.h"

#include <gtest/gtest.h>

#include "layouts.h"

namespace hone {
namespace {
using test::layouts;
using test::ravel;
using test::unravel;
using Index = std::vector<int64_t>;

// Every element of `got` is the element of `x` that `source` names.
void expect_moved(const Tensor& got, const Tensor& x, const Shape& shape, const std::function<Index(Index)>& source,
                  const std::string& what) {
  ASSERT_EQ(got.shape(), shape) << what;
  EXPECT_EQ(got.dtype(), x.dtype());
  const auto from = x.to_vector<double>(), v = got.to_vector<double>();
  for (size_t i = 0; i < v.size(); ++i) {
    ASSERT_EQ(v[i], from[static_cast<size_t>(ravel(source(unravel(static_cast<int64_t>(i), shape)), x.shape()))])
        << what << " at " << i;
  }
}
Tensor counting(const Shape& s, DType d = f32) {
  return cast(reshape(arange(0, static_cast<double>(s.numel())), s), d);
}

TEST(Reshape, KeepsRowMajorOrderInEveryLayout) {
  for (DType dtype : {f64, f32, bf16, i64, i32, i8, u8}) {
    const Tensor base = counting({2, 3, 4}, dtype);
    for (const auto& [layout, x] : layouts(base)) {
      for (const Shape& to : {Shape{24}, Shape{4, 6}, Shape{6, 4}, Shape{2, 12}, Shape{3, 2, 4}, Shape{1, 24, 1},
                              Shape{2, 1, 3, 4}, Shape{2, 3, 2, 2}}) {
        const Tensor y = reshape(x, to);
        ASSERT_EQ(y.shape(), to);
        EXPECT_EQ(y.to_vector<double>(), base.to_vector<double>()) << layout << to_string(to);
      }
    }
  }
}
TEST(Reshape, IsAViewWhereStridesAllow) {
  const Tensor x = counting({4, 6});
  EXPECT_TRUE(reshape(x, {2, 12}).shares_storage_with(x));
  const Tensor t = transpose(x);  // [6, 4] with strides 1, 6
  EXPECT_FALSE(reshape(t, {24}).shares_storage_with(x));
  EXPECT_TRUE(reshape(t, {2, 3, 4}).shares_storage_with(x));
  EXPECT_EQ(reshape(t, {2, 3, 4}).strides(), (Shape{3, 1, 6}));
  EXPECT_EQ(reshape(t, {2, 3, 4}).to_vector<double>(), t.to_vector<double>());
  const Tensor every_other = slice(x, 1, 0, kEnd, 2);  // [4, 3], strides 6, 2: one run
  EXPECT_TRUE(reshape(every_other, {12}).shares_storage_with(x));
  EXPECT_TRUE(reshape(slice(x, 0, 1, 3), {12}).shares_storage_with(x));
  EXPECT_FALSE(reshape(slice(x, 1, 0, 5), {20}).shares_storage_with(x));
  EXPECT_TRUE(reshape(slice(x, 1, 0, 4), {4, 2, 1, 2}).shares_storage_with(x));
  const Tensor wide = expand(counting({3, 1}), {3, 4});
  EXPECT_TRUE(reshape(wide, {3, 2, 2}).shares_storage_with(wide));
  EXPECT_FALSE(reshape(wide, {12}).shares_storage_with(wide));
  EXPECT_EQ(reshape(wide, {2, 6}).to_vector<double>(), wide.to_vector<double>());
}
TEST(Reshape, RandomShapesAndStrides) {
  manual_seed(1);
  Philox random{7, 0};
  uint64_t draw = 0;
  const auto below = [&](uint32_t n) { return static_cast<int64_t>(random.word(draw++) % n); };
  for (int round = 0; round < 400; ++round) {
    Tensor x = counting({4, 6, 2, 3});
    for (int k = 0; k < 3; ++k) {  // a pile of views
      const int64_t d = below(static_cast<uint32_t>(x.ndim()));
      if (below(2))
        x = transpose(x, d, below(static_cast<uint32_t>(x.ndim())));
      else if (x.size(d) % 2 == 0)
        x = slice(x, d, below(2), kEnd, 2);
    }
    const auto values = x.to_vector<double>();
    int64_t left = x.numel();
    Shape to;
    while (left > 1 && to.ndim() < 6) {
      int64_t f = 1 + below(4);
      while (left % f) --f;
      to.push_back(f);
      left /= f;
    }
    to.push_back(left);
    ASSERT_EQ(reshape(x, to).to_vector<double>(), values)
        << to_string(x.shape()) << to_string(x.strides()) << to_string(to);
  }
}
TEST(Reshape, WorksOutOneSize) {
  const Tensor x = counting({4, 6});
  EXPECT_EQ(reshape(x, {-1}).shape(), (Shape{24}));
  EXPECT_EQ(reshape(x, {3, -1, 2}).shape(), (Shape{3, 4, 2}));
  EXPECT_EQ(reshape(counting({1}), {}).shape(), Shape{});
  EXPECT_EQ(reshape(empty({0, 3}), {-1, 3}).shape(), (Shape{0, 3}));
  EXPECT_EQ(reshape(empty({0, 3}), {7, 0}).shape(), (Shape{7, 0}));
  for (const Shape& bad :
       {Shape{5, -1}, Shape{23}, Shape{-1, -1}, Shape{-2, -12}, Shape{0, -1}, Shape{}, Shape{1L << 62, 1L << 62}}) {
    EXPECT_THROW(reshape(x, bad), ShapeError) << to_string(bad);
  }
  EXPECT_THROW(reshape(empty({0, 3}), {-1, 0}), ShapeError);  // any size would do
  try {
    reshape(x, {5, 5});
    FAIL();
  } catch (const ShapeError& e) {
    for (const char* part : {"reshape", "[4, 6]", "24", "[5, 5]"})
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}
TEST(Flatten, MergesDims) {
  const Tensor x = counting({2, 3, 4, 5});
  EXPECT_EQ(flatten(x).shape(), (Shape{120}));
  EXPECT_EQ(flatten(x, 1).shape(), (Shape{2, 60}));
  EXPECT_EQ(flatten(x, 1, 2).shape(), (Shape{2, 12, 5}));
  EXPECT_EQ(flatten(x, -2, -1).shape(), (Shape{2, 3, 20}));
  EXPECT_TRUE(flatten(x, 1).shares_storage_with(x));
  EXPECT_EQ(flatten(transpose(x, 1, 3), 1).to_vector<double>(), transpose(x, 1, 3).to_vector<double>());
  EXPECT_EQ(flatten(scalar(3)).shape(), (Shape{1}));
  EXPECT_EQ(flatten(empty({0, 3, 4}), 1).shape(), (Shape{0, 12}));
  EXPECT_THROW(flatten(x, 2, 1), ShapeError);
  EXPECT_THROW(flatten(x, 4), ShapeError);
}
TEST(Permute, MovesDims) {
  for (const auto& [layout, x] : layouts(counting({2, 3, 4}))) {
    const Tensor y = permute(x, {2, 0, -2});
    EXPECT_TRUE(y.shares_storage_with(x));
    expect_moved(
        y, x, {4, 2, 3},
        [](Index i) {
          return Index{i[1], i[2], i[0]};
        },
        layout);
    expect_moved(
        transpose(x), x, {2, 4, 3},
        [](Index i) {
          return Index{i[0], i[2], i[1]};
        },
        layout);
    expect_moved(
        transpose(x, 0, -1), x, {4, 3, 2},
        [](Index i) {
          return Index{i[2], i[1], i[0]};
        },
        layout);
  }
  EXPECT_EQ(permute(scalar(2), {}).item(), 2);
  const Tensor x = ones({2, 3, 4});
  EXPECT_THROW(permute(x, {0, 1}), ShapeError);
  EXPECT_THROW(permute(x, {0, 1, 1}), ShapeError);
  EXPECT_THROW(permute(x, {0, 1, 3}), ShapeError);
  EXPECT_THROW(transpose(x, 0, 3), ShapeError);
  EXPECT_THROW(transpose(ones({3})), ShapeError);
}
TEST(Slice, IndexesAsPythonDoes) {
  const Tensor x = counting({10});
  using V = std::vector<double>;
  EXPECT_EQ(slice(x, 0, 2, 5).to_vector<double>(), (V{2, 3, 4}));
  EXPECT_EQ(slice(x, 0, -3).to_vector<double>(), (V{7, 8, 9}));
  EXPECT_EQ(slice(x, 0, 1, -1, 3).to_vector<double>(), (V{1, 4, 7}));
  EXPECT_EQ(slice(x, 0, -100, 100, 4).to_vector<double>(), (V{0, 4, 8}));
  EXPECT_EQ(slice(x, 0, 7, 3).shape(), (Shape{0}));
  EXPECT_EQ(slice(x, 0, 10).shape(), (Shape{0}));
  EXPECT_EQ(slice(x, 0, 9, kEnd, kEnd).to_vector<double>(), (V{9}));
  EXPECT_THROW(slice(x, 0, 0, 5, 0), ValueError);
  EXPECT_THROW(slice(x, 0, 0, 5, -1), ValueError);
  EXPECT_THROW(slice(x, 1, 0), ShapeError);
  EXPECT_THROW(slice(scalar(1), 0, 0), ShapeError);
  for (const auto& [layout, y] : layouts(counting({3, 7, 2}))) {
    EXPECT_TRUE(slice(y, 1, 1, 6, 2).shares_storage_with(y));
    expect_moved(
        slice(y, -2, 1, 6, 2), y, {3, 3, 2},
        [](Index i) {
          return Index{i[0], 1 + 2 * i[1], i[2]};
        },
        layout);
    expect_moved(
        select(y, 1, -2), y, {3, 2},
        [](Index i) {
          return Index{i[0], 5, i[1]};
        },
        layout);
    EXPECT_TRUE(select(y, 0, 1).shares_storage_with(y));
  }
  EXPECT_EQ(select(x, 0, 4).item(), 4);
  EXPECT_THROW(select(x, 0, 10), ValueError);
  EXPECT_THROW(select(x, 0, -11), ValueError);
  EXPECT_THROW(select(scalar(1), 0, 0), ShapeError);
}
TEST(Squeeze, RemovesAndInsertsDims) {
  const Tensor x = counting({1, 3, 1, 2});
  EXPECT_EQ(squeeze(x).shape(), (Shape{3, 2}));
  EXPECT_EQ(squeeze(x, 0).shape(), (Shape{3, 1, 2}));
  EXPECT_EQ(squeeze(x, -2).shape(), (Shape{1, 3, 2}));
  EXPECT_EQ(squeeze(x, 1).shape(), x.shape());
  EXPECT_EQ(squeeze(scalar(1)).shape(), Shape{});
  EXPECT_EQ(squeeze(scalar(1), -1).shape(), Shape{});
  EXPECT_EQ(squeeze(transpose(x, 1, 3), 2).to_vector<double>(), transpose(x, 1, 3).to_vector<double>());
  EXPECT_THROW(squeeze(x, 4), ShapeError);
  EXPECT_EQ(unsqueeze(x, -1).shape(), (Shape{1, 3, 1, 2, 1}));
  EXPECT_EQ(unsqueeze(x, 1).shape(), (Shape{1, 1, 3, 1, 2}));
  EXPECT_EQ(unsqueeze(scalar(1), 0).shape(), (Shape{1}));
  EXPECT_TRUE(unsqueeze(transpose(x), 2).shares_storage_with(x));
  EXPECT_THROW(unsqueeze(x, 5), ShapeError);
  EXPECT_THROW(unsqueeze(x, -6), ShapeError);
}
TEST(Expand, RepeatsWithoutCopies) {
  const Tensor x = counting({3, 1});
  const Tensor y = expand(x, {2, -1, 4});
  EXPECT_TRUE(y.shares_storage_with(x));
  expect_moved(
      y, x, {2, 3, 4},
      [](Index i) {
        return Index{i[1], 0};
      },
      "expand");
  EXPECT_EQ(expand(scalar(2), {2, 2}).to_vector<double>(), std::vector<double>(4, 2));
  EXPECT_EQ(expand(x, {3, 0}).shape(), (Shape{3, 0}));
  EXPECT_THROW(expand(x, {4, 4}), ShapeError);
  EXPECT_THROW(expand(x, {3}), ShapeError);
  EXPECT_THROW(expand(x, {-1, 3, 4}), ShapeError);
}
TEST(Flip, ReversesDims) {
  for (DType dtype : {f64, bf16, i8}) {
    for (const auto& [layout, x] : layouts(counting({2, 3, 4}, dtype))) {
      expect_moved(
          flip(x, {1}), x, {2, 3, 4},
          [](Index i) {
            return Index{i[0], 2 - i[1], i[2]};
          },
          layout);
      expect_moved(
          flip(x, {0, -1}), x, {2, 3, 4},
          [](Index i) {
            return Index{1 - i[0], i[1], 3 - i[2]};
          },
          layout);
      expect_moved(
          flip(x, {}), x, {2, 3, 4},
          [](Index i) {
            return Index{1 - i[0], 2 - i[1], 3 - i[2]};
          },
          layout);
    }
  }
  EXPECT_EQ(flip(empty({0, 3}), {0}).shape(), (Shape{0, 3}));
  EXPECT_THROW(flip(ones({2}), {0, 0}), ShapeError);
  EXPECT_THROW(flip(ones({2}), {1}), ShapeError);
}
TEST(Concat, JoinsAlongADim) {
  for (DType dtype : {f64, f32, bf16, i64, boolean}) {
    const Tensor a0 = counting({2, 3}, dtype), b0 = counting({2, 1}, dtype), none = empty({2, 0}, dtype);
    for (const auto& [la, a] : layouts(a0)) {
      for (const auto& [lb, b] : layouts(b0)) {
        const Tensor y = concat({a, none, b}, -1);
        ASSERT_EQ(y.shape(), (Shape{2, 4}));
        EXPECT_TRUE(equal(slice(y, 1, 0, 3), a0)) << la << lb;
        EXPECT_TRUE(equal(slice(y, 1, 3), b0)) << la << lb;
      }
    }
  }
  const Tensor s = stack({tensor({1.0, 2.0}), tensor({3.0, 4.0})}, 1);
  EXPECT_EQ(s.to_vector<double>(), (std::vector<double>{1, 3, 2, 4}));
  EXPECT_EQ(stack({scalar(1), scalar(2)}).shape(), (Shape{2}));
  EXPECT_EQ(stack({ones({2, 3}), ones({2, 3})}, -1).shape(), (Shape{2, 3, 2}));
  EXPECT_THROW(concat({ones({2, 3}), ones({3, 3})}, 1), ShapeError);
  EXPECT_THROW(concat({ones({2, 3}), ones({2})}, 0), ShapeError);
  EXPECT_THROW(concat({scalar(1), scalar(2)}), ShapeError);
  EXPECT_THROW(concat({ones({2}), ones({2}, f64)}), DTypeError);
  EXPECT_THROW(concat(std::vector<Tensor>{}), ValueError);
  EXPECT_THROW(concat({ones({2}), Tensor()}), ValueError);
  EXPECT_THROW(stack({ones({2}), ones({3})}), ShapeError);
}
TEST(Split, CutsIntoViews) {
  const Tensor x = counting({7, 2});
  const auto pieces = split(x, 3);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[2].shape(), (Shape{1, 2}));
  EXPECT_TRUE(pieces[1].shares_storage_with(x));
  EXPECT_TRUE(equal(concat(pieces), x));
  const auto sized = split(x, {4, 0, 3}, 0);
  ASSERT_EQ(sized.size(), 3u);
  EXPECT_EQ(sized[1].shape(), (Shape{0, 2}));
  EXPECT_TRUE(equal(concat(sized), x));
  EXPECT_EQ(chunk(x, 3).size(), 3u);
  EXPECT_EQ(chunk(x, 4)[3].size(0), 1);
  EXPECT_EQ(chunk(x, 5).size(), 4u);  // of ceil(7 / 5) = 2
  EXPECT_EQ(chunk(x, 100).size(), 7u);
  EXPECT_EQ(split(empty({0, 2}), 3).size(), 1u);
  EXPECT_EQ(split(x, kEnd).size(), 1u);
  EXPECT_THROW(split(x, 0), ValueError);
  EXPECT_THROW(split(x, {4, 4}, 0), ShapeError);
  EXPECT_THROW(split(x, {4, 2}, 0), ShapeError);
  EXPECT_THROW(split(x, {8, -1}, 0), ShapeError);
  EXPECT_THROW(chunk(x, 0), ValueError);
  EXPECT_THROW(split(scalar(1), 1), ShapeError);
}
TEST(Pad, SurroundsWithAValue) {
  for (const auto& [layout, x] : layouts(counting({2, 2}))) {
    const Tensor y = pad(x, {{1, 0}, {0, 2}}, 9);
    EXPECT_EQ(y.shape(), (Shape{3, 4}));
    EXPECT_EQ(y.to_vector<double>(), (std::vector<double>{9, 9, 9, 9, 0, 1, 9, 9, 2, 3, 9, 9})) << layout;
  }
  EXPECT_EQ(pad(counting({2, 2}, i64), {{1, 1}}, -1).to_vector<int64_t>(),
            (std::vector<int64_t>{-1, 0, 1, -1, -1, 2, 3, -1}));
  EXPECT_EQ(pad(ones({2, 3, 4, 4}), {{1, 1}, {2, 2}}).shape(), (Shape{2, 3, 6, 8}));
  EXPECT_EQ(pad(empty({0}), {{1, 2}}, 5).to_vector<double>(), (std::vector<double>{5, 5, 5}));
  EXPECT_EQ(pad(scalar(4), {}).item(), 4);
  EXPECT_THROW(pad(ones({2}), {{-1, 0}}), ValueError);
  EXPECT_THROW(pad(ones({2}), {{1, 1}, {1, 1}}), ShapeError);
}

TEST(ShapeOps, Gradients) {
  manual_seed(9);
  Tensor x = randn({2, 4, 3}, f64).requires_grad_(), y = randn({2, 1, 3}, f64).requires_grad_();
  const std::vector<std::pair<const char*, std::function<Tensor(const Tensor&, const Tensor&)>>> rows = {
      {"reshape",
       [](auto& a, auto&) {
         return reshape(a, {3, -1});
       }},
      {"reshape of a transpose", [](auto& a, auto&) { return reshape(transpose(a), {-1}); }},
      {"flatten", [](auto& a, auto&) { return flatten(a, 1); }},
      {"permute",
       [](auto& a, auto&) {
         return permute(a, {-1, 0, 1});
       }},
      {"slice", [](auto& a, auto&) { return slice(a, 1, 1, -1, 2); }},
      {"slice twice", [](auto& a, auto&) { return slice(slice(a, 1, 1), 2, 0, 2) + slice(slice(a, 1, 0, 3), 2, 1); }},
      {"select", [](auto& a, auto&) { return select(a, -2, -1); }},
      {"squeeze", [](auto&, auto& b) { return squeeze(b); }},
      {"unsqueeze", [](auto& a, auto&) { return unsqueeze(a, 1); }},
      {"expand",
       [](auto&, auto& b) {
         return expand(b, {2, 2, 5, 3});
       }},
      {"flip",
       [](auto& a, auto&) {
         return flip(a, {0, 2});
       }},
      {"concat",
       [](auto& a, auto& b) {
         return concat({a, b, a}, 1);
       }},
      {"stack",
       [](auto& a, auto&) {
         return stack({a, a * a}, 2);
       }},
      {"split",
       [](auto& a, auto&) {
         auto p = split(a, 3, 1);
         return p[0] * expand(p[1], p[0].shape());
       }},
      {"pad",
       [](auto& a, auto&) {
         return pad(a, {{1, 0}, {0, 2}}, 3);
       }},
  };
  for (const auto& [what, f] : rows) {
    SCOPED_TRACE(what);
    const auto& g = f;
    const GradCheckFn h = [&g](auto& v) { return std::vector<Tensor>{tanh(g(v[0], v[1])), sum(v[0]) + sum(v[1])}; };
    EXPECT_NO_THROW(gradcheck(h, {x, y}));
    EXPECT_NO_THROW(gradgradcheck(h, {x, y}));
  }
}
TEST(ShapeOps, RunCopiesWhereAViewIsNotWanted) {  // as an executor may do
  const Tensor x = counting({2, 3, 4});
  const auto run_into = [&](const OpDef& op, const Tensor& viewed, const Attrs& attrs) {
    Tensor out = empty(viewed.shape());
    const View in = x.view(), o = out.view();
    Workspace workspace;
    RunContext c{op.name, {&in, 1}, {&o, 1}, attrs, workspace};
    op.run(c);
    return equal(out, viewed);
  };
  struct Recorder : OpRecorder {
    std::vector<std::pair<const OpDef*, Attrs>> seen;
    std::vector<Tensor> results;
    void record(const OpDef& op, const Attrs& a, std::span<const Tensor>, const Outputs& out) override {
      seen.emplace_back(&op, a);
      results.push_back(out[0]);
    }
  } recorder;
  {
    RecorderScope scope(&recorder);
    reshape(x, {-1, 2});
    flatten(x, 1);
    permute(x, {2, 0, 1});
    slice(x, 1, -2, kEnd, 1);
    select(x, 2, 1);
    unsqueeze(x, 0);
    squeeze(x);
    expand(x, {2, 2, 3, 4});
  }
  ASSERT_EQ(recorder.seen.size(), 8u);
  for (size_t i = 0; i < recorder.seen.size(); ++i) {
    EXPECT_TRUE(run_into(*recorder.seen[i].first, recorder.results[i], recorder.seen[i].second))
        << recorder.seen[i].first->name;
  }
}
TEST(ShapeOps, WritesThroughAViewReachItsBase) {
  Tensor x = zeros({2, 3});
  slice(x, 1, 1, 2).fill_(5);
  select(transpose(x), 0, 2).fill_(7);
  EXPECT_EQ(x.to_vector<double>(), (std::vector<double>{0, 5, 7, 0, 5, 7}));
}
}  // namespace
}  // namespace hone
