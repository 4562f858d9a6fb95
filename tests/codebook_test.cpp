// Weight sharing: clusters of what is kept, reports, and that no later step undoes it.

#include <set>

#include "support.h"

namespace hone::test {
namespace {

using namespace compress::quantize;

struct Net : nn::Module {
  nn::Linear fc1{{.in = 12, .out = 20}}, fc2{{.in = 20, .out = 4}};
  HONE_MODULE(Net, fc1, fc2)
  Tensor forward(const Tensor& x) { return fc2(relu(fc1(x))); }
};
std::set<double> values_of(const Parameter& p) {
  const std::vector<double> v = p.value().to_vector<double>();
  return {v.begin(), v.end()};
}

TEST(ShareWeights, EachWeightBecomesItsNearestCentroid) {
  manual_seed(1);
  Net net;
  const std::vector<double> before = net.fc1.weight.value().to_vector<double>();
  const ShareReport report = share_weights(net, {.clusters = 6, .layers = {{"fc2", 3}}});
  ASSERT_EQ(report.layers.size(), 2u) << "biases are left alone";
  EXPECT_EQ(report.layers[0].name, "fc1.weight");
  EXPECT_EQ(report.layers[0].clusters, 6);
  EXPECT_EQ(report.layers[1].clusters, 3);
  EXPECT_EQ(values_of(net.fc2.weight).size(), 3u);
  EXPECT_EQ(net.fc1.bias.ref().type(), WeightType::dense);
  const std::vector<double> centroids = net.fc1.weight.raw().to_vector<double>(),
                            after = net.fc1.weight.value().to_vector<double>();
  double error = 0;
  std::map<double, double> count;
  for (size_t i = 0; i < before.size(); ++i) {
    for (const double c : centroids) EXPECT_LE(std::abs(before[i] - after[i]), std::abs(before[i] - c) + 1e-7);
    error += std::pow(before[i] - after[i], 2);
    ++count[after[i]];
  }
  const double n = 240;
  EXPECT_NEAR(report.layers[0].error, error / n, 1e-9);
  double entropy = 0;
  for (const auto& [value, c] : count) entropy -= c / n * std::log2(c / n);
  EXPECT_NEAR(report.layers[0].entropy, entropy, 1e-12);
  EXPECT_EQ(report.layers[0].bits, 240 * 3 + 6 * 32) << "6 clusters take 3 bits";
  EXPECT_NE(report.table().find("fc2.weight"), std::string::npos);
}

TEST(ShareWeights, OnlyWhatAMaskKeepsIsClustered) {
  manual_seed(2);
  Net net;
  compress::prune(net, {.density = 0.25, .scope = compress::PruneScope::per_layer});
  const Tensor mask = clone(net.fc1.weight.ref().mask());
  std::set<double> kept;
  for (const double v : net.fc1.weight.value().to_vector<double>())
    if (v != 0) kept.insert(v);
  const ShareReport report = share_weights(net, {.clusters = 8});
  EXPECT_EQ(report.layers[0].kept, 60);
  EXPECT_EQ(report.layers[0].total, 240);
  EXPECT_TRUE(equal(net.fc1.weight.ref().mask(), mask));
  std::set<double> after = values_of(net.fc1.weight);
  EXPECT_EQ(after.size(), 9u) << "0 and the centroids";
  EXPECT_EQ(after.count(0), 1u);
  for (const double c : net.fc1.weight.raw().to_vector<double>())
    EXPECT_GT(
        std::abs(c),
        *std::min_element(kept.begin(), kept.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }) * 0.9)
        << "no centroid for the zeros";

  // Nothing kept at all: a parameter of zeros, one centroid.
  net.fc2.weight.ref().bake();
  net.fc2.weight.ref().set_mask(zeros({4, 20}, DType::boolean));
  const ShareReport none = share_weights(net, {.only = {"fc2"}});
  EXPECT_EQ(none.layers[0].kept, 0);
  EXPECT_EQ(values_of(net.fc2.weight), std::set<double>{0});
}

TEST(ShareWeights, TrainingDistillationAndShrinkingKeepMasksAndCodes) {
  manual_seed(3);
  Net net, teacher_net;
  compress::prune(net, {.density = 0.3});
  share_weights(net, {.clusters = 4, .start = KMeansStart::optimal});
  const Tensor codes = clone(net.fc1.weight.ref().codes()), mask = clone(net.fc1.weight.ref().mask());
  compress::Teacher teacher(teacher_net);
  optim::Adam adam(net.parameters(), {.lr = 1e-2, .weight_decay = 1e-2});
  const Tensor x = randn({16, 12}), labels = randint(0, 4, {16});
  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    adam.zero_grad();
    const Tensor loss = compress::kd_loss(net(x), teacher.logits(x), labels, {.temperature = 4, .alpha = 0.5});
    (i == 0 ? first : last) = loss.item();
    loss.backward();
    optim::clip_grad_norm(net.parameters(), 1.0);
    adam.step();
  }
  EXPECT_LT(last, first);
  EXPECT_TRUE(equal(net.fc1.weight.ref().codes(), codes));
  EXPECT_TRUE(equal(net.fc1.weight.ref().mask(), mask));
  EXPECT_LE(values_of(net.fc1.weight).size(), 5u);

  graph::Network traced = graph::trace(net, randn({1, 12}));
  compress::remove_channels(traced, "fc1", {0, 7});
  const ParameterRef w = traced.parameter(traced.find("fc1.weight"));
  EXPECT_EQ(w.type(), WeightType::codebook);
  EXPECT_EQ(w.shape(), (Shape{18, 12}));
  EXPECT_TRUE(equal(slice(w.codes(), 0, 0, 6), slice(codes, 0, 1, 7)));
  EXPECT_EQ(w.raw().numel(), 4);
}

TEST(ShareWeights, RefusesAndLeavesTheModuleAsItWas) {
  manual_seed(4);
  Net net;
  expect_error<ValueError>([&] { share_weights(net, {.clusters = 257}); }, "[1, 256]");
  expect_error<ValueError>([&] { share_weights(net, {.layers = {{"fc1", 0}}}); }, "'fc1'");
  expect_error<ValueError>([&] { share_weights(net, {.only = {"fc3"}}); }, "fc1");
  expect_error<ValueError>([&] { share_weights(net, {.only = {"fc1"}, .layers = {{"fc2", 4}}}); }, "'fc2'");
  expect_error<ValueError>([&] { share_weights(net, {.except = {"fc1", "fc2"}}); }, "left to quantize");
  net.fc2.weight.raw().data<float>()[3] = NAN;
  expect_error<ValueError>([&] { share_weights(net); }, {"fc2.weight", "element 3"});
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
  share_weights(net, {.only = {"fc1"}});
  expect_error<ValueError>([&] { share_weights(net, {.only = {"fc1"}}); }, {"codebook", "bake()"});
}

}  // namespace
}  // namespace hone::test
