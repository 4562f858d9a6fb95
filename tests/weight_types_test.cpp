// Codebook and fake-quantized Parameters: values, gradients, masks beside them, copies, shrinks, files, graphs,
// training.

#include "support.h"

namespace hone::test {
namespace {

using graph::Network;

Tensor codes_of(const Shape& shape, int64_t k) { return cast(randint(0, k, shape), DType::u8); }
Tensor half(const Shape& shape) { return cast(randint(0, 2, shape), DType::boolean); }
WeightGrid grid_of(double scale, double low, double high, bool learned = false) {
  return {full({1}, scale), tensor({0.0, low, high, 0.0}, {1, 4}), {}, learned};
}
/// conv1 a codebook, fc1 one with a mask, conv2 fake-quantized, fc2 fake-quantized in rows with a mask and a learned
/// scale, fc3 by level ids.
void make_quantized(nn::LeNet& net) {
  // Of both signs, so that units live.
  const Tensor seven = tensor(std::vector<float>{-0.3F, -0.2F, -0.08F, 0.02F, 0.1F, 0.17F, 0.31F});
  net.conv1.weight.ref().set_codebook(codes_of(net.conv1.weight.shape(), 7), seven);
  net.fc1.weight.ref().set_mask(half(net.fc1.weight.shape()));
  const Tensor five = tensor(std::vector<float>{-0.11F, -0.04F, 0.01F, 0.05F, 0.1F});
  net.fc1.weight.ref().set_codebook(codes_of(net.fc1.weight.shape(), 5), five);
  net.conv2.weight.ref().set_grid(grid_of(0.02, -8, 7));
  net.fc2.weight.ref().set_mask(half(net.fc2.weight.shape()), MaskGradient::dense);
  const int64_t rows = net.fc2.weight.shape()[0];
  net.fc2.weight.ref().set_grid(
      {rand({rows}) * 0.01 + 0.01, expand(tensor({0.001, -8.0, 7.0, 0.0}, {1, 4}), {rows, 4}), {}, true});
  net.fc3.weight.ref().set_grid({tensor(std::vector<float>{0.01F, 0, 0.1F}),
                                 tensor({0.0, -2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 1.0}, {3, 4}),
                                 codes_of(net.fc3.weight.shape(), 3)});
}
void expect_same(const ParameterRef& a, const ParameterRef& b, const std::string& what) {
  EXPECT_EQ(a.type(), b.type()) << what;
  EXPECT_TRUE(equal(a.value(), b.value())) << what;
  EXPECT_TRUE(equal(a.raw(), b.raw())) << what;
  EXPECT_EQ(a.mask_gradient(), b.mask_gradient()) << what;
  EXPECT_EQ(a.scale().defined(), b.scale().defined()) << what;
}

/// Hidden weights may learn on (Surgery, RigL); a step is fitted to those that are kept.
TEST(FakeQuantized, ALearnedStepTakesNoGradientFromHiddenWeights) {
  manual_seed(4);
  const Tensor w = randn({6, 5}), mask = half({6, 5}), g = randn({6, 5});
  std::vector<Tensor> of_step, of_weights;
  for (const MaskGradient rule : {MaskGradient::masked, MaskGradient::dense}) {
    Parameter p(clone(w));
    p.ref().set_mask(mask, rule);
    p.ref().set_grid({full({6}, 0.3), expand(tensor({0.01, -4.0, 3.0, 0.0}, {1, 4}), {6, 4}), {}, true});
    sum(p.value() * g).backward();
    of_step.push_back(p.ref().scale().grad());
    of_weights.push_back(p.grad());
    p.ref().zero_grad();
    Tensor(p.ref().raw()).requires_grad_(false);  // the step alone
    p.ref().scale().zero_grad();
    sum(p.value() * g).backward();
    EXPECT_TRUE(equal(p.ref().scale().grad(), of_step[0]));
  }
  EXPECT_TRUE(equal(of_step[0], of_step[1]));
  EXPECT_TRUE(equal(of_weights[0], masked(of_weights[1], mask)));
  EXPECT_FALSE(equal(of_weights[0], of_weights[1]));
}

TEST(Codebook, ValueGradientAndMask) {
  manual_seed(1);
  Parameter p(randn({3, 4}));
  const uint64_t generation = p.ref().generation();
  const Tensor codes = tensor(std::vector<uint8_t>{0, 1, 1, 2, 2, 2, 0, 1, 1, 0, 2, 0}, {3, 4});
  p.ref().set_codebook(codes, tensor(std::vector<float>{-1, 0.5, 3}));
  EXPECT_EQ(p.ref().type(), WeightType::codebook);
  EXPECT_EQ(p.ref().generation(), generation + 1);
  EXPECT_EQ(p.shape(), (Shape{3, 4}));
  EXPECT_EQ(p.raw().shape(), Shape{3});
  EXPECT_EQ(p.value().to_vector<double>(), (std::vector<double>{-1, 0.5, 0.5, 3, 3, 3, -1, 0.5, 0.5, -1, 3, -1}));
  const Tensor g = reshape(cast(arange(0, 12), f32), {3, 4});
  sum(p.value() * g).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{0 + 6 + 9 + 11, 1 + 2 + 7 + 8, 3 + 4 + 5 + 10}));

