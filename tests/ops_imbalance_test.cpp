// Focal loss and logit adjustment against their formulas; class weights, samplers and long-tailed subsets.

#include <gtest/gtest.h>
#include <hone/hone.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "support.h"

namespace hone {
namespace {

using test::expect_error;
constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> softmax_of(const std::vector<double>& z, size_t row, size_t classes) {
  double top = -1e300, total = 0;
  for (size_t c = 0; c < classes; ++c) top = std::max(top, z[row * classes + c]);
  std::vector<double> p(classes);
  for (size_t c = 0; c < classes; ++c) total += p[c] = std::exp(z[row * classes + c] - top);
  for (double& v : p) v /= total;
  return p;
}

TEST(FocalLoss, EqualsItsFormula) {
  manual_seed(1);
  for (double gamma : {0.0, 0.5, 1.0, 2.0, 5.0})
    for (bool weighted : {false, true}) {
      const Tensor logits = randn({7, 4}, f64) * 3.0, labels = tensor<int64_t>({0, 3, 1, -100, 2, 2, 0});
      const std::vector<double> w{0.5, 2, 0, 1.25}, z = logits.to_vector<double>();
      const std::vector<int64_t> y = labels.to_vector<int64_t>();
      double sum = 0, weights = 0;
      std::vector<double> each(7);
      for (size_t n = 0; n < 7; ++n) {
        if (y[n] < 0) continue;
        const size_t t = static_cast<size_t>(y[n]);
        const double p = softmax_of(z, n, 4)[t], a = weighted ? w[t] : 1;
        each[n] = -a * std::pow(1 - p, gamma) * std::log(p);
        sum += each[n];
        weights += a;
      }
      FocalOptions o{.gamma = gamma};
      if (weighted) o.weight = tensor(w);
      EXPECT_NEAR(focal_loss(logits, labels, o).item(), sum / weights, 1e-12) << gamma;
      o.reduction = Reduction::sum;
      EXPECT_NEAR(focal_loss(logits, labels, o).item(), sum, 1e-12);
      o.reduction = Reduction::none;
      const std::vector<double> got = focal_loss(logits, labels, o).to_vector<double>();
      for (size_t n = 0; n < 7; ++n) EXPECT_NEAR(got[n], each[n], 1e-12);
      if (gamma == 0) {
        EXPECT_NEAR(focal_loss(logits, labels, {.gamma = 0}).item(), cross_entropy(logits, labels).item(), 1e-13);
      }
    }
}

TEST(FocalLoss, TwiceDifferentiableAndFiniteAtTheEnds) {
  manual_seed(2);
  const Tensor labels = tensor<int64_t>({1, 0, 2});
  for (double gamma : {0.5, 2.0}) {
    const auto f = [&](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{focal_loss(x[0], labels, {.gamma = gamma})};
    };
    const std::vector<Tensor> in{randn({3, 3}, f64).requires_grad_()};
    EXPECT_NO_THROW(gradcheck(f, in));
    EXPECT_NO_THROW(gradgradcheck(f, in));
    const auto g = [&](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{
          sigmoid_focal_loss(x[0], tensor<double>({1, 0, 0.25}), {.gamma = gamma, .alpha = 0.3})};
    };
    EXPECT_NO_THROW(gradcheck(g, {randn({3}, f64).requires_grad_()}));
    EXPECT_NO_THROW(gradgradcheck(g, {randn({3}, f64).requires_grad_()}));
  }
  for (double big : {50.0, 1e3, 1e30}) {  // surely right, surely wrong
    Tensor z = tensor<double>({big, 0, 0, 0, big, 0}, {2, 3});
    z.requires_grad_();
    Tensor l = focal_loss(z, tensor<int64_t>({0, 0}), {.gamma = 0.5});
    l.backward();
    EXPECT_NEAR(l.item(), big / 2, 1e-6 * big);
    for (double v : z.grad().to_vector<double>()) EXPECT_TRUE(std::isfinite(v)) << big;
  }
}

TEST(FocalLoss, SigmoidFormEqualsItsFormula) {
  manual_seed(3);
  const Tensor z = randn({5, 2}, f64) * 2.0, y = rand({5, 2}, f64);
  const std::vector<double> zs = z.to_vector<double>(), ys = y.to_vector<double>();
  for (double gamma : {0.0, 1.0, 2.5})
    for (int with_alpha : {0, 1}) {
      double sum = 0;
      for (size_t i = 0; i < 10; ++i) {
        const double p = 1 / (1 + std::exp(-zs[i])), a = with_alpha ? 0.25 : 1, b = with_alpha ? 0.75 : 1;
        sum +=
            -a * ys[i] * std::pow(1 - p, gamma) * std::log(p) - b * (1 - ys[i]) * std::pow(p, gamma) * std::log(1 - p);
      }
      SigmoidFocalOptions o{.gamma = gamma};
      if (with_alpha) o.alpha = 0.25;
      EXPECT_NEAR(sigmoid_focal_loss(z, y, o).item(), sum / 10, 1e-12) << gamma << with_alpha;
    }
}

TEST(FocalLoss, IgnoresALabelThatIsAClassToo) {
  const Tensor z = tensor<double>({1, 2, 0, 3, 1, 1, 0, 0, 2}, {3, 3});
  const Tensor rest = concat({slice(z, 0, 0, 1), slice(z, 0, 2, 3)});
  EXPECT_NEAR(focal_loss(z, tensor<int64_t>({1, 2, 0}), {.ignore_index = 2}).item(),
              focal_loss(rest, tensor<int64_t>({1, 0})).item(), 1e-15);
}

TEST(FocalLoss, IgnoredRowsAndWeightsGetNoGradient) {
  Tensor logits = tensor(std::vector<double>{1, 2, kNan, kInf}, {2, 2}).requires_grad_();
  Tensor weight = tensor<double>({1.0, 3.0}).requires_grad_();
  const Tensor loss = focal_loss(logits, tensor({0, -100}), {.weight = weight});
  loss.backward();
  const std::vector<double> g = logits.grad().to_vector<double>();
  EXPECT_TRUE(std::isfinite(loss.item()) && std::isfinite(g[0]) && g[0] != 0);
  EXPECT_EQ(g[2], 0);
  EXPECT_EQ(g[3], 0);
  EXPECT_FALSE(weight.grad().defined()) << "class weights are constants";
}

TEST(LogitAdjustment, RefusesInfinitePriors) {
  const Tensor logits = zeros({1, 2}, f64);
  for (const double bad : {kInf, -kInf, kNan})
    expect_error<ValueError>([&] { logit_adjusted(logits, tensor<double>({bad, -1.0})); }, "log_priors must be finite");
}

TEST(FocalLoss, Errors) {
  const Tensor z = zeros({2, 3}), y = zeros({2}, i64);
  expect_error<ValueError>([&] { focal_loss(z, y, {.gamma = -1}); }, "gamma must be finite and at least 0, got -1");
  expect_error<ValueError>([&] { focal_loss(z, y, {.gamma = std::nan("")}); }, "gamma");
  expect_error<ValueError>([&] { focal_loss(z, tensor<int64_t>({0, 3})); }, "label 3 is outside [0, 3)");
  expect_error<ValueError>([&] { focal_loss(z, y, {.weight = tensor<float>({1, -1, 1})}); }, "weights");
  expect_error<ValueError>([&] { focal_loss(z, y, {.weight = full({3}, std::nan(""))}); }, "weights must be finite");
  expect_error<ValueError>([&] { focal_loss(z, y, {.weight = tensor<float>({1, HUGE_VALF, 1})}); }, "finite");
  expect_error<ShapeError>([&] { focal_loss(z, y, {.weight = ones({2})}); }, "expected [3]");
  expect_error<ShapeError>([&] { focal_loss(z, zeros({3}, i64)); }, "expected [2]");
  expect_error<DTypeError>([&] { focal_loss(z, zeros({2})); }, "integer");
  expect_error<ShapeError>([&] { focal_loss(zeros({0, 3}), zeros({0}, i64)); }, "empty batch");
  expect_error<ShapeError>([&] { sigmoid_focal_loss(zeros({3}), zeros({2})); },
                           "targets of shape [2] for logits of shape [3]");
  expect_error<ValueError>([&] { sigmoid_focal_loss(zeros({1}), full({1}, 2)); }, "targets must be in [0, 1], got 2");
  expect_error<ValueError>([] { sigmoid_focal_loss(zeros({1}), full({1}, std::nan(""))); }, "targets");
  expect_error<ValueError>([&] { sigmoid_focal_loss(zeros({1}), zeros({1}), {.alpha = 1.5}); }, "alpha");
}

TEST(LogitAdjustment, EqualsItsFormula) {
  manual_seed(4);
  const Tensor z = randn({6, 3}, f64), y = tensor<int64_t>({0, 1, 2, 2, 1, 0});
  const Tensor prior = log(tensor<double>({0.7, 0.2, 0.1}));
  const std::vector<double> zs = z.to_vector<double>(), ps = prior.to_vector<double>();
  const std::vector<int64_t> ys = y.to_vector<int64_t>();
  for (double tau : {0.0, 0.5, 1.0, -1.0}) {
    std::vector<double> moved(18);
    for (size_t i = 0; i < 18; ++i) moved[i] = zs[i] + tau * ps[i % 3];
    double sum = 0;
    for (size_t n = 0; n < 6; ++n) sum -= std::log(softmax_of(moved, n, 3)[static_cast<size_t>(ys[n])]) / 6;
    EXPECT_NEAR(logit_adjusted_cross_entropy(z, y, prior, {.tau = tau}).item(), sum, 1e-13) << tau;
    const std::vector<double> post = logit_adjusted(z, prior, tau).to_vector<double>();
    for (size_t i = 0; i < 18; ++i) EXPECT_NEAR(post[i], zs[i] - tau * ps[i % 3], 1e-15);
  }
  // Equal priors, and any constant, change nothing.
  EXPECT_NEAR(logit_adjusted_cross_entropy(z, y, full({3}, std::log(1.0 / 3), f64)).item(), cross_entropy(z, y).item(),
              1e-13);
  EXPECT_NO_THROW(gradgradcheck(
      [&](const std::vector<Tensor>& x) { return std::vector<Tensor>{logit_adjusted_cross_entropy(x[0], y, prior)}; },
      {clone(z).requires_grad_()}));
  expect_error<ShapeError>([&] { logit_adjusted(z, zeros({2}, f64)); }, "expected [3]");
  expect_error<DTypeError>([&] { logit_adjusted(z, zeros({3})); }, "cast");
  expect_error<ValueError>([&] { logit_adjusted(z, log(tensor<double>({1, 0, 1}))); }, "without samples");
  expect_error<ValueError>([&] { logit_adjusted(z, tensor<double>({-1, HUGE_VAL, -1})); }, "must be finite, got inf");
  expect_error<ValueError>([&] { logit_adjusted(z, prior, std::nan("")); }, "tau");
  Tensor learned = clone(prior).requires_grad_();
  logit_adjusted_cross_entropy(clone(z).requires_grad_(), y, learned).backward();
  EXPECT_FALSE(learned.grad().defined());  // priors are data
}

// ---- data

data::Dataset labelled(const std::vector<int64_t>& counts) {
  std::vector<int64_t> labels;
  for (size_t c = 0; c < counts.size(); ++c)
    labels.insert(labels.end(), static_cast<size_t>(counts[c]), static_cast<int64_t>(c));
  const int64_t n = static_cast<int64_t>(labels.size());
  return {reshape(arange(0, static_cast<double>(n), 1, f32), {n, 1}), tensor(labels)};
}

TEST(ClassWeights, EqualTheirFormulas) {
  const std::vector<int64_t> n{100, 10, 1};
  const std::vector<double> inverse = data::inverse_frequency_weights(n).to_vector<double>();
  const double mean = (0.01 + 0.1 + 1) / 3;
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(inverse[c], 1 / static_cast<double>(n[c]) / mean, 1e-6);
  for (double beta : {0.0, 0.9, 0.999, 0.9999999}) {
    std::vector<double> w;
    double total = 0;
    for (int64_t k : n) {
      double effective = 0;  // 1 + β + … + β^(n−1)
      for (int64_t i = 0; i < k; ++i) effective += std::pow(beta, static_cast<double>(i));
      w.push_back(1 / effective);
      total += w.back() / 3;
    }
    const std::vector<double> got = data::effective_number_weights(n, beta).to_vector<double>();
    for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(got[c], w[c] / total, 2e-6) << beta;
  }
  const std::vector<double> prior = data::log_priors(n).to_vector<double>();
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(prior[c], std::log(static_cast<double>(n[c]) / 111), 1e-6);
  expect_error<ValueError>(
      [] {
        data::inverse_frequency_weights(std::vector<int64_t>{3, 0});
      },
      "inverse_frequency_weights: class 1 has no samples");
  expect_error<ValueError>(
      [] {
        data::log_priors(std::vector<int64_t>{3, -1});
      },
      "count of class 1 must be above 0, got -1");
  expect_error<ValueError>([] { data::log_priors(std::vector<int64_t>{}); }, "no classes");
  expect_error<ValueError>([&] { data::effective_number_weights(n, 1); }, "beta must be in [0, 1), got 1");
  expect_error<ValueError>([&] { data::effective_number_weights(n, -0.1); }, "got -0.1");
  expect_error<ValueError>([&] { data::effective_number_weights(n, std::nan("")); }, "beta");
  EXPECT_EQ(data::class_counts(labelled({3, 0, 2})), (std::vector<int64_t>{3, 0, 2}));
  EXPECT_EQ(data::class_counts(labelled({3, 1}), 4), (std::vector<int64_t>{3, 1, 0, 0}));
  expect_error<ValueError>([] { data::class_counts(labelled({3, 1}), 1); }, "label 1 is outside [0, 1)");
  expect_error<ValueError>([] { data::class_counts({zeros({2}), tensor<int64_t>({0, -1})}); }, "label -1 at 1");
  expect_error<DTypeError>([] { data::class_counts({zeros({2}), zeros({2})}); }, "must be integer, got f32");
  expect_error<ShapeError>([] { data::class_counts({zeros({2}), zeros({2, 1}, i64)}); }, "[2, 1]");
  EXPECT_EQ(data::class_counts(labelled({3, 2}).subset({4, 4, 0})), (std::vector<int64_t>{1, 2}));
}

std::vector<int64_t> order_of(const data::Sampler& s, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(s.length()));
  s.fill(order, seed, epoch);
  return order;
}

void expect_function_of_seed_and_epoch(const data::Sampler& s) {
  EXPECT_EQ(order_of(s, 1, 0), order_of(s, 1, 0));
  EXPECT_NE(order_of(s, 1, 0), order_of(s, 1, 1));
  EXPECT_NE(order_of(s, 1, 0), order_of(s, 2, 0));
}

TEST(Samplers, WeightedDrawsInProportion) {
  const std::vector<double> w{1, 0, 3, 0.5, 5.5};
  const data::Sampler s = data::weighted_sampler(w, 100000);
  expect_function_of_seed_and_epoch(s);
  std::vector<double> seen(5);
  for (int64_t i : order_of(s, 7, 3)) seen.at(static_cast<size_t>(i)) += 1;
  EXPECT_EQ(seen[1], 0);
  double chi = 0;
  for (size_t i : {0u, 2u, 3u, 4u}) {
    const double expected = 1e5 * w[i] / 10;
    chi += (seen[i] - expected) * (seen[i] - expected) / expected;
  }
  EXPECT_LT(chi, 16.3);  // 3 degrees of freedom: above it once in 1000
  EXPECT_EQ(data::weighted_sampler(w).length(), 5);
  expect_error<ValueError>(
      [] {
        data::weighted_sampler(std::vector<double>{1, -1});
      },
      "weight 1 must be finite and at least 0, got -1");
  expect_error<ValueError>([] { data::weighted_sampler(std::vector<double>{0, 0}); }, "the sum of 2 weights");
  expect_error<ValueError>([] { data::weighted_sampler(std::vector<double>{1, std::nan("")}); }, "weight 1");
  expect_error<ValueError>([] { data::weighted_sampler(std::vector<double>{1e308, 1e308}); }, "got inf");
  expect_error<ValueError>([&] { data::weighted_sampler(w, -1); }, "length must be at least 0, got -1");
}

TEST(Samplers, ShuffledIsTheLoadersOwnOrder) {
  const data::Dataset d{zeros({31, 1}), arange(0, 31)};
  data::Loader shuffled(d, {.batch = 31, .shuffle = true, .seed = 5});
  data::Loader sampled(d, {.batch = 31, .sampler = data::shuffled_sampler(31), .seed = 5});
  expect_function_of_seed_and_epoch(data::shuffled_sampler(31));
  for (int epoch = 0; epoch < 3; ++epoch)
    EXPECT_EQ((*shuffled.begin()).targets.to_vector<int64_t>(), (*sampled.begin()).targets.to_vector<int64_t>());
  EXPECT_EQ(data::shuffled_sampler(0).length(), 0);
  expect_error<ValueError>([] { data::shuffled_sampler(-1); }, "-1");
}

TEST(Samplers, TwoViewsKeepTheOrderAndShowEachWithItsProbability) {
  constexpr int64_t n = 20000;
  const data::Sampler order = data::shuffled_sampler(n);
  expect_function_of_seed_and_epoch(data::two_view_sampler(n, 0.25, order));
  for (const double p : {0.0, 0.25, 1.0}) {
    const std::vector<int64_t> views = order_of(data::two_view_sampler(n, p, order), 4, 2),
                               plain = order_of(order, 4, 2);
    double others = 0;
    for (size_t i = 0; i < views.size(); ++i) {
      ASSERT_EQ(views[i] % n, plain[i]);
      others += views[i] >= n;
    }
    EXPECT_NEAR(others / n, p, 5 * std::sqrt(p * (1 - p) / n));
  }
  expect_error<ValueError>([&] { data::two_view_sampler(n, 1.5, order); }, "1.5");
  expect_error<ValueError>([&] { data::two_view_sampler(n, 0.5, {}); }, "no order");
  expect_error<ValueError>([&] { order_of(data::two_view_sampler(n - 1, 0.5, order), 1, 0); }, "outside [0, 19999)");
}

TEST(Samplers, ClassAwareShowsClassesAndTheirSamplesEvenly) {
  const data::Dataset d = labelled({90, 9, 1});
  const std::vector<int64_t> labels = data::class_labels(d);
  const data::Sampler s = data::class_aware_sampler(d, 300);
  expect_function_of_seed_and_epoch(s);
  const std::vector<int64_t> order = order_of(s, 3, 0);
  std::vector<int64_t> seen(100);
  for (size_t at = 0; at < order.size(); at += 3) {  // each class once in every three places
    std::set<int64_t> classes;
    for (size_t k = 0; k < 3; ++k) classes.insert(labels[static_cast<size_t>(order[at + k])]);
    ASSERT_EQ(classes.size(), 3u) << at;
  }
  for (int64_t i : order) ++seen.at(static_cast<size_t>(i));
  for (auto [first, count] : {std::pair(0, 90), std::pair(90, 9), std::pair(99, 1)}) {
    const auto [low, high] = std::minmax_element(seen.begin() + first, seen.begin() + first + count);
    EXPECT_LE(*high - *low, 1);
  }
  // Both orders are shuffled, anew in each round: that of the classes, and that of a class's samples.
  std::set<std::vector<int64_t>> rounds, passes;
  std::vector<int64_t> round, pass;
  for (int64_t i : order) {
    const int64_t c = labels[static_cast<size_t>(i)];
    round.push_back(c);
    if (c == 1) pass.push_back(i);
    if (round.size() == 3) rounds.insert(std::exchange(round, {}));
    if (pass.size() == 9) passes.insert(std::exchange(pass, {}));
  }
  EXPECT_EQ(rounds.size(), 6u);   // in 100 rounds, all orders of three classes
  EXPECT_EQ(passes.size(), 11u);  // of the nine samples, none twice
  EXPECT_EQ(data::class_aware_sampler(d).length(), 100);
  EXPECT_EQ(data::square_root_sampler(d).length(), 100);
  EXPECT_EQ(data::progressively_balanced_sampler(d, 2).length(), 100);
  expect_error<ValueError>([] { data::class_aware_sampler(labelled({3, 0, 2})); }, "class 1 of 3 has no samples");
}

TEST(Samplers, PowersOfFrequency) {
  const std::vector<int64_t> counts{900, 90, 10};
  const data::Dataset d = labelled(counts);
  const std::vector<int64_t> labels = data::class_labels(d);
  const auto expect_shares = [&](const data::Sampler& s, int64_t epoch, const std::vector<double>& shares) {
    expect_function_of_seed_and_epoch(s);
    std::vector<double> seen(3);
    const std::vector<int64_t> order = order_of(s, 5, epoch);
    for (int64_t i : order) seen[static_cast<size_t>(labels[static_cast<size_t>(i)])] += 1;
    for (size_t c = 0; c < 3; ++c) {
      const double n = static_cast<double>(order.size()), p = shares[c];
      EXPECT_NEAR(seen[c], n * p, 4 * std::sqrt(n * p * (1 - p)) + 1) << c;
    }
  };
  for (double power : {0.0, 0.5, 1.0}) {
    std::vector<double> shares;
    double total = 0;
    for (int64_t n : counts) total += std::pow(static_cast<double>(n), power);
    for (int64_t n : counts) shares.push_back(std::pow(static_cast<double>(n), power) / total);
    expect_shares(data::class_power_sampler(d, power, 20000), 0, shares);
    if (power == 0.5) expect_shares(data::square_root_sampler(d, 20000), 0, shares);
  }
  for (int64_t i : order_of(data::class_power_sampler(d, -300, 50), 1, 0))  // 90^300 is beyond any double
    EXPECT_EQ(labels[static_cast<size_t>(i)], 2);
  const data::Sampler progressive = data::progressively_balanced_sampler(d, 4, 20000);
  for (int64_t t : {0, 1, 4, 9}) {
    const double part = std::min(1.0, static_cast<double>(t) / 4);
    std::vector<double> shares;
    for (int64_t n : counts) shares.push_back((1 - part) * static_cast<double>(n) / 1000 + part / 3);
    expect_shares(progressive, t, shares);
  }
  expect_error<ValueError>([&] { data::class_power_sampler(d, std::nan("")); }, "power must be finite");
  expect_error<ValueError>([&] { data::progressively_balanced_sampler(d, 0); }, "epochs must be at least 1, got 0");
}

TEST(Samplers, ExtremePowersAndSumsStayFinite) {
  std::vector<int64_t> labels(101, 1);
  labels[50] = 0;
  const data::Dataset dataset(zeros({101, 1}), tensor(labels));
  // 100^-400 underflows beside 1: the rare class alone is shown; the other way round for +400.
  for (const double power : {-400.0, 400.0}) {
    std::vector<int64_t> order(50);
    data::class_power_sampler(dataset, power).fill(order, 1, 0);
    for (const int64_t i : order) EXPECT_EQ(labels[static_cast<size_t>(i)], power < 0 ? 0 : 1);
  }
  const std::vector<double> huge{1e308, 1e308};
  expect_error<ValueError>([&] { data::weighted_sampler(huge); }, "finite");
}

TEST(Samplers, InALoader) {
  const data::Dataset d = labelled({6, 2});
  const data::Sampler s = data::class_aware_sampler(d, 12);
  for (int64_t prefetch : {0, 2}) {
    data::Loader batches(d, {.batch = 5, .sampler = s, .seed = 9, .prefetch = prefetch});
    EXPECT_EQ(batches.size(), 3);
    for (int64_t epoch : {0, 1}) {
      std::vector<int64_t> shown;
      for (auto& [x, y] : batches) {
        for (double v : x.to_vector<double>()) shown.push_back(static_cast<int64_t>(v));
        EXPECT_EQ(x.size(0), y.size(0));
      }
      EXPECT_EQ(shown, order_of(s, 9, epoch));
    }
  }
  expect_error<ValueError>([&] { data::Loader(d, {.shuffle = true, .sampler = s}); }, "the sampler decides the order");
  const data::Sampler bad(
      3, [](std::span<int64_t> order, uint64_t, int64_t) { std::fill(order.begin(), order.end(), 8); });
  data::Loader refused(d, {.sampler = bad});
  expect_error<ValueError>([&] { refused.begin(); }, "outside [0, 8)");
  expect_error<ValueError>([] { data::Sampler(-1, [](std::span<int64_t>, uint64_t, int64_t) {}); },
                           "length must be at least 0, got -1");
  expect_error<ValueError>([] { data::Sampler(1, nullptr); }, "no function");
}

// What a pass shows twice must not be twice the same picture; what it shows must be what the words of its place say.
TEST(Samplers, RepeatsAreAugmentedAnew) {
  const data::Transform draw =
      data::custom([](std::span<float> v, const Shape&, const Philox& random) { v[0] = uniform_f32(random.word(0)); });
  const data::Sampler always_first(
      40, [](std::span<int64_t> order, uint64_t, int64_t) { std::fill(order.begin(), order.end(), 0); });
  std::vector<std::vector<double>> passes;
  for (int64_t batch : {7, 40}) {  // the batch a sample falls into does not matter
    data::Loader batches(labelled({2}), {.batch = batch, .sampler = always_first, .seed = 3, .transform = {draw}});
    std::vector<double>& shown = passes.emplace_back();
    for (auto& [x, y] : batches)
      for (double v : x.to_vector<double>()) shown.push_back(v);
  }
  EXPECT_EQ(passes[0], passes[1]);
  EXPECT_EQ(std::set<double>(passes[0].begin(), passes[0].end()).size(), 40u);
}

// Weights over 12 orders of magnitude, and many of 0 between: rounding leaves columns over, which must not be drawn.
TEST(Samplers, WeightsOfZeroAreNeverDrawn) {
  std::vector<double> w;
  for (int i = 0; i < 3000; ++i) w.push_back(i % 3 == 0 ? 0 : std::pow(10.0, -(i % 13)));
  double total = 0, heavy = 0;
  for (size_t i = 0; i < w.size(); ++i) total += w[i], heavy += w[i] == 1 ? 1 : 0;
  int64_t of_heavy = 0;
  for (int64_t i : order_of(data::weighted_sampler(w, 50000), 1, 0)) {
    ASSERT_GT(w[static_cast<size_t>(i)], 0) << i;
    of_heavy += w[static_cast<size_t>(i)] == 1;
  }
  const double p = heavy / total;
  EXPECT_NEAR(static_cast<double>(of_heavy), 50000 * p, 4 * std::sqrt(50000 * p * (1 - p)));
}

TEST(LongTailed, FollowsItsFormula) {
  const data::Dataset d = labelled(std::vector<int64_t>(10, 400));
  const data::Dataset tail = data::long_tailed(d, {.ratio = 100, .seed = 4});
  std::vector<int64_t> want;
  for (int c = 0; c < 10; ++c) want.push_back(static_cast<int64_t>(std::floor(400 * std::pow(100, -c / 9.0) + 1e-9)));
  EXPECT_EQ(data::class_counts(tail), want);
  const auto rows = [](const data::Dataset& set) {
    std::set<int64_t> out;
    for (int64_t i = 0; i < set.size(); ++i) out.insert(set.row(i));
    return out;
  };
  EXPECT_EQ(rows(tail), rows(data::long_tailed(d, {.ratio = 100, .seed = 4})));
  EXPECT_NE(rows(tail), rows(data::long_tailed(d, {.ratio = 100, .seed = 5})));
  const std::set<int64_t> flatter = rows(data::long_tailed(d, {.ratio = 10, .seed = 4})), steep = rows(tail);
  EXPECT_TRUE(std::includes(flatter.begin(), flatter.end(), steep.begin(), steep.end()));
  EXPECT_EQ(data::long_tailed(d, {.ratio = 1}).size(), 4000);
  // Its samples stay in their order, and each class draws for itself.
  const data::Dataset few = data::long_tailed(d, {.ratio = 1, .largest = 40});
  EXPECT_EQ(data::class_counts(few), std::vector<int64_t>(10, 40));
  std::vector<int64_t> kept;
  std::set<std::vector<int64_t>> draws;  // which places of the class are kept
  for (int64_t i = 0; i < 400; ++i) kept.push_back(few.row(i));
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  for (int64_t c = 0; c < 10; ++c) {
    std::vector<int64_t> places(kept.begin() + 40 * c, kept.begin() + 40 * (c + 1));
    for (int64_t& place : places) place -= 400 * c;
    draws.insert(places);
  }
  EXPECT_EQ(draws.size(), 10u);
  // The scarcest class for its place says how many the first may have; none is left without a sample.
  EXPECT_EQ(data::class_counts(data::long_tailed(labelled({100, 50, 2}), {.ratio = 10})),
            (std::vector<int64_t>{20, 6, 2}));
  EXPECT_EQ(data::class_counts(data::long_tailed(labelled({40, 40, 40}), {.ratio = 1e4})),
            (std::vector<int64_t>{40, 1, 1}));
  expect_error<ValueError>(
      [] {
        data::long_tailed(labelled({5, 3}), {.ratio = 2, .classes = 3});
      },
      "class 2 should keep 1 samples but has 0");
  // 3 · 75 = 225, though 3 / (1/75) is a rounding below it.
  EXPECT_EQ(data::class_counts(data::long_tailed(labelled({225, 3}), {.ratio = 75})), (std::vector<int64_t>{225, 3}));
  expect_error<ValueError>([&] { data::long_tailed(d, {.ratio = 0.5}); },
                           "ratio must be finite and at least 1, got 0.5");
  expect_error<ValueError>([&] { data::long_tailed(d, {.ratio = std::nan("")}); }, "ratio");
  expect_error<ValueError>([&] { data::long_tailed(d, {.largest = 401}); },
                           "class 0 should keep 401 samples but has 400");
}

TEST(BalancedAccuracy, IsTheMeanRecall) {
  train::ConfusionMatrix m(3);
  // Class 0: 3 of 4 right; class 1: 0 of 1; class 2: 2 of 2.
  m.update(one_hot(tensor<int64_t>({0, 0, 0, 1, 2, 2, 2}), 3, f32), tensor<int64_t>({0, 0, 0, 0, 1, 2, 2}));
  EXPECT_NEAR(m.balanced_accuracy(), (0.75 + 0 + 1) / 3, 1e-12);
}

}  // namespace
}  // namespace hone
