// Rules of the autograd engine: what graphs hold alive, what is blamed, what a check of gradients lets pass.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>

#include "hone/hone.h"

namespace hone {
namespace {

using V = std::vector<double>;
Tensor leaf(std::initializer_list<double> v) { return tensor(v).requires_grad_(); }
V values(const Tensor& t) { return t.to_vector<double>(); }

// a up to 1, infinite above.
const OpDef kCliff = {.name = "cliff",
                      .shapes = [](ShapeContext& c) { c.add(c.shape(0), c.dtype(0)); },
                      .run =
                          [](RunContext& c) {
                            const double a = *c.in[0].as<double>();
                            *c.out[0].as<double>() = a > 1 ? std::numeric_limits<double>::infinity() : a;
                          },
                      .backward = [](BackwardContext& c) { c.set(0, c.grad()); }};

TEST(GradCheck, AnInfiniteDifferenceIsNotClose) {
  const auto f = [](const std::vector<Tensor>& x) { return std::vector<Tensor>{Tensor(apply(kCliff, {}, {x[0]}))}; };
  gradcheck(f, {leaf({0.5})});
  EXPECT_THROW(gradcheck(f, {leaf({1.0})}), GradError);
}

TEST(Anomaly, DoesNotBlameAnOpForASavedNan) {
  const Tensor x = leaf({2}), nan = tensor({std::nan("")});
  const Tensor y = x * nan;  // before the mode: the NaN is an input's own
  AnomalyMode on;
  EXPECT_NO_THROW(y.backward());
  EXPECT_TRUE(std::isnan(x.grad().item()));
  // A NaN that backward itself makes is still found: 0 · ∞.
  const Tensor z = leaf({0}), root = sqrt(z);
  EXPECT_THROW(root.backward(tensor({0.0})), NumericError);
}

TEST(Hooks, AHandleDoesNotKeepTheGraph) {
  const int64_t before = memory_stats().live_bytes;
  HookHandle inner, outer;
  auto captured = std::make_shared<int>(1);
  {
    const Tensor x = leaf({1, 2}), y = x * x;
    inner = y.register_hook([captured](const Tensor&) -> Tensor { return {}; });
    outer = x.register_hook([captured](const Tensor&) -> Tensor { return {}; });
    EXPECT_EQ(captured.use_count(), 3);
  }
  EXPECT_EQ(memory_stats().live_bytes, before);
  EXPECT_EQ(captured.use_count(), 1);
  inner.remove();  // nothing is left to remove it from
  outer.remove();
}

TEST(Hooks, RemovalEndsTheCallsAndFreesTheHook) {
  auto calls = std::make_shared<int>(0);
  const Tensor x = leaf({3}), y = x * x;
  const auto count = [calls](const Tensor&) -> Tensor { return ++*calls, Tensor(); };
  HookHandle first = y.register_hook(count), second = y.register_hook(count), third = x.register_hook(count);
  first.remove();
  y.backward({}, {.retain_graph = true});
  EXPECT_EQ(*calls, 2);
  second.remove();
  third.remove();
  y.backward();
  EXPECT_EQ(*calls, 2);
  EXPECT_EQ(calls.use_count(), 2);  // `count` has the other
}

TEST(Grad, WantedTensorsMayRepeatAndBeManyOutputsOfOneNode) {
  const Tensor x = leaf({3}), w = leaf({5}), y = x * w, z = y * y * x;
  const auto g = grad({z}, {x, y, w, x, y}, {.retain_graph = true});
  const V want = {2 * 15 * 5 * 3 + 225, 2 * 15 * 3, 2 * 15 * 3 * 3, 2 * 15 * 5 * 3 + 225, 2 * 15 * 3};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(values(g[i]), V{want[i]}) << i;
  const Tensor pair = leaf({1, 2, 3, 4});
  std::vector<Tensor> parts = split(pair, 2);
  const auto parts_grad = grad({sum(parts[0] * parts[1])}, {parts[1], parts[0], pair});
  EXPECT_EQ(values(parts_grad[0]), (V{1, 2}));
  EXPECT_EQ(values(parts_grad[1]), (V{3, 4}));
  EXPECT_EQ(values(parts_grad[2]), (V{3, 4, 1, 2}));
}

// The graph goes after the thread's own variables have gone: its destruction must not need any that is destroyed.
TEST(Graph, MayBeHeldByAStaticTensor) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        static Tensor held;
        const Tensor x = leaf({1});
        held = x;
        for (int i = 0; i < 1000; ++i) held = held * x;
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace hone
