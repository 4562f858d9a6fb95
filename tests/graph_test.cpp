// Networks: traced, run, trained, printed, saved and loaded as their modules are; and what cannot be traced.

#include "support.h"

namespace hone::test {
namespace {

using graph::Network;

/// Dropout, batch norm, a residual add, a concat, a split, a constant, a reshape by the batch: both modes differ.
struct Mixed : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 4, .kernel = 3, .padding = 1}},
      conv2{{.in = 4, .out = 4, .kernel = 3, .padding = 1}};
  nn::BatchNorm2d bn1{{.features = 4}}, bn2{{.features = 4}};
  nn::Dropout drop{{.p = 0.4}};
  nn::Linear fc{{.in = 8 * 9, .out = 5}};
  HONE_MODULE(Mixed, conv1, bn1, conv2, bn2, drop, fc)
  Tensor forward(const Tensor& x) {
    Tensor h = relu(bn1(conv1(x)));
    Tensor g = relu(bn2(conv2(h)) + h * 0.5);
    g = dropout2d(g, 0.3, training());
    g = concat({g, h}, 1);
    g = avg_pool2d(g, 2);
    g = reshape(g, {x.size(0), -1});
    return fc(drop(g)) * full({x.size(0), 1}, 2.0);
  }
};
Tensor mixed_input(int64_t n) { return randn({n, 2, 6, 6}); }

template <class M> void expect_same_bits(M& module, Network& net, const Tensor& x, const std::string& what) {
  NoGrad no_grad;
  const nn::ModeScope a(module, false), b(net, false);
  EXPECT_TRUE(equal(net(x), module(x))) << what;
}

TEST(Trace, LeNetHasItsNodesNamesAndBits) {
  manual_seed(1);
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  std::vector<std::string> names;
  for (const graph::Node& n : g.nodes()) names.push_back(n.name);
  EXPECT_EQ(names, (std::vector<std::string>{"conv1", "relu", "max_pool2d", "conv2", "relu_1", "max_pool2d_1",
                                             "flatten", "fc1", "relu_2", "fc2", "relu_3", "fc3"}));
  std::vector<std::string> parameters, own;
  for (const auto& p : g.named_parameters()) parameters.push_back(p.name);
  for (const auto& p : net.named_parameters()) own.push_back(p.name);
  EXPECT_EQ(parameters, own);
  EXPECT_EQ(g.macs(), 651720);
  EXPECT_EQ(graph::to_string(g.value(g.find("conv2")).shape), "[B, 16, 10, 10]");
  for (const int64_t n : {1, 2, 7}) expect_same_bits(net, g, randn({n, 3, 32, 32}), str("batch ", n));
  EXPECT_NE(g.parameters()[0], net.parameters()[0]) << "a Network has parameters of its own";
}

TEST(Trace, EveryNetworkOfTheZooKeepsItsBits) {
  manual_seed(2);
  const auto check = [](auto& net, const Shape& row) {
    Shape one = row;
    one.insert(0, 1);
    Network g = graph::trace(net, randn(one));
    one[0] = 3;
    expect_same_bits(net, g, randn(one), net.type_name());
  };
  nn::LeNet5Caffe caffe;
  check(caffe, {1, 28, 28});
  nn::LeNet300_100 mlp;
  check(mlp, {1, 28, 28});
  nn::ResNet resnet{{.depth = 8, .in = 1, .width = 4}};
  check(resnet, {1, 32, 32});
}

