// Filters and pools: scores against plain computations, what is removed, and what cannot be.

#include "support.h"

namespace hone::test {
namespace {

using compress::FilterCriterion;
using graph::Network;

/// conv → batch norm → relu → pool → conv → relu → linear, on [N, 2, 6, 6].
struct Small : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 5, .kernel = 3, .padding = 1}},
      conv2{{.in = 5, .out = 4, .kernel = 3, .padding = 1}};
  nn::BatchNorm2d bn{{.features = 5}};
  nn::Linear fc{{.in = 36, .out = 3}};
  HONE_MODULE(Small, conv1, bn, conv2, fc)
  Small() {
    Tensor weight = bn.weight.raw().detach(), bias = bn.bias.raw().detach();
    weight.copy_(randn({5}));
    bias.copy_(randn({5}));
  }
  Tensor forward(const Tensor& x) { return fc(flatten(relu(conv2(max_pool2d(relu(bn(conv1(x))), 2))), 1)); }
};

struct Fixture {
  Fixture() : module((manual_seed(11), Small())), net(graph::trace(module, randn({1, 2, 6, 6}))) {
    for (const int64_t n : {3, 5, 1}) batches.push_back({randn({n, 2, 6, 6}), randint(0, 3, {n})});
    data = compress::pass_over(batches, [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); });
  }
  struct Batch {
    Tensor inputs, targets;
  };
  Small module;
  Network net;
  std::vector<Batch> batches;
  compress::Pass data;
};

std::vector<double> scores_of(Fixture& f, FilterCriterion c, size_t group, const compress::Pass& data = {}) {
  const auto scores = compress::filter_scores(f.net, c, data);
  EXPECT_EQ(scores.size(), 2u) << "conv1 and conv2: fc makes the output";
  return scores[group].scores;
}
/// f(kernel) of each row of a weight, in plain loops.
template <class F> std::vector<double> rows(const Tensor& w, const F& f) {
  const std::vector<double> v = w.to_vector<double>();
  const auto n = static_cast<size_t>(w.size(0)), m = v.size() / n;
  std::vector<double> out;
  for (size_t i = 0; i < n; ++i)
    out.push_back(f(std::vector<double>(v.begin() + static_cast<std::ptrdiff_t>(i * m),
                                        v.begin() + static_cast<std::ptrdiff_t>((i + 1) * m))));
  return out;
}

TEST(FilterScores, NormsAreThoseOfTheKernels) {
  Fixture f;
  const Tensor& w = f.module.conv2.weight.raw();
  const auto l1 = rows(w, [](const auto& k) {
    double s = 0;
    for (double x : k) s += std::abs(x);
    return s;
  });
  const auto l2 = rows(w, [](const auto& k) {
    double s = 0;
    for (double x : k) s += x * x;
    return std::sqrt(s);
  });
  expect_close(scores_of(f, FilterCriterion::l1, 1), l1, {1e-6, 0}, "l1");
  expect_close(scores_of(f, FilterCriterion::l2, 1), l2, {1e-6, 0}, "l2");
}

TEST(FilterScores, MaskedWeightsCountAsZero) {
  Fixture f;
  const graph::ValueId w = f.net.find("conv1.weight");
  f.net.parameter(w).ref().set_mask(zeros({5, 2, 3, 3}, DType::boolean));
  expect_close(scores_of(f, FilterCriterion::l1, 0), std::vector<double>(5, 0), {0, 0}, "all masked");
}

TEST(FilterScores, GeometricMedianSumsDistances) {
  Fixture f;
  const std::vector<double> w = f.module.conv1.weight.raw().to_vector<double>();
  std::vector<double> want(5, 0);
  for (size_t a = 0; a < 5; ++a)
    for (size_t b = 0; b < 5; ++b) {
      double s = 0;
      for (size_t i = 0; i < 18; ++i) s += (w[a * 18 + i] - w[b * 18 + i]) * (w[a * 18 + i] - w[b * 18 + i]);
      want[a] += std::sqrt(s);
    }
  expect_close(scores_of(f, FilterCriterion::geometric_median, 0), want, {1e-6, 1e-6}, "distances");
}

