// Cross-layer equalization: the same function, weights of like size, and pairs that must be left alone.

#include <cmath>

#include "graph_support.h"
#include "support.h"

namespace hone::test {
namespace {

using compress::quantize::calibration;
using compress::quantize::equalize;
using compress::quantize::EqualizeReport;
using compress::quantize::quantize_static;
using graph::Network;

/// Pools of every kind, groups, a depthwise convolution, a flattened plane, a missing bias.
struct Chain : nn::Module {
  nn::Conv2d conv1{{.in = 3, .out = 8, .kernel = 3, .padding = 1}};
  nn::Conv2d depthwise{{.in = 8, .out = 8, .kernel = 3, .padding = 1, .groups = 8}};
  nn::Conv2d grouped{{.in = 8, .out = 6, .kernel = 3, .padding = 1, .groups = 2, .bias = false}};
  nn::Conv2d wider{{.in = 6, .out = 12, .kernel = 1, .groups = 3}};
  nn::Linear fc1{{.in = 12 * 4, .out = 9}}, fc2{{.in = 9, .out = 4}};
  HONE_MODULE(Chain, conv1, depthwise, grouped, wider, fc1, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = depthwise(relu(conv1(x)));
    h = grouped(max_pool2d(leaky_relu(h, 0.1), 3, {.stride = {2}, .padding = {1}}));
    h = wider(relu(h));
    h = flatten(avg_pool2d(adaptive_avg_pool2d(h, 4), 2), 1);
    return fc2(relu(fc1(h)));
  }
};
/// Rows of every weight, and biases, times factors from 1/1000 to 1000.
void spread(nn::Module& m) {
  const NoGrad no_grad;
  for (const ParameterRef& p : m.parameters()) {
    Shape rows = Shape::filled(static_cast<int>(p.raw().ndim()), 1);
    rows[0] = p.raw().size(0);
    p.replace(p.raw() * exp((rand(rows) - 0.5) * 13.8));
  }
}
double relative_error(const Tensor& got, const Tensor& want) {
  const auto a = got.to_vector<double>(), b = want.to_vector<double>();
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return std::sqrt(error / size);
}

TEST(Equalize, KeepsTheFunctionAndMakesRangesAlike) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    manual_seed(seed);
    Chain module;
    spread(module);
    const Tensor x = randn({4, 3, 16, 16});
    const NoGrad no_grad;
    Network net = graph::trace(module, x);
    const EqualizeReport report = equalize(net, {.rounds = 500});
    ASSERT_EQ(report.pairs.size(), 5u) << report.table();
    EXPECT_EQ(report.equalized(), 5) << report.table();
    EXPECT_LT(relative_error(net(x), module(x)), 1e-5) << seed;
    for (const auto& p : report.pairs) {
      EXPECT_GT(p.before, 10);
      EXPECT_LT(p.after, 1.01) << p.first;
    }
    // By hand: the largest weight of hidden unit c of fc1 and the largest that reads it.
    const Tensor w1 = max(abs(net.parameter(net.find("fc1.weight")).value()), 1);
    const Tensor w2 = max(abs(net.parameter(net.find("fc2.weight")).value()), 0);
    EXPECT_TRUE(allclose(w1, w2, 0.01, 0));
    // And of the flattened plane.
    const Tensor wide = max(abs(reshape(net.parameter(net.find("wider.weight")).value(), {12, 2})), 1);
    const Tensor fc1 = abs(net.parameter(net.find("fc1.weight")).value());
    const Tensor read = max(max(reshape(fc1, {9, 12, 4}), 2), 0);
    EXPECT_TRUE(allclose(wide, read, 0.01, 0));
  }
}

TEST(Equalize, IsThePapersFormulaForOnePair) {
  manual_seed(20);
  struct Two : nn::Module {
    nn::Linear a{{.in = 3, .out = 4}}, b{{.in = 4, .out = 2}};
    HONE_MODULE(Two, a, b)
    Tensor forward(const Tensor& x) { return b(relu(a(x))); }
  } module;
  Network net = graph::trace(module, randn({2, 3}));
  EXPECT_EQ(equalize(net, {.rounds = 1}).rounds, 1);
  const auto w = module.a.weight.raw().to_vector<double>(), b = module.a.bias.raw().to_vector<double>(),
             u = module.b.weight.raw().to_vector<double>();
  const auto values = [&](const char* name) { return net.parameter(net.find(name)).value().to_vector<double>(); };
  const auto got_w = values("a.weight"), got_b = values("a.bias"), got_u = values("b.weight");
  for (size_t c = 0; c < 4; ++c) {
    const double r1 = std::max({std::abs(w[3 * c]), std::abs(w[3 * c + 1]), std::abs(w[3 * c + 2])});
    const double r2 = std::max(std::abs(u[c]), std::abs(u[4 + c])), s = std::sqrt(r1 * r2) / r2;
    for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(got_w[3 * c + k], w[3 * c + k] / s, 1e-6);
    EXPECT_NEAR(got_b[c], b[c] / s, 1e-6);
    for (size_t o = 0; o < 2; ++o) EXPECT_NEAR(got_u[4 * o + c], u[4 * o + c] * s, 1e-6);
  }
}