TEST(Trace, BothModesAreRecorded) {
  manual_seed(3);
  Mixed net;
  Network g = graph::trace(net, mixed_input(1));
  for (const int64_t n : {1, 4}) expect_same_bits(net, g, mixed_input(n), str("eval, batch ", n));
  // Training: the same draws give the same losses, running statistics and gradients.
  const Tensor x = mixed_input(6);
  net.train(), g.train();
  for (int step = 0; step < 3; ++step) {
    manual_seed(100 + static_cast<uint64_t>(step));
    Tensor a = sum(square(net(x)));
    a.backward();
    manual_seed(100 + static_cast<uint64_t>(step));
    Tensor b = sum(square(g(x)));
    b.backward();
    ASSERT_EQ(a.item(), b.item()) << step;
  }
  const auto p = net.named_parameters(), q = g.named_parameters();
  ASSERT_EQ(p.size(), q.size());
  for (size_t i = 0; i < p.size(); ++i) EXPECT_TRUE(equal(p[i].parameter.grad(), q[i].parameter.grad())) << p[i].name;
  const auto b = net.named_buffers(), c = g.named_buffers();
  for (size_t i = 0; i < b.size(); ++i) EXPECT_TRUE(equal(b[i].buffer->tensor(), c[i].buffer->tensor())) << b[i].name;
  // Two steps of training draw different masks.
  EXPECT_NE(sum(g(x)).item(), sum(g(x)).item());
}

TEST(Trace, ModulesFrozenInEvalModeStaySoWhileTheRestTrains) {
  manual_seed(6);
  Mixed net;
  net.train();
  net.bn1.eval(), net.drop.eval();
  const Tensor x = mixed_input(6);
  Network g = graph::trace(net, mixed_input(1));
  EXPECT_TRUE(g.training());
  const auto draw = [&](auto& module) {
    manual_seed(7);
    sum(square(module(x))).backward();
    manual_seed(8);
    return clone(module(x).detach());
  };
  EXPECT_TRUE(equal(draw(net), draw(g)));
  const auto p = net.named_parameters(), q = g.named_parameters();
  for (size_t i = 0; i < p.size(); ++i) EXPECT_TRUE(equal(p[i].parameter.grad(), q[i].parameter.grad())) << p[i].name;
  const auto b = net.named_buffers(), c = g.named_buffers();
  for (size_t i = 0; i < b.size(); ++i) EXPECT_TRUE(equal(b[i].buffer->tensor(), c[i].buffer->tensor())) << b[i].name;
  EXPECT_TRUE(equal(net.bn1.running_mean.tensor(), zeros({4})));
  EXPECT_FALSE(equal(net.bn2.running_mean.tensor(), zeros({4})));
  expect_same_bits(net, g, x, "eval");
  graph::write_back(g, net, x);
  // A module in eval mode says nothing of which parts would train: all do.
  net.eval();
  Network all = graph::trace(net, x);
  EXPECT_FALSE(all.training());
  net.train(), all.train();
  EXPECT_TRUE(equal(draw(net), draw(all)));
  net.bn1.eval();
  expect_error<GraphError>([&] { graph::write_back(all, net, x); }, {"write_back", "'bn1'", "training mode"});
}

TEST(Trace, LeavesTheModuleAsItWas) {
  manual_seed(4);
  Mixed net;
  net.train();
  net.bn1.eval();
  const TensorFile before = net.state_dict();
  const Tensor x = mixed_input(2);
  const GeneratorState random = generator_state();
  graph::trace(net, x);
  const GeneratorState after = generator_state();
  EXPECT_EQ(after.next_stream, random.next_stream);
  EXPECT_TRUE(net.training());
  EXPECT_FALSE(net.bn1.training());
  const TensorFile now = net.state_dict();
  for (size_t i = 0; i < now.tensors.size(); ++i)
    EXPECT_TRUE(equal(now.tensors[i].second, before.tensors[i].second)) << now.tensors[i].first;
}

TEST(Trace, MaskedParametersAreLeaves) {
  manual_seed(5);
  nn::LeNet net;
  net.fc1.weight.ref().set_mask(cast(randint(0, 2, {120, 400}), DType::boolean), MaskGradient::dense);
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  EXPECT_EQ(g.nodes().size(), 12u);
  const ParameterRef& p = g.parameter(g.find("fc1.weight")).ref();
  EXPECT_EQ(p.type(), WeightType::masked);
  EXPECT_EQ(p.mask_gradient(), MaskGradient::dense);
  EXPECT_TRUE(equal(p.mask(), net.fc1.weight.ref().mask()));
  expect_same_bits(net, g, randn({2, 3, 32, 32}), "masked");
}

struct Tied : nn::Module {
  nn::Linear fc{{.in = 3, .out = 3}};
  HONE_MODULE(Tied, fc)
  Tensor forward(const Tensor& x) { return fc(tanh(fc(x))); }
};