TEST(FilterScores, GammaIsThatOfTheBatchNorm) {
  Fixture f;
  expect_error<GraphError>([&] { compress::filter_scores(f.net, FilterCriterion::bn_gamma); },
                           {"batch norm", "'conv2"});
  Small& m = f.module;
  struct One : nn::Module {
    nn::Conv2d conv{{.in = 2, .out = 5, .kernel = 3}};
    nn::BatchNorm2d bn{{.features = 5}};
    nn::Linear fc{{.in = 5, .out = 2}};
    HONE_MODULE(One, conv, bn, fc)
    Tensor forward(const Tensor& x) { return fc(flatten(adaptive_avg_pool2d(relu(bn(conv(x))), 1), 1)); }
  } one;
  Tensor weight = one.bn.weight.raw().detach();
  weight.copy_(m.bn.weight.raw().detach());
  Network net = graph::trace(one, randn({1, 2, 6, 6}));
  const auto want = rows(reshape(weight, {5, 1}), [](const auto& k) { return std::abs(k[0]); });
  expect_close(compress::filter_scores(net, FilterCriterion::bn_gamma)[0].scores, want, {1e-6, 0}, "gamma");
}

/// conv1 and conv2 make the same channels, which a norm reads; conv3 has no norm.
struct Tied : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 4, .kernel = 3, .padding = 1}}, conv2{{.in = 4, .out = 4, .kernel = 1}},
      conv3{{.in = 4, .out = 3, .kernel = 1}};
  nn::BatchNorm2d bn1{{.features = 4}}, bn2{{.features = 4}};
  nn::Linear fc{{.in = 3, .out = 2}};
  HONE_MODULE(Tied, conv1, bn1, conv2, bn2, conv3, fc)
  Tied() {
    for (nn::BatchNorm2d* bn : {&bn1, &bn2}) bn->weight.raw().detach().copy_(randn({4}));
  }
  Tensor forward(const Tensor& x) {
    const Tensor h = bn1(conv1(x));
    const Tensor sum = h + bn2(conv2(relu(h)));
    return fc(flatten(adaptive_avg_pool2d(relu(conv3(sum)), 1), 1));
  }
};

TEST(FilterScores, OfTiedLayersAreThoseOfAllTheirKernels) {
  manual_seed(12);
  Tied module;
  Network net = graph::trace(module, randn({1, 2, 4, 4}));
  const auto tied = [&](FilterCriterion c) {
    const auto scores = compress::filter_scores(net, c);
    EXPECT_EQ(scores.size(), 2u);
    EXPECT_EQ(scores[0].layers, (std::vector<std::string>{"conv1", "conv2"}));
    return scores[0].scores;
  };
  std::vector<double> l1(4, 0), squares(4, 0), distances(4, 0);
  for (const nn::Conv2d* conv : {&module.conv1, &module.conv2}) {
    const std::vector<double> w = conv->weight.raw().to_vector<double>();
    const size_t row = w.size() / 4;
    for (size_t a = 0; a < 4; ++a) {
      for (size_t i = 0; i < row; ++i) l1[a] += std::abs(w[a * row + i]), squares[a] += w[a * row + i] * w[a * row + i];
      for (size_t b = 0; b < 4; ++b) {
        double s = 0;
        for (size_t i = 0; i < row; ++i) s += (w[a * row + i] - w[b * row + i]) * (w[a * row + i] - w[b * row + i]);
        distances[a] += std::sqrt(s);
      }
    }
  }
  expect_close(tied(FilterCriterion::l1), l1, {1e-6, 0}, "l1");
  expect_close(tied(FilterCriterion::geometric_median), distances, {1e-6, 1e-6}, "distances");
  std::vector<double> l2 = squares;
  for (double& s : l2) s = std::sqrt(s);
  expect_close(tied(FilterCriterion::l2), l2, {1e-6, 0}, "l2");
}