TEST(Equalize, OneRoundIsMadeWhateverTheTolerance) {
  manual_seed(24);
  Chain module;
  spread(module);
  Network wide = graph::trace(module, randn({2, 3, 16, 16})), once = wide;
  EXPECT_EQ(equalize(wide, {.tolerance = 1e30}).rounds, 1);
  equalize(once, {.rounds = 1});
  for (const auto& [name, p] : wide.named_parameters())
    EXPECT_TRUE(equal(p.raw(), once.parameter(once.find(name)).raw())) << name;
  expect_error<ValueError>([&] { equalize(wide, {.tolerance = NAN}); }, {"tolerance"});
}

TEST(Equalize, MasksStayAndDeadChannelsAreLeftAlone) {
  manual_seed(21);
  Chain module;
  spread(module);
  const Tensor x = randn({2, 3, 16, 16});
  const NoGrad no_grad;
  Network net = graph::trace(module, x);
  compress::prune(net, {.criterion = compress::magnitude(), .density = 0.1});
  const Network before = net;
  equalize(net);
  EXPECT_LT(relative_error(net(x), Network(before)(x)), 1e-5);
  for (const auto& [name, p] : net.named_parameters()) {
    const ParameterRef was = before.parameter(before.find(name)).ref();
    ASSERT_EQ(p.mask().defined(), was.mask().defined());
    if (!p.mask().defined()) continue;
    EXPECT_TRUE(equal(p.mask(), was.mask()));
    EXPECT_TRUE(equal(eq(p.value(), 0.0), eq(was.value(), 0.0)));
  }
}

TEST(Equalize, SkipsWhatIsNotSimple) {
  manual_seed(22);
  struct Odd : nn::Module {
    nn::Conv2d a{{.in = 2, .out = 4, .kernel = 1}}, b{{.in = 4, .out = 4, .kernel = 1}};
    nn::Conv2d c{{.in = 4, .out = 4, .kernel = 1}}, d{{.in = 4, .out = 4, .kernel = 1}};
    nn::Linear e{{.in = 4, .out = 4}}, f{{.in = 4, .out = 4}}, twice{{.in = 4, .out = 4}};
    HONE_MODULE(Odd, a, b, c, d, e, f, twice)
    Tensor forward(const Tensor& x) {
      const Tensor h = clamp(a(x), 0, 6);  // not homogeneous
      const Tensor g = relu(b(h));         // two readers
      Tensor y = relu(c(g) + g);           // an addition
      y = e(d(y));                         // the last dim of an image is no channel
      y = f(tanh(y));
      return twice(relu(twice(y)));  // one weight, two layers
    }
  } module;
  const Tensor x = randn({3, 2, 4, 4});
  Network net = graph::trace(module, x);
  const Network before = net;
  const EqualizeReport report = equalize(net);
  EXPECT_EQ(report.equalized(), 0) << report.table();
  ASSERT_EQ(report.pairs.size(), 7u) << report.table();
  const char* reasons[] = {"clamp", "other readers", "add", "linear", "tanh", "shared", "shared"};
  for (size_t i = 0; i < 7; ++i)
    EXPECT_NE(report.pairs[i].skipped.find(reasons[i]), std::string::npos) << i << "\n" << report.table();
  const NoGrad no_grad;
  EXPECT_TRUE(equal(net(x), Network(before)(x)));

  Chain chain;
  Network shared = graph::trace(chain, randn({2, 3, 16, 16}));
  compress::quantize::share_weights(shared, {.clusters = 8, .only = {"fc1"}});
  EXPECT_EQ(equalize(shared).equalized(), 3) << "fc1 is a codebook";
  Network bad = graph::trace(chain, randn({2, 3, 16, 16}));
  Tensor w = clone(bad.parameter(bad.find("fc2.weight")).raw());
  w.data<float>()[0] = NAN;
  bad.parameter(bad.find("fc2.weight")).ref().replace(w);
  expect_error<NumericError>([&] { equalize(bad); }, {"fc2.weight"});
  expect_error<ValueError>([&] { equalize(bad, {.rounds = 0}); }, {"0 rounds"});
}

TEST(Equalize, HelpsOneScaleForATensor) {
  manual_seed(23);
  Chain module;
  spread(module);
  const Tensor x = randn({16, 3, 16, 16});
  const Network net = graph::trace(module, x);
  const NoGrad no_grad;
  const auto error = [&](bool on) {
    Network small =
        quantize_static(net, calibration({x}), {.weights = compress::quantize::Granularity::tensor, .equalize = on});
    return relative_error(small(x), module(x));
  };
  EXPECT_LT(error(true), 0.5 * error(false)) << error(true) << " and " << error(false);
}

}  // namespace
}  // namespace hone::test
