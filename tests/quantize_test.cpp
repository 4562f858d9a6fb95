// The survey's quantizers against their formulas in plain arithmetic: uniform, global, dynamic, mixed, and the plan of
// bit widths against every plan there is.

#include <algorithm>
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
Net make(uint64_t seed) {
  manual_seed(seed);
  Net net;
  net.fc1.weight.ref().replace(randn({20, 12}) + 0.3);
  net.fc2.weight.ref().replace(randn({4, 20}) * 5.0);
  return net;
}
std::vector<double> values(const Parameter& p) { return p.value().to_vector<double>(); }
std::vector<double> raws(const Parameter& p) { return p.raw().to_vector<double>(); }
double clamped(double v, double low, double high) { return std::min(std::max(v, low), high); }
double mean_of(const std::vector<double>& v) {
  double s = 0;
  for (const double x : v) s += x;
  return s / static_cast<double>(v.size());
}
void expect_values(const Parameter& p, const std::vector<double>& want, const std::string& what) {
  expect_close(values(p), want, {1e-6, 1e-7}, what);
}

TEST(Uniform, IsTheDocumentsFormula) {
  for (const Shift shift : {Shift::mean, Shift::zero_point, Shift::none}) {
    for (const Rounding rounding : {Rounding::nearest_even, Rounding::truncate}) {
      Net net = make(1);
      const std::vector<double> w = raws(net.fc1.weight);
      const double step = 6.25, low = -8, high = 7, least = *std::min_element(w.begin(), w.end());
      const auto report =
          uniform(net, {.range = {low, high}, .step = step, .shift = shift, .rounding = rounding, .only = {"fc1"}});
      const double mu = shift == Shift::mean ? mean_of(w) : 0;
      const double z = shift == Shift::zero_point ? clamped(std::nearbyint(low - least * step), low, high) : 0;
      std::vector<double> want;
      double error = 0, clipped = 0;
      std::set<double> codes;
      for (const double v : w) {
        const double q = (v - mu) * step;
        // Truncation counts from the shift or zero point, as the shifted value is what is truncated.
        const double code =
            clamped((rounding == Rounding::truncate ? std::trunc(q) : std::nearbyint(q)) + z, low, high);
        want.push_back((code - z) / step + mu);
        codes.insert(code);
        error += std::pow(want.back() - v, 2);
        clipped += q + z < low || q + z > high;
      }
      expect_values(net.fc1.weight, want, "values");
      ASSERT_EQ(report.layers.size(), 1u);
      const QuantizedLayer& l = report.layers[0];
      EXPECT_NEAR(l.error, error / 240, 1e-6);
      EXPECT_NEAR(l.clipped, clipped / 240, 1e-12);
      EXPECT_GT(l.clipped, 0) << "the test holds weights beyond the range";
      EXPECT_EQ(l.values, static_cast<int64_t>(codes.size()));
      EXPECT_EQ(l.bits, 240 * 4 + 64);
      EXPECT_NEAR(l.step, 1 / step, 1e-15);
      EXPECT_EQ(net.fc2.weight.ref().type(), WeightType::dense);
      EXPECT_EQ(net.fc1.bias.ref().type(), WeightType::dense);
    }
  }
}

TEST(Uniform, MultiplyAndDivideGiveEqualCodes) {
  for (const Shift shift : {Shift::mean, Shift::zero_point, Shift::none}) {
    Net a = make(2), b = a;
    uniform(a, {.step = 8, .shift = shift});
    uniform(b, {.step = 0.125, .step_rule = StepRule::divide, .shift = shift});
    EXPECT_TRUE(equal(a.fc1.weight.value(), b.fc1.weight.value()));
    EXPECT_TRUE(equal(a.fc2.weight.value(), b.fc2.weight.value()));
  }
}

