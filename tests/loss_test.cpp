// What the tables of ops_*_test.cpp do not reach: errors, empty batches, running buffers, masks, long rows.

#include <gtest/gtest.h>

#include <cmath>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

Tensor labels(std::initializer_list<int64_t> v) { return tensor(v); }

TEST(Softmax, Errors) {
  expect_error<ShapeError>([&] { softmax(ones({2, 3}), 2); }, "softmax");
  expect_error<DTypeError>([&] { softmax(ones({2, 3}, i64)); }, "softmax: input must be floating, not i64");
  expect_error<DTypeError>([&] { log_softmax(ones({2}, boolean)); }, "log_softmax");
}
TEST(Softmax, RowsOfEveryLengthSumToOne) {  // vector bodies and tails
  manual_seed(3);
  for (int64_t n = 1; n <= 67; ++n) {
    for (DType d : {f32, f64}) {
      const Tensor x = randn({3, n}, d), y = softmax(x);
      const auto p = y.to_vector<double>(), v = x.to_vector<double>();
      for (int64_t r = 0; r < 3; ++r) {
        double sum = 0, norm = 0;
        for (int64_t i = 0; i < n; ++i) norm += std::exp(v[static_cast<size_t>(r * n + i)]);
        for (int64_t i = 0; i < n; ++i) {
          sum += p[static_cast<size_t>(r * n + i)];
          EXPECT_NEAR(p[static_cast<size_t>(r * n + i)], std::exp(v[static_cast<size_t>(r * n + i)]) / norm,
                      d == f32 ? 3e-7 : 1e-15);
        }
        EXPECT_NEAR(sum, 1, d == f32 ? 1e-6 : 1e-14);
      }
    }
  }
}
TEST(Softmax, SameBitsAtAnyThreadCount) {
  manual_seed(4);
  const Tensor x = randn({500, 131});
  const int before = num_threads();
  set_num_threads(1);
  const Tensor one = log_softmax(x);
  set_num_threads(4);
  const Tensor four = log_softmax(x);
  set_num_threads(before);
  EXPECT_TRUE(equal(one, four));
}

// Equal terms round the same way each time they are added: a sum in f32 drifts by parts in a thousand.
TEST(Softmax, LongRowsKeepTheirDigits) {
  const int64_t n = 4'000'000;
  Tensor x = full({1, n}, std::log(0.7));
  x.data<float>()[0] = 0;
  EXPECT_NEAR(log_softmax(x, 1).data<float>()[0], -std::log(1 + 0.7 * static_cast<double>(n - 1)), 3e-6);
  EXPECT_NEAR(softmax(x, 1).data<float>()[0] * 0.7 * static_cast<double>(n), 1, 1e-6);
  const Tensor flat = zeros({1, n}).requires_grad_();
  sum(log_softmax(flat, 1) * 0.7).backward();
  EXPECT_NEAR(flat.grad().data<float>()[5], 0, 1e-6);
}