TEST(FilterScores, GammaIsForTheLayersThatHaveANorm) {
  manual_seed(13);
  Tied module;
  Network net = graph::trace(module, randn({1, 2, 4, 4}));
  const int64_t before = net.parameter_count();
  // conv3 has no norm: naming the layers that have one is the way, and without it nothing has changed.
  const compress::FilterOptions all{.criterion = FilterCriterion::bn_gamma, .ratio = 0.25};
  expect_error<GraphError>([&] { compress::prune_filters(net, all); }, {"batch norm", "'conv3"});
  EXPECT_EQ(net.parameter_count(), before);
  const std::vector<double> a = module.bn1.weight.raw().to_vector<double>(),
                            b = module.bn2.weight.raw().to_vector<double>();
  size_t lowest = 0;
  for (size_t i = 1; i < 4; ++i)
    if (std::abs(a[i]) + std::abs(b[i]) < std::abs(a[lowest]) + std::abs(b[lowest])) lowest = i;
  compress::FilterOptions some = all;
  some.only = {"conv1"};
  compress::prune_filters(net, some);
  std::vector<double> kept = a;
  kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(lowest));
  expect_close(net.parameter(net.find("bn1.weight")).raw().to_vector<double>(), kept, {0, 0}, "kept");
  EXPECT_EQ(net.parameter(net.find("conv2.weight")).shape(), (Shape{3, 3, 1, 1}));
}

TEST(FilterScores, DataDrivenOnesMatchPlainAutograd) {
  Fixture f;
  f.module.eval();
  std::vector<double> active(4, 0), taylor(4, 0), positions(1, 0);
  Tensor mean;
  double samples = 0;
  for (const auto& b : f.batches) {
    const auto n = static_cast<double>(b.inputs.size(0));
    Tensor hidden;
    auto handle = f.module.conv2.register_forward_hook([&](nn::Module&, const Tensor&, Tensor& y) { hidden = y; });
    f.module.zero_grad();
    cross_entropy(f.module(b.inputs), b.targets).backward();
    handle.remove();
    const std::vector<double> h = hidden.detach().to_vector<double>();
    for (size_t i = 0; i < h.size(); ++i) active[i / 9 % 4] += h[i] > 0;
    positions[0] += n * 9;
    const Tensor w = cast(f.module.conv2.weight.raw().detach(), f64), g = cast(f.module.conv2.weight.grad(), f64);
    const auto products = rows(w * g, [](const auto& k) {
      double s = 0;
      for (double x : k) s += x;
      return s;
    });
    for (size_t i = 0; i < 4; ++i) taylor[i] += n * std::abs(products[i]);
    mean = mean.defined() ? mean + g * n : g * n;
    samples += n;
  }
  for (double& a : active) a /= positions[0];
  for (double& t : taylor) t /= samples;
  const auto gradient = rows(mean / samples, [](const auto& k) {
    double s = 0;
    for (double x : k) s += std::abs(x);
    return s / static_cast<double>(k.size());
  });
  expect_close(scores_of(f, FilterCriterion::apoz, 1, f.data), active, {1e-9, 1e-12}, "apoz");
  expect_close(scores_of(f, FilterCriterion::taylor, 1, f.data), taylor, {1e-4, 1e-7}, "taylor");
  expect_close(scores_of(f, FilterCriterion::gradient, 1, f.data), gradient, {1e-4, 1e-7}, "gradient");
  expect_error<ValueError>([&] { compress::filter_scores(f.net, FilterCriterion::taylor); }, {"data"});
}

TEST(FilterScores, OfKernelsThatNoLossDependsOnAreRefusedByTheirName) {
  struct Unused : nn::Module {
    nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 1}}, unused{{.in = 4, .out = 3, .kernel = 1}};
    nn::Linear fc{{.in = 16, .out = 2}};
    HONE_MODULE(Unused, conv, unused, fc)
    Tensor forward(const Tensor& x) {
      const Tensor h = conv(x);
      unused(h);
      return fc(flatten(h, 1));
    }
  } module;
  const Tensor x = randn({2, 1, 2, 2});
  Network net = graph::trace(module, x);
  const compress::Pass data = [&](const auto& visit) { visit(x, [](const Tensor& y) { return mean(y); }); };
  expect_error<GraphError>([&] { compress::filter_scores(net, compress::FilterCriterion::taylor, data); },
                           {"no batch's loss depends on 'unused.weight'"});
}