TEST(Uniform, FittedStepIsTheFinestThatHoldsEveryWeight) {
  for (const Shift shift : {Shift::mean, Shift::zero_point, Shift::none}) {
    for (const Range range : {Range{-8, 7}, Range{-1, 1}, Range{-128, 127}}) {
      Net net = make(3);
      const std::vector<double> w = raws(net.fc2.weight);
      const QuantizedLayer l = uniform(net, {.range = range, .shift = shift, .only = {"fc2"}}).layers[0];
      const std::vector<double> v = values(net.fc2.weight);
      for (size_t i = 0; i < w.size(); ++i)
        EXPECT_LE(std::abs(v[i] - w[i]), l.step * (shift == Shift::zero_point ? 1 : 0.5) * (1 + 1e-6));
      if (shift != Shift::zero_point) { EXPECT_EQ(l.clipped, 0); }
      // No weight loses its gradient at the edge of the range.
      sum(net.fc2.weight.value()).backward();
      if (shift != Shift::zero_point) { EXPECT_EQ(min(net.fc2.weight.grad()).item(), 1); }
      const double mu = shift == Shift::mean ? mean_of(w) : 0, most = *std::max_element(w.begin(), w.end()),
                   least = *std::min_element(w.begin(), w.end());
      const double want = shift == Shift::zero_point ? (most - least) / (range.high - range.low)
                                                     : std::max((most - mu) / range.high, (least - mu) / range.low);
      EXPECT_NEAR(l.step, want, 1e-12 * want);
    }
  }
}

TEST(Uniform, ZeroPointPassesTheRangeByHalfAStepAtMost) {
  // z is whole, so that 0 stays exact: an end of the weights may lie half a step beyond the codes.
  double most = 0;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Net net = make(seed);
    const std::vector<double> w = raws(net.fc1.weight);
    const double least = *std::min_element(w.begin(), w.end()),
                 step = (*std::max_element(w.begin(), w.end()) - least) / 7;
    uniform(net, {.range = {0, 7}, .shift = Shift::zero_point, .only = {"fc1"}});
    const std::vector<double> v = values(net.fc1.weight);
    for (const double x : v)
      most = std::max(most, std::max(x - *std::max_element(w.begin(), w.end()), least - x) / step);
    const WeightGrid grid = net.fc1.weight.ref().grid();
    EXPECT_NEAR(grid.scale.to_vector<double>()[0], step, 1e-12);
    const std::vector<double> point = grid.points.to_vector<double>();
    for (const double x : w) {
      EXPECT_GE(x / step, point[1] - 0.5 - 1e-9);
      EXPECT_LE(x / step, point[2] + 0.5 + 1e-9);
    }
  }
  EXPECT_LE(most, 0.5 + 1e-6);
}

TEST(Uniform, GlobalHasOneStepAndShiftForAll) {
  Net net = make(4), biased = net;
  std::vector<double> all = raws(net.fc1.weight);
  const std::vector<double> more = raws(net.fc2.weight);
  all.insert(all.end(), more.begin(), more.end());
  const auto report = uniform(net, {.global = true});
  const double mu = mean_of(all), step = std::max((*std::max_element(all.begin(), all.end()) - mu) / 127,
                                                  (*std::min_element(all.begin(), all.end()) - mu) / -128);
  for (const QuantizedLayer& l : report.layers) {
    EXPECT_NEAR(l.step, step, 1e-12);
    EXPECT_NEAR(l.shift, mu, 1e-12);
  }
  std::vector<double> want;
  for (const double v : more) want.push_back(std::nearbyint((v - mu) / step) * step + mu);
  expect_values(net.fc2.weight, want, "fc2");
  EXPECT_EQ(uniform(biased, {.global = true, .biases = true}).layers.size(), 4u);
}

TEST(Uniform, MasksStayAndTakeNoPart) {
  Net net = make(5);
  compress::prune(net, {.density = 0.3, .scope = compress::PruneScope::per_layer});
  const Tensor mask = clone(net.fc1.weight.ref().mask());
  const std::vector<bool> m = mask.to_vector<bool>();
  std::vector<double> kept;
  for (size_t i = 0; i < m.size(); ++i)
    if (m[i]) kept.push_back(raws(net.fc1.weight)[i]);
  const QuantizedLayer l = uniform(net, {.range = {-8, 7}}).layers[0];
  EXPECT_EQ(l.kept, 72);
  EXPECT_NEAR(l.shift, mean_of(kept), 1e-12);
  const std::vector<double> v = values(net.fc1.weight);
  for (size_t i = 0; i < m.size(); ++i)
    if (!m[i]) { EXPECT_EQ(v[i], 0) << "not the shift"; }
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  for (int i = 0; i < 3; ++i) {
    sgd.zero_grad();
    mse_loss(net(randn({8, 12})), zeros({8, 4})).backward();
    sgd.step();
  }
  EXPECT_TRUE(equal(net.fc1.weight.ref().mask(), mask));
  EXPECT_LE(quantize_report(net).layers[0].values, 16);
  const Tensor before = net.fc1.weight.value().detach();
  bake(net);
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
  EXPECT_TRUE(equal(net.fc1.weight.raw(), before));
}