  // A mask beside it: exact zeros, and a centroid learns from what is kept alone, whatever rule is asked for.
  const Tensor mask =
      cast(reshape(tensor(std::vector<uint8_t>{1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1}), {3, 4}), DType::boolean);
  p.ref().set_mask(mask, MaskGradient::dense);
  EXPECT_EQ(p.ref().type(), WeightType::codebook);
  EXPECT_EQ(p.value().to_vector<double>(), (std::vector<double>{-1, 0, 0.5, 3, 0, 3, -1, 0.5, 0.5, -1, 0, -1}));
  p.ref().zero_grad();
  sum(p.value() * g).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{26, 2 + 7 + 8, 3 + 5}));
  expect_error<ValueError>([&] { p.ref().bake_mask(); }, "bake()");

  const Tensor value = p.value();
  p.ref().bake();
  EXPECT_EQ(p.ref().type(), WeightType::dense);
  EXPECT_TRUE(equal(p.raw(), value));
  EXPECT_FALSE(p.ref().mask().defined());
  EXPECT_TRUE(p.raw().requires_grad());
}

TEST(Codebook, RefusesWhatIsNone) {
  Parameter p(ones({2, 2}));
  const Tensor codes = zeros({2, 2}, DType::u8);
  expect_error<DTypeError>([&] { p.ref().set_codebook(zeros({2, 2}), ones({2})); }, "u8");
  expect_error<ShapeError>([&] { p.ref().set_codebook(zeros({4}, DType::u8), ones({2})); }, {"[4]", "[2, 2]"});
  expect_error<DTypeError>([&] { p.ref().set_codebook(codes, ones({2}, DType::f64)); }, "f32");
  expect_error<ShapeError>([&] { p.ref().set_codebook(codes, ones({257})); }, "257");
  expect_error<ShapeError>([&] { p.ref().set_codebook(codes, ones({0})); }, "1 to 256");
  expect_error<ValueError>([&] { p.ref().set_codebook(full({2, 2}, 2, DType::u8), ones({2})); }, {"2", "centroids"});
  EXPECT_EQ(p.ref().type(), WeightType::dense);
  p.ref().set_codebook(codes, ones({2}));
  expect_error<ShapeError>([&] { p.ref().replace(ones({2, 2})); }, "codebook");
  expect_error<ValueError>([&] { p.ref().set_grid(grid_of(1, -1, 1)); }, "bake()");
  Parameter q(ones({2, 2}));
  q.ref().set_grid(grid_of(1, -1, 1));
  expect_error<ValueError>([&] { q.ref().set_codebook(codes, ones({2})); }, "bake()");
  expect_error<ValueError>([&] { (void)p.ref().grid(); }, "fake-quantized");
}

TEST(Codebook, TrainsItsCentroidsAndShrinksItsCodes) {
  manual_seed(2);
  nn::Linear net{{.in = 6, .out = 4}};
  optim::Adam stale(net.parameters(), {.lr = 0.1});
  const Tensor codes = codes_of({4, 6}, 3), x = randn({5, 6}), y = randn({5, 4});
  net.weight.ref().set_codebook(codes, randn({3}));
  mse_loss(net(x), y).backward();
  expect_error<GradError>([&] { stale.step(); }, "stale");
  optim::Adam adam(net.parameters(), {.lr = 0.1});
  std::vector<double> losses;
  for (int i = 0; i < 20; ++i) {
    adam.zero_grad();
    const Tensor loss = mse_loss(net(x), y);
    losses.push_back(loss.item());
    loss.backward();
    adam.step();
  }
  EXPECT_LT(losses.back(), losses.front());
  EXPECT_TRUE(equal(net.weight.ref().codes(), codes)) << "codes stay";
  EXPECT_EQ(net.weight.value().to_vector<double>()[0], net.weight.raw().to_vector<double>()[codes.data<uint8_t>()[0]]);

  const Tensor value = net.weight.value().detach();
  const Shrink shrink = net.weight.ref().shrink(1, {0, 3, 5});
  EXPECT_FALSE(shrink.parameter.defined()) << "no state is to be sliced";
  EXPECT_EQ(net.weight.shape(), (Shape{4, 3}));
  EXPECT_TRUE(equal(net.weight.value(), index_select(value, 1, tensor(std::vector<int64_t>{0, 3, 5}))));
  adam.apply(shrink);
  adam.step();
}

