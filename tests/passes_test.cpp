// Passes: what they change, what they leave, and that the network computes what it did.

#include <functional>

#include "graph_support.h"

namespace hone::test {
namespace {

using graph::Network;

template <class M> Network traced(M& module, const Shape& row) {
  Shape one = row;
  one.insert(0, 1);
  return graph::trace(module, randn(one));
}

TEST(Optimize, TheZooComputesWhatItDid) {
  manual_seed(21);
  const auto check = [](auto& module, Shape row, std::initializer_list<int64_t> batches) {
    disturb_norms(module);
    module.eval();
    const Network net = traced(module, row);
    row.insert(0, 1);
    for (const bool pack : {false, true}) {
      graph::OptimizeCounts counts;
      Network fast = graph::optimize(net, {.pack = pack}, &counts);
      EXPECT_LT(fast.nodes().size(), net.nodes().size());
      EXPECT_EQ(fast.macs(), net.macs());
      EXPECT_EQ(counts.packed > 0, pack);
      for (const int64_t n : batches) {
        row[0] = n;
        const Tensor x = randn(row);
        NoGrad no_grad;
        expect_computes(fast, x, module(x), false, str(module.type_name(), " batch ", n, pack ? " packed" : ""));
      }
    }
  };
  nn::LeNet lenet;
  check(lenet, {3, 32, 32}, {1, 2, 64});
  nn::LeNet5Caffe caffe;
  check(caffe, {1, 28, 28}, {1, 3});
  nn::LeNet300_100 mlp;
  check(mlp, {1, 28, 28}, {1, 2, 64});
  nn::ResNet resnet{{.depth = 8, .in = 3, .width = 8}};
  check(resnet, {3, 32, 32}, {1, 2, 5});
  Branches branches;
  check(branches, {2, 6, 6}, {1, 2, 64});
}

TEST(Optimize, LeNetBecomesFiveOps) {
  nn::LeNet module;
  const Network net = traced(module, {3, 32, 32});
  EXPECT_EQ(
      ops_of(graph::optimize(net, {.pack = false})),
      (std::vector<std::string>{"conv2d_fused", "conv2d_fused", "flatten", "linear_fused", "linear_fused", "linear"}));
  Network packed = graph::optimize(net);
  EXPECT_EQ(ops_of(packed), (std::vector<std::string>{"panel_conv2d", "panel_conv2d", "flatten", "panel_linear",
                                                      "panel_linear", "panel_linear"}));
  EXPECT_EQ(packed.parameters().size(), 5u) << "the biases";
  EXPECT_FALSE(packed.training());
  EXPECT_EQ(ops_of(net).size(), 12u) << "the network that was given stays";
}

TEST(Optimize, RandomNetworksKeepTheirResults) {
  for (uint64_t seed = 100; seed < 140; ++seed) {
    Network net = random_network(seed, 4 + static_cast<int>(seed % 20));
    Network fast = graph::optimize(net);
    const Tensor x = randn({3, 4, 6});
    NoGrad no_grad;
    const std::vector<Tensor> want = net.run({x});
    graph::Executor executor(fast, {.batch = 3});
    const std::vector<Tensor>& got = executor.run(std::vector<Tensor>{x});
    for (size_t o = 0; o < want.size(); ++o)
      ASSERT_TRUE(equal(got[o], want[o])) << "seed " << seed << " output " << o << "\n" << net.table();
  }
}

TEST(DropTraining, LeavesEvalModeAlone) {
  manual_seed(22);
  Branches module;
  disturb_norms(module);
  Network net = traced(module, {2, 6, 6});
  const Tensor x = branches_input(3), want = eval(net, x);
  int64_t only = 0, other = 0;
  for (const graph::Node& n : net.nodes()) n.train_only ? ++only : other += n.train.has_value();
  EXPECT_EQ(other, 3) << "norms";
  EXPECT_GE(only, 2) << "dropouts";
  EXPECT_EQ(graph::drop_training(net), only + other);
  EXPECT_EQ(graph::drop_training(net), 0);
  for (const graph::Node& n : net.nodes()) EXPECT_TRUE(!n.train_only && !n.train) << n.name;
  net.train();
  NoGrad no_grad;
  EXPECT_TRUE(equal(net(x), want)) << "both modes are eval mode now";
  expect_computes(net, x, want, true, "dropped");
}

struct Computed : nn::Module {  // a weight made of parameters, a constant made of constants
  Parameter direction{randn({3, 4})}, length{rand({3, 1}) + 0.5};
  HONE_MODULE(Computed, direction, length)
  Tensor forward(const Tensor& x) {
    const Tensor w = direction.value() * length.value();
    return linear(x, w) + tanh(reshape(tensor({1.0f, 2.0f, 3.0f}), {1, 3}) * 0.5) * full({x.size(0), 1}, 2.0);
  }
};

TEST(FoldConstants, ConstantsAloneAndParametersWhereAsked) {
  manual_seed(23);
  Computed module;
  const Tensor x = randn({2, 4}), want = module(x);
  Network net = graph::trace(module, x), inference = net;
  const size_t before = net.nodes().size();
  EXPECT_EQ(graph::fold_constants(net), 3);  // reshape, times a half, tanh
  EXPECT_EQ(net.nodes().size(), before - 3);
  EXPECT_EQ(net.parameters().size(), 2u);
  expect_computes(net, x, want, true, "constants");
  EXPECT_EQ(graph::fold_constants(inference, {.parameters = true}), 4);
  EXPECT_EQ(inference.parameters().size(), 0u);
  expect_computes(inference, x, want, true, "parameters");
  EXPECT_EQ(graph::fold_constants(inference, {.parameters = true}), 0);
}

TEST(Optimize, WithoutPackingKeepsWhatWeightsAreMadeOf) {
  manual_seed(29);
  Computed module;
  module.direction.ref().set_mask(cast(randint(0, 2, {3, 4}), DType::boolean));
  const Tensor x = randn({2, 4}), want = module(x);
  Network net = graph::optimize(graph::trace(module, x), {.pack = false});
  ASSERT_EQ(net.parameters().size(), 2u);
  EXPECT_TRUE(equal(net.parameter(net.find("direction")).ref().mask(), module.direction.ref().mask()));
  expect_computes(net, x, want, false, "kept");
  sum(net(x)).backward();
  EXPECT_TRUE(net.parameter(net.find("length")).grad().defined());
  Network packed = graph::optimize(graph::trace(module, x));
  EXPECT_EQ(packed.parameters().size(), 0u);
  expect_computes(packed, x, want, false, "packed");
}

struct Expanded : nn::Module {
  HONE_MODULE(Expanded)
  Tensor forward(const Tensor& x) { return x + expand(full({1}, 3.0), {1000, 1000}); }
};

TEST(FoldConstants, LeavesWhatWouldGrow) {
  Expanded module;
  Network net = graph::trace(module, randn({1, 1, 1}));
  Network all = net;
  EXPECT_EQ(graph::fold_constants(net), 0);
  EXPECT_EQ(graph::fold_constants(all, {.most_growth = 1 << 23}), 1);
}

TEST(FoldBatchNorm, IntoConvolutionsAndLinearLayersWithAndWithoutBias) {
  manual_seed(24);
  Branches module;
  disturb_norms(module);
  module.eval();
  Network net = traced(module, {2, 6, 6});
  const Tensor x = branches_input(4), want = module(x);
  Network with_dropout = net;
  EXPECT_EQ(graph::fold_batch_norm(with_dropout), 3);
  EXPECT_EQ(graph::fold_batch_norm(with_dropout), 0);
  expect_computes(with_dropout, x, want, false, "folded");
  EXPECT_EQ(with_dropout.named_buffers().size(), 0u) << "running statistics are gone";
  EXPECT_EQ(with_dropout.parameter(with_dropout.find("conv2.bias")).shape(), (Shape{4}));
  EXPECT_TRUE(with_dropout.parameter(with_dropout.find("conv2.bias")).raw().requires_grad());
  // It trains on.
  with_dropout.train();
  optim::SGD sgd(with_dropout.parameters(), {.lr = 1e-2});
  const Tensor labels = randint(0, 5, {4});
  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    sgd.zero_grad();
    Tensor loss = cross_entropy(with_dropout(x), labels);
    loss.backward();
    sgd.step();
    (i == 0 ? first : last) = loss.item();
  }
  EXPECT_LT(last, first);
}

TEST(FoldBatchNorm, KeepsMasksAndFrozenWeightsAndBakesThoseOfBiases) {
  manual_seed(25);
  Branches module;
  disturb_norms(module);
  module.eval();
  const auto some = [](const Shape& s) { return cast(randint(0, 2, s), DType::boolean); };
  module.conv1.weight.ref().set_mask(some(module.conv1.weight.shape()), MaskGradient::dense);
  module.conv1.bias.ref().set_mask(tensor({true, false, true, false}));
  module.conv2.requires_grad_(false);
  Network net = traced(module, {2, 6, 6});
  const Tensor x = branches_input(2), want = module(x), mask = module.conv1.weight.ref().mask();
  EXPECT_EQ(graph::fold_batch_norm(net), 3);
  expect_computes(net, x, want, false, "masked");
  const ParameterRef& w = net.parameter(net.find("conv1.weight")).ref();
  EXPECT_TRUE(equal(w.mask(), mask));
  EXPECT_EQ(w.mask_gradient(), MaskGradient::dense);
  EXPECT_EQ(net.parameter(net.find("conv1.bias")).ref().type(), WeightType::dense);
  EXPECT_FALSE(net.parameter(net.find("conv2.weight")).raw().requires_grad());
  EXPECT_FALSE(net.parameter(net.find("conv2.bias")).raw().requires_grad());
}

struct Shared : nn::Module {  // one convolution at two places, of which a norm follows one
  nn::Conv2d conv{{.in = 2, .out = 2, .kernel = 1}};
  nn::BatchNorm2d bn{{.features = 2}};
  HONE_MODULE(Shared, conv, bn)
  Tensor forward(const Tensor& x) { return bn(conv(x)) + conv(tanh(x)); }
};
struct TwoReaders : nn::Module {  // the norm is not the only reader
  nn::Conv2d conv{{.in = 2, .out = 2, .kernel = 1}};
  nn::BatchNorm2d bn{{.features = 2}};
  HONE_MODULE(TwoReaders, conv, bn)
  Tensor forward(const Tensor& x) {
    const Tensor h = conv(x);
    return bn(h) + relu(h);
  }
};

TEST(FoldBatchNorm, SharedWeightsAreCopiedAndSharedResultsLeft) {
  manual_seed(26);
  Shared shared;
  disturb_norms(shared);
  shared.eval();
  const Tensor x = randn({2, 2, 3, 3});
  Network net = graph::trace(shared, x);
  const Tensor want = shared(x);
  EXPECT_EQ(graph::fold_batch_norm(net), 1);
  expect_computes(net, x, want, false, "shared");
  EXPECT_EQ(net.parameters().size(), 4u);
  EXPECT_TRUE(equal(net.parameter(net.find("conv.weight")).raw(), shared.conv.weight.raw()));
  TwoReaders readers;
  Network left = graph::trace(readers, x);
  EXPECT_EQ(graph::fold_batch_norm(left), 0);
  EXPECT_EQ(graph::fuse(left), 0);
  Network output = graph::trace(shared, x);
  output.set_outputs({output.find("conv")});
  output.remove_dead();
  EXPECT_EQ(graph::fold_batch_norm(output), 0);
}

/// Products whose bias is added by hand.
struct ByHand : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 4, .kernel = 3, .bias = false}},
      conv2{{.in = 4, .out = 3, .kernel = 1, .bias = false}};
  nn::BatchNorm2d bn{{.features = 4}};
  nn::Linear fc1{{.in = 12, .out = 5, .bias = false}}, fc2{{.in = 5, .out = 3, .bias = false}};
  Parameter b1{randn({4, 1, 1})}, b3{randn({5})};
  HONE_MODULE(ByHand, conv1, conv2, bn, fc1, fc2, b1, b3)
  Tensor forward(const Tensor& x) {
    Tensor h = relu(bn(conv1(x) + b1.value()));
    h = flatten(relu(conv2(h) + tensor({0.5f, -1.0f, 2.0f}, {1, 3, 1, 1})), 1);
    return tensor({1.0f, 2.0f, 3.0f}, {1, 3}) + fc2(relu(fc1(h) + b3.value()));
  }
};

