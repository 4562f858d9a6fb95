// Layers: forward against plain f64 loops, gradients against differences, first values, options that are refused.

#include <gtest/gtest.h>

#include "nn_support.h"

namespace hone {
namespace {

using namespace nn_test;

// ---- Linear ----

TEST(Linear, MultipliesAndStartsUniform) {
  manual_seed(1);
  nn::Linear layer{{.in = 400, .out = 50}};
  EXPECT_EQ(layer.weight.shape(), (Shape{50, 400}));
  EXPECT_EQ(layer.in(), 400);
  EXPECT_EQ(layer.out(), 50);
  const Moments w = moments(layer.weight.raw()), b = moments(layer.bias.raw());
  EXPECT_NEAR(w.sd, 0.05 / std::sqrt(3.0), 5e-4);
  EXPECT_LE(std::max(-w.low, w.high), 0.05);
  EXPECT_GT(std::min(-w.low, w.high), 0.0495);
  EXPECT_LE(std::max(-b.low, b.high), 0.05);
  EXPECT_GT(std::min(-b.low, b.high), 0.03);

  nn::Linear small({.in = 3, .out = 2});  // the other way to spell it
  small.to(f64);
  const Tensor x = randn({2, 4, 3}, f64);
  const auto got = values(small(x)), xs = values(x), ws = values(small.weight.raw()), bs = values(small.bias.raw());
  for (size_t r = 0; r < 8; ++r)
    for (size_t o = 0; o < 2; ++o) {
      double y = bs[o];
      for (size_t i = 0; i < 3; ++i) y += xs[r * 3 + i] * ws[o * 3 + i];
      EXPECT_NEAR(got[r * 2 + o], y, 1e-12);
    }
  check_gradients(small, input({2, 3}));

  nn::Linear bare{{.in = 3, .out = 2, .bias = false}};
  EXPECT_FALSE(bare.bias.defined());
  EXPECT_EQ(bare.parameter_count(), 6);
  EXPECT_EQ(bare.state_dict().tensors.size(), 1u);
  check_gradients(bare, input({2, 3}));
  const nn::Linear copied = bare;
  EXPECT_FALSE(copied.bias.defined());

  EXPECT_THROW((nn::Linear{{.in = 0, .out = 2}}), ValueError);
  EXPECT_THROW((nn::Linear{{.in = 3}}), ValueError);
  EXPECT_THROW(small(randn({2, 4}, f64)), ShapeError);
  EXPECT_THROW(small(randn({2, 3})), DTypeError);
}

// ---- normalization ----

TEST(BatchNorm, UsesTheBatchInTrainingAndTheRunningValuesInEval) {
  manual_seed(3);
  nn::BatchNorm2d layer{{.features = 2, .momentum = 0.25}};
  EXPECT_EQ(layer.parameter_count(), 4);
  EXPECT_EQ(layer.features(), 2);
  layer.to(f64);
  const Tensor x = randn({3, 2, 2, 2}, f64) * 2.0 + 1.0;
  const auto xs = values(x);
  const auto y = values(layer(x));
  for (size_t c = 0; c < 2; ++c) {
    std::vector<size_t> at;
    for (size_t n = 0; n < 3; ++n)
      for (size_t k = 0; k < 4; ++k) at.push_back((n * 2 + c) * 4 + k);
    double mean = 0, var = 0;
    for (size_t i : at) mean += xs[i] / 12;
    for (size_t i : at) var += (xs[i] - mean) * (xs[i] - mean) / 12;
    for (size_t i : at) EXPECT_NEAR(y[i], (xs[i] - mean) / std::sqrt(var + 1e-5), 1e-9);
    EXPECT_NEAR(values(layer.running_mean.tensor())[c], 0.25 * mean, 1e-12);
    EXPECT_NEAR(values(layer.running_var.tensor())[c], 0.75 + 0.25 * var * 12 / 11, 1e-12);
  }
  layer.eval();
  const auto mean = values(layer.running_mean.tensor()), var = values(layer.running_var.tensor());
  const auto z = values(layer(x));
  for (size_t i = 0; i < z.size(); ++i) {
    const size_t c = i / 4 % 2;
    EXPECT_NEAR(z[i], (xs[i] - mean[c]) / std::sqrt(var[c] + 1e-5), 1e-9);
  }
  EXPECT_EQ(values(layer.running_mean.tensor()), mean);  // eval changes nothing
  check_gradients(layer, input({2, 2, 2, 2}));
  layer.train();
  check_gradients(layer, input({2, 2, 2, 2}), {.rtol = 1e-3});

  const nn::BatchNorm2d before = layer;  // buffers are copied deep
  layer(x);
  EXPECT_FALSE(equal(before.running_mean.tensor(), layer.running_mean.tensor()));

  nn::BatchNorm1d line{{.features = 3, .affine = false}};
  EXPECT_EQ(line.parameter_count(), 0);
  EXPECT_EQ(line.named_buffers().size(), 2u);
  EXPECT_STREQ(line.type_name(), "BatchNorm1d");
  EXPECT_EQ(line(randn({4, 3})).shape(), (Shape{4, 3}));
  EXPECT_EQ(line(randn({4, 3, 5})).shape(), (Shape{4, 3, 5}));
  EXPECT_THROW(line(randn({4, 3, 5, 5})), ShapeError);
  EXPECT_THROW(layer(randn({4, 2}, f64)), ShapeError);
  EXPECT_THROW((nn::BatchNorm2d{{}}), ValueError);
  EXPECT_THROW((nn::BatchNorm2d{{.features = 2, .eps = 0}}), ValueError);
  EXPECT_THROW((nn::BatchNorm2d{{.features = 2, .momentum = 1.5}}), ValueError);
}

TEST(LayerNorm, NormalizesTheTrailingDims) {
  manual_seed(4);
  nn::LayerNorm layer{{.shape = {2, 3}}}, bare{{.shape = {2, 3}, .affine = false}};
  EXPECT_EQ(layer.parameter_count(), 12);
  EXPECT_EQ(bare.parameter_count(), 0);
  const Tensor x = randn({4, 2, 3}, f64);
  layer.to(f64);
  const auto y = values(layer(x)), z = values(bare(x)), xs = values(x);
  for (size_t n = 0; n < 4; ++n) {
    double mean = 0, var = 0;
    for (size_t i = 0; i < 6; ++i) mean += xs[n * 6 + i] / 6;
    for (size_t i = 0; i < 6; ++i) var += (xs[n * 6 + i] - mean) * (xs[n * 6 + i] - mean) / 6;
    for (size_t i = n * 6; i < n * 6 + 6; ++i) {
      EXPECT_NEAR(y[i], (xs[i] - mean) / std::sqrt(var + 1e-5), 1e-9);
      EXPECT_NEAR(z[i], y[i], 1e-12);
    }
  }
  check_gradients(layer, input({2, 2, 3}), {.rtol = 1e-3});
  EXPECT_EQ(bare(randn({5, 7})).shape(), (Shape{5, 7}));  // two dims, whatever their sizes
  EXPECT_THROW(bare(randn({5})), ShapeError);
  EXPECT_THROW(layer(randn({4, 3, 2}, f64)), ShapeError);
  EXPECT_THROW((nn::LayerNorm{{}}), ValueError);
  EXPECT_THROW((nn::LayerNorm{{.shape = {2, 0}}}), ValueError);
}

// ---- layers without parameters ----

TEST(Layers, ActivationsComputeTheirFunctions) {
  manual_seed(5);
  const Tensor x = input({2, 3});
  const auto xs = values(x);
  const auto expect = [&](nn::Module&& m, const std::function<double(double)>& f) {
    const auto y = values(m(x));
    for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], f(xs[i]), 1e-12) << m.type_name();
    check_gradients(m, x);
    EXPECT_EQ(m.parameter_count(), 0);
    EXPECT_STREQ(m.clone()->type_name(), m.type_name());
  };
  expect(nn::ReLU(), [](double v) { return v > 0 ? v : 0; });
  expect(nn::LeakyReLU(), [](double v) { return v > 0 ? v : 0.01 * v; });
  expect(nn::LeakyReLU{{.slope = 0.3}}, [](double v) { return v > 0 ? v : 0.3 * v; });
  expect(nn::GELU(), [](double v) { return v * 0.5 * std::erfc(-v / std::sqrt(2.0)); });
  expect(nn::GELU{{.form = Gelu::tanh}}, [](double v) {
    return 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v)));
  });
  expect(nn::SiLU(), [](double v) { return v / (1 + std::exp(-v)); });
  expect(nn::Tanh(), [](double v) { return std::tanh(v); });
  expect(nn::Sigmoid(), [](double v) { return 1 / (1 + std::exp(-v)); });
  expect(nn::Identity(), [](double v) { return v; });
  const auto sum_of_exp = [&](size_t i, bool rows) {
    double sum = 0;
    for (size_t k = 0; k < xs.size(); ++k) sum += (rows ? k / 3 == i / 3 : k % 3 == i % 3) ? std::exp(xs[k]) : 0;
    return sum;
  };
  nn::Softmax rows, columns{{.dim = 0}};
  nn::LogSoftmax logs;
  const auto r = values(rows(x)), c = values(columns(x)), l = values(logs(x));
  for (size_t i = 0; i < xs.size(); ++i) {
    EXPECT_NEAR(r[i], std::exp(xs[i]) / sum_of_exp(i, true), 1e-12);
    EXPECT_NEAR(c[i], std::exp(xs[i]) / sum_of_exp(i, false), 1e-12);
    EXPECT_NEAR(l[i], xs[i] - std::log(sum_of_exp(i, true)), 1e-12);
  }
  check_gradients(columns, x);
  check_gradients(logs, x);
}