TEST(CrossEntropy, LabelsOfTheLogitsShapeNameBothLegalForms) {
  const Tensor logits = ones({1, 10});
  expect_error<ShapeError>(
      [&] {
        cross_entropy(logits, ones({1, 10}, i64));
      },
      "integer labels of shape [1], or class probabilities of shape [1, 10] and dtype f32");
}
TEST(CrossEntropy, LabelsOutOfRangeNameValuePlaceAndRange) {
  const Tensor logits = ones({3, 4});
  expect_error<ValueError>(
      [&] {
        cross_entropy(logits, labels({0, 4, 1}));
      },
      "label 4 at position 1 is outside [0, 4)");
  expect_error<ValueError>([&] { cross_entropy(logits, labels({0, 1, -1})); }, "label -1 at position 2");
  expect_error<ValueError>(
      [&] {
        cross_entropy(logits, labels({0, -100, 1}), {.ignore_index = 0});
      },
      "label -100 at position 1");
}
TEST(CrossEntropy, Errors) {
  const Tensor x = ones({3, 4}), t = labels({0, 1, 2});
  expect_error<ShapeError>([&] { cross_entropy(ones({4}), t); }, "logits must have 2 dims");
  expect_error<ShapeError>([&] { cross_entropy(x, labels({0, 1})); }, "expected [3]");
  expect_error<ShapeError>([&] { cross_entropy(x, ones({3})); }, "class probabilities of shape [3]");
  expect_error<DTypeError>([&] { cross_entropy(x, ones({3, 4}, f64)); }, "class probabilities of dtype f64");
  expect_error<DTypeError>([&] { cross_entropy(ones({3, 4}, i64), t); }, "logits must be floating");
  expect_error<DTypeError>([&] { cross_entropy(x, ones({3}, boolean)); }, "bool labels");
  expect_error<ShapeError>([&] { cross_entropy(x, t, {.weight = ones({3})}); }, "weight of shape [3] for 4 classes");
  expect_error<DTypeError>([&] { cross_entropy(x, t, {.weight = ones({4}, f64)}); }, "differ");
  expect_error<ValueError>([&] { cross_entropy(x, t, {.label_smoothing = 1.5}); }, "label_smoothing must be in [0, 1]");
  expect_error<ValueError>(
      [&] {
        cross_entropy(x, ones({3, 4}), {.label_smoothing = -0.1});
      },
      "label_smoothing must be in [0, 1]");
  expect_error<ValueError>([&] { cross_entropy(x, Tensor()); }, "undefined");
  expect_error<GradError>(
      [&] {
        cross_entropy(Tensor(ones({3, 4})).requires_grad_(), t, {.weight = ones({4}).requires_grad_()}).backward();
      },
      "class weights have no gradient");
}
TEST(CrossEntropy, EmptyBatch) {
  const Tensor x = ones({0, 4}), t = empty({0}, i64);
  expect_error<ShapeError>([&] { cross_entropy(x, t); }, "an empty batch (logits of shape [0, 4]) has no mean");
  expect_error<ShapeError>([&] { cross_entropy(x, ones({0, 4})); }, "an empty batch");
  EXPECT_EQ(cross_entropy(x, t, {.reduction = Reduction::sum}).item(), 0);
  EXPECT_EQ(cross_entropy(x, t, {.reduction = Reduction::none}).numel(), 0);
}
TEST(CrossEntropy, AllIgnoredGivesNaNAndZeroGradient) {
  Tensor x = ones({2, 3});
  x.requires_grad_();
  const Tensor loss = cross_entropy(x, labels({-100, -100}));
  EXPECT_TRUE(std::isnan(loss.item()));
  loss.backward();
  EXPECT_TRUE(equal(x.grad(), zeros({2, 3})));
}
TEST(CrossEntropy, NaNInAnIgnoredRowStaysThere) {
  Tensor x = tensor({std::nanf(""), 1.0f, 2.0f, 3.0f}, {2, 2});
  x.requires_grad_();
  const Tensor loss = cross_entropy(x, labels({-100, 0}));
  EXPECT_FALSE(std::isnan(loss.item()));
  loss.backward();
  for (double g : x.grad().to_vector<double>()) EXPECT_FALSE(std::isnan(g));
}
TEST(CrossEntropy, NaNIsAValueAndAnomalyModeNamesIt) {
  const Tensor x = tensor({std::nanf(""), 1.0f}, {1, 2});
  EXPECT_TRUE(std::isnan(cross_entropy(x, labels({0})).item()));
  const Tensor inf = tensor({INFINITY, 1.0f}, {1, 2});
  AnomalyMode on;
  expect_error<NumericError>([&] { cross_entropy(inf, labels({0})); }, "cross_entropy");
}
TEST(CrossEntropy, LargeLogitsKeepTheirDigits) {
  // log Σ exp beside a maximum of 10⁴ has steps of 10⁻³ in f32; kept apart from it, it does not.
  const Tensor x = tensor({10000.0f, 9999.0f, 9998.0f}, {1, 3});
  const double want = std::log(1 + std::exp(-1.0) + std::exp(-2.0));
  EXPECT_NEAR(cross_entropy(x, labels({0})).item(), want, 1e-6);
}

