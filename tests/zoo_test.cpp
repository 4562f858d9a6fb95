// The networks of the zoo: parameter counts, names, shapes, multiply-adds, training.

#include <gtest/gtest.h>

#include <sstream>

#include "hone/hone.h"

namespace hone {
namespace {

/// One row of a summary, split at blanks where two or more stand.
std::vector<std::string> row(const std::string& table, const std::string& name) {
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> cells;
    for (size_t at = 0; at < line.size();) {
      const size_t end = std::min(line.find("  ", at), line.size());
      if (end > at) cells.push_back(line.substr(at, end - at));
      at = line.find_first_not_of(' ', end);
      if (at == std::string::npos) break;
    }
    if (!cells.empty() && cells[0] == name) return cells;
  }
  return {};
}

using Cells = std::vector<std::string>;

TEST(LeNet, HasTheNumbersOfTheDocuments) {
  nn::LeNet net;
  EXPECT_EQ(net.parameter_count(), 62006);
  Cells names;
  for (const auto& p : net.named_parameters()) names.push_back(p.name);
  EXPECT_EQ(names, (Cells{"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias",
                          "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"}));
  const std::string table = net.summary(randn({1, 3, 32, 32}));
  EXPECT_EQ(row(table, "(whole)"), (Cells{"(whole)", "LeNet", "[1, 10]", "0", "0"})) << table;
  EXPECT_EQ(row(table, "conv1"), (Cells{"conv1", "Conv2d", "[1, 6, 28, 28]", "456", "352,800"})) << table;
  EXPECT_EQ(row(table, "conv2"), (Cells{"conv2", "Conv2d", "[1, 16, 10, 10]", "2,416", "240,000"}));
  EXPECT_EQ(row(table, "fc1"), (Cells{"fc1", "Linear", "[1, 120]", "48,120", "48,000"}));
  EXPECT_EQ(row(table, "fc2"), (Cells{"fc2", "Linear", "[1, 84]", "10,164", "10,080"}));
  EXPECT_EQ(row(table, "fc3"), (Cells{"fc3", "Linear", "[1, 10]", "850", "840"}));
  EXPECT_EQ(row(table, "total"), (Cells{"total", "62,006", "651,720"}));
  EXPECT_EQ(row(net.summary(randn({4, 3, 32, 32})), "total"), (Cells{"total", "62,006", "2,606,880"}));
}

TEST(LeNet, ScalesItsWidths) {
  nn::LeNet half{{.width = 0.5, .in = 1, .classes = 7}};
  EXPECT_EQ(half.conv1.out(), 3);
  EXPECT_EQ(half.conv2.out(), 8);
  EXPECT_EQ(half.fc1.in(), 200);
  EXPECT_EQ(half.fc1.out(), 60);
  EXPECT_EQ(half.fc2.out(), 42);
  EXPECT_EQ(half(randn({2, 1, 32, 32})).shape(), (Shape{2, 7}));
  nn::LeNet least{{.width = 1e-6}};
  EXPECT_EQ(least.conv1.out(), 1);
  EXPECT_EQ(least(randn({1, 3, 32, 32})).shape(), (Shape{1, 10}));
  EXPECT_THROW((nn::LeNet{{.width = 0}}), ValueError);
  EXPECT_THROW((nn::LeNet{{.classes = 0}}), ValueError);
}

/// Ops on the state of a network, f64, with every parameter and running statistic random, so that none hides.
struct Written {
  nn::Module& net;
  explicit Written(nn::Module& m) : net(m) {
    m.to(f64);
    NoGrad no_grad;
    for (const auto& [name, p] : m.named_parameters())
      if (p.raw().ndim() == 1) Tensor(p.raw()).copy_(randn(p.raw().shape(), f64) * 0.3 + 0.5);
    for (const auto& b : m.named_buffers())
      if (is_floating(b.buffer->tensor().dtype()))
        Tensor(b.buffer->tensor()).copy_(rand(b.buffer->tensor().shape(), f64) + 0.5);
    state = m.state_dict();
  }
  TensorFile state;
  const Tensor& at(const std::string& name) const {
    for (const auto& [key, value] : state.tensors)
      if (key == name) return value;
    throw ValueError("no " + name);
  }
  Tensor conv(const Tensor& x, const std::string& name) const {
    return conv2d(x, at(name + ".weight"), at(name + ".bias"));
  }
  Tensor full(const Tensor& x, const std::string& name) const {
    return linear(x, at(name + ".weight"), at(name + ".bias"));
  }
  /// Convolution without bias, then batch norm written out: of the batch, or with the running statistics.
  Tensor normed(const Tensor& x, const std::string& conv, const std::string& bn, int64_t stride, bool training) const {
    const Tensor w = at(conv + ".weight"), h = conv2d(x, w, {}, {.stride = {stride}, .padding = {w.size(2) / 2}});
    const Shape each{1, h.size(1), 1, 1};
    const Tensor m = training ? mean(h, {0, 2, 3}, true) : reshape(at(bn + ".running_mean"), each);
    const Tensor v = training ? mean(square(h - m), {0, 2, 3}, true) : reshape(at(bn + ".running_var"), each);
    return (h - m) / sqrt(v + 1e-5) * reshape(at(bn + ".weight"), each) + reshape(at(bn + ".bias"), each);
  }
};

TEST(LeNet, ComputesWhatItsLayersSay) {
  manual_seed(1);
  nn::LeNet net;
  const Written w(net);
  const Tensor x = randn({2, 3, 32, 32}, f64);
  Tensor h = max_pool2d(relu(w.conv(x, "conv1")), 2);
  h = reshape(max_pool2d(relu(w.conv(h, "conv2")), 2), {2, 400});
  h = relu(w.full(relu(w.full(h, "fc1")), "fc2"));
  EXPECT_TRUE(allclose(net(x), w.full(h, "fc3"), 1e-12, 1e-12));
}

TEST(Zoo, CaffeLeNetComputesWhatItsLayersSay) {
  manual_seed(6);
  nn::LeNet5Caffe net;
  const Written w(net);
  const Tensor x = randn({2, 1, 28, 28}, f64);
  const Tensor h = max_pool2d(w.conv(max_pool2d(w.conv(x, "conv1"), 2), "conv2"), 2);
  EXPECT_TRUE(allclose(net(x), w.full(relu(w.full(reshape(h, {2, 800}), "fc1")), "fc2"), 1e-12, 1e-12));
}

TEST(Zoo, LeNet300_100ComputesWhatItsLayersSay) {
  manual_seed(7);
  nn::LeNet300_100 net;
  const Written w(net);
  const Tensor x = randn({3, 1, 28, 28}, f64);
  const Tensor h = relu(w.full(relu(w.full(reshape(x, {3, 784}), "fc1")), "fc2"));
  EXPECT_TRUE(allclose(net(x), w.full(h, "fc3"), 1e-12, 1e-12));
}

TEST(Zoo, ResNetComputesWhatItsLayersSay) {
  manual_seed(8);
  for (int64_t depth : {8, 14}) {
    nn::ResNet net{{.depth = depth, .width = 4}};
    const Written w(net);
    const Tensor x = randn({2, 3, 32, 32}, f64);
    for (const bool training : {false, true}) {
      Tensor h = relu(w.normed(x, "conv1", "bn1", 1, training));
      for (int64_t stage = 1; stage <= 3; ++stage) {
        for (int64_t i = 0; i < (depth - 2) / 6; ++i) {
          const std::string block = str("stage", stage, ".", i, ".");
          const int64_t stride = stage > 1 && i == 0 ? 2 : 1;
          const Tensor first = relu(w.normed(h, block + "conv1", block + "bn1", stride, training));
          const Tensor second = w.normed(first, block + "conv2", block + "bn2", 1, training);
          const bool same = stage == 1 || i > 0;
          h = relu(second + (same ? h : w.normed(h, block + "shortcut", block + "shortcut_bn", 2, training)));
        }
      }
      const Tensor want = w.full(mean(h, {2, 3}), "fc");
      net.train(training);
      EXPECT_TRUE(allclose(net(x), want, 1e-9, 1e-9)) << depth << (training ? " training" : " evaluating");
    }
  }
}

/// A few steps of plain gradient descent on one batch lower the loss, and every parameter gets a gradient.
void expect_learns(nn::Module& net, const Tensor& x, double rate) {
  const Tensor target = randn({x.size(0), 10}) * 0.5;
  double first = 0, last = 0;
  for (int step = 0; step < 8; ++step) {
    net.zero_grad();
    const Tensor loss = mean(square(net(x) - target));
    loss.backward();
    (step == 0 ? first : last) = loss.item();
    NoGrad no_grad;
    for (const auto& [name, p] : net.named_parameters()) {
      ASSERT_TRUE(p.grad().defined()) << name;
      if (step == 0) { EXPECT_GT(max(abs(p.grad())).item(), 0) << name; }
      Tensor(p.raw()).copy_(p.raw() - p.grad() * rate);
    }
  }
  EXPECT_LT(last, 0.95 * first) << net.type_name();
}

TEST(Zoo, LeNetLearns) {
  manual_seed(2);
  nn::LeNet net;
  expect_learns(net, randn({4, 3, 32, 32}), 0.2);
}

TEST(Zoo, CaffeLeNet) {
  manual_seed(3);
  nn::LeNet5Caffe net;
  EXPECT_EQ(net.parameter_count(), 431080);
  EXPECT_EQ(net(randn({2, 1, 28, 28})).shape(), (Shape{2, 10}));
  EXPECT_EQ(row(net.summary(randn({1, 1, 28, 28})), "total"), (Cells{"total", "431,080", "2,293,000"}));
  expect_learns(net, randn({4, 1, 28, 28}), 0.05);
}

TEST(Zoo, LeNet300_100) {
  manual_seed(4);
  nn::LeNet300_100 net;
  EXPECT_EQ(net.parameter_count(), 266610);
  EXPECT_EQ(net(randn({3, 784})).shape(), (Shape{3, 10}));
  expect_learns(net, randn({4, 1, 28, 28}), 0.2);
}

TEST(Zoo, ResNet) {
  manual_seed(5);
  nn::ResNet net{{.depth = 8}};
  EXPECT_EQ(net.parameter_count(), 78042);
  EXPECT_EQ((nn::ResNet{{.depth = 20}}.parameter_count()), 272474);
  EXPECT_EQ(nn::ResNet().parameter_count(), 272474);
  EXPECT_THROW((nn::ResNet{{.depth = 18}}), ValueError);
  EXPECT_THROW((nn::ResNet{{.depth = 2}}), ValueError);
  EXPECT_FALSE(net.stage1[0].shortcut.has_value());
  ASSERT_TRUE(net.stage2[0].shortcut.has_value());
  std::vector<std::string> names;
  for (const auto& p : net.named_parameters()) names.push_back(p.name);
  EXPECT_EQ(names[3], "stage1.0.conv1.weight");
  EXPECT_NE(std::find(names.begin(), names.end(), "stage2.0.shortcut.weight"), names.end());

  const Tensor x = randn({2, 3, 32, 32});
  const auto before = net.state_dict();
  const std::string table = net.summary(x);
  EXPECT_EQ(row(table, "stage3.0"), (Cells{"stage3.0", "BasicBlock", "[2, 64, 8, 8]", "0", "0"})) << table;
  EXPECT_EQ(row(table, "conv1")[4], std::to_string(2 * 442368).insert(3, ","));
  const auto after = net.state_dict();  // running statistics too are as they were
  for (size_t i = 0; i < before.tensors.size(); ++i)
    EXPECT_TRUE(equal(before.tensors[i].second, after.tensors[i].second)) << before.tensors[i].first;
  EXPECT_TRUE(net.training());
  EXPECT_EQ(net(x).shape(), (Shape{2, 10}));
  EXPECT_FALSE(equal(net.bn1.running_mean.tensor(), before.at("bn1.running_mean")));

  nn::ResNet small{{.depth = 8, .width = 4}};
  expect_learns(small, randn({4, 3, 32, 32}), 0.1);
  nn::ResNet copy = small;
  small.eval();
  copy.eval();
  EXPECT_TRUE(equal(small(x), copy(x)));
}

}  // namespace
}  // namespace hone
