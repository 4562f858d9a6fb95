// Channels: what is coupled, that the shrunk network is the masked one, and that it trains on.

#include "channels_support.h"

namespace hone::test {
namespace {

using compress::Channel;
using compress::ChannelGroup;
using graph::Network;

/// Removes some channels of each group and returns them; at least one of each layer stays.
std::vector<Channel> choose(const Network& net, uint64_t seed, std::vector<compress::LayerChannels>& chosen) {
  std::mt19937_64 random(seed);
  std::vector<Channel> gone;
  std::map<std::pair<graph::ValueId, int64_t>, int64_t> left;  // of each dim: at least one index stays
  const auto fits = [&](const Channel& c) {
    for (const compress::ChannelSlice& s : c.slices) {
      const int64_t size = net.value(s.value).shape[static_cast<size_t>(s.dim)].fixed;
      const auto it = left.emplace(std::pair(s.value, s.dim), size).first;
      if (it->second <= static_cast<int64_t>(s.indices.size())) return false;
    }
    for (const compress::ChannelSlice& s : c.slices) left[{s.value, s.dim}] -= static_cast<int64_t>(s.indices.size());
    return true;
  };
  for (const ChannelGroup& g : compress::channel_groups(net)) {
    // Only groups whose channels are those of their first layer, in order, have a name for each channel.
    const graph::Node& layer = net.nodes()[net.find_node(g.layers[0])];
    const graph::ValueId out = layer.outputs[0];
    const int64_t dim = layer.op == &kConv2d ? 1 : static_cast<int64_t>(net.value(out).shape.size()) - 1;
    compress::LayerChannels of{g.layers[0], {}};
    std::vector<Channel> picked;
    for (const Channel& c : g.channels) {
      if (!c.blocked.empty() || random() % 3 != 0 || !fits(c)) continue;
      for (const compress::ChannelSlice& s : c.slices)
        if (s.value == out && s.dim == dim) of.channels.push_back(s.indices[0]);
      if (of.channels.size() > picked.size()) picked.push_back(c);
    }
    if (of.channels.empty()) continue;
    chosen.push_back(of);
    gone.insert(gone.end(), picked.begin(), picked.end());
  }
  return gone;
}

class PrunedEqualsMasked : public ::testing::TestWithParam<int> {};

TEST_P(PrunedEqualsMasked, OnRandomGraphsThenRetrains) {
  int pruned = 0;
  for (int k = 0; k < 20; ++k) {
    const auto seed = static_cast<uint64_t>(GetParam() * 20 + k);
    SCOPED_TRACE(str("seed ", seed));
    manual_seed(seed);
    RandomNet module(seed);
    const Tensor x = randn({6, 3, 8, 8});
    Network net = graph::trace(module, x);
    std::vector<compress::LayerChannels> chosen;
    const std::vector<Channel> gone = choose(net, seed, chosen);
    if (chosen.empty()) continue;
    ++pruned;
    Network masked = held_at_zero(net, gone);
    const int64_t parameters = net.parameter_count(), macs = net.macs();
    optim::Adam adam(net.parameters(), {.lr = 0});
    net.eval();
    const Tensor target = randn({6, 5});
    mse_loss(net(x), target).backward();
    adam.step();  // state to slice, without a change of the weights
    adam.set_lr(2e-3);
    const std::vector<Shrink> shrinks = compress::remove_channels(net, chosen);
    ASSERT_FALSE(shrinks.empty());
    EXPECT_LT(net.parameter_count(), parameters);
    EXPECT_LE(net.macs(), macs);
    {
      NoGrad no_grad;
      net.eval(), masked.eval();
      const Tensor want = masked(x), got = net(x);
      const double scale = std::max(1.0, max(abs(want)).item());
      expect_close(got / scale, want / scale, {1e-5, 1e-6}, "eval");
    }
    for (const Shrink& s : shrinks) adam.apply(s);
    double first = 0, last = 0;
    for (int step = 0; step < 60; ++step) {
      adam.zero_grad();
      const Tensor loss = mse_loss(net(x), target);
      loss.backward();
      adam.step();
      (step == 0 ? first : last) = loss.item();
    }
    EXPECT_LT(last, first);
  }
  EXPECT_GE(pruned, 15);
}
INSTANTIATE_TEST_SUITE_P(Graphs, PrunedEqualsMasked, ::testing::Range(0, 10));

TEST(Channels, LeNetsLayersLoseWhatIsCoupled) {
  manual_seed(1);
  nn::LeNet module;
  const Tensor x = randn({2, 3, 32, 32});
  Network net = graph::trace(module, x);
  const auto groups = compress::channel_groups(net);
  ASSERT_EQ(groups.size(), 5u);
  EXPECT_EQ(groups[0].layers, (std::vector<std::string>{"conv1"}));
  EXPECT_EQ(groups[0].prunable(), 6);
  EXPECT_EQ(groups[4].prunable(), 0) << "the network's output";
  EXPECT_NE(groups[4].channels[0].blocked.find("output"), std::string::npos);
  compress::remove_channels(net, {{"conv1", {0, 4}}, {"conv2", {15}}, {"fc1", {7}}});
  const auto shape = [&](const char* name) { return net.parameter(net.find(name)).shape(); };
  EXPECT_EQ(shape("conv1.weight"), (Shape{4, 3, 5, 5}));
  EXPECT_EQ(shape("conv2.weight"), (Shape{15, 4, 5, 5}));
  EXPECT_EQ(shape("fc1.weight"), (Shape{119, 375}));
  EXPECT_EQ(shape("fc2.weight"), (Shape{84, 119}));
  // Which ones: the kernels that stay are the old ones.
  const Tensor kept = index_select(module.conv1.weight.raw().detach(), 0, tensor({1, 2, 3, 5}));
  EXPECT_TRUE(equal(net.parameter(net.find("conv1.weight")).raw().detach(), kept));
  graph::write_back(net, module, x);
  EXPECT_EQ(module.conv2.out(), 15);
  NoGrad no_grad;
  module.eval(), net.eval();
  EXPECT_TRUE(equal(module(x), net(x)));
}

TEST(Channels, ResidualAddsTieTheLayersOfAStage) {
  nn::ResNet module{{.depth = 8, .in = 1, .width = 4}};
  Network net = graph::trace(module, randn({1, 1, 32, 32}));
  const auto groups = compress::channel_groups(net);
  const auto first =
      std::find_if(groups.begin(), groups.end(), [](const ChannelGroup& g) { return g.layers[0] == "conv1"; });
  ASSERT_NE(first, groups.end());
  EXPECT_EQ(first->layers, (std::vector<std::string>{"conv1", "stage1.0.conv2"}));
  compress::remove_channels(net, "stage1.0.conv2", {3});
  EXPECT_EQ(net.parameter(net.find("conv1.weight")).shape()[0], 3);
  EXPECT_EQ(net.parameter(net.find("stage1.0.conv1.weight")).shape(), (Shape{4, 3, 3, 3}));
  EXPECT_EQ(net.buffer(net.find("stage1.0.bn2.running_mean")).shape(), (Shape{3}));
}

TEST(Channels, MasksAreSlicedWithTheirWeights) {
  manual_seed(2);
  nn::LeNet module;
  const Tensor mask = lt(rand({16, 6, 5, 5}), 0.5);
  module.conv2.weight.ref().set_mask(mask);
  Network net = graph::trace(module, randn({1, 3, 32, 32}));
  compress::remove_channels(net, {{"conv1", {0}}, {"conv2", {1, 2}}});
  const Tensor rows = concat({slice(mask, 0, 0, 1), slice(mask, 0, 3)}, 0);
  EXPECT_TRUE(equal(net.parameter(net.find("conv2.weight")).ref().mask(), contiguous(slice(rows, 1, 1))));
}

TEST(Channels, ErrorsNameWhatIsWrongAndChangeNothing) {
  manual_seed(3);
  nn::LeNet module;
  Network net = graph::trace(module, randn({1, 3, 32, 32}));
  const TensorFile before = graph::to_tensor_file(net);
  const auto unchanged = [&] {
    const TensorFile now = graph::to_tensor_file(net);
    ASSERT_EQ(now.metadata, before.metadata);
    for (size_t i = 0; i < now.tensors.size(); ++i)
      ASSERT_TRUE(equal(now.tensors[i].second, before.tensors[i].second)) << now.tensors[i].first;
  };
  expect_error<GraphError>([&] { compress::remove_channels(net, "conv3", {0}); }, {"'conv3'", "'conv1'"});
  expect_error<ValueError>([&] { compress::remove_channels(net, "conv1", {6}); }, {"channel 6", "'conv1'", "6"});
  expect_error<ValueError>([&] { compress::remove_channels(net, "conv1", {-1}); }, {"channel -1"});
  expect_error<ValueError>(
      [&] {
        compress::remove_channels(net, "conv1", {0, 1, 2, 3, 4, 5});
      },
      {"all 6", "at least one"});
  expect_error<ValueError>(
      [&] {
        compress::remove_channels(net, {{"conv2", {0}}, {"conv1", {0, 1, 2, 3, 4, 5}}});
      },
      {"all 6"});
  expect_error<GraphError>([&] { compress::remove_channels(net, "fc3", {0}); }, {"'fc3'", "output"});
  unchanged();
}

/// A network of one function between a convolution and a linear layer.
struct Between : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 1}};
  nn::Linear fc{{.in = 4, .out = 2}};
  std::function<Tensor(const Tensor&)> f;
  HONE_MODULE(Between, conv, fc)
  explicit Between(std::function<Tensor(const Tensor&)> g) : f(std::move(g)) {}
  Tensor forward(const Tensor& x) { return fc(f(conv(x))); }
};
std::string blocked_by(std::function<Tensor(const Tensor&)> f) {
  Between module(std::move(f));
  Network net = graph::trace(module, randn({1, 1, 1, 1}));
  return compress::channel_groups(net)[0].channels[1].blocked;
}