TEST(FoldBias, OfAnAddBehindAProductBecomesItsOwn) {
  manual_seed(35);
  ByHand module;
  disturb_norms(module);
  const Tensor mask = tensor({true, false, true, true, true});
  module.b3.ref().set_mask(mask);
  module.eval();
  const Tensor x = randn({3, 2, 4, 4}), want = module(x);
  Network net = traced(module, {2, 4, 4}), folded = net;
  EXPECT_EQ(graph::fold_bias(folded), 4);
  EXPECT_EQ(graph::fold_bias(folded), 0);
  EXPECT_EQ(ops_of(folded), (std::vector<std::string>{"conv2d", "batch_norm", "relu", "conv2d", "relu", "flatten",
                                                      "linear", "relu", "linear"}));
  expect_computes(folded, x, want, false, "folded");
  EXPECT_EQ(folded.parameter(folded.find("b1")).shape(), (Shape{4}));
  EXPECT_TRUE(equal(folded.parameter(folded.find("b3")).ref().mask(), mask));
  // It trains as before; in eval mode, for before a norm of training mode a bias has no gradient.
  folded.eval(), net.eval();
  sum(square(folded(x))).backward(), sum(square(net(x))).backward();
  const auto grad_of = [](Network& n, const char* name) { return n.parameter(n.find(name)).grad(); };
  for (const char* name : {"b1", "b3"}) {
    const Tensor g = reshape(grad_of(net, name), {-1});
    expect_close(grad_of(folded, name), g, {1e-4, 1e-4 * max(abs(g)).item()}, name);
  }
  for (const bool pack : {false, true}) {
    graph::OptimizeCounts counts;
    Network fast = graph::optimize(graph::trace(module, x), {.pack = pack}, &counts);
    EXPECT_EQ(counts.biases, 4);
    EXPECT_EQ(counts.batch_norms, 1) << "a norm behind the add is folded as well";
    EXPECT_EQ(counts.fused, 3) << "and the activations";
    EXPECT_EQ(fast.nodes().size(), 5u);
    expect_computes(fast, x, want, false, pack ? "packed" : "fused");
  }
}

