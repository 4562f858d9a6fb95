// The engine, with ops of this file alone: what it promises does not depend on the library's ops.

#include "hone/hone.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

namespace hone {
namespace {

void same_shape(ShapeContext& c) {
  for (size_t i = 1; i < c.in.size(); ++i) check_same_dtype(c, 0, static_cast<int>(i));
  c.add(c.shape(0), c.dtype(0));
}
template <class F> void map(RunContext& c, F f) {
  for (int64_t i = 0; i < c.out[0].numel(); ++i) {
    c.out[0].as<double>()[i] = f(c.in[0].as<double>()[i], c.in.size() > 1 ? c.in[1].as<double>()[i] : 0.0);
  }
}
extern const OpDef kTimes;
Tensor times(const Tensor& a, const Tensor& b) { return apply(kTimes, {}, {a, b}); }
const OpDef kTimes = {.name = "times",
                      .shapes = same_shape,
                      .run = [](RunContext& c) { map(c, [](double a, double b) { return a * b; }); },
                      .saves = {.inputs = kAllInputs},
                      .backward =
                          [](BackwardContext& c) {
                            if (c.needs(0)) c.set(0, times(c.grad(), c.input(1)));
                            if (c.needs(1)) c.set(1, times(c.grad(), c.input(0)));
                          }};
// Saves its output: y' = y.
extern const OpDef kE;
Tensor e_to(const Tensor& x) { return apply(kE, {}, {x}); }
const OpDef kE = {.name = "e_to",
                  .shapes = same_shape,
                  .run = [](RunContext& c) { map(c, [](double a, double) { return std::exp(a); }); },
                  .saves = {.outputs = 1},
                  .backward = [](BackwardContext& c) { c.set(0, times(c.grad(), c.output())); }};
const OpDef kWrong = {.name = "wrong",  // a planted fault: the derivative of x² given as x
                      .shapes = same_shape,
                      .run = [](RunContext& c) { map(c, [](double a, double) { return a * a; }); },
                      .saves = {.inputs = 1},
                      .backward = [](BackwardContext& c) { c.set(0, times(c.grad(), c.input(0))); }};
const OpDef kLog = {.name = "ln",
                    .shapes = same_shape,
                    .run = [](RunContext& c) { map(c, [](double a, double) { return std::log(a); }); },
                    .not_differentiable = "this test says so"};
// x³ as one kernel; its backward differentiates a composite.
const OpDef kCube = {.name = "cube",
                     .shapes = same_shape,
                     .run = [](RunContext& c) { map(c, [](double a, double) { return a * a * a; }); },
                     .saves = {.inputs = 1},
                     .backward =
                         [](BackwardContext& c) {
                           composite_backward(
                               c, +[](std::span<const Tensor> x, const Attrs&) -> Outputs {
                                 Outputs out;
                                 out.push_back(times(x[0], times(x[0], x[0])));
                                 return out;
                               });
                         }};

Tensor leaf(std::initializer_list<double> v) { return tensor(v).requires_grad_(); }
std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }
using V = std::vector<double>;

TEST(Backward, AccumulatesOverPathsAndCalls) {
  Tensor x = leaf({3});
  times(x, x).backward();
  EXPECT_EQ(values(x.grad()), V{6});
  times(x, x).backward();
  EXPECT_EQ(values(x.grad()), V{12});
  x.set_grad({});
  Tensor y = times(x, x);
  times(times(y, y), x).backward();  // x⁵
  EXPECT_EQ(values(x.grad()), V{5 * 81});
  EXPECT_TRUE(x.is_leaf());
  EXPECT_FALSE(y.is_leaf());
  EXPECT_STREQ(y.grad_op(), "times");
}

TEST(Backward, SeedsAndTheirRules) {
  Tensor x = leaf({1, 2});
  EXPECT_THROW(times(x, x).backward(), GradError);
  EXPECT_THROW(times(x, x).backward(ones({3}, f64)), ShapeError);
  EXPECT_THROW(times(x, x).backward(ones({2})), DTypeError);
  EXPECT_THROW(tensor({1.0}).backward(), GradError);
  times(x, x).backward(tensor({1.0, 10.0}));
  EXPECT_EQ(values(x.grad()), (V{2, 40}));
}

TEST(Backward, FreedAndRetainedGraphs) {
  Tensor x = leaf({2});
  Tensor y = times(x, x);
  y.backward();
  EXPECT_THROW(y.backward(), GradError);
  Tensor z = times(x, x);
  z.backward({}, {.retain_graph = true});
  z.backward();
  EXPECT_EQ(values(x.grad()), V{12});
}

TEST(Backward, StoredGradientIsNotSharedWithTheSeed) {
  Tensor x = leaf({2});
  Tensor seed = tensor({1.0});
  apply(kAlias, {}, {x})[0].backward(seed);
  apply(kAlias, {}, {x})[0].backward(seed);
  EXPECT_EQ(values(seed), V{1});
  EXPECT_EQ(values(x.grad()), V{2});
}

TEST(Saved, InPlaceChangeIsSeen) {
  Tensor x = leaf({2}), y = e_to(x);
  {
    NoGrad guard;
    y.fill_(0);
  }
  EXPECT_THROW(y.backward(), GradError);
  Tensor z = times(x, x);
  {
    NoGrad guard;
    x.detach().fill_(7);
  }
  EXPECT_THROW(z.backward(), GradError);
}

TEST(Modes, NoGradDetachInference) {
  Tensor x = leaf({2});
  {
    NoGrad guard;
    EXPECT_FALSE(times(x, x).requires_grad());
    EnableGrad again;
    EXPECT_TRUE(times(x, x).requires_grad());
  }
  EXPECT_FALSE(times(x.detach(), x.detach()).requires_grad());
  Tensor made;
  {
    InferenceMode guard;
    made = times(x, x);
    EXPECT_FALSE(made.requires_grad());
  }
  EXPECT_THROW(times(made, x), GradError);
  EXPECT_THROW(made.requires_grad_(), GradError);
  bool other = false;
  NoGrad guard;
  std::thread([&] { other = grad_enabled(); }).join();
  EXPECT_TRUE(other);  // modes are per thread
}

TEST(Grad, OfLeavesAndInnerTensors) {
  Tensor x = leaf({3}), y = times(x, x), z = times(y, x);
  const auto g = grad({z}, {y, x}, {.retain_graph = true});
  EXPECT_EQ(values(g[0]), V{3});
  EXPECT_EQ(values(g[1]), V{27});
  EXPECT_FALSE(x.grad().defined());
  Tensor other = leaf({1});
  EXPECT_THROW(grad({z}, {other}, {.retain_graph = true}), GradError);
  EXPECT_FALSE(grad({z}, {other}, {.retain_graph = true, .allow_unused = true})[0].defined());
  EXPECT_THROW(grad({z}, {tensor({1.0})}), GradError);
}

TEST(Grad, HigherOrders) {
  Tensor x = leaf({2});
  Tensor y = times(times(x, x), times(x, x));  // x⁴
  Tensor g1 = grad({y}, {x}, {.create_graph = true})[0];
  Tensor g2 = grad({g1}, {x}, {.create_graph = true})[0];
  Tensor g3 = grad({g2}, {x}, {.create_graph = true})[0];
  EXPECT_EQ(values(g1), V{32});
  EXPECT_EQ(values(g2), V{48});
  EXPECT_EQ(values(g3), V{48});
  Tensor e = e_to(x);  // through a saved output
  Tensor e1 = grad({e}, {x}, {.create_graph = true})[0];
  Tensor e2 = grad({e1}, {x})[0];
  EXPECT_DOUBLE_EQ(e2.item(), std::exp(2.0));
}

TEST(Hooks, OnLeavesAndInnerTensors) {
  Tensor x = leaf({3}), y = times(x, x);
  int calls = 0;
  HookHandle h = x.register_hook([&](const Tensor& g) -> Tensor {
    ++calls;
    EXPECT_EQ(values(g), V{60});  // the whole gradient at once
    return {};
  });
  y.register_hook([](const Tensor& g) -> Tensor { return times(g, tensor({10.0})); });
  y.retain_grad();
  y.backward({}, {.retain_graph = true});
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(values(y.grad()), V{10});
  h.remove();
  h.remove();
  y.backward();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(values(x.grad()), V{120});
  Tensor z = times(x, x);
  z.register_hook([](const Tensor&) -> Tensor { return ones({2}, f64); });
  EXPECT_THROW(z.backward(), GradError);
}

TEST(Anomaly, NamesTheFirstOp) {
  Tensor x = leaf({-1});
  AnomalyMode on;
  try {
    times(apply(kLog, {}, {x}), x);
    FAIL();
  } catch (const NumericError& e) { EXPECT_NE(std::string(e.what()).find("ln"), std::string::npos) << e.what(); }
  Tensor nan = tensor({std::nan("")});
  EXPECT_NO_THROW(times(nan, nan));  // it came from outside
}

TEST(NotDifferentiable, ThrowsItsNameAtBackward) {
  Tensor x = leaf({1});
  Tensor y = apply(kLog, {}, {x});
  try {
    y.backward();
    FAIL();
  } catch (const GradError& e) {
    EXPECT_NE(std::string(e.what()).find("ln: not differentiable: this test says so"), std::string::npos) << e.what();
  }
}

TEST(Composite, SecondAndThirdDerivatives) {
  Tensor x = leaf({2});
  Tensor y = apply(kCube, {}, {times(x, x)});  // x⁶: the composite's input has a history
  Tensor g = grad({y}, {x}, {.create_graph = true})[0];
  EXPECT_EQ(values(g), V{6 * 32});
  Tensor g2 = grad({g}, {x}, {.create_graph = true})[0];
  EXPECT_EQ(values(g2), V{30 * 16});
  EXPECT_EQ(values(grad({g2}, {x})[0]), V{120 * 8});
  apply(kCube, {}, {x})[0].backward();
  EXPECT_EQ(values(x.grad()), V{12});
}

TEST(GradCheck, PassesRightAndCatchesWrong) {
  const auto right = [](const std::vector<Tensor>& x) { return std::vector<Tensor>{times(e_to(x[0]), x[1])}; };
  gradcheck(right, {leaf({0.3, -0.5}), leaf({1, 2})});
  gradgradcheck(right, {leaf({0.3, -0.5}), leaf({1, 2})});
  const auto wrong = [](const std::vector<Tensor>& x) {
    return std::vector<Tensor>{Tensor(apply(kWrong, {}, {x[0]}))};
  };
  EXPECT_THROW(gradcheck(wrong, {leaf({0.3, -0.5})}), GradError);
  const auto cube = [](const std::vector<Tensor>& x) { return std::vector<Tensor>{Tensor(apply(kCube, {}, {x[0]}))}; };
  gradcheck(cube, {leaf({0.3, -0.5})});
  gradgradcheck(cube, {leaf({0.3, -0.5})});
  EXPECT_THROW(gradcheck(right, {tensor({1.0}), tensor({1.0})}), ValueError);
}

TEST(Graph, DeepChainsNeitherRecurseNorLeak) {
  const int64_t before = memory_stats().live_bytes;
  {
    Tensor x = leaf({1}), y = x;
    for (int i = 0; i < 200000; ++i) y = apply(kAlias, {}, {y});
    y.backward();
    EXPECT_EQ(values(x.grad()), V{1});
    Tensor z = x;
    for (int i = 0; i < 200000; ++i) z = times(z, x);  // dropped without a walk
  }
  EXPECT_EQ(memory_stats().live_bytes, before);
}

TEST(Recorder, SeesEveryApplyUnderNoGrad) {
  struct Count : OpRecorder {
    std::vector<std::string> names;
    void record(const OpDef& op, const Attrs&, std::span<const Tensor>, const Outputs&) override {
      names.push_back(op.name);
    }
  } count;
  Tensor x = leaf({1});
  {
    RecorderScope scope(&count);
    NoGrad guard;
    times(e_to(x), x);
  }
  times(x, x);
  EXPECT_EQ(count.names, (std::vector<std::string>{"e_to", "times"}));
}

TEST(Apply, ChecksInputsBeforeRunning) {
  EXPECT_THROW(times(tensor({1.0}), tensor({1.f})), DTypeError);
  EXPECT_THROW(apply(kCast, Attrs(kCast.attributes), {Tensor()}), ValueError);
  Tensor a = cast(leaf({1.5}), f32);
  a.backward();
  EXPECT_TRUE(a.requires_grad());
}

TEST(Cast, IsDifferentiable) {
  Tensor x = leaf({1.5, 2.5});
  cast(cast(x, f32), f64).backward(tensor({2.0, 3.0}));
  EXPECT_EQ(values(x.grad()), (V{2, 3}));
  EXPECT_FALSE(cast(x, i64).requires_grad());
}

}  // namespace
}  // namespace hone