TEST(FakeQuantized, ValueAndStraightThroughGradientBesideAMask) {
  Parameter p(tensor(std::vector<float>{-3, -0.6F, 0.26F, 0.9F}));
  const uint64_t generation = p.ref().generation();
  p.ref().set_grid({full({1}, 0.5), tensor({0.25, -2.0, 1.0, 0.0}, {1, 4})});
  EXPECT_EQ(p.ref().type(), WeightType::fake_quantized);
  EXPECT_EQ(p.ref().generation(), generation);
  EXPECT_EQ(p.value().to_vector<double>(), (std::vector<double>{-0.75, -0.75, 0.25, 0.75}));
  sum(p.value()).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{0, 1, 1, 0})) << "0.9 lies at code 1.3";
  EXPECT_FALSE(p.ref().scale().grad().defined()) << "not learned";

  p.ref().set_mask(tensor({true, true, false, true}));
  EXPECT_EQ(p.ref().type(), WeightType::fake_quantized);
  EXPECT_EQ(p.value().to_vector<double>(), (std::vector<double>{-0.75, -0.75, 0, 0.75})) << "exactly 0 behind the mask";
  p.ref().zero_grad();
  sum(p.value()).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{0, 1, 0, 0}));
  p.ref().bake();
  EXPECT_EQ(p.ref().type(), WeightType::dense);
  EXPECT_EQ(p.raw().to_vector<double>(), (std::vector<double>{-0.75, -0.75, 0, 0.75}));
}

TEST(FakeQuantized, ScaleIsAParameterThatLearns) {
  manual_seed(3);
  nn::Linear net{{.in = 8, .out = 8, .bias = false}};
  const Tensor target = randn({8, 8});
  net.weight.ref().replace(clone(target));
  net.weight.ref().set_grid(grid_of(0.05, -2, 1, true));  // far too small a step
  const ParameterRef scale = net.weight.ref().scale();
  Tensor(net.weight.raw()).requires_grad_(false);
  optim::Adam adam({scale}, {.lr = 0.02});
  const auto error = [&] { return mse_loss(net.weight.value(), target); };
  const double before = error().item();
  for (int i = 0; i < 100; ++i) {
    adam.zero_grad();
    error().backward();
    adam.step();
  }
  EXPECT_LT(error().item(), 0.5 * before);
  EXPECT_GT(scale.value().item(), 0.2);
  // A new grid of the same form keeps the scale's identity, and with it the optimizer.
  net.weight.ref().set_grid(grid_of(0.3, -2, 1, true));
  EXPECT_EQ(net.weight.ref().scale(), scale);
  adam.zero_grad();
  error().backward();
  adam.step();
}

TEST(FakeQuantized, ShrinksItsRowsAndLevels) {
  manual_seed(4);
  Parameter rows(randn({4, 3})), levels(randn({4, 3}));
  rows.ref().set_grid(
      {tensor(std::vector<float>{0.1F, 0.2F, 0.3F, 0.4F}), expand(tensor({0.0, -4.0, 3.0, 0.0}, {1, 4}), {4, 4})});
  levels.ref().set_grid({tensor(std::vector<float>{0.1F, 1}), expand(tensor({0.0, -4.0, 3.0, 0.0}, {1, 4}), {2, 4}),
                         codes_of({4, 3}, 2)});
  for (const Parameter* p : {&rows, &levels}) {
    const Tensor before = p->value().detach();
    EXPECT_EQ(p->ref().shrink(0, {1, 3}).parameter, p->ref());
    EXPECT_TRUE(equal(p->value(), index_select(before, 0, tensor(std::vector<int64_t>{1, 3}))));
    p->ref().shrink(1, {2});
    EXPECT_TRUE(equal(p->value(), slice(index_select(before, 0, tensor(std::vector<int64_t>{1, 3})), 1, 2, 3)));
  }
}

