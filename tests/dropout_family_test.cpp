// Dropout's kin: what is dropped together, the mean over masks, modes, modules. Their definition stands in
// ops_dropout_test.cpp, word for word.

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace regularizer_test;

TEST(DropoutFamily, DropsWholeChannelsAndWholeSamples) {
  manual_seed(21);
  const auto y = values(dropout2d(ones({500, 8, 3, 2}, f64), 0.25));
  int64_t dropped = 0;
  for (size_t c = 0; c < 4000; ++c) {
    for (size_t i = 1; i < 6; ++i) ASSERT_EQ(y[c * 6 + i], y[c * 6]);
    ASSERT_TRUE(y[c * 6] == 0 || y[c * 6] == 1 / 0.75);
    dropped += y[c * 6] == 0;
  }
  EXPECT_NEAR(static_cast<double>(dropped) / 4000, 0.25, 5 * std::sqrt(0.25 * 0.75 / 4000));
  const auto z = values(drop_path(ones({4000, 7}, f64), 0.4));
  dropped = 0;
  for (size_t n = 0; n < 4000; ++n) {
    for (size_t i = 1; i < 7; ++i) ASSERT_EQ(z[n * 7 + i], z[n * 7]);
    dropped += z[n * 7] == 0;
  }
  EXPECT_NEAR(static_cast<double>(dropped) / 4000, 0.4, 5 * std::sqrt(0.4 * 0.6 / 4000));
}

TEST(DropoutFamily, BlocksAreSquaresInsideThePlane) {
  manual_seed(22);
  const int64_t h = 9, w = 11, b = 3, planes = 4000;
  const auto y = values(drop_block(ones({planes / 4, 4, h, w}, f64), 0.15, b));
  double dropped = 0;
  const auto zero = [&](int64_t u, int64_t i, int64_t j) { return y[static_cast<size_t>((u * h + i) * w + j)] == 0; };
  for (double v : y) dropped += v == 0;
  for (int64_t u = 0; u < planes; ++u)
    for (int64_t i = 0; i < h; ++i)
      for (int64_t j = 0; j < w; ++j) {
        if (!zero(u, i, j)) continue;
        bool inside = false;  // some square of zeros inside the plane covers it
        for (int64_t r = std::max<int64_t>(i - b + 1, 0); r <= std::min(i, h - b); ++r)
          for (int64_t c = std::max<int64_t>(j - b + 1, 0); c <= std::min(j, w - b); ++c) {
            bool all = true;
            for (int64_t k = 0; k < b * b; ++k) all = all && zero(u, r + k / b, c + k % b);
            inside = inside || all;
          }
        ASSERT_TRUE(inside) << u << ' ' << i << ' ' << j;
      }
  const double n = static_cast<double>(y.size());
  for (double v : y) ASSERT_TRUE(v == 0 || v == n / (n - dropped));  // so the mean is 1 for each mask
  // γ makes the expected share of an interior place 1 − (1 − γ)^9; over the plane it lies a little below p.
  EXPECT_GT(dropped / n, 0.12);
  EXPECT_LT(dropped / n, 0.15);
}

// Σ over masks of y / masks → x, for whole results; with fixed seeds these are constants.
TEST(DropoutFamily, ExpectationIsTheInput) {
  manual_seed(23);
  const Tensor x = wave({2, 3, 6, 6}, 0.2) + 2.0;
  const int masks = 4000;
  nn::DropConnect connect({.in = 6, .out = 4, .p = 0.3});
  Tensor a = zeros_like(x), b = zeros_like(x), c = zeros({2, 4});
  double blocks = 0;
  const Tensor v = randn({2, 6});
  const NoGrad no_grad;
  for (int k = 0; k < masks; ++k) {
    a = a + dropout2d(x, 0.5);
    b = b + drop_path(x, 0.2);
    blocks += mean(drop_block(ones({2, 3, 6, 6}), 0.3, 2)).item();
    c = c + connect(v);
  }
  // Standard errors: √(p/(1−p)/masks) of each value; five of them.
  const auto xs = values(x), as = values(a), bs = values(b);
  for (size_t i = 0; i < xs.size(); ++i) {
    EXPECT_NEAR(as[i] / masks, xs[i], 5 * xs[i] * std::sqrt(1.0 / masks));
    EXPECT_NEAR(bs[i] / masks, xs[i], 5 * xs[i] * std::sqrt(0.25 / masks));
  }
  EXPECT_NEAR(blocks / masks, 1, 1e-6);
  connect.eval();
  const auto want = values(connect(v)), cs = values(c);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(cs[i] / masks, want[i], 0.05);
}