TEST(Losses, PairErrors) {
  expect_error<ShapeError>(
      [&] {
        mse_loss(ones({3}), ones({3, 1}));
      },
      "mse_loss: input of shape [3] and target of shape [3, 1] differ");
  expect_error<DTypeError>([&] { mse_loss(ones({3}), ones({3}, f64)); }, "mse_loss: dtypes f32 and f64");
  expect_error<ShapeError>([&] { mse_loss(ones({0}), ones({0})); }, "an empty batch");
  expect_error<ValueError>([&] { huber_loss(ones({1}), ones({1}), 0); }, "delta must be above 0");
  expect_error<ShapeError>([&] { kl_div(ones({}), ones({})); }, "batchmean");
  expect_error<ShapeError>([&] { kl_div(ones({2, 3}), ones({3, 2})); }, "kl_div");
}
TEST(Losses, KlOfZeroProbabilityHasAFiniteGradient) {
  Tensor log_p = tensor({-1.0, -2.0}), q = tensor({0.0, 1.0});
  log_p.requires_grad_();
  q.requires_grad_();
  kl_div(log_p, q, {.reduction = KlReduction::sum}).backward();
  EXPECT_EQ(log_p.grad().to_vector<double>(), (std::vector<double>{0, -1}));
  for (double g : q.grad().to_vector<double>()) EXPECT_TRUE(std::isfinite(g));
}

// 0 · log 0 = 0 in value and gradients, whichever side the zero comes from; a true infinity stays one.
TEST(Losses, ZeroTimesLogOfZeroIsZero) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto finite = [](const Tensor& t) {
    for (const float v : t.to_vector<float>())
      if (!std::isfinite(v)) return false;
    return true;
  };
  const std::vector<float> log_p = {-inf, std::log(0.5f), std::log(0.5f)};
  for (const bool log_target : {false, true}) {
    const Tensor lp = tensor(log_p, {1, 3}).requires_grad_();
    const std::vector<float> q =
        log_target ? std::vector<float>{-inf, std::log(0.25f), std::log(0.75f)} : std::vector<float>{0, 0.25f, 0.75f};
    const Tensor target = tensor(q, {1, 3}).requires_grad_();
    const Tensor kl = kl_div(lp, target, {.log_target = log_target});
    EXPECT_NEAR(kl.item(), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6) << log_target;
    kl.backward();
    EXPECT_TRUE(finite(lp.grad())) << log_target << str(lp.grad());
    EXPECT_TRUE(finite(target.grad())) << log_target << str(target.grad());
    EXPECT_NEAR(lp.grad().data<float>()[2], -0.75, 1e-6);
  }
  EXPECT_EQ(kl_div(tensor(log_p, {1, 3}), full({1, 3}, 0.3)).item(), inf);

  const Tensor logits = tensor(std::vector<float>{-inf, 1, 1}, {1, 3}).requires_grad_();
  const Tensor q = tensor(std::vector<float>{0, 0.25f, 0.75f}, {1, 3}).requires_grad_();
  const Tensor loss = cross_entropy(logits, q);
  EXPECT_NEAR(loss.item(), std::log(2.0), 1e-6);
  loss.backward();
  EXPECT_EQ(logits.grad().to_vector<float>(), (std::vector<float>{0, 0.25f, -0.25f}));
  EXPECT_TRUE(finite(q.grad()));
  EXPECT_EQ(cross_entropy(logits, full({1, 3}, 0.3)).item(), inf);
}