TEST(Trace, AModuleCalledTwiceHasItsParametersOnce) {
  Tied net;
  Network g = graph::trace(net, randn({2, 3}));
  EXPECT_EQ(g.parameters().size(), 2u);
  EXPECT_EQ(g.nodes()[0].name, "fc");
  EXPECT_EQ(g.nodes()[2].name, "fc_1");
  EXPECT_EQ(g.nodes()[0].inputs[1], g.nodes()[2].inputs[1]);
  expect_same_bits(net, g, randn({4, 3}), "tied");
}

/// A module of one function, for what cannot be traced.
struct Function : nn::Module {
  std::function<Tensor(const Tensor&)> f;
  HONE_MODULE(Function)
  explicit Function(std::function<Tensor(const Tensor&)> g) : f(std::move(g)) {}
  Tensor forward(const Tensor& x) { return f(x); }
};
void expect_untraceable(std::function<Tensor(const Tensor&)> f, std::initializer_list<std::string> parts,
                        const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  Function module(std::move(f));
  const Tensor x = ones({1, 4});
  expect_error<GraphError>([&] { graph::trace(module, x); }, parts, file, line);
}

TEST(Trace, RefusesWhatCannotBeTraced) {
  expect_untraceable([](const Tensor& x) { return sum(x).item() > 0 ? relu(x) : x; }, {"item", "after op sum"});
  expect_untraceable([](const Tensor& x) { return relu(x) * x.data<float>()[0]; }, {"data", "[2, 4]"});
  expect_untraceable([](const Tensor& x) { return tensor(relu(x).to_vector<float>(), x.shape()); },
                     {"to_vector", "relu"});
  expect_untraceable(
      [](const Tensor& x) {
        Tensor y = relu(x);
        y.fill_(1);
        return y;
      },
      {"fill_", "in place"});
  expect_untraceable(
      [](const Tensor& x) {
        Tensor y = zeros(x.shape());
        y.copy_(x);
        return y + 1.0;
      },
      {"copy_", "reads"});
  expect_untraceable([](const Tensor& x) { return x.size(0) == 3 ? tanh(x) : relu(x); }, {"batch", "relu", "tanh"});
  expect_untraceable([](const Tensor& x) { return x.size(0) > 2 ? relu(relu(x)) : relu(x); }, {"batch"});
  expect_untraceable([](const Tensor& x) { return x * static_cast<double>(x.size(0)); }, {"constant", "batch"});
  expect_untraceable(
      [](const Tensor& x) {
        return x + reshape(arange(0, static_cast<double>(x.size(0)), 1, f32), {x.size(0), 1});
      },
      {"constant"});
  int calls = 0;
  expect_untraceable([&calls](const Tensor& x) { return x + tensor(std::vector<float>{static_cast<float>(++calls)}); },
                     {"constant", "call"});
  expect_untraceable(
      [](const Tensor& x) {
        return expand(reshape(slice(x, 0, 0, 1), {1, 4}), {x.size(0) * x.size(0), 4});
      },
      {"batch"});
  const OpDef unknown = {.name = "mystery",
                         .shapes = [](ShapeContext& c) { c.add(c.shape(0), c.dtype(0)); },
                         .run = [](RunContext& c) { hone::detail::copy_strided(c.in[0], c.out[0]); },
                         .not_differentiable = "a test"};
  expect_untraceable([&](const Tensor& x) { return Tensor(apply(unknown, {}, {x})); },
                     {"mystery", "TraceOptions::ops"});
  const OpDef* const own[] = {&unknown};
  Function module([&](const Tensor& x) { return Tensor(apply(unknown, {}, {x})); });
  EXPECT_EQ(graph::trace(module, ones({1, 4}), {.ops = own}).nodes()[0].name, "mystery");
}