TEST(Layers, DropoutDropsInTrainingOnly) {
  manual_seed(6);
  nn::Dropout layer{{.p = 0.25}};
  const Tensor x = ones({20000});
  const Moments m = moments(layer(x));
  EXPECT_EQ(m.low, 0);
  EXPECT_NEAR(m.high, 1 / 0.75, 1e-6);
  EXPECT_NEAR(m.mean, 1, 0.02);  // four standard deviations
  layer.eval();
  EXPECT_TRUE(equal(layer(x), x));
  EXPECT_THROW((nn::Dropout{{.p = -0.1}}), ValueError);
  EXPECT_THROW((nn::Dropout{{.p = 1.1}}), ValueError);
}

TEST(Layers, FlattenMergesDims) {
  EXPECT_EQ(nn::Flatten()(ones({2, 3, 4, 5})).shape(), (Shape{2, 60}));
  EXPECT_EQ((nn::Flatten{{.start = 0, .end = 1}}(ones({2, 3, 4})).shape()), (Shape{6, 4}));
}

// ---- Sequential ----

TEST(Sequential, HoldsValues) {
  manual_seed(8);
  const nn::Linear first{{.in = 3, .out = 4}};
  nn::Sequential net{first, nn::Tanh(), nn::Sequential(nn::Linear{{.in = 4, .out = 3, .bias = false}}, nn::ReLU())};
  net.push_back(nn::Linear{{.in = 3, .out = 1}});
  EXPECT_EQ(net.size(), 4);
  std::vector<std::string> names;
  for (const auto& p : net.named_parameters()) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{"0.weight", "0.bias", "2.0.weight", "3.weight", "3.bias"}));
  EXPECT_FALSE(net.at<nn::Linear>(0).weight.ref() == first.weight.ref());
  EXPECT_STREQ(net[1].type_name(), "Tanh");
  EXPECT_THROW((void)net.at<nn::Linear>(1), ValueError);
  EXPECT_THROW((void)net[4], ValueError);
  EXPECT_THROW((void)net[-1], ValueError);

  const Tensor x = randn({2, 3});
  auto& inner = net.at<nn::Sequential>(2).at<nn::Linear>(0);
  const Tensor hidden = tanh(linear(x, first.weight.value(), first.bias.value()));
  const Tensor expected = net.at<nn::Linear>(3)(relu(linear(hidden, inner.weight.value())));
  EXPECT_TRUE(equal(net(x), expected));

  nn::Sequential copy = net;
  {
    NoGrad no_grad;
    nn::init::constant_(copy.at<nn::Linear>(0).weight, 100);
  }
  EXPECT_TRUE(equal(net(x), expected));
  EXPECT_FALSE(equal(copy(x), expected));
  EXPECT_TRUE(equal((*net.clone())(x), expected));
  nn::Sequential same{net};  // of one Sequential: a copy
  EXPECT_EQ(same.size(), 4);
  const auto identities = net.parameters();
  nn::Sequential moved = std::move(net);
  EXPECT_TRUE(moved.parameters() == identities);
  EXPECT_TRUE(equal(nn::Sequential()(x), x));
  moved.eval();
  for (const auto& m : moved) EXPECT_FALSE(m->training());

  int calls = 0;
  auto handle = moved.register_forward_hook([&](nn::Module&, const Tensor&, Tensor&) { ++calls; });
  moved(x);
  handle.remove();
  moved(x);
  EXPECT_EQ(calls, 1);
  check_gradients(moved, input({2, 3}));

  const nn::Module& base = first;  // known by its base alone
  nn::Sequential by_base;
  by_base.push_back(base);
  EXPECT_STREQ(by_base[0].type_name(), "Linear");
}