TEST(FoldBias, LeavesWhatIsNone) {
  manual_seed(36);
  nn::Conv2d conv{{.in = 2, .out = 4, .kernel = 1, .bias = false}}, biased{{.in = 2, .out = 4, .kernel = 1}};
  struct Then : nn::Module {
    nn::Conv2d conv{{.in = 1, .out = 1, .kernel = 1}};
    Parameter p;
    std::function<Tensor(const Tensor& y, const Tensor& p)> f;
    HONE_MODULE(Then, conv, p)
    Tensor forward(const Tensor& x) { return f(conv(x), p.value()); }
  };
  const auto folds = [&](const nn::Conv2d& c, const Shape& shape, auto f, bool masked = false) {
    Then module;
    module.conv = c, module.p = Parameter(randn(shape)), module.f = f;
    if (masked) module.p.ref().set_mask(ones(shape, DType::boolean));
    Network net = graph::trace(module, randn({1, 2, 4, 4}));
    return graph::fold_bias(net);
  };
  const auto add = [](const Tensor& y, const Tensor& p) { return y + p; };
  EXPECT_EQ(folds(conv, {4, 1, 1}, add), 1);
  EXPECT_EQ(folds(conv, {4}, add), 0) << "of columns";
  EXPECT_EQ(folds(conv, {4, 1}, add), 0) << "of rows";
  EXPECT_EQ(folds(conv, {1, 1, 1}, add), 0) << "one of all channels";
  EXPECT_EQ(folds(conv, {4, 4, 4}, add), 0) << "of each place";
  EXPECT_EQ(folds(biased, {4, 1, 1}, add), 0) << "beside a bias";
  EXPECT_EQ(folds(conv, {4, 1, 1}, add, true), 0) << "a mask of another shape";
  EXPECT_EQ(folds(conv, {4, 1, 1}, [](const Tensor& y, const Tensor& p) { return (y + p) * y; }), 0) << "read twice";
  EXPECT_EQ(folds(conv, {4, 1, 1}, [](const Tensor& y, const Tensor& p) { return (y + p) * p; }), 0) << "shared";
}