TEST(WeightTypes, CopiesStateDictsAndCheckpointsKeepThem) {
  manual_seed(5);
  nn::LeNet net, dense;
  make_quantized(net);
  nn::LeNet copy = net;
  dense.load_state_dict(net.state_dict());
  const auto a = net.named_parameters(), b = copy.named_parameters(), c = dense.named_parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NE(a[i].parameter, b[i].parameter);
    expect_same(a[i].parameter, b[i].parameter, "copied " + a[i].name);
    if (a[i].name != "fc2.weight") expect_same(a[i].parameter, c[i].parameter, "loaded " + a[i].name);
  }
  EXPECT_TRUE(equal(dense.fc2.weight.value(), net.fc2.weight.value()));
  EXPECT_TRUE(copy.fc2.weight.ref().scale().raw().requires_grad());
  EXPECT_NE(copy.fc2.weight.ref().scale(), net.fc2.weight.ref().scale());
  EXPECT_EQ(net.parameter_count(), nn::LeNet().parameter_count());
  // Into a module that has the types, identities stay, the scale's too.
  const ParameterRef scale = copy.fc2.weight.ref().scale();
  net.fc2.weight.ref().scale().replace(full(scale.shape(), 0.5));
  copy.load_state_dict(net.state_dict());
  EXPECT_EQ(copy.fc2.weight.ref().scale(), scale);
  EXPECT_TRUE(equal(copy.fc2.weight.value(), net.fc2.weight.value()));
  expect_error<FormatError>([&] { copy.load_state_dict(nn::LeNet().state_dict()); }, "conv1.weight.codes");
}

TEST(WeightTypes, DamagedStateChangesNothing) {
  manual_seed(6);
  nn::LeNet net, dense;
  make_quantized(net);
  const TensorFile file = net.state_dict(), before = dense.state_dict();
  const auto damaged = [&](const std::string& name, const Tensor& t) {
    TensorFile f = file;
    for (auto& [n, tensor] : f.tensors)
      if (n == name) tensor = t;
    if (!t.defined()) std::erase_if(f.tensors, [&](const auto& e) { return e.first == name; });
    return f;
  };
  const auto refuse = [&]<class E>(const std::string& name, const Tensor& t, const std::string& part) {
    expect_error<E>([&] { dense.load_state_dict(damaged(name, t)); }, {name.substr(0, name.rfind('.')), part});
  };
  refuse.operator()<ValueError>("conv1.weight.codes", full({6, 3, 5, 5}, 7, DType::u8), "centroids");
  refuse.operator()<ShapeError>("conv1.weight.codes", zeros({6, 3, 5}, DType::u8), "[6, 3, 5]");
  refuse.operator()<DTypeError>("conv1.weight.codes", zeros({6, 3, 5, 5}), "u8");
  refuse.operator()<ShapeError>("fc1.weight.mask", zeros({2}, DType::boolean), "[2]");
  refuse.operator()<ShapeError>("conv2.weight.points", zeros({1, 3}, f64), "[1, 4]");
  refuse.operator()<ValueError>("conv2.weight.points", full({1, 4}, 0.5, f64), "integers");
  refuse.operator()<FormatError>("conv2.weight.scale", {}, ".scale");
  refuse.operator()<FormatError>("conv1.weight", {}, "missing");
  const TensorFile after = dense.state_dict();
  ASSERT_EQ(after.tensors.size(), before.tensors.size());
  for (size_t i = 0; i < after.tensors.size(); ++i)
    EXPECT_TRUE(equal(after.tensors[i].second, before.tensors[i].second)) << after.tensors[i].first;
}

TEST(WeightTypes, TracedSavedAndRunTheyStayTheSame) {
  const TempDir dir;
  manual_seed(7);
  nn::LeNet net;
  make_quantized(net);
  net.eval();
  const Tensor x = randn({3, 3, 32, 32}), want = net(x);
  Network traced = graph::trace(net, randn({1, 3, 32, 32}));
  EXPECT_EQ(traced.nodes().size(), 12u) << "types are of leaves, not nodes";
  graph::save(traced, dir / "a");
  Network back = graph::load(dir / "a");
  graph::save(back, dir / "b");
  EXPECT_EQ(read_file(dir / "a"), read_file(dir / "b"));
  const auto a = net.named_parameters(), b = traced.named_parameters(), c = back.named_parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    expect_same(a[i].parameter, b[i].parameter, "traced " + a[i].name);
    EXPECT_EQ(a[i].parameter.type(), c[i].parameter.type()) << a[i].name;
    EXPECT_TRUE(equal(a[i].parameter.value(), c[i].parameter.value())) << a[i].name;
  }
  EXPECT_TRUE(back.parameter(back.find("fc2.weight")).ref().scale().raw().requires_grad());
  traced.eval(), back.eval();
  EXPECT_TRUE(equal(traced(x), want));
  EXPECT_TRUE(equal(back(x), want));
  expect_close(graph::Executor(graph::optimize(back), {.batch = 3}).run(x), want, {1e-5, 1e-5}, "executor");

  // Written back after a shrink of channels: the module computes what the network does.
  compress::remove_channels(traced, "conv2", {1, 4});
  graph::write_back(traced, net, randn({1, 3, 32, 32}));
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::codebook);
  EXPECT_TRUE(equal(net(x), traced(x)));
}

