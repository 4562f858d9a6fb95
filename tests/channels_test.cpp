// Channels: what is coupled, that the shrunk network is the masked one, and that it trains on.

#include "channels_support.h"

namespace hone::test {
namespace {

using compress::ChannelGroup;
using graph::Network;

/// For each layer of the random network, its channels' classes: which group and which of its channels.
std::map<std::pair<std::string, int64_t>, std::pair<size_t, size_t>> classes_of(const Network& net) {
  std::map<std::pair<std::string, int64_t>, std::pair<size_t, size_t>> classes;
  const auto groups = compress::channel_groups(net);
  for (const graph::Node& n : net.nodes()) {
    if (n.op != &kConv2d && n.op != &kLinear) continue;
    for (size_t g = 0; g < groups.size(); ++g)
      for (size_t c = 0; c < groups[g].channels.size(); ++c)
        for (const compress::ChannelSlice& s : groups[g].channels[c].slices)
          if (s.value == n.outputs[0] && s.dim == 1)
            for (const int64_t i : s.indices) classes[{n.name, i}] = {g, c};
  }
  return classes;
}

/// The partition that the library finds is the one that the network's own account has, and so is what can go.
void expect_same_partition(const RandomNet& module, const Network& net) {
  const auto classes = classes_of(net);
  const auto groups = compress::channel_groups(net);
  const std::set<int> free = module.free();
  std::map<int, std::pair<size_t, size_t>> class_of;
  std::map<std::pair<size_t, size_t>, int> label_of;
  for (const auto& [layer, at] : module.labels_of_layer) {
    const Labels& labels = module.labels[at];
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto found = classes.find({layer, static_cast<int64_t>(i)});
      ASSERT_NE(found, classes.end()) << layer << " channel " << i;
      const auto [a, first] = class_of.emplace(labels[i], found->second);
      const auto [b, other] = label_of.emplace(found->second, labels[i]);
      EXPECT_EQ(a->second, found->second) << layer << " channel " << i << " is apart from what it is tied to";
      EXPECT_EQ(b->second, labels[i]) << layer << " channel " << i << " is tied to another";
      const std::string& blocked = groups[found->second.first].channels[found->second.second].blocked;
      EXPECT_EQ(blocked.empty(), free.count(labels[i]) > 0) << layer << " channel " << i << ": " << blocked;
    }
  }
}

/// About a third of the labels that can go, so that every value keeps one; by the name of one layer that has each.
std::vector<compress::LayerChannels> choose(RandomNet& module, std::mt19937_64& random) {
  const std::set<int> free = module.free();
  std::vector<compress::LayerChannels> chosen;
  for (const auto& [layer, at] : module.labels_of_layer) {
    compress::LayerChannels of{layer, {}};
    for (size_t i = 0; i < module.labels[at].size(); ++i) {
      const int label = module.labels[at][i];
      if (!free.count(label) || module.zero.count(label) || random() % 3 != 0) continue;
      module.zero.insert(label);
      const bool empties = std::any_of(module.labels.begin(), module.labels.end(), [&](const Labels& l) {
        return std::all_of(l.begin(), l.end(), [&](int k) { return module.zero.count(k) > 0; });
      });
      if (empties)
        module.zero.erase(label);
      else
        of.channels.push_back(static_cast<int64_t>(i));
    }
    if (!of.channels.empty()) chosen.push_back(of);
  }
  return chosen;
}

/// Train mode's losses over a few steps of Adam.
template <class Net> std::vector<double> losses(Net& net, optim::Adam& adam, const Tensor& x, const Tensor& target) {
  net.train();
  std::vector<double> values;
  for (int step = 0; step < 4; ++step) {
    adam.zero_grad();
    const Tensor loss = mse_loss(net(x), target);
    loss.backward();
    adam.step();
    values.push_back(loss.item());
  }
  return values;
}

/// Pruned is masked: to rounding in eval mode, and step by step when both train on, with the optimizer's state sliced.
/// Returns whether there was anything to prune.
bool expect_pruned_equals_masked(uint64_t seed, DType dtype, Tolerance tolerance) {
  SCOPED_TRACE(str("seed ", seed));
  manual_seed(seed);
  RandomNet module(seed);
  if (module.could_be_finer()) return false;
  module.to(dtype);
  const Tensor x = randn({5, 3, 8, 8}, dtype), target = randn({5, 5}, dtype);
  Network net = graph::trace(module, x);
  expect_same_partition(module, net);
  optim::Adam of_module(module.parameters(), {.lr = 1e-3}), of_net(net.parameters(), {.lr = 1e-3});
  EXPECT_EQ(losses(module, of_module, x, target), losses(net, of_net, x, target));  // makes state

  std::mt19937_64 random(seed);
  const auto chosen = choose(module, random);
  if (chosen.empty()) return false;
  const int64_t parameters = net.parameter_count(), macs = net.macs();
  const std::vector<Shrink> shrinks = compress::remove_channels(net, chosen);
  EXPECT_LT(net.parameter_count(), parameters);
  EXPECT_LT(net.macs(), macs);
  {
    const NoGrad no_grad;
    module.eval(), net.eval();
    const Tensor want = module(x), got = net(x);
    const double scale = std::max(1.0, max(abs(want)).item());
    expect_close(got / scale, want / scale, tolerance, "eval");
  }
  for (const Shrink& s : shrinks) of_net.apply(s);
  if (dtype == f64)  // rounding is magnified by the square root in Adam where a gradient is all but 0
    expect_close(losses(net, of_net, x, target), losses(module, of_module, x, target), {1e-7, 1e-9}, "losses");
  return true;
}

class PrunedEqualsMasked : public ::testing::TestWithParam<int> {};

TEST_P(PrunedEqualsMasked, OnRandomGraphsThenRetrains) {
  int pruned = 0;
  for (uint64_t seed = 0; pruned < 25; ++seed)
    pruned += expect_pruned_equals_masked(static_cast<uint64_t>(GetParam()) * 1000 + seed, f64, {1e-9, 1e-10});
}
INSTANTIATE_TEST_SUITE_P(Graphs, PrunedEqualsMasked, ::testing::Range(0, 8));

TEST(PrunedEqualsMaskedToo, InSinglePrecision) {
  for (uint64_t seed = 9000; seed < 9025; ++seed) expect_pruned_equals_masked(seed, f32, {1e-5, 1e-5});
}

TEST(RandomNet, DrawsEveryKindOfBlock) {
  std::map<std::string, int> drawn;
  for (uint64_t group = 0; group < 8; ++group)
    for (uint64_t seed = 0; seed < 25; ++seed)
      for (const std::string& kind : RandomNet(group * 1000 + seed).kinds) ++drawn[kind];
  EXPECT_EQ(drawn.size(), 14u);
  for (const auto& [kind, count] : drawn) EXPECT_GE(count, 10) << kind;
}

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

/// Removing channel 1 of `conv`, and with it all of `gone`, is the same as zeroing what makes them, for an f between it
/// and `fc` that makes 0 of 0.
void expect_removal_is_masking(std::function<Tensor(const Tensor&)> f, int64_t features, std::vector<int64_t> gone,
                               const std::string& what) {
  manual_seed(31);
  Between module(std::move(f));
  module.fc = nn::Linear{{.in = features, .out = 2}};
  module.to(f64);
  const Tensor x = randn({3, 1, 2, 2}, f64);
  Network net = graph::trace(module, x);
  compress::remove_channels(net, "conv", {1});
  EXPECT_EQ(net.parameter(net.find("conv.weight")).shape()[0], 4 - static_cast<int64_t>(gone.size())) << what;
  const NoGrad no_grad;
  for (const int64_t c : gone) {
    slice(module.conv.weight.raw().detach(), 0, c, c + 1).fill_(0);
    slice(module.conv.bias.raw().detach(), 0, c, c + 1).fill_(0);
  }
  expect_close(net(x), module(x), {1e-12, 1e-12}, what);
}

TEST(Channels, GoThroughFlipsExpansionsAndTransposedConvolutions) {
  const auto flat = [](const Tensor& x) { return flatten(x, 1); };
  expect_removal_is_masking([&](const Tensor& x) { return flat(flip(x, {1})); }, 16, {1}, "flip");
  expect_removal_is_masking([&](const Tensor& x) { return flat(flip(x, {2, -1})); }, 16, {1}, "flip of other dims");
  expect_removal_is_masking([&](const Tensor& x) { return flat(flip(x, {1}) + x * 2.0); }, 16, {1, 2}, "flip and add");
  expect_removal_is_masking([&](const Tensor& x) { return flat(x * expand(adaptive_avg_pool2d(x, 1), x.shape())); }, 16,
                            {1}, "expand");
  const Tensor w = randn({4, 3, 2, 2}, f64), depthwise = randn({4, 1, 2, 2}, f64);
  expect_removal_is_masking(
      [&](const Tensor& x) {
        return flat(conv2d_input_grad(x, w, {3, 3}));
      },
      27, {1}, "transposed");
  expect_removal_is_masking(
      [&](const Tensor& x) {
        return flat(conv2d_input_grad(x, depthwise, {3, 3}, {.groups = 4}));
      },
      36, {1}, "transposed, depthwise");
}

TEST(Channels, GoThroughLayerNormsOfOtherDims) {
  const auto flat = [](const Tensor& x) { return flatten(x, 1); };
  expect_removal_is_masking([&](const Tensor& x) { return flat(layer_norm(x, {2})); }, 16, {1}, "of rows");
  expect_removal_is_masking([&](const Tensor& x) { return flat(layer_norm(flatten(x, 2), {4})); }, 16, {1},
                            "of images");
  const Tensor scales = randn({4, 2}, f64);  // statistics of no batch
  expect_removal_is_masking(
      [&](const Tensor& x) {
        return flat(x * reshape(layer_norm(scales, {2}), {4, 2, 1}));
      },
      16, {1}, "of a constant");
}

TEST(Channels, StatisticsOfALayerNormThatAreReadBlockThem) {
  Between module([](const Tensor& x) { return flatten(layer_norm(x, {1}), 1); });
  const Tensor x = randn({1, 1, 1, 1});
  Network net = graph::trace(module, x);
  for (const graph::Node& n : net.nodes())
    if (n.op == &kLayerNorm) net.set_outputs({net.outputs()[0], n.outputs[1]});
  EXPECT_NE(compress::channel_groups(net)[0].channels[1].blocked.find("layer_norm"), std::string::npos);
}

TEST(Channels, OfFusedLayersAreThoseOfTheLayersTheyStandFor) {
  manual_seed(32);
  nn::Sequential module{
      nn::Conv2d{{.in = 1, .out = 8, .kernel = 3, .padding = 1}},
      nn::MaxPool2d{{.kernel = 2}},
      nn::Conv2d{{.in = 8, .out = 8, .kernel = 3, .groups = 2}},
      nn::ReLU{},
      nn::Flatten{},
      nn::Linear{{.in = 32, .out = 6}},
      nn::ReLU{},
      nn::Linear{{.in = 6, .out = 2}},
  };
  module.to(f64);
  const Tensor x = randn({3, 1, 8, 8}, f64);
  Network net = graph::trace(module, x), fused = net;
  EXPECT_EQ(graph::fuse(fused), 3);
  const auto groups = compress::channel_groups(net), others = compress::channel_groups(fused);
  ASSERT_EQ(groups.size(), others.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    EXPECT_EQ(groups[g].layers, others[g].layers);
    EXPECT_EQ(groups[g].prunable(), others[g].prunable()) << groups[g].layers[0];
  }
  const auto same = [&](const char* what) {
    const NoGrad no_grad;
    net.eval(), fused.eval();
    EXPECT_TRUE(equal(net(x), fused(x))) << what;
    EXPECT_EQ(net.parameter_count(), fused.parameter_count()) << what;
  };
  for (Network* n : {&net, &fused}) compress::remove_channels(*n, {{"0", {1}}, {"2", {3}}, {"5", {0, 2}}});
  EXPECT_EQ(fused.parameter(fused.find("2.weight")).shape(), (Shape{6, 3, 3, 3}));
  same("removed");
  const compress::Pass data = [&](const auto& visit) { visit(x, [](const Tensor& y) { return sum(square(y)); }); };
  for (Network* n : {&net, &fused})
    compress::prune_filters(*n, {.criterion = compress::FilterCriterion::taylor, .macs = 0.6, .data = data});
  same("pruned");
  Network packed = graph::optimize(graph::trace(nn::LeNet{}.eval(), randn({1, 3, 32, 32})));
  expect_error<GraphError>([&] { compress::prune_filters(packed, {.ratio = 0.5}); },
                           {"prune_filters", "packed", "before optimize"});
}

TEST(Channels, TableNamesGroupsAndReasons) {
  nn::LeNet module;
  const std::string table = compress::channel_table(graph::trace(module, randn({1, 3, 32, 32})));
  for (const char* part : {"conv1", "fc3", "output of the network", "84"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

/// A module that does something before its convolution, and one of two convolutions.
struct Padded : nn::Module {
  nn::Conv2d conv{{.in = 3, .out = 5, .kernel = 3}};
  HONE_MODULE(Padded, conv)
  Tensor forward(const Tensor& x) { return conv(pad(x, {{1, 1}, {1, 1}})); }
};
struct Twice : nn::Module {
  nn::Conv2d a{{.in = 5, .out = 4, .kernel = 1}}, b{{.in = 4, .out = 4, .kernel = 1}};
  HONE_MODULE(Twice, a, b)
  Tensor forward(const Tensor& x) { return b(relu(a(x))); }
};
struct Plain : nn::Module {
  HONE_MODULE(Plain)
  Tensor forward(const Tensor& x) { return relu(x * 2.0); }
};
struct Nested : nn::Module {
  nn::Conv2d first{{.in = 2, .out = 3, .kernel = 1}};
  Padded pre;
  Twice two;
  Plain plain;
  nn::Linear fc{{.in = 4 * 4, .out = 2}};
  HONE_MODULE(Nested, first, pre, two, plain, fc)
  Tensor forward(const Tensor& x) { return fc(flatten(plain(two(pre(first(x)))), 1)); }
};

TEST(Channels, OfAModuleAreThoseOfItsOneLayer) {
  Nested module;
  Network net = graph::trace(module, randn({1, 2, 2, 2}));
  const auto rows = [&](const char* weight) { return net.parameter(net.find(weight)).shape()[0]; };
  compress::remove_channels(net, "pre", {0, 4});
  EXPECT_EQ(rows("pre.conv.weight"), 3);
  EXPECT_EQ(rows("first.weight"), 3) << "what the padding reads";
  expect_error<GraphError>([&] { compress::remove_channels(net, "two", {0}); },
                           {"remove_channels", "'two'", "2 layers", "two.a, two.b"});
  expect_error<GraphError>([&] { compress::remove_channels(net, "plain", {0}); }, {"'plain'", "no layer"});
  expect_error<GraphError>([&] { compress::remove_channels(net, "twoo", {0}); }, {"'twoo'", "'two.a'"});
  compress::remove_channels(net, "plain.relu", {1});  // a node is what it is
  EXPECT_EQ(rows("two.b.weight"), 3);
  EXPECT_EQ(rows("two.a.weight"), 4);
  expect_error<GraphError>([&] { compress::prune_filters(net, {.ratio = 0.5, .only = {"plain"}}); },
                           {"prune_filters", "'plain'", "no channels of its own"});
}

}  // namespace
}  // namespace hone::test