TEST(FilterScores, ActivityIsOfTheChannelsWhereverTheyStand) {
  manual_seed(19);
  struct Rows : nn::Module {  // [N, T, C]: the channels are dim 2
    nn::Linear a{{.in = 4, .out = 6}}, b{{.in = 6, .out = 2}};
    HONE_MODULE(Rows, a, b)
    Tensor forward(const Tensor& x) { return b(relu(a(x))); }
  } module;
  const Tensor x = randn({5, 3, 4});
  Network net = graph::trace(module, x);
  const compress::Pass data = [&](const auto& visit) { visit(x, [](const Tensor& y) { return mean(y); }); };
  const std::vector<double> h = module.a(x).detach().to_vector<double>();
  std::vector<double> want(6, 0);
  for (size_t i = 0; i < h.size(); ++i) want[i % 6] += (h[i] > 0) / 15.0;
  const auto scores = compress::filter_scores(net, FilterCriterion::apoz, data);
  ASSERT_EQ(scores.size(), 1u);
  expect_close(scores[0].scores, want, {1e-12, 1e-12}, "apoz");
}

TEST(PruneFilters, TakesTheLowestByRatioPerLayerOrOverAll) {
  Fixture f;
  const auto l2 = scores_of(f, FilterCriterion::l2, 1);
  const auto lowest = std::min_element(l2.begin(), l2.end()) - l2.begin();
  Network net = f.net;
  const auto report = compress::prune_filters(net, {.ratio = 0.25});
  EXPECT_EQ(net.parameter(net.find("conv1.weight")).shape()[0], 4);
  EXPECT_EQ(net.parameter(net.find("conv2.weight")).shape(), (Shape{3, 4, 3, 3}));
  const std::vector<double> before = f.net.parameter(f.net.find("conv2.bias")).raw().to_vector<double>();
  std::vector<double> want;
  for (size_t i = 0; i < 4; ++i)
    if (static_cast<std::ptrdiff_t>(i) != lowest) want.push_back(before[i]);
  EXPECT_EQ(net.parameter(net.find("conv2.bias")).raw().to_vector<double>(), want);
  EXPECT_EQ(report.parameters_after, net.parameter_count());
  EXPECT_EQ(report.macs_after, net.macs());
  EXPECT_LT(report.macs_after, report.macs_before);
  EXPECT_FALSE(report.shrinks.empty());
  net = f.net;
  compress::prune_filters(net, {.ratio = 4.0 / 9, .scope = compress::FilterScope::global});
  EXPECT_EQ(net.parameter(net.find("conv1.weight")).shape()[0] + net.parameter(net.find("conv2.weight")).shape()[0], 5);
}

TEST(PruneFilters, ReachesItsMultiplyAddsAndKeepsItsLimits) {
  manual_seed(5);
  nn::ResNet module{{.depth = 8, .in = 1, .width = 8}};
  Network net = graph::trace(module, randn({1, 1, 32, 32}));
  const Network whole = net;
  const auto report = compress::prune_filters(
      net, {.macs = 0.5, .scope = compress::FilterScope::global, .round_to = 2, .min_channels = 4});
  EXPECT_LE(report.macs_after, report.macs_before * 11 / 20) << "rounding up to pairs may keep a little more";
  for (const auto& g : report.groups) {
    EXPECT_EQ(g.kept % 2, 0) << g.layers[0];
    EXPECT_GE(g.kept, 4) << g.layers[0];
  }
  EXPECT_NE(report.table().find("multiply-adds"), std::string::npos);
  Network kept = whole;
  compress::prune_filters(kept, {.keep = {{"stage1.0.conv1", 3}}});
  EXPECT_EQ(kept.parameter(kept.find("stage1.0.conv1.weight")).shape()[0], 3);
  EXPECT_EQ(kept.parameter(kept.find("conv1.weight")).shape()[0], 8);
}