TEST(WeightTypes, TheNetworkTrainsAsTheModuleDoes) {
  manual_seed(8);
  nn::LeNet net;
  make_quantized(net);
  Network traced = graph::trace(net, randn({1, 3, 32, 32}));
  const Tensor x = randn({8, 3, 32, 32}), labels = randint(0, 10, {8});
  const auto train = [&](nn::Module& m) {
    std::vector<ParameterRef> all = m.parameters();
    for (const ParameterRef& p : m.parameters())
      if (p.scale().defined() && p.scale().raw().requires_grad()) all.push_back(p.scale());
    EXPECT_EQ(all.size(), 11u);
    optim::Adam adam(all, {.lr = 1e-3});
    for (int i = 0; i < 3; ++i) {
      adam.zero_grad();
      cross_entropy(m(x), labels).backward();
      adam.step();
    }
  };
  const Tensor scale = clone(net.fc2.weight.ref().scale().raw().detach());
  train(net);
  train(traced);
  EXPECT_FALSE(equal(net.fc2.weight.ref().scale().raw(), scale));
  const auto a = net.named_parameters(), b = traced.named_parameters();
  for (size_t i = 0; i < a.size(); ++i) expect_same(a[i].parameter, b[i].parameter, a[i].name);
  // What a mask hides is exactly 0, and a codebook has no more values than centroids.
  const Tensor fc1 = net.fc1.weight.value();
  EXPECT_EQ(max(abs(masked(fc1.detach(), logical_not(net.fc1.weight.ref().mask())))).item(), 0);
  std::vector<double> distinct = net.conv1.weight.value().to_vector<double>();
  std::sort(distinct.begin(), distinct.end());
  EXPECT_LE(std::unique(distinct.begin(), distinct.end()) - distinct.begin(), 7);
}

TEST(WeightTypes, BatchNormsAreNotFoldedIntoQuantizedWeights) {
  manual_seed(9);
  struct Net : nn::Module {
    nn::Conv2d conv{{.in = 1, .out = 2, .kernel = 3}};
    nn::BatchNorm2d bn{{.features = 2}};
    HONE_MODULE(Net, conv, bn)
    Tensor forward(const Tensor& x) { return bn(conv(x)); }
  } net;
  for (const bool shared : {true, false}) {
    Net quantized = net;
    const ParameterRef w = quantized.conv.weight;
    shared ? w.set_codebook(codes_of(w.shape(), 3), randn({3})) : w.set_grid(grid_of(0.1, -8, 7));
    Network traced = graph::trace(quantized, randn({1, 1, 6, 6}));
    EXPECT_EQ(graph::fold_batch_norm(traced), 0);
  }
  Network plain = graph::trace(net, randn({1, 1, 6, 6}));
  EXPECT_EQ(graph::fold_batch_norm(plain), 1);
}

TEST(WeightTypes, PruningGoesBeforeSharingAndBesideGrids) {
  manual_seed(10);
  nn::LeNet net;
  make_quantized(net);
  expect_error<ValueError>([&] { compress::prune(net, {.density = 0.5}); }, {"conv1.weight", "share"});
  const Tensor before = clone(net.fc2.weight.ref().mask());
  compress::prune(net, {.density = 0.2, .scope = compress::PruneScope::per_layer, .only = {"fc2", "conv2"}});
  EXPECT_EQ(net.conv2.weight.ref().type(), WeightType::fake_quantized);
  const Tensor mask = net.fc2.weight.ref().mask();
  EXPECT_EQ(sum(mask).item<int64_t>(), std::llround(0.2 * static_cast<double>(mask.numel())));
  EXPECT_EQ(sum(logical_and(mask, logical_not(before))).item<int64_t>(), 0) << "what was masked stays masked";
}

}  // namespace
}  // namespace hone::test