TEST(Fuse, HasTheSameBitsAndTrains) {
  manual_seed(27);
  nn::LeNet module;
  Network net = traced(module, {3, 32, 32}), fused = net;
  EXPECT_EQ(graph::fuse(fused), 6);
  EXPECT_EQ(graph::fuse(fused), 0);
  EXPECT_EQ(graph::to_string(fused.value(fused.find("conv1")).shape), "[B, 6, 14, 14]");
  for (const int64_t n : {1, 2, 64}) {
    const Tensor x = randn({n, 3, 32, 32});
    expect_computes(fused, x, eval(net, x), true, str("batch ", n));
  }
  optim::Adam a(net.parameters(), {.lr = 1e-3}), b(fused.parameters(), {.lr = 1e-3});
  const Tensor x = randn({8, 3, 32, 32}), y = randint(0, 10, {8});
  for (int i = 0; i < 3; ++i) {
    a.zero_grad(), b.zero_grad();
    cross_entropy(net(x), y).backward();
    cross_entropy(fused(x), y).backward();
    a.step(), b.step();
  }
  const auto p = net.named_parameters(), q = fused.named_parameters();
  ASSERT_EQ(p.size(), q.size());
  for (size_t i = 0; i < p.size(); ++i) EXPECT_TRUE(equal(p[i].parameter.raw(), q[i].parameter.raw())) << p[i].name;
}