TEST(DropoutFamily, ModulesDrawAnewInTrainingAndAreTheIdentityInEval) {
  nn::Sequential net(nn::Dropout2d{{.p = 0.5}}, nn::DropPath{{.p = 0.4}}, nn::DropBlock{{.p = 0.3, .block = 2}});
  const Tensor x = wave({6, 4, 5, 5}, 0.1);
  manual_seed(31);
  const Tensor first = net(x), second = net(x);
  EXPECT_FALSE(equal(first, second));
  manual_seed(31);
  EXPECT_TRUE(equal(net(x), first));
  net.eval();
  const GeneratorState before = generator_state();
  EXPECT_TRUE(net(x).is_same(x));
  EXPECT_EQ(generator_state().next_stream, before.next_stream);
  net.train();
  manual_seed(31);
  nn::Sequential copy = net;
  EXPECT_TRUE(equal(copy(x), first));
  EXPECT_TRUE(dropout2d(x, 0).is_same(x));
  EXPECT_TRUE(drop_path(x, 0).is_same(x));
  EXPECT_TRUE(drop_block(x, 0, 3).is_same(x));
}

TEST(DropoutFamily, SameBitsAtAnyThreadCount) {
  std::vector<Tensor> results[2];
  const int threads = num_threads();
  for (int k : {0, 1}) {
    set_num_threads(k == 0 ? 1 : 4);
    manual_seed(8);
    const Tensor x = randn({64, 16, 14, 14});
    results[k] = {dropout2d(x, 0.3), drop_path(x, 0.3), drop_block(x, 0.2, 5)};
  }
  set_num_threads(threads);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(equal(results[0][i], results[1][i])) << i;
}

TEST(DropConnect, DropsWeightsAndSharesStateWithLinear) {
  manual_seed(41);
  nn::DropConnect layer({.in = 5, .out = 3, .p = 0.4});
  nn::Linear linear({.in = 5, .out = 3});
  linear.load_state_dict(layer.state_dict());
  const Tensor x = eye(5);  // y = (W ⊙ M)ᵀ + b
  manual_seed(42);
  const auto y = values(layer(x)), w = values(layer.weight.raw()), b = values(layer.bias.raw());
  int dropped = 0;
  for (size_t i = 0; i < 5; ++i)
    for (size_t o = 0; o < 3; ++o) {
      const double product = y[i * 3 + o] - b[o], kept = w[o * 5 + i] / 0.6;
      EXPECT_TRUE(std::abs(product) < 1e-6 || std::abs(product - kept) < 1e-6) << product << ' ' << kept;
      dropped += std::abs(product) < 1e-6;
    }
  EXPECT_GT(dropped, 1);
  EXPECT_LT(dropped, 14);
  layer.eval();
  EXPECT_TRUE(equal(layer(x), linear(x)));

  layer.train();
  layer.to(f64);
  const std::vector<ParameterRef> p = layer.parameters();
  std::vector<Tensor> inputs = {wave({2, 5}, 0.3).requires_grad_(), p[0].raw(), p[1].raw()};
  const auto f = [&](const std::vector<Tensor>& in) {
    manual_seed(43);  // the same mask in each evaluation
    for (size_t i = 0; i < 2; ++i) put(p[i], in[i + 1]);
    return std::vector<Tensor>{layer(in[0])};
  };
  gradcheck(f, inputs);
  gradgradcheck(f, inputs);
}

TEST(DropoutFamily, RefusesBadArguments) {
  const Tensor x = ones({2, 3, 4, 5});
  for (double bad : {-0.1, 1.0, 1.5, kNaN}) {
    const std::string rule = ": p must be in [0, 1)";
    expect_error<ValueError>([&] { dropout2d(x, bad); }, "dropout2d" + rule);
    expect_error<ValueError>([&] { drop_path(x, bad, false); }, "drop_path" + rule);
    expect_error<ValueError>([&] { drop_block(x, bad, 2); }, "drop_block" + rule);
    expect_error<ValueError>([&] { nn::Dropout2d({.p = bad}); }, "Dropout2d" + rule);
    expect_error<ValueError>([&] { nn::DropPath({.p = bad}); }, "DropPath" + rule);
    expect_error<ValueError>([&] { nn::DropBlock({.p = bad}); }, "DropBlock" + rule);
    expect_error<ValueError>([&] { nn::DropConnect({.in = 1, .out = 1, .p = bad}); }, "DropConnect" + rule);
  }
  expect_error<ValueError>([&] { drop_block(x, 0.1, 0); }, "block must be at least 1, not 0");
  expect_error<ValueError>([&] { nn::DropBlock({.block = -1}); }, "block must be at least 1, is -1");
  expect_error<ShapeError>([&] { drop_block(x, 0.1, 5); }, "a block of 5 by 5 does not fit into planes of 4 by 5");
  expect_error<ShapeError>([&] { drop_block(ones({2, 3, 4}), 0.1, 1); }, "drop_block");
  expect_error<ShapeError>([&] { dropout2d(ones({3}), 0.1); }, "at least 2 dims");
  expect_error<ShapeError>([&] { drop_path(scalar(1), 0.1); }, "at least 1 dim");
  expect_error<DTypeError>([&] { dropout2d(ones({2, 3}, i64), 0.1); }, "floating");
  expect_error<ValueError>([&] { drop_path({}, 0.1); }, "undefined");
  expect_error<ValueError>([&] { nn::DropConnect({.in = 0, .out = 2}); }, "in and out must be positive");
}

}  // namespace
}  // namespace hone