TEST(Trace, TrainingModesThatCannotStandInEvalAreRefusedUnlessLeftOut) {
  struct Switching : nn::Module {
    HONE_MODULE(Switching)
    Tensor forward(const Tensor& x) { return training() ? relu(x) : softmax(x, 1); }
  } net;
  expect_error<GraphError>([&] { graph::trace(net, ones({1, 3})); }, {"softmax", ".training = false"});
  Network g = graph::trace(net, ones({1, 3}), {.training = false});
  EXPECT_EQ(g.nodes()[0].op->name, std::string("softmax"));
  expect_error<ShapeError>([&] { graph::trace(net, Tensor()); }, "undefined");
  expect_error<ShapeError>([&] { graph::trace(net, zeros({0, 3})); }, "[0, 3]");
}

TEST(NetworkRun, RefusesInputsThatWereNotTraced) {
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  expect_error<ShapeError>([&] { g(randn({1, 3, 28, 28})); }, {"'x'", "[1, 3, 28, 28]", "[B, 3, 32, 32]"});
  expect_error<DTypeError>([&] { g(zeros({1, 3, 32, 32}, f64)); }, {"f64", "f32"});
  expect_error<GraphError>([&] { (void)g.find("fc1.weigth"); }, {"fc1.weigth", "'fc1.weight'"});
  expect_error<GraphError>([&] { (void)g.find_node("conv3"); }, {"conv3", "'conv1'"});
  NoGrad no_grad;
  EXPECT_EQ(g(zeros({0, 3, 32, 32})).shape(), (Shape{0, 10}));
}

TEST(NetworkRun, TrainsToTheBitsOfTheModule) {
  manual_seed(7);
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  optim::Adam a(net.parameters(), {.lr = 1e-3}), b(g.parameters(), {.lr = 1e-3});
  const Tensor x = randn({8, 3, 32, 32}), y = randint(0, 10, {8});
  for (int i = 0; i < 3; ++i) {
    a.zero_grad(), b.zero_grad();
    cross_entropy(net(x), y).backward();
    cross_entropy(g(x), y).backward();
    a.step(), b.step();
  }
  const auto p = net.parameters(), q = g.parameters();
  for (size_t i = 0; i < p.size(); ++i) EXPECT_TRUE(equal(p[i].raw(), q[i].raw())) << i;
}

TEST(NetworkCopy, IsDeep) {
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32})), copy = g;
  Tensor w = copy.parameters()[0].raw().detach();
  w.fill_(0);
  EXPECT_NE(g.parameters()[0].raw().to_vector<double>()[0], 0);
  EXPECT_TRUE(graph::difference(g, copy).empty());
}