TEST(Uniform, RefusesWithNothingChanged) {
  Net net = make(6);
  expect_error<ValueError>([&] { uniform(net, {.range = {1, 7}}); }, "hold 0");
  expect_error<ValueError>([&] { uniform(net, {.range = {7, -8}}); }, "in order");
  expect_error<ValueError>([&] { uniform(net, {.range = {-0.5, 7}}); }, "whole");
  expect_error<ValueError>([&] { uniform(net, {.step = 0}); }, "step");
  expect_error<ValueError>([&] { uniform(net, {.step = 1e-320}); }, {"step", "1e-320"});  // Δ = 1e320
  expect_error<ValueError>([&] { uniform(net, {.step = INFINITY, .step_rule = StepRule::divide}); }, "step");
  expect_error<ValueError>([&] { uniform(net, {.only = {"fc9"}}); }, "fc1");
  share_weights(net, {.only = {"fc2"}});
  expect_error<ValueError>([&] { uniform(net); }, {"fc2.weight", "codebook"});
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
  Net equal_weights = make(6);
  equal_weights.fc1.weight.ref().replace(full({20, 12}, 0.7));
  EXPECT_EQ(uniform(equal_weights).layers[0].error, 0);
}

TEST(Dynamic, EachLevelIsItsOwnUniformQuantizer) {
  for (const LevelBy by : {LevelBy::magnitude, LevelBy::tensor, LevelBy::channel, LevelBy::kmeans}) {
    Net net = make(7);
    const std::vector<double> w = raws(net.fc1.weight);
    const QuantizedLayer l = dynamic(net, {.by = by, .levels = 3, .range = {-4, 3}, .only = {"fc1"}}).layers[0];
    // The level of each weight, found another way.
    std::vector<size_t> level(w.size(), 0);
    std::vector<size_t> order(w.size());
    for (size_t i = 0; i < w.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::abs(w[a]) < std::abs(w[b]); });
    const KMeans clusters = kmeans(w, {.clusters = 3, .start = KMeansStart::optimal});
    for (size_t i = 0; i < w.size(); ++i) {
      if (by == LevelBy::magnitude) level[order[i]] = i / 80;
      if (by == LevelBy::channel) level[i] = i / 12;
      if (by == LevelBy::kmeans) level[i] = static_cast<size_t>(clusters.codes[i]);
    }
    const size_t levels = *std::max_element(level.begin(), level.end()) + 1;
    std::vector<double> step(levels, 0), want, count(levels, 0);
    for (size_t i = 0; i < w.size(); ++i)
      step[level[i]] = std::max(step[level[i]], w[i] > 0 ? w[i] / 3 : w[i] / -4), ++count[level[i]];
    for (size_t i = 0; i < w.size(); ++i) want.push_back(std::nearbyint(w[i] / step[level[i]]) * step[level[i]]);
    expect_values(net.fc1.weight, want, "values");
    EXPECT_EQ(l.levels, static_cast<int64_t>(levels));
    EXPECT_EQ(l.clipped, 0);
    double ids = 0;
    if (by == LevelBy::magnitude || by == LevelBy::kmeans)
      for (const double c : count) ids -= c * std::log2(c / 240);
    EXPECT_NEAR(l.bits, 240 * 3 + 64 * static_cast<double>(levels) + ids, 1e-9) << "ids are counted";
  }
}