TEST(PruneFilters, RefusesWhatItCannotDo) {
  Fixture f;
  const auto prune = [&](compress::FilterOptions o) { return [&f, o] { compress::prune_filters(f.net, o); }; };
  expect_error<ValueError>(prune({.ratio = 1}), {"ratio", "[0, 1)"});
  expect_error<ValueError>(prune({.ratio = -0.1}), {"ratio"});
  expect_error<ValueError>(prune({.ratio = std::nan("")}), {"ratio"});
  expect_error<ValueError>(prune({.macs = 1.5}), {"macs"});
  expect_error<ValueError>(prune({}), {"nothing is aimed at"});
  expect_error<ValueError>(prune({.ratio = 0.5, .macs = 0.5}), {"two aims"});
  expect_error<ValueError>(prune({.ratio = 0.5, .min_channels = 0}), {"min_channels"});
  expect_error<GraphError>(prune({.ratio = 0.5, .only = {"conv9"}}), {"'conv9'", "'conv1'"});
  expect_error<GraphError>(prune({.ratio = 0.5, .only = {"fc"}}), {"fc", "output"});
  expect_error<ValueError>(prune({.keep = {{"conv1", 6}}}), {"conv1", "6"});
  expect_error<ValueError>(prune({.keep = {{"conv1", 0}}}), {"conv1"});
  expect_error<ValueError>(prune({.macs = 0.0001}), {"cannot be reached"});
  EXPECT_EQ(f.net.parameter_count(), f.module.parameter_count());
}

TEST(PruneFilters, RefusesScoresThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    Fixture f;
    slice(f.net.parameter(f.net.find("conv2.weight")).raw().detach(), 0, 1, 2).fill_(bad);
    for (const auto scope : {compress::FilterScope::global, compress::FilterScope::per_layer})
      expect_error<NumericError>([&] { compress::prune_filters(f.net, {.ratio = 0.25, .scope = scope}); },
                                 {"prune_filters", "'conv2'", "is " + str(bad)});
    expect_error<NumericError>([&] { compress::filter_scores(f.net, FilterCriterion::l1); }, {"'conv2'"});
    EXPECT_EQ(f.net.parameter_count(), f.module.parameter_count());
  }
}

TEST(Pools, ScoresAreMeanAbsoluteGradientsOfThePlace) {
  Fixture f;
  f.module.eval();
  EXPECT_EQ(compress::pools(f.net), (std::vector<std::string>{"max_pool2d"}));
  std::vector<double> want(5, 0);
  double samples = 0;
  for (const auto& b : f.batches) {
    // conv2's input is the pool's output.
    Tensor pooled;
    auto handle = f.module.conv2.register_forward_pre_hook([&](nn::Module&, Tensor& x) {
      pooled = x;
      pooled.retain_grad();
    });
    cross_entropy(f.module(b.inputs), b.targets).backward();
    handle.remove();
    const std::vector<double> g = pooled.grad().to_vector<double>();
    for (size_t i = 0; i < g.size(); ++i) want[i / 9 % 5] += std::abs(g[i]) / 9;
    samples += static_cast<double>(b.inputs.size(0));
  }
  // A mean over samples of |∂L/∂y|, L the batch's mean loss: each batch counts by its samples.
  std::vector<double> weighted(5, 0);
  for (const auto& b : f.batches) {
    Tensor pooled;
    auto handle = f.module.conv2.register_forward_pre_hook([&](nn::Module&, Tensor& x) {
      pooled = x;
      pooled.retain_grad();
    });
    cross_entropy(f.module(b.inputs), b.targets).backward();
    handle.remove();
    const std::vector<double> g = pooled.grad().to_vector<double>();
    for (size_t i = 0; i < g.size(); ++i) weighted[i / 9 % 5] += std::abs(g[i]) / 9 / samples;
  }
  const auto scores = compress::place_scores(f.net, {"max_pool2d"}, f.data);
  ASSERT_EQ(scores.size(), 1u);
  expect_close(scores[0].channels, weighted, {1e-4, 1e-9}, "mean |gradient|");
  expect_error<GraphError>([&] { compress::place_scores(f.net, {"max_pool"}, f.data); },
                           {"'max_pool'", "'max_pool2d'"});
}

TEST(Pools, ZeroedChannelsGoWithTheKernelsThatFeedThem) {
  Fixture f;
  Network net = f.net;
  const auto report = compress::zero_channels(net, {.ratio = 0.4, .data = f.data});
  EXPECT_EQ(report.zeroed[0].channels.size(), 2u);
  EXPECT_EQ(net.parameter(net.find("conv1.weight")).shape()[0], 3);
  EXPECT_EQ(net.parameter(net.find("bn.weight")).shape()[0], 3);
  EXPECT_EQ(net.parameter(net.find("conv2.weight")).shape()[1], 3);
  expect_error<ValueError>([&] { compress::zero_channels(net, "max_pool2d", {0, 1, 2}); }, {"all 3", "at least one"});
  expect_error<ValueError>([&] { compress::zero_channels(net, {.ratio = 1.5, .data = f.data}); }, {"ratio"});
  EXPECT_EQ(net.parameter(net.find("conv1.weight")).shape()[0], 3);
}

