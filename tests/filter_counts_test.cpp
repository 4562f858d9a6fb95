// How many channels pruning leaves: of grouped and tied layers too, and what options contradict each other.

#include "support.h"

namespace hone::test {
namespace {

using compress::FilterCriterion;
using graph::Network;

/// conv1 in four groups, a channel of each of which goes with those of the others; conv2 is on its own.
struct Grouped : nn::Module {
  nn::Conv2d conv1{{.in = 8, .out = 16, .kernel = 1, .groups = 4}}, conv2{{.in = 16, .out = 6, .kernel = 1}};
  nn::Linear fc{{.in = 6, .out = 2}};
  HONE_MODULE(Grouped, conv1, conv2, fc)
  Tensor forward(const Tensor& x) { return fc(flatten(conv2(relu(conv1(x))), 1)); }
};
int64_t channels(const Network& net, const std::string& layer) {
  return net.parameter(net.find(layer + ".weight")).shape()[0];
}
compress::FilterReport::Group group_of(const compress::FilterReport& report, const std::string& layer) {
  for (const auto& g : report.groups)
    if (std::find(g.layers.begin(), g.layers.end(), layer) != g.layers.end()) return g;
  throw GraphError("no group " + layer);
}

TEST(PruneFilters, CountsTheChannelsOfGroupedConvolutions) {
  manual_seed(14);
  Grouped module;
  const Network whole = graph::trace(module, randn({1, 8, 1, 1}));
  const auto kept = [&](const compress::FilterOptions& o) {
    Network net = whole;
    const auto group = group_of(compress::prune_filters(net, o), "conv1");
    EXPECT_EQ(group.kept, channels(net, "conv1"));
    EXPECT_EQ(group.total, 16);
    return group.kept;
  };
  for (const int64_t n : {4, 8, 12, 16}) EXPECT_EQ(kept({.keep = {{"conv1", n}}}), n);
  EXPECT_EQ(kept({.ratio = 0.5, .only = {"conv1"}}), 8);
  EXPECT_EQ(kept({.ratio = 0.5, .round_to = 4, .only = {"conv1"}}), 8);
  EXPECT_EQ(kept({.ratio = 0.5, .round_to = 3, .only = {"conv1"}}), 12) << "the first multiple of 3 above 8";
  EXPECT_EQ(kept({.ratio = 0.75, .min_channels = 5, .only = {"conv1"}}), 8);
  Network net = whole;
  const auto keep = [&](int64_t n) { return [&net, n] { compress::prune_filters(net, {.keep = {{"conv1", n}}}); }; };
  expect_error<ValueError>(keep(2), {"'conv1' cannot keep 2", "16 channels", "steps of 4", "can keep 4"});
  expect_error<ValueError>(keep(7), {"'conv1' cannot keep 7", "steps of 4", "can keep 8"});
  expect_error<ValueError>(keep(20), {"'conv1' cannot keep 20", "it has 16"});
  EXPECT_EQ(channels(net, "conv1"), 16);
}

TEST(PruneFilters, ReportsTheWidestOfTiedLayers) {
  manual_seed(15);
  struct Depthwise : nn::Module {
    nn::Conv2d conv{{.in = 3, .out = 4, .kernel = 1}}, depthwise{{.in = 4, .out = 8, .kernel = 1, .groups = 4}};
    nn::Linear fc{{.in = 8, .out = 2}};
    HONE_MODULE(Depthwise, conv, depthwise, fc)
    Tensor forward(const Tensor& x) { return fc(flatten(depthwise(conv(x)), 1)); }
  } module;
  Network net = graph::trace(module, randn({1, 3, 1, 1}));
  expect_error<ValueError>(
      [&] {
        compress::prune_filters(net, {.keep = {{"depthwise", 3}}});
      },
      {"'depthwise' cannot keep 3", "steps of 2", "can keep 4"});
  expect_error<ValueError>(
      [&] {
        compress::prune_filters(net, {.keep = {{"conv", 3}, {"depthwise", 4}}});
      },
      {"'conv'", "3", "'depthwise'", "4"});
  const auto report = compress::prune_filters(net, {.keep = {{"conv", 3}, {"depthwise", 6}}});
  EXPECT_EQ(report.groups[0].kept, 6);
  EXPECT_EQ(report.groups[0].total, 8);
  EXPECT_EQ(channels(net, "conv"), 3);
}

/// A residual add ties conv1 and conv2.
struct Tied : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 4, .kernel = 1}}, conv2{{.in = 4, .out = 4, .kernel = 1}};
  nn::Linear fc{{.in = 4, .out = 2}};
  HONE_MODULE(Tied, conv1, conv2, fc)
  Tensor forward(const Tensor& x) {
    const Tensor h = conv1(x);
    return fc(flatten(h + conv2(relu(h)), 1));
  }
};