TEST(Dynamic, LevelsFollowTheWeightsWhereFrozenOnesDoNot) {
  const auto run = [](RefitOptions refit, std::vector<Refit>& log, bool& same) {
    Net net = make(8);
    compress::prune(net, {.density = 0.5});
    const Tensor mask = clone(net.fc1.weight.ref().mask());
    DynamicQuantizer quantizer(net, {.levels = 2, .range = {-8, 7}}, refit);
    int64_t fits = 0;
    for (int i = 1; i <= 10; ++i) {
      const NoGrad no_grad;
      for (const ParameterRef& p : net.parameters()) p.replace(p.raw().detach() * 1.1);
      fits += quantizer.step();
    }
    log = quantizer.log();
    EXPECT_EQ(fits, static_cast<int64_t>(log.size()));
    EXPECT_EQ(quantizer.t(), 10);
    same = equal(net.fc1.weight.ref().mask(), mask);
    return quantizer.report().layers[0].error;
  };
  std::vector<Refit> frozen, due, drifted;
  bool same = false;
  const double without = run({}, frozen, same), with = run({.every = 5}, due, same),
               by_drift = run({.drift = 0.25}, drifted, same);
  EXPECT_TRUE(same);
  EXPECT_TRUE(frozen.empty());
  EXPECT_LT(with, 0.2 * without);
  EXPECT_LT(by_drift, 0.2 * without);
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(due[0].step, 5);
  EXPECT_FALSE(due[0].by_drift);
  EXPECT_NEAR(due[0].drift, std::pow(1.1, 5) - 1, 1e-5);
  EXPECT_LT(due[0].error_after, due[0].error_before);
  ASSERT_EQ(drifted.size(), 3u) << "after 3, 6 and 9 steps: 1.1³ = 1.331";
  EXPECT_EQ(drifted[1].step, 6);
  EXPECT_TRUE(drifted[0].by_drift);
  Net net = make(8);
  expect_error<ValueError>([&] { dynamic(net, {.levels = 0}); }, "levels");
  expect_error<ValueError>([&] { DynamicQuantizer(net, {}, {.every = -1}); }, "every");
}

TEST(Dynamic, AShrunkParameterIsFittedAnew) {
  for (const LevelBy by : {LevelBy::magnitude, LevelBy::tensor, LevelBy::channel, LevelBy::kmeans}) {
    for (const RefitOptions refit : {RefitOptions{}, RefitOptions{.every = 5}, RefitOptions{.drift = 0.25}}) {
      Net net = make(13);
      DynamicQuantizer quantizer(net, {.by = by, .levels = 2, .range = {-8, 7}}, refit);
      EXPECT_FALSE(quantizer.step());
      net.fc1.weight.ref().shrink(0, {0, 2});
      EXPECT_TRUE(quantizer.step());
      EXPECT_EQ(quantizer.t(), 2);
      ASSERT_EQ(quantizer.log().size(), 1u);
      EXPECT_TRUE(quantizer.log()[0].reshaped);
      EXPECT_FALSE(quantizer.log()[0].by_drift);
      EXPECT_NE(quantizer.table().find("shape"), std::string::npos);
      Net alike = make(13);
      alike.fc1.weight.ref().shrink(0, {0, 2});
      dynamic(alike, {.by = by, .levels = 2, .range = {-8, 7}});
      EXPECT_EQ(values(net.fc1.weight), values(alike.fc1.weight)) << "as if it had never been longer";
      EXPECT_FALSE(quantizer.step()) << "once";
    }
  }
  // An error leaves the count of steps as it was.
  Net net = make(13);
  DynamicQuantizer quantizer(net, {.range = {-8, 7}}, {.every = 1});
  net.fc1.weight.ref().replace(full({20, 12}, NAN));
  expect_error<ValueError>([&] { quantizer.step(); }, "fc1.weight");
  EXPECT_EQ(quantizer.t(), 0);
}

TEST(Mixed, OutsideAIsKeptCoarseOrRounded) {
  for (const Outside outside : {Outside::keep_float, Outside::coarse, Outside::round_to_integer}) {
    Net net = make(9);
    const std::vector<double> w = raws(net.fc1.weight);
    const auto report = mixed(net, {.part = in_interval(-1, 1),
                                    .inside = {.range = {-8, 7}},
                                    .outside = outside,
                                    .coarse_step = 2,
                                    .only = {"fc1"}});
    double most = 0, least = 0;
    for (const double v : w)
      if (std::abs(v) <= 1) most = std::max(most, v), least = std::min(least, v);
    const double step = std::max(most / 7, least / -8);
    std::vector<double> want;
    for (const double v : w) {
      if (std::abs(v) <= 1)
        want.push_back(std::nearbyint(v / step) * step);
      else if (outside == Outside::keep_float)
        want.push_back(v);
      else if (outside == Outside::coarse)
        want.push_back(std::nearbyint(v * 2) / 2);
      else
        want.push_back(std::nearbyint(v));
    }
    expect_values(net.fc1.weight, want, "values");
    EXPECT_TRUE(report.warnings.empty()) << "nothing beyond 1 rounds to 0";
  }
}