TEST(Fuse, LeavesWhatOthersRead) {
  nn::LeNet module;
  Network net = traced(module, {3, 32, 32});
  net.set_outputs({net.find("fc3"), net.find("relu")});  // conv1's activation is an output, its pool reads it too
  EXPECT_EQ(graph::fuse(net), 5);
  EXPECT_EQ(ops_of(net)[0], "conv2d_fused");
  EXPECT_EQ(ops_of(net)[1], "max_pool2d");
  Branches branches;  // dropout of training mode stands between
  Network mixed = traced(branches, {2, 6, 6});
  EXPECT_EQ(graph::fuse(mixed), 0);
}

struct ModeDependent : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 2, .kernel = 1}};
  Parameter scale{ones({1})};
  HONE_MODULE(ModeDependent, conv, scale)
  Tensor forward(const Tensor& x) {
    const double high = training() ? 1.0 : 2.0;
    return clamp(conv(x), 0, high) * clamp(scale.value(), 0, high);
  }
};

TEST(Passes, LeaveWhatDiffersBetweenModes) {
  ModeDependent module;
  module.conv.bias.raw().detach().fill_(5);
  const Tensor x = zeros({1, 1, 2, 2});
  Network net = graph::trace(module, x);
  EXPECT_EQ(graph::fuse(net), 0);
  EXPECT_EQ(graph::fold_constants(net, {.parameters = true}), 0);
  NoGrad no_grad;
  net.train();
  EXPECT_TRUE(equal(net(x), ones({1, 2, 2, 2})));
  net.eval();
  EXPECT_TRUE(equal(net(x), full({1, 2, 2, 2}, 2.0)));
  EXPECT_EQ(graph::drop_training(net), 2);
  EXPECT_EQ(graph::fuse(net), 1);
}

TEST(Pack, TiedWeightsArePackedOnceAndMasksApplied) {
  manual_seed(28);
  struct Tied : nn::Module {
    nn::Linear fc{{.in = 5, .out = 5}};
    HONE_MODULE(Tied, fc)
    Tensor forward(const Tensor& x) { return fc(tanh(fc(x))); }
  } tied;
  tied.fc.weight.ref().set_mask(cast(randint(0, 2, {5, 5}), DType::boolean));
  const Tensor x = randn({3, 5}), want = tied(x);
  Network net = graph::trace(tied, x);
  EXPECT_EQ(graph::pack(net), 2);
  EXPECT_EQ(net.nodes()[0].inputs[1], net.nodes()[2].inputs[1]);
  EXPECT_EQ(net.parameters().size(), 1u);
  expect_computes(net, x, want, false, "tied");
  Network wide = graph::trace(tied.to(f64), cast(x, f64));
  EXPECT_EQ(graph::pack(wide), 0) << "f32 alone";
}

TEST(Pack, ConvolutionsThatPanelsDoNotSuitStay) {
  nn::Sequential net{nn::Conv2d{{.in = 8, .out = 8, .kernel = 3, .stride = 2, .groups = 8}},
                     nn::Conv2d{{.in = 8, .out = 8, .kernel = 3}}};
  Network g = graph::trace(net, randn({1, 8, 20, 20}));
  EXPECT_EQ(graph::pack(g), 1);
  EXPECT_EQ(ops_of(g), (std::vector<std::string>{"conv2d", "panel_conv2d"}));
}

}  // namespace
}  // namespace hone::test