// ---- initializers ----

TEST(Init, Fans) {
  EXPECT_EQ(nn::init::fans({120, 400}).in, 400);
  EXPECT_EQ(nn::init::fans({120, 400}).out, 120);
  EXPECT_EQ(nn::init::fans({16, 6, 5, 5}).in, 150);
  EXPECT_EQ(nn::init::fans({16, 6, 5, 5}).out, 400);
  EXPECT_THROW(nn::init::fans({5}), ShapeError);
  EXPECT_NEAR(nn::init::gain(nn::init::Nonlinearity::leaky_relu, 2), std::sqrt(0.4), 1e-15);
  EXPECT_NEAR(nn::init::gain(nn::init::Nonlinearity::tanh), 5.0 / 3, 1e-15);
}

TEST(Init, HasTheStatedStatistics) {
  using namespace nn::init;
  manual_seed(9);
  const Tensor t = empty({64, 32, 3, 3});  // 18432 elements; fans 288 and 576
  const auto uniform = [&](double bound, const char* what) {
    const Moments m = moments(t);
    EXPECT_NEAR(m.mean, 0, 0.02 * bound) << what;
    EXPECT_NEAR(m.sd, bound / std::sqrt(3.0), 0.01 * bound) << what;
    EXPECT_LE(std::max(-m.low, m.high), bound * (1 + 1e-6)) << what;
    EXPECT_GE(std::min(-m.low, m.high), bound * 0.99) << what;
  };
  const auto normal = [&](double sd, const char* what) {
    const Moments m = moments(t);
    EXPECT_NEAR(m.mean, 0, 0.03 * sd) << what;
    EXPECT_NEAR(m.sd, sd, 0.03 * sd) << what;
    EXPECT_GT(std::min(-m.low, m.high), 3 * sd) << what;
  };
  glorot_uniform_(t, 2);
  uniform(2 * std::sqrt(6.0 / (288 + 576)), "glorot_uniform_");
  glorot_normal_(t);
  normal(std::sqrt(2.0 / (288 + 576)), "glorot_normal_");
  kaiming_uniform_(t);
  uniform(std::sqrt(2.0) * std::sqrt(3.0 / 288), "kaiming_uniform_");
  kaiming_uniform_(t, {.nonlinearity = Nonlinearity::leaky_relu, .slope = std::sqrt(5.0)});
  uniform(1 / std::sqrt(288.0), "kaiming_uniform_ with slope √5");
  kaiming_normal_(t, {.fan = Fan::out});
  normal(std::sqrt(2.0 / 576), "kaiming_normal_");
  kaiming_normal_(t, {.nonlinearity = Nonlinearity::linear});
  normal(std::sqrt(1.0 / 288), "kaiming_normal_, linear");
  uniform_(t, 2, 6);
  EXPECT_NEAR(moments(t).mean, 4, 0.05);
  normal_(t, -3, 0.5);
  EXPECT_NEAR(moments(t).mean, -3, 0.02);
  constant_(t, 7);
  EXPECT_TRUE(equal(t, full({64, 32, 3, 3}, 7)));
  // In place under one identity, as a function of the seed, in any floating dtype.
  Parameter p(zeros({4, 4}, f64));
  const Tensor raw = p.raw();
  manual_seed(10);
  normal_(p);
  EXPECT_TRUE(raw.is_same(p.raw()));
  const Tensor first = clone(raw.detach());
  normal_(p);
  EXPECT_FALSE(equal(raw, first));
  manual_seed(10);
  normal_(p.ref());
  EXPECT_TRUE(equal(raw, first));
  const Tensor half = zeros({1000}, bf16);
  uniform_(half, 1, 2);
  EXPECT_NEAR(moments(half).mean, 1.5, 0.05);
  EXPECT_THROW(normal_(zeros({3}, i64)), DTypeError);
  EXPECT_THROW(normal_(Tensor()), ValueError);
  EXPECT_THROW(uniform_(zeros({3}), 1, 0), ValueError);
  EXPECT_THROW(normal_(zeros({3}), 0, -1), ValueError);
  EXPECT_THROW(glorot_normal_(zeros({3})), ShapeError);
}

TEST(Init, OrthogonalRowsOrColumns) {
  manual_seed(11);
  for (const Shape& shape : {Shape{5, 12}, Shape{12, 5}, Shape{6, 6}, Shape{4, 2, 3, 3}}) {
    const Tensor t = empty(shape, f64);
    nn::init::orthogonal_(t, 2);
    const Tensor w = flatten(t, 1);
    const Tensor product = w.size(0) <= w.size(1) ? matmul(w, transpose(w)) : matmul(transpose(w), w);
    EXPECT_TRUE(allclose(product, eye(product.size(0), -1, f64) * 4.0, 1e-10, 1e-10)) << to_string(shape);
  }
  EXPECT_THROW(nn::init::orthogonal_(empty({5})), ShapeError);
}

}  // namespace
}  // namespace hone