TEST(Pools, RemovedWhereTheShapesFitElseRefused) {
  Fixture f;
  expect_error<GraphError>([&] { compress::remove_pool(f.net, "max_pool2d"); }, {"'max_pool2d' cannot go", "fc"});
  EXPECT_EQ(compress::pools(f.net).size(), 1u);
  nn::ResNet resnet{{.depth = 8, .in = 1, .width = 4}};
  Network net = graph::trace(resnet, randn({1, 1, 32, 32}));
  EXPECT_EQ(compress::pools(net).size(), 1u);
  expect_error<GraphError>([&] { compress::remove_pool(net, compress::pools(net)[0]); }, {"cannot go"});
  struct Wide : nn::Module {
    nn::Conv2d conv{{.in = 1, .out = 3, .kernel = 3}};
    nn::Linear fc{{.in = 3, .out = 2}};
    HONE_MODULE(Wide, conv, fc)
    Tensor forward(const Tensor& x) { return fc(flatten(adaptive_avg_pool2d(max_pool2d(conv(x), 2), 1), 1)); }
  } wide;
  Network open = graph::trace(wide, randn({1, 1, 8, 8}));
  compress::remove_pool(open, "max_pool2d");
  EXPECT_EQ(compress::pools(open), (std::vector<std::string>{"adaptive_avg_pool2d"}));
  NoGrad no_grad;
  const Tensor x = randn({2, 1, 8, 8});
  EXPECT_TRUE(allclose(open(x), wide.fc(flatten(adaptive_avg_pool2d(wide.conv(x), 1), 1))));
}

TEST(Pools, BecomeTheStrideOfTheConvolutionBefore) {
  Fixture f;
  Network net = f.net;
  compress::to_strided_conv(net, "max_pool2d");
  EXPECT_TRUE(compress::pools(net).empty());
  EXPECT_LT(net.macs(), f.net.macs());
  NoGrad no_grad;
  net.eval(), f.module.eval();
  const Tensor x = randn({2, 2, 6, 6});
  const Tensor strided =
      conv2d(x, f.module.conv1.weight.value(), f.module.conv1.bias.value(), {.stride = {2}, .padding = {1}});
  const Tensor want = f.module.fc(flatten(relu(f.module.conv2(relu(f.module.bn(strided)))), 1));
  EXPECT_TRUE(allclose(net(x), want, 1e-5, 1e-6));
  nn::LeNet lenet;
  Network two = graph::trace(lenet, randn({1, 3, 32, 32}));
  EXPECT_EQ(compress::pools(two), (std::vector<std::string>{"max_pool2d", "max_pool2d_1"}));
  compress::to_strided_conv(two, "max_pool2d_1");
  EXPECT_EQ(compress::pools(two), (std::vector<std::string>{"max_pool2d"}));
  expect_error<GraphError>([&] { compress::to_strided_conv(two, "max_pool2d_1"); }, {"max_pool2d_1", "'max_pool2d'"});
}

TEST(ResidualBlocks, AreFoundAndTheirBranchGoes) {
  nn::ResNet resnet{{.depth = 20, .in = 1, .width = 4}};
  Network net = graph::trace(resnet, randn({1, 1, 32, 32}));
  const auto blocks = compress::residual_blocks(net);
  EXPECT_EQ(blocks.size(), 9u);
  const int64_t before = net.parameter_count();
  compress::remove_block(net, blocks[1]);
  EXPECT_EQ(compress::residual_blocks(net).size(), 8u);
  EXPECT_LT(net.parameter_count(), before);
  NoGrad no_grad;
  EXPECT_EQ(net(randn({2, 1, 32, 32})).shape(), (Shape{2, 10}));
  expect_error<GraphError>([&] { compress::remove_block(net, "conv1"); }, {"conv1", "residual"});
}

}  // namespace
}  // namespace hone::test