TEST(Dropout, KeepsItsShareAndItsMean) {
  manual_seed(5);
  for (double p : {0.1, 0.5, 0.9}) {
    const int64_t n = 200000;
    const auto y = dropout(ones({n}, f64), p).to_vector<double>();
    double kept = 0;
    for (double v : y) {
      if (v == 0) continue;
      EXPECT_NEAR(v, 1 / (1 - p), 1e-12);
      kept += 1;
    }
    const double sd = std::sqrt(p * (1 - p) / static_cast<double>(n));
    EXPECT_NEAR(kept / static_cast<double>(n), 1 - p, 5 * sd);
  }
}
TEST(Dropout, GradientUsesTheSameMaskAndCallsDiffer) {
  manual_seed(6);
  Tensor x = ones({1000});
  x.requires_grad_();
  const Tensor y = dropout(x, 0.4), z = dropout(x, 0.4);
  EXPECT_FALSE(equal(y, z));
  y.backward(ones({1000}));
  EXPECT_TRUE(equal(x.grad(), y.detach()));
  manual_seed(6);
  EXPECT_TRUE(equal(dropout(x, 0.4).detach(), y.detach()));
}
TEST(Dropout, SameBitsAtAnyThreadCount) {
  const int before = num_threads();
  Tensor results[2];
  for (int k = 0; k < 2; ++k) {
    set_num_threads(k ? 4 : 1);
    manual_seed(7);
    results[k] = dropout(ones({100003}), 0.3);
  }
  set_num_threads(before);
  EXPECT_TRUE(equal(results[0], results[1]));
}
TEST(Dropout, Ends) {
  const Tensor x = ones({4});
  EXPECT_TRUE(dropout(x, 0.5, false).is_same(x));
  EXPECT_TRUE(dropout(x, 0).is_same(x));
  EXPECT_TRUE(equal(dropout(tensor({NAN, INFINITY, 1.0f}), 1), zeros({3})));
  expect_error<ValueError>([&] { dropout(x, 1.5); }, "p must be in [0, 1], not 1.5");
  expect_error<ValueError>([&] { dropout(x, NAN); }, "p must be in [0, 1]");
  expect_error<ValueError>([&] { dropout(x, -0.1, false); }, "p must be in [0, 1]");
  expect_error<DTypeError>([&] { dropout(ones({2}, i64)); }, "dropout");
}

// The highest derivative that the headers promise exists; one more throws where they say so.
TEST(Derivatives, OrdersAsDocumented) {
  const auto orders = [](auto&& f) {
    manual_seed(3);
    const Tensor x = randn({3, 4}, f64).requires_grad_(), w = randn({3, 4}, f64);
    Tensor y = sum(f(x) * w);
    for (int k = 0; k < 6; ++k) {
      try {
        y = sum(grad({y}, {x}, {.create_graph = true})[0] * w);
      } catch (const GradError&) { return k; }
    }
    return 6;
  };
  EXPECT_EQ(orders([](const Tensor& x) { return softmax(x, 1); }), 6);
  EXPECT_EQ(orders([](const Tensor& x) { return log_softmax(x, 1); }), 4);
  EXPECT_EQ(orders([](const Tensor& x) { return layer_norm(x, {4}); }), 3);
  EXPECT_EQ(orders([](const Tensor& x) { return batch_norm(x, {}, {}, {}, {}, {.training = true}); }), 3);
}

TEST(LayerNorm, Errors) {
  const Tensor x = ones({2, 3, 4});
  expect_error<ShapeError>([&] { layer_norm(x, {3}); },
                           "normalized shape [3] is not the end of the input's shape [2, 3, 4]");
  expect_error<ShapeError>([&] { layer_norm(x, {}); }, "normalized shape []");
  expect_error<ShapeError>([&] { layer_norm(x, {4}, ones({3})); }, "weight of shape [3]");
  expect_error<DTypeError>([&] { layer_norm(x, {4}, ones({4}, f64)); }, "differ");
  expect_error<ValueError>([&] { layer_norm(x, {4}, {}, {}, 0); }, "eps must be above 0");
  expect_error<DTypeError>([&] { layer_norm(ones({2, 3}, i64), {3}); }, "floating");
}
TEST(LayerNorm, OffsetsMuchLargerThanTheSpreadKeepTheirDigits) {
  // A one-pass E[x²] − E[x]² in f32 would have no digit left here.
  const Tensor x = tensor({100000.0f, 100001.0f, 100002.0f, 100003.0f}, {1, 4});
  const auto y = layer_norm(x, {4}).to_vector<double>();
  const double s = std::sqrt(1.25 + 1e-5);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[static_cast<size_t>(i)], (i - 1.5) / s, 1e-6);
}