TEST(Mixed, RoundingToIntegersWarnsOfWhatItZeroes) {
  manual_seed(10);
  Net net;  // fresh layers: all weights below 1/2
  const auto report = mixed(net, {.part = in_layers({"fc1"}), .outside = Outside::round_to_integer});
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_NE(report.warnings[0].find("fc2.weight"), std::string::npos);
  EXPECT_NE(report.warnings[0].find("80 of the 80"), std::string::npos);
  EXPECT_EQ(max(abs(net.fc2.weight.value())).item(), 0);
  EXPECT_GT(max(abs(net.fc1.weight.value())).item(), 0);
  EXPECT_NE(report.table().find("warning"), std::string::npos);
}

TEST(Mixed, PartsAreWhatTheySay) {
  Net net = make(11);
  const Tensor w = cast(net.fc1.weight.raw().detach(), f64);
  const Tensor all = full(w.shape(), 1, boolean);
  const auto count = [&](const Part& p) { return sum(p.holds("fc1.weight", w, all)).item<int64_t>(); };
  EXPECT_EQ(count(in_layers({"fc1"})), 240);
  EXPECT_EQ(count(in_layers({"fc"})), 0);
  EXPECT_EQ(count(!in_layers({"fc1.weight"})), 0);
  EXPECT_EQ(count(outliers(0.05)), 12);
  const Tensor out = outliers(0.05).holds("", w, all);
  EXPECT_GT(min(where(out, abs(w), full(w.shape(), 1e9, f64))).item(), max(where(out, zeros_like(w), abs(w))).item());
  const Tensor mask = lt(rand({20, 12}), 0.5);
  EXPECT_EQ(count(in_mask({{"fc1.weight", mask}})), sum(mask).item<int64_t>());
  EXPECT_EQ(count(in_mask({})), 0);
  // Outliers keep their floats, bit for bit, and cost 32 bits each.
  const QuantizedLayer l =
      mixed(net, {.part = !outliers(0.05), .inside = {.range = {-8, 7}}, .only = {"fc1"}}).layers[0];
  EXPECT_TRUE(equal(masked(net.fc1.weight.value().detach(), out), masked(net.fc1.weight.raw().detach(), out)));
  const double ids = -(12 * std::log2(12 / 240.0) + 228 * std::log2(228 / 240.0));
  EXPECT_NEAR(l.bits, 228 * 4 + 12 * 32 + 2 * 64 + ids, 1e-9);
  expect_error<ValueError>([&] { mixed(net, {}); }, "part");
  expect_error<ValueError>([&] { outliers(2); }, "share");
  expect_error<ValueError>(
      [&] {
        mixed(net, {.part = in_mask({{"fc1.weight", ones({2})}})});
      },
      {"in_mask", "fc1.weight"});
  EXPECT_EQ(count(in_mask({{"fc1", mask}})), sum(mask).item<int64_t>());
  for (const Part& misspelt :
       {in_layers({"fc2", "fc1.wieght"}), !in_layers({"fc1.wieght"}), in_mask({{"fc1.wieght", mask}})})
    expect_error<ValueError>(
        [&] {
          mixed(net, {.part = misspelt, .inside = {.range = {-8, 7}}, .only = {"fc2"}});
        },
        {"fc1.wieght", misspelt.name, "nearest", "fc2.weight"});
  for (const double bad : {0.0, 1e-320})
    expect_error<ValueError>([&] { mixed(net, {.part = in_layers({}), .coarse_step = bad}); }, "coarse_step");
}