TEST(NetworkText, TableAndDotNameWhatThereIs) {
  Mixed net;
  const Network g = graph::trace(net, mixed_input(1));
  const std::string table = g.table(), dot = g.dot();
  for (const char* part : {"conv1", "[B, 4, 6, 6]", "batch_norm", "dropout (training)", "total"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  for (const char* part : {"digraph", "\"conv1\" -> \"bn1\"", "style=dashed", "output 0"})
    EXPECT_NE(dot.find(part), std::string::npos) << part << "\n" << dot;
}

TEST(NetworkEdit, RemovesDeadCodeAndKeepsTheRest) {
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  g.set_outputs({g.find("fc1")});
  EXPECT_EQ(g.remove_dead(), 4);
  EXPECT_EQ(g.parameters().size(), 6u);
  g.refresh();
  EXPECT_EQ(g(randn({2, 3, 32, 32})).shape(), (Shape{2, 120}));
  expect_error<GraphError>([&] { g.erase_node(0); }, {"conv1", "relu"});
}

TEST(NetworkEdit, ABrokenRuleNamesTheNodeAndChangesNothing) {
  nn::LeNet net;
  Network g = graph::trace(net, randn({1, 3, 32, 32}));
  g.parameter(g.find("conv2.weight")).ref().shrink(1, {0, 1});
  expect_error<GraphError>([&] { g.refresh(); }, {"'conv2'", "channels"});
  EXPECT_EQ(graph::to_string(g.value(g.find("conv2.weight")).shape), "[16, 6, 5, 5]");
}

TEST(WriteBack, BringsShrunkParametersToTheModule) {
  manual_seed(8);
  nn::LeNet net;
  const Tensor x = randn({2, 3, 32, 32});
  Network g = graph::trace(net, x);
  const std::vector<int64_t> kept{0, 2, 5, 80};
  g.parameter(g.find("fc1.weight")).ref().shrink(0, kept);
  g.parameter(g.find("fc1.bias")).ref().shrink(0, kept);
  g.parameter(g.find("fc2.weight")).ref().shrink(1, kept);
  g.refresh();
  graph::write_back(g, net, x);
  EXPECT_EQ(net.fc1.out(), 4);
  expect_same_bits(net, g, x, "written back");
  // What the module cannot be: it stays as it was.
  const TensorFile before = net.state_dict();
  Network other = g;
  other.parameter(other.find("fc2.weight")).ref().shrink(1, {0, 1});
  expect_error<GraphError>([&] { graph::write_back(other, net, x); }, {"write_back", "[84, 2]"});
  const TensorFile now = net.state_dict();
  for (size_t i = 0; i < now.tensors.size(); ++i) EXPECT_TRUE(equal(now.tensors[i].second, before.tensors[i].second));
  Tied tied;
  expect_error<GraphError>([&] { graph::write_back(g, tied, randn({1, 3})); }, "fc.weight");
}

TEST(WriteBack, AfterARefusalTheModuleTrainsOn) {
  manual_seed(9);
  nn::LeNet net;
  const Tensor x = randn({2, 3, 32, 32}), labels = tensor({3, 7});
  optim::Adam adam(net.parameters(), {.lr = 1e-3});
  cross_entropy(net(x), labels).backward();
  adam.step();
  const std::vector<ParameterRef> parameters = net.parameters();
  std::vector<Tensor> values, gradients;
  std::vector<uint64_t> generations;
  for (const ParameterRef& p : parameters) {
    values.push_back(clone(p.raw().detach()));
    gradients.push_back(clone(p.grad().detach()));
    generations.push_back(p.generation());
  }
  const auto expect_untouched = [&] {
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_TRUE(equal(parameters[i].raw().detach(), values[i])) << i;
      ASSERT_TRUE(parameters[i].grad().defined()) << i;
      EXPECT_TRUE(equal(parameters[i].grad(), gradients[i])) << i;
      EXPECT_EQ(parameters[i].generation(), generations[i]) << i;
    }
  };
  // Another shape and another op.
  Network other = graph::trace(net, x);
  compress::remove_channels(other, "conv1", {0, 4});
  compress::to_strided_conv(other, "max_pool2d");
  expect_error<GraphError>([&] { graph::write_back(other, net, x); }, {"write_back", "node"});
  expect_untouched();
  // A shape that no layer takes, noticed by an op.
  Network odd = graph::trace(net, x);
  odd.parameter(odd.find("fc2.weight")).ref().shrink(1, {0, 1});
  expect_error<GraphError>([&] { graph::write_back(odd, net, x); }, {"write_back", "[84, 2]"});
  expect_untouched();
  adam.step();
  for (size_t i = 0; i < parameters.size(); ++i) EXPECT_FALSE(equal(parameters[i].raw().detach(), values[i])) << i;
}

TEST(WriteBack, AnyErrorLeavesTheModuleAsItWas) {
  struct Failing : nn::Module {
    nn::Linear fc{{.in = 3, .out = 4}};
    HONE_MODULE(Failing, fc)
    Tensor forward(const Tensor& x) {
      if (fc.out() < 4) throw std::bad_alloc();
      return fc(x);
    }
  } net;
  const Tensor x = ones({1, 3});
  Network g = graph::trace(net, x);
  g.parameter(g.find("fc.weight")).ref().shrink(0, {0, 2});
  g.parameter(g.find("fc.bias")).ref().shrink(0, {0, 2});
  g.refresh();
  sum(net(x)).backward();
  const Tensor weight = clone(net.fc.weight.raw().detach()), gradient = clone(net.fc.weight.grad());
  EXPECT_THROW(graph::write_back(g, net, x), std::bad_alloc);
  EXPECT_EQ(net.fc.out(), 4);
  EXPECT_TRUE(equal(net.fc.weight.raw().detach(), weight));
  EXPECT_TRUE(equal(net.fc.weight.grad(), gradient));
}

}  // namespace
}  // namespace hone::test