TEST(BatchNorm, Errors) {
  const Tensor x = ones({4, 3}), c = ones({3});
  expect_error<ShapeError>([&] { batch_norm(ones({3}), c, c); }, "[N, C]");
  expect_error<ValueError>([&] { batch_norm(x, {}, {}); }, "running_mean and running_var must be given");
  expect_error<ShapeError>([&] { batch_norm(x, ones({4}), c); }, "running_mean of shape [4]");
  expect_error<ShapeError>([&] { batch_norm(x, c, c, ones({2})); }, "weight of shape [2]");
  expect_error<DTypeError>([&] { batch_norm(x, c, ones({3}, f64)); }, "differ");
  expect_error<ValueError>(
      [&] {
        batch_norm(ones({1, 3}), c, c, {}, {}, {.training = true});
      },
      "at least two values a channel");
  expect_error<ValueError>(
      [&] {
        batch_norm(ones({1, 3, 1, 1}), c, c, {}, {}, {.training = true});
      },
      "at least two values a channel");
  expect_error<ValueError>(
      [&] {
        batch_norm(ones({0, 3}), c, c, {}, {}, {.training = true});
      },
      "at least two values a channel");
  expect_error<ValueError>([&] { batch_norm(x, c, c, {}, {}, {.eps = 0}); }, "eps must be above 0");
  expect_error<ValueError>([&] { batch_norm(x, c, c, {}, {}, {.training = true, .momentum = 1.5}); },
                           "momentum must be in [0, 1]");
}
TEST(BatchNorm, UpdatesRunningBuffersInPlaceAndBackwardStillWorks) {
  manual_seed(8);
  Tensor x = randn({6, 2, 3}, f64);
  x.requires_grad_();
  const Tensor mean = zeros({2}, f64), var = ones({2}, f64);
  const uint64_t version = mean.version();
  const Tensor y = batch_norm(x, mean, var, {}, {}, {.training = true, .momentum = 0.25});
  EXPECT_GT(mean.version(), version);
  const auto v = x.to_vector<double>();
  for (int64_t c = 0; c < 2; ++c) {
    double m = 0, s = 0;
    const auto at = [&](int64_t b, int64_t i) { return v[static_cast<size_t>((b * 2 + c) * 3 + i)]; };
    for (int64_t b = 0; b < 6; ++b)
      for (int64_t i = 0; i < 3; ++i) m += at(b, i) / 18;
    for (int64_t b = 0; b < 6; ++b)
      for (int64_t i = 0; i < 3; ++i) s += (at(b, i) - m) * (at(b, i) - m) / 17;
    EXPECT_NEAR(mean.to_vector<double>()[static_cast<size_t>(c)], 0.25 * m, 1e-14);
    EXPECT_NEAR(var.to_vector<double>()[static_cast<size_t>(c)], 0.75 + 0.25 * s, 1e-14);
  }
  EXPECT_NO_THROW(y.backward(ones_like(y)));  // the buffers changed after forward: backward must not have saved them
}
TEST(BatchNorm, FailedCallLeavesTheBuffersAlone) {
  const Tensor mean = zeros({3}), var = ones({3});
  EXPECT_THROW(batch_norm(ones({4, 3}), mean, var, ones({2}), {}, {.training = true}), ShapeError);
  EXPECT_TRUE(equal(mean, zeros({3})));
  EXPECT_TRUE(equal(var, ones({3})));
}
TEST(BatchNorm, SameBitsAtAnyThreadCount) {
  manual_seed(9);
  const Tensor x = randn({16, 70, 9, 9}), none;
  const int before = num_threads();
  set_num_threads(1);
  const Tensor one = batch_norm(x, none, none, none, none, {.training = true});
  set_num_threads(4);
  const Tensor four = batch_norm(x, none, none, none, none, {.training = true});
  set_num_threads(before);
  EXPECT_TRUE(equal(one, four));
}

}  // namespace
}  // namespace hone