TEST(Mixed, WhatAMaskHidesIsNoOutlier) {
  Net net = make(18);
  const std::vector<double> weights = {9, 1, -9, 5, 2, 9, -3, 0.5};
  Tensor w = zeros({4, 20}), mask = zeros({4, 20}, boolean);
  for (size_t i = 0; i < weights.size(); ++i) {
    w.data<float>()[i] = static_cast<float>(weights[i]);
    mask.data<bool>()[i] = std::abs(weights[i]) < 9;
  }
  net.fc2.weight.ref().replace(w);
  net.fc2.weight.ref().set_mask(mask);
  // Five are kept, of 80: a quarter is one, 5, which stays a float; the others are on a grid of step 3/2 or 2.
  const MixedOptions o{.part = !outliers(0.25), .inside = {.range = {-2, 1}}, .only = {"fc2"}};
  const QuantizedLayer l = mixed(net, o).layers[0];
  EXPECT_EQ(l.step, 2);
  const std::vector<double> want = {0, 0, 0, 5, 2, 0, -4, 0};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(values(net.fc2.weight)[i], want[i]) << i;
  EXPECT_EQ(l.kept, 5);
  // A part of one's own sees the mask too.
  Net again = make(18);
  again.fc2.weight.ref().set_mask(mask);
  mixed(again, {.part = {"kept",
                         [&](const std::string&, const Tensor& value, const Tensor& kept) {
                           EXPECT_TRUE(equal(kept, mask));
                           EXPECT_EQ(value.dtype(), f64);
                           return kept;
                         }},
                .only = {"fc2"}});
}

TEST(PlanBits, IsTheBestPlanWithinTheBudget) {
  struct Four : nn::Module {
    nn::Linear a{{.in = 3, .out = 7}}, b{{.in = 7, .out = 5}}, c{{.in = 5, .out = 11}}, d{{.in = 11, .out = 2}};
    HONE_MODULE(Four, a, b, c, d)
    Tensor forward(const Tensor& x) { return d(c(b(a(x)))); }
  };
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    manual_seed(seed);
    Four net;
    const TensorFile before = net.state_dict();
    // A score that depends on nothing but the widths: a random loss for each layer and width.
    const Tensor losses = rand({4, 3});
    const auto score = [&] {
      double s = 1;
      int64_t l = 0;
      for (const nn::Linear* f : {&net.a, &net.b, &net.c, &net.d}) {
        if (f->weight.ref().type() == WeightType::fake_quantized) {
          const double high = f->weight.ref().grid().points.to_vector<double>()[2];
          s -= losses.to_vector<double>()[static_cast<size_t>(l * 3 + (high == 1 ? 0 : high == 7 ? 1 : 2))];
        }
        ++l;
      }
      return s;
    };
    const BitPlan plan = plan_bits(net, score, {.bits = {8, 2, 32, 4}, .bits_per_weight = 7});
    const TensorFile after = net.state_dict();
    ASSERT_EQ(after.tensors.size(), before.tensors.size());
    for (size_t i = 0; i < after.tensors.size(); ++i)
      EXPECT_TRUE(equal(after.tensors[i].second, before.tensors[i].second));

    const double n[] = {21, 35, 55, 22};
    double best = INFINITY, cost = 0, loss = 0;
    for (int code = 0; code < 256; ++code) {
      double bits = 0, lost = 0;
      for (int l = 0, rest = code; l < 4; ++l, rest /= 4) {
        bits += n[l] * static_cast<double>(plan.choices[static_cast<size_t>(rest % 4)]);
        lost += plan.whole - plan.score[static_cast<size_t>(l)][static_cast<size_t>(rest % 4)];
      }
      if (bits <= 7 * 133.0) best = std::min(best, lost);
    }
    for (size_t l = 0; l < 4; ++l) {
      cost += n[l] * static_cast<double>(plan.bits[l]);
      const auto c = std::find(plan.choices.begin(), plan.choices.end(), plan.bits[l]) - plan.choices.begin();
      loss += plan.whole - plan.score[l][static_cast<size_t>(c)];
    }
    EXPECT_LE(cost, 7 * 133.0);
    EXPECT_NEAR(plan.bits_per_weight, cost / 133, 1e-12);
    EXPECT_NEAR(loss, best, 1e-12);
    const QuantizeReport report = apply(net, plan);
    for (const QuantizedLayer& l : report.layers) EXPECT_NE(plan.table().find(l.name), std::string::npos);
    EXPECT_EQ(report.layers.size(), 4u - static_cast<size_t>(std::count(plan.bits.begin(), plan.bits.end(), 32)));
  }
}