TEST(PruneFilters, RefusesToKeepWhatOtherOptionsContradict) {
  manual_seed(16);
  Grouped grouped;
  Network net = graph::trace(grouped, randn({1, 8, 1, 1}));
  const auto prune = [&](compress::FilterOptions o) { return [&net, o] { compress::prune_filters(net, o); }; };
  expect_error<ValueError>(prune({.min_channels = 4, .keep = {{"conv2", 2}}}), {"'conv2'", "2", "min_channels", "4"});
  expect_error<ValueError>(prune({.except = {"conv1"}, .keep = {{"conv1", 8}}}), {"keep", "except", "'conv1'"});
  EXPECT_EQ(net.parameter_count(), grouped.parameter_count());
  Tied module;
  net = graph::trace(module, randn({1, 2, 1, 1}));
  expect_error<ValueError>(prune({.keep = {{"conv1", 2}, {"conv2", 3}}}), {"'conv1'", "2", "'conv2'", "3"});
  expect_error<ValueError>(prune({.keep = {{"conv1", 3}, {"conv2", 2}}}), {"'conv1'", "3", "'conv2'", "2"});
  expect_error<ValueError>(prune({.except = {"conv2"}, .keep = {{"conv1", 2}}}), {"'conv1'", "except", "'conv2'"});
  EXPECT_EQ(net.parameter_count(), module.parameter_count());
  compress::prune_filters(net, {.keep = {{"conv1", 2}, {"conv2", 2}}});
  EXPECT_EQ(channels(net, "conv1"), 2);
  EXPECT_EQ(channels(net, "conv2"), 2);
}

/// The channels of a and b, side by side, are those of c.
struct Joined : nn::Module {
  nn::Conv2d a{{.in = 3, .out = 4, .kernel = 1}}, b{{.in = 3, .out = 6, .kernel = 1}},
      c{{.in = 3, .out = 10, .kernel = 1}};
  nn::Linear fc{{.in = 10, .out = 2}};
  HONE_MODULE(Joined, a, b, c, fc)
  Tensor forward(const Tensor& x) { return fc(flatten(relu(concat({a(x), b(x)}, 1) + c(x)), 1)); }
};

TEST(PruneFilters, KeepsTheCountOfEachNamedLayerOfAConcat) {
  manual_seed(17);
  Joined module;
  const Network whole = graph::trace(module, randn({1, 3, 1, 1}));
  const auto kept = [&](const compress::FilterOptions& o) {
    Network net = whole;
    const auto group = group_of(compress::prune_filters(net, o), "a");
    EXPECT_EQ(group.kept, channels(net, "c"));
    EXPECT_EQ(group.total, 10);
    return std::vector<int64_t>{channels(net, "a"), channels(net, "b"), channels(net, "c")};
  };
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(kept({.keep = {{"a", 2}}}), (Counts{2, 6, 8}));
  EXPECT_EQ(kept({.keep = {{"a", 2}, {"b", 3}}}), (Counts{2, 3, 5}));
  EXPECT_EQ(kept({.keep = {{"c", 5}, {"a", 3}}}), (Counts{3, 2, 5}));
  EXPECT_EQ(kept({.ratio = 0.5, .keep = {{"a", 4}}}), (Counts{4, 3, 7})) << "half of what is left";
  EXPECT_EQ(kept({.min_channels = 2, .keep = {{"c", 4}}}), (Counts{2, 2, 4}));
  EXPECT_EQ(kept({.ratio = 0.5, .round_to = 4, .keep = {{"a", 3}}}), (Counts{3, 4, 7})) << "b is rounded";
  EXPECT_EQ(kept({.ratio = 0.5, .round_to = 4}), (Counts{4, 4, 8}));
  const auto prune = [&](compress::FilterOptions o) {
    return [&whole, o] {
      Network net = whole;
      compress::prune_filters(net, o);
    };
  };
  expect_error<ValueError>(prune({.keep = {{"a", 2}, {"b", 3}, {"c", 6}}}), {"'c'", "6"});
  expect_error<ValueError>(prune({.min_channels = 2, .keep = {{"c", 3}}}), {"'c' cannot keep 3", "at least 2"});
}

TEST(PruneFilters, KeepsACountThatUnequalTiesCanGive) {
  manual_seed(18);
  // Channels 0 and 2, 1 and 3 of conv go together, for a grouped convolution reads them; the others go one by one.
  struct Halved : nn::Module {
    nn::Conv2d conv{{.in = 3, .out = 8, .kernel = 1}}, grouped{{.in = 4, .out = 4, .kernel = 1, .groups = 2}};
    nn::Linear fc{{.in = 8, .out = 2}};
    HONE_MODULE(Halved, conv, grouped, fc)
    Tensor forward(const Tensor& x) {
      const Tensor h = conv(x);
      return fc(flatten(concat({grouped(slice(h, 1, 0, 4)), slice(h, 1, 4)}, 1), 1));
    }
  } module;
  Tensor weight = module.conv.weight.raw().detach(), bias = module.conv.bias.raw().detach();
  const std::vector<float> norms = {1, 9, 1, 9, 4, 3, 6, 5};  // the pair 0, 2 has the lowest score, then 5
  for (int64_t c = 0; c < 8; ++c) slice(weight, 0, c, c + 1).fill_(norms[static_cast<size_t>(c)]);
  module.grouped.weight.raw().detach().fill_(0);
  bias.copy_(arange(0, 8, 1, f32));
  const Network whole = graph::trace(module, randn({1, 3, 1, 1}));
  const auto left = [&](int64_t keep) {
    Network net = whole;
    compress::prune_filters(net, {.criterion = FilterCriterion::l1, .keep = {{"conv", keep}}});
    return net.parameter(net.find("conv.bias")).raw().to_vector<double>();
  };
  EXPECT_EQ(left(7), (std::vector<double>{0, 1, 2, 3, 4, 6, 7})) << "a pair would be one too many";
  EXPECT_EQ(left(6), (std::vector<double>{1, 3, 4, 5, 6, 7}));
  EXPECT_EQ(left(5), (std::vector<double>{1, 3, 4, 6, 7}));
}

}  // namespace
}  // namespace hone::test