TEST(Channels, OpsThatMixChannelsBlockThemAndOthersDoNot) {
  const auto flat = [](const Tensor& x) { return flatten(x, 1); };
  EXPECT_EQ(blocked_by([&](const Tensor& x) { return flat(relu(x)); }), "");
  EXPECT_EQ(blocked_by([&](const Tensor& x) { return flat(max_pool2d(x, 1)); }), "");
  EXPECT_EQ(blocked_by([&](const Tensor& x) {
              return flat(x * tensor(std::vector<float>{1, 2, 3, 4}, {4, 1, 1}));
            }),
            "");
  EXPECT_EQ(blocked_by([&](const Tensor& x) { return flat(permute(permute(x, {0, 2, 3, 1}), {0, 3, 1, 2})); }), "");
  EXPECT_NE(blocked_by([&](const Tensor& x) { return flat(softmax(x, 1)); }).find("softmax"), std::string::npos);
  EXPECT_NE(blocked_by([&](const Tensor& x) { return flat(x - mean(x, {1}, true)); }).find("mean"), std::string::npos);
  EXPECT_NE(blocked_by([&](const Tensor& x) { return flat(sort(x, 1).values); }).find("sort"), std::string::npos);
  EXPECT_NE(blocked_by([&](const Tensor& x) { return layer_norm(flat(x), {4}); }).find("layer_norm"),
            std::string::npos);
}

TEST(Channels, TableNamesGroupsAndReasons) {
  nn::LeNet module;
  const std::string table = compress::channel_table(graph::trace(module, randn({1, 3, 32, 32})));
  for (const char* part : {"conv1", "fc3", "output of the network", "84"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

}  // namespace
}  // namespace hone::test