TEST(PlanBits, RefusesAndRestores) {
  Net net = make(12);
  const auto score = [] { return 1.0; };
  expect_error<ValueError>([&] { plan_bits(net, {}, {}); }, "score");
  expect_error<ValueError>([&] { plan_bits(net, score, {.bits = {}}); }, "no bits");
  expect_error<ValueError>([&] { plan_bits(net, score, {.bits = {1}}); }, "[2, 16]");
  expect_error<ValueError>([&] { plan_bits(net, score, {.bits = {4}, .bits_per_weight = 3}); }, "below");
  EXPECT_EQ(plan_bits(net, score, {.bits = {4}, .bits_per_weight = 4}).bits, (std::vector<int64_t>{4, 4}));
  int calls = 0;
  const auto failing = [&]() -> double {
    if (++calls == 2) throw ValueError("no accuracy today");
    return 1;
  };
  expect_error<ValueError>([&] { plan_bits(net, failing); }, "today");
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
}

TEST(PlanBits, AScoreThatIsNoNumberIsNamed) {
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    for (int at = 1; at <= 5; ++at) {
      Net net = make(14);
      int calls = 0;
      const auto score = [&] { return ++calls == at ? bad : 1.0; };
      const char* const where[] = {"nothing quantized", "'fc1.weight' at 2 bits", "'fc1.weight' at 8 bits",
                                   "'fc2.weight' at 2 bits", "'fc2.weight' at 8 bits"};
      expect_error<NumericError>(
          [&] {
            plan_bits(net, score, {.bits = {8, 2}, .bits_per_weight = 5});
          },
          {"plan_bits", where[at - 1], str(bad)});
      EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
      EXPECT_EQ(net.fc2.weight.ref().type(), WeightType::dense);
    }
  }
}

TEST(Uniform, RefusesWhatItCannotDoBeforeItChangesALayer) {
  Net net = make(21);
  Tensor(net.fc2.weight.raw()).requires_grad_(false).fill_(1.0);
  expect_error<ValueError>([&] { uniform(net, {.range = {-0x1p31, 0x1p31}, .shift = Shift::zero_point}); }, "2^31");
  expect_error<ValueError>([&] { uniform(net, {.global = true, .learned = true}); }, "global");
  for (const ParameterRef& p : net.parameters()) EXPECT_EQ(p.type(), WeightType::dense);
}

TEST(PlanBits, OfNoKeptWeightIsTheLeastWidth) {
  Net net = make(15);
  net.fc1.weight.ref().set_mask(zeros({20, 12}, boolean));
  net.fc2.weight.ref().set_mask(zeros({4, 20}, boolean));
  const BitPlan plan = plan_bits(net, [] { return 1.0; }, {.bits = {8, 4, 32}});
  EXPECT_EQ(plan.bits, (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(plan.bits_per_weight, 0);
}

TEST(PlanBits, GradientsAreAsTheyWereToo) {
  Net net = make(16);
  uniform(net, {.learned = true, .only = {"fc2"}});
  const Tensor x = randn({5, 12});
  sum(net(x)).backward();
  std::vector<ParameterRef> all = net.parameters();
  all.push_back(net.fc2.weight.ref().scale());
  std::vector<Tensor> before;
  for (const ParameterRef& p : all) before.push_back(clone(p.grad()));
  const ParameterRef scale = all.back();
  const auto score = [&] {
    sum(net(x)).backward();
    return 1.0;
  };
  plan_bits(net, score, {.bits = {4, 8}});
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(equal(all[i].grad(), before[i])) << i;
  EXPECT_EQ(net.fc2.weight.ref().scale(), scale);
}

TEST(PlanBits, APlanThatCannotBeAppliedChangesNothing) {
  Net net = make(17);
  const auto refused = [&](const BitPlan& plan, std::initializer_list<std::string> parts) {
    expect_error<ValueError>([&] { apply(net, plan); }, parts);
    EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
    EXPECT_EQ(net.fc2.weight.ref().type(), WeightType::dense);
  };
  for (const int64_t bad : {0, 1, 17, -4})
    refused({.layers = {"fc1.weight", "fc2.weight"}, .bits = {4, bad}}, {"fc2.weight", str(bad), "[2, 16]"});
  refused({.layers = {"fc1.weight", "fc2.weight"}, .bits = {4}}, {"2 layers"});
  refused({.layers = {"fc1", "fc1.bias"}, .bits = {4, 8}}, {"'fc1.weight'"});
  net.fc2.weight.ref().replace(full({4, 20}, NAN));
  refused({.layers = {"fc1.weight", "fc2.weight"}, .bits = {4, 8}}, {"fc2.weight", "nan"});
}

}  // namespace
}  // namespace hone::test
