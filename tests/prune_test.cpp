// Weight pruning: criteria against plain computations, exact counts, patterns, and errors that change nothing.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "support.h"

namespace hone::test {
namespace {

using compress::Criterion;
using compress::Reduce;

struct Mlp : nn::Module {
  nn::Linear fc1{{.in = 10, .out = 12}}, fc2{{.in = 12, .out = 4}};
  HONE_MODULE(Mlp, fc1, fc2)
  Tensor forward(const Tensor& x) { return fc2(tanh(fc1(x))); }
};

struct Fixture {
  struct Batch {
    Tensor inputs, targets;
  };
  Mlp net;
  std::vector<Batch> batches;
  compress::Losses losses, outputs;
  Fixture() {
    manual_seed(21);
    net = Mlp();
    net.to(f64);
    for (const int64_t n : {4, 7, 1}) batches.push_back({randn({n, 10}, f64), randint(0, 4, {n})});
    losses = compress::over(batches, [this](const Batch& b) { return cross_entropy(net(b.inputs), b.targets); });
    outputs = compress::over(batches, [this](const Batch& b) { return net(b.inputs); });
  }
  std::vector<ParameterRef> weights() { return {net.fc1.weight.ref(), net.fc2.weight.ref()}; }
  /// term(w, g) summed over the batches, weighted by their samples, over N; g of the loss or of ‖f‖²/n.
  template <class Term> std::vector<double> mean(size_t which, bool of_output, Term term) {
    std::vector<double> total;
    double samples = 0;
    for (const Batch& b : batches) {
      const auto n = static_cast<double>(b.inputs.size(0));
      net.zero_grad();
      (of_output ? sum(square(net(b.inputs))) / n : cross_entropy(net(b.inputs), b.targets)).backward();
      const std::vector<double> w = weights()[which].raw().to_vector<double>(),
                                g = weights()[which].grad().to_vector<double>();
      total.resize(w.size());
      for (size_t i = 0; i < w.size(); ++i) total[i] += n * term(w[i], g[i]);
      samples += n;
    }
    net.zero_grad();
    for (double& t : total) t /= samples;
    return total;
  }
  std::vector<double> score(const Criterion& c, size_t which, const compress::Losses& data = {}) {
    return compress::scores(c, weights(), data)[which].to_vector<double>();
  }
};

TEST(Criteria, WithoutDataMatchPlainLoops) {
  Fixture f;
  for (const size_t k : {0u, 1u}) {
    const std::vector<double> w = f.weights()[k].raw().to_vector<double>();
    std::vector<double> magnitude(w.size()), lamp(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      magnitude[i] = std::abs(w[i]);
      double larger = 0;
      for (const double v : w) larger += v * v >= w[i] * w[i] ? v * v : 0;
      lamp[i] = w[i] * w[i] / larger;
    }
    expect_close(f.score(compress::magnitude(), k), magnitude, {0, 0}, "magnitude");
    expect_close(f.score(compress::lamp(), k), lamp, {1e-12, 0}, "lamp");
    const std::vector<double> random = f.score(compress::random(), k);
    EXPECT_NE(random, f.score(compress::random(), k));
    for (const double r : random) EXPECT_TRUE(r >= 0 && r < 1);
  }
}

TEST(Criteria, HiddenWeightsAreScoredAmongThoseThatStay) {
  Fixture f;
  const ParameterRef w = f.weights()[0];
  const std::vector<double> raw = w.raw().to_vector<double>();
  std::vector<double> kept(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) kept[i] = i % 3 != 0;
  w.set_mask(cast(tensor(kept, w.raw().shape()), DType::boolean), MaskGradient::dense);
  std::vector<double> magnitude(raw.size()), lamp(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    magnitude[i] = std::abs(raw[i]);
    double larger = kept[i] != 0 ? 0 : raw[i] * raw[i];
    for (size_t k = 0; k < raw.size(); ++k)
      if (kept[k] != 0 && raw[k] * raw[k] >= raw[i] * raw[i]) larger += raw[k] * raw[k];
    lamp[i] = raw[i] * raw[i] / larger;
  }
  expect_close(f.score(compress::magnitude(), 0), magnitude, {0, 0}, "magnitude");
  expect_close(f.score(compress::lamp(), 0), lamp, {1e-12, 0}, "lamp");
}

TEST(Criteria, OfGradientsMatchPlainLoops) {
  Fixture f;
  const Tolerance t{1e-9, 1e-13};
  for (const size_t k : {0u, 1u}) {
    for (const bool output : {false, true}) {
      const auto of = output ? compress::GradientOf::output : compress::GradientOf::loss;
      const auto& data = output ? f.outputs : f.losses;
      auto mean = f.mean(k, output, [](double, double g) { return g; });
      for (double& v : mean) v = std::abs(v);
      expect_close(f.score(compress::gradient({Reduce::abs_of_mean, of}), k, data), mean, t, "abs_of_mean");
      expect_close(f.score(compress::gradient({Reduce::mean_of_abs, of}), k, data),
                   f.mean(k, output, [](double, double g) { return std::abs(g); }), t, "mean_of_abs");
      expect_close(f.score(compress::gradient({Reduce::mean_of_square, of}), k, data),
                   f.mean(k, output, [](double, double g) { return g * g; }), t, "mean_of_square");
    }
    expect_close(f.score(compress::taylor(), k, f.losses),
                 f.mean(k, false, [](double w, double g) { return std::abs(w * g); }), t, "taylor");
    expect_close(f.score(compress::movement(), k, f.losses),
                 f.mean(k, false, [](double w, double g) { return -w * g; }), t, "movement");
  }
  std::vector<double> a = f.mean(0, false, [](double w, double g) { return w * g; }),
                      b = f.mean(1, false, [](double w, double g) { return w * g; });
  double total = 0;
  for (auto* list : {&a, &b})
    for (double& v : *list) total += v = std::abs(v);
  for (auto* list : {&a, &b})
    for (double& v : *list) v /= total;
  expect_close(f.score(compress::snip(), 0, f.losses), a, t, "snip");
  expect_close(f.score(compress::snip(), 1, f.losses), b, t, "snip");
}

TEST(Criteria, HutchinsonIsExactWithAProbeAWeight) {
  manual_seed(3);
  struct Small : nn::Module {
    nn::Linear a{{.in = 15, .out = 10}}, b{{.in = 10, .out = 4}};  // 204 weights with the biases
    HONE_MODULE(Small, a, b)
    Tensor forward(const Tensor& x) { return b(tanh(a(x))); }
  } net;
  net.to(f64);
  ASSERT_EQ(net.parameter_count(), 204);
  const Tensor x = randn({6, 15}, f64), y = randint(0, 4, {6});
  const auto loss = [&] { return cross_entropy(net(x), y); };
  const compress::Losses data = [&](const compress::Visit& visit) { visit(loss(), 6); };
  const auto parameters = net.parameters();
  const auto exact = compress::scores(compress::hessian({.probes = 256}), parameters, data);
  const auto rough = compress::scores(compress::hessian({.probes = 64}), parameters, data);
  double error = 0, size = 0;
  for (size_t p = 0; p < parameters.size(); ++p) {
    Tensor raw = parameters[p].raw().detach();
    double* w = raw.data<double>();
    const std::vector<double> got = exact[p].to_vector<double>(), near = rough[p].to_vector<double>();
    for (int64_t i = 0; i < raw.numel(); ++i) {
      // ∂²l/∂w²: central differences of the exact gradient.
      const double w0 = w[i], h = 1e-4;
      double g[2];
      for (const int side : {0, 1}) {
        w[i] = w0 + (side ? h : -h);
        raw.bump_version();
        net.zero_grad();
        loss().backward();
        g[side] = parameters[p].grad().to_vector<double>()[static_cast<size_t>(i)];
      }
      w[i] = w0;
      raw.bump_version();
      const double want = 0.5 * (g[1] - g[0]) / (2 * h) * w0 * w0;
      ASSERT_NEAR(got[static_cast<size_t>(i)], want, 1e-9 + 1e-6 * std::abs(want)) << p << " " << i;
      error += std::pow(near[static_cast<size_t>(i)] - want, 2), size += want * want;
    }
  }
  EXPECT_GT(error, 0) << "64 probes cannot be exact";
  EXPECT_LT(error, size);
}

int64_t kept(const ParameterRef& p) { return sum(p.mask()).item<int64_t>(); }

TEST(Prune, KeepsExactlyTheBestOverAllLayers) {
  Fixture f;
  std::vector<std::pair<double, size_t>> order;  // −|w| and place, over both matrices
  for (const ParameterRef& p : f.weights())
    for (const double w : p.raw().to_vector<double>()) order.emplace_back(-std::abs(w), order.size());
  std::sort(order.begin(), order.end());
  for (const double density : {0.0, 0.01, 0.37, 0.5, 1.0}) {
    Mlp net = f.net;
    const auto report = compress::prune(net, {.density = density});
    const auto count = static_cast<size_t>(std::llround(density * 168));
    EXPECT_EQ(report.kept(), static_cast<int64_t>(count));
    EXPECT_EQ(report.total(), 168);
    std::vector<bool> want(168);
    for (size_t i = 0; i < count; ++i) want[order[i].second] = true;
    std::vector<bool> got = net.fc1.weight.ref().mask().to_vector<bool>();
    const auto more = net.fc2.weight.ref().mask().to_vector<bool>();
    got.insert(got.end(), more.begin(), more.end());
    EXPECT_EQ(got, want) << density;
    EXPECT_EQ(net.fc1.bias.ref().type(), WeightType::dense);
  }
}

TEST(Prune, TiesGoToTheEarlierWeightAndMaskedOnesStayMasked) {
  Mlp net;
  Tensor(net.fc1.weight.raw().detach()).fill_(0.5);
  compress::prune(net, {.density = 0.25, .only = {"fc1"}});
  const auto mask = net.fc1.weight.ref().mask().to_vector<bool>();
  for (size_t i = 0; i < mask.size(); ++i) EXPECT_EQ(mask[i], i < 30) << i;
  // Nothing comes back, whatever its value, and a higher density changes nothing.
  Tensor raw = net.fc1.weight.raw().detach();
  raw.data<float>()[100] = 9;
  compress::prune(net, {.density = 0.5, .only = {"fc1"}});
  EXPECT_EQ(kept(net.fc1.weight.ref()), 30);
  compress::prune(net, {.density = 0.1, .only = {"fc1.weight"}});
  EXPECT_EQ(kept(net.fc1.weight.ref()), 12);
  EXPECT_EQ(net.fc2.weight.ref().type(), WeightType::dense);
}

TEST(Prune, ScopesAndDensitiesOfLayers) {
  Fixture f;
  Mlp net = f.net;
  compress::prune(net, {.density = 0.25, .scope = compress::PruneScope::per_layer});
  EXPECT_EQ(kept(net.fc1.weight.ref()), 30);
  EXPECT_EQ(kept(net.fc2.weight.ref()), 12);
  net = f.net;
  const auto report = compress::prune(net, {.density = 0.25, .scope = compress::PruneScope::erdos_renyi});
  // (12 + 10)/120 and (4 + 12)/48 of a common factor that makes 42.
  const double e = 42.0 / (22 + 16);
  EXPECT_EQ(kept(net.fc1.weight.ref()), std::llround(e * 22));
  EXPECT_EQ(kept(net.fc2.weight.ref()), std::llround(e * 16));
  EXPECT_NEAR(static_cast<double>(report.kept()), 42, 1);
  net = f.net;
  compress::prune(net, {.densities = {{"fc2", 0.5}}});
  EXPECT_EQ(net.fc1.weight.ref().type(), WeightType::dense);
  EXPECT_EQ(kept(net.fc2.weight.ref()), 24);
  net = f.net;
  compress::prune(net, {.density = 0.5, .except = {"fc2"}, .biases = true});
  EXPECT_EQ(kept(net.fc1.weight.ref()) + kept(net.fc1.bias.ref()), 66);
  EXPECT_EQ(net.fc2.bias.ref().type(), WeightType::dense);
}

TEST(Prune, PatternsKeepTheBestOfEachGroup) {
  Fixture f;
  Mlp net = f.net;
  const std::vector<double> w = net.fc1.weight.raw().to_vector<double>();
  compress::prune(net, {.pattern = compress::n_m(2, 4)});
  const auto mask = net.fc1.weight.ref().mask().to_vector<bool>();
  for (size_t row = 0; row < 12; ++row)
    for (size_t from = 0; from < 10; from += 4) {
      const size_t size = std::min<size_t>(4, 10 - from);
      std::vector<size_t> order(size);
      std::iota(order.begin(), order.end(), row * 10 + from);
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::abs(w[a]) > std::abs(w[b]); });
      for (size_t i = 0; i < size; ++i) EXPECT_EQ(mask[order[i]], i < 2) << row << " " << from;
    }
  net = f.net;
  compress::prune(net, {.density = 0.5, .pattern = compress::block(4, 3), .only = {"fc1"}});
  const auto blocks = net.fc1.weight.ref().mask().to_vector<bool>();
  std::map<std::pair<size_t, size_t>, std::set<bool>> seen;
  for (size_t i = 0; i < 120; ++i) seen[{i / 10 / 4, i % 10 / 3}].insert(blocks[i]);
  int64_t whole = 0;
  for (const auto& [at, values] : seen) {
    EXPECT_EQ(values.size(), 1u) << "a block is kept or goes as one";
    whole += *values.begin();
  }
  EXPECT_EQ(whole, 6) << "of 12 blocks, those at the edge among them";
  net = f.net;
  compress::prune(net, {.density = 0.5, .pattern = compress::block(INT64_MAX, 1), .only = {"fc1"}});
  EXPECT_EQ(kept(net.fc1.weight.ref()), 5 * 12) << "whole columns";
}

TEST(Threshold, IsTheSurveysProgram) {
  Mlp net;
  Tensor raw = net.fc1.weight.raw().detach(), bias = net.fc1.bias.raw().detach();
  raw.data<float>()[3] = 9.9e-4f;
  raw.data<float>()[4] = -1.1e-3f;
  raw.data<float>()[7] = std::nanf("");
  bias.fill_(1e-4);
  const auto report = compress::threshold(net);
  const auto mask = net.fc1.weight.ref().mask().to_vector<bool>();
  const auto w = raw.to_vector<double>();
  for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(mask[i], !(std::abs(w[i]) < 1e-3)) << i;
  EXPECT_EQ(kept(net.fc1.bias.ref()), 0);
  EXPECT_LT(report.density(), 1);
  Mlp other;
  compress::threshold(other, {.below = 10, .biases = false, .only = {"fc2"}});
  EXPECT_EQ(kept(other.fc2.weight.ref()), 0);
  EXPECT_EQ(other.fc2.bias.ref().type(), WeightType::dense);
}

TEST(Prune, ErrorsNameWhatIsWrongAndChangeNothing) {
  Fixture f;
  const auto refused = [&](compress::PruneOptions o, std::initializer_list<std::string> parts,
                           const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    expect_error<ValueError>([&] { compress::prune(f.net, o); }, parts, file, line);
    for (const ParameterRef& p : f.net.parameters()) EXPECT_EQ(p.type(), WeightType::dense);
  };
  refused({.density = 1.5}, {"density", "[0, 1]", "1.5"});
  refused({.density = -0.1}, {"density"});
  refused({.density = std::nan("")}, {"density"});
  refused({}, {"no density"});
  refused({.density = 0.5, .only = {"fc3"}}, {"'fc3'", "nearest", "'fc1'"});
  refused({.density = 0.5, .except = {"fc1.wieght"}}, {"'fc1.wieght'", "'fc1.weight'"});
  refused({.density = 0.5, .except = {"fc1", "fc2"}}, {"no parameter"});
  refused({.densities = {{"fc2", 2}}}, {"fc2", "[0, 1]"});
  refused({.density = 0.5, .only = {"fc1"}, .densities = {{"fc2", 0.5}}}, {"'fc2'"});
  refused({.density = 0.5, .pattern = compress::n_m(2, 4)}, {"N:M"});
  using compress::Pattern;
  refused({.pattern = {Pattern::Kind::n_m, 5, 4}}, {"prune", "1 <= n <= m", "5", "4"});
  refused({.pattern = {Pattern::Kind::n_m, 0, 4}}, {"1 <= n <= m", "0"});
  refused({.density = 0.5, .pattern = {Pattern::Kind::block, 0, 0}}, {"prune", "at least 1", "0"});
  refused({.density = 0.5, .pattern = {Pattern::Kind::block, 2, -1}}, {"at least 1", "-1"});
  refused({.criterion = compress::taylor(), .density = 0.5}, {"taylor", ".losses"});
  refused({.criterion = compress::taylor(), .density = 0.5, .losses = f.outputs}, {"taylor", "one number"});
  refused({.criterion = compress::taylor(), .density = 0.5, .losses = [](const compress::Visit&) {}}, {"no batch"});
  refused({.criterion = Criterion{.name = "none"}, .density = 0.5}, {"'none'", "function"});
  refused({.density = 0.5, .schedule = compress::CubicRamp{.end = 3}}, {"CubicRamp", "Pruner"});
  expect_error<ValueError>([] { compress::n_m(3, 2); }, {"1 <= n <= m"});
  expect_error<ValueError>([] { compress::block(0, 2); }, {"at least 1"});
  expect_error<ValueError>([] { compress::hessian({.probes = 0}); }, {"probes"});
  expect_error<ValueError>([&] { compress::threshold(f.net, {.below = -1}); }, {"below"});
  Tensor(f.net.fc1.weight.raw().detach()).data<double>()[5] = std::nan("");
  expect_error<NumericError>([&] { compress::prune(f.net, {.density = 0.5}); },
                             {"magnitude", "element 5", "'fc1.weight'", "NaN"});
  EXPECT_EQ(f.net.fc2.weight.ref().type(), WeightType::dense);
  f.net.fc2.requires_grad_(false);
  expect_error<ValueError>(
      [&] { compress::prune(f.net, {.criterion = compress::taylor(), .density = 0.5, .losses = f.losses}); },
      {"'fc2.weight'", "frozen"});
}

TEST(Prune, ScoresThatAreNotFiniteAreRefusedByName) {
  Fixture f;
  // A loss that is linear in the weights, so that its gradient is `factor`.
  const auto refused = [&](compress::PruneOptions o, const Tensor& factor, std::initializer_list<std::string> parts,
                           const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    o.density = 0.5;
    o.losses = [&](const compress::Visit& visit) {
      visit(sum(f.net.fc1.weight.value()) * 1e308 + sum(f.net.fc2.weight.value() * factor), 1);
    };
    expect_error<NumericError>([&] { compress::prune(f.net, o); }, parts, file, line);
    for (const ParameterRef& p : f.net.parameters()) EXPECT_EQ(p.type(), WeightType::dense);
  };
  Tensor overflowed = ones({4, 12}, f64);
  overflowed.data<double>()[7] = HUGE_VAL;
  refused({.criterion = compress::snip(), .only = {"fc2"}}, overflowed,
          {"snip", "element 7", "'fc2.weight'", "infinite"});
  refused({.criterion = compress::movement(), .only = {"fc2"}}, overflowed, {"element 7", "'fc2.weight'", "infinite"});
  // Each is finite, and what is made of them is not.
  refused({.criterion = compress::snip()}, ones({4, 12}, f64), {"snip", "sum", "'fc1.weight'"});
  const Criterion huge{.name = "huge",
                       .finish = [](const ParameterRef& p, const Tensor&) { return full(p.shape(), 1e308, f64); }};
  refused({.criterion = huge, .pattern = compress::block(4, 3), .only = {"fc2"}}, ones({4, 12}, f64),
          {"huge", "block 0", "'fc2.weight'"});
}

TEST(Criteria, OfACodebookAreRefused) {
  Fixture f;
  compress::quantize::share_weights(f.net, {.clusters = 4});
  for (const Criterion& c : {compress::magnitude(), compress::taylor(), compress::hessian()})
    expect_error<ShapeError>([&] { compress::scores(c, f.weights(), f.losses); }, {"[12, 10]"});
}

TEST(Sensitivity, PrunesOneLayerAtATimeAndPutsItBack) {
  Fixture f;
  const TensorFile before = f.net.state_dict();
  int calls = 0;
  const auto s = compress::sensitivity(f.net, [&] { return ++calls, compress::prune_report(f.net).density(); },
                                       {.densities = {0.5, 0.0}});
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(s.layers, (std::vector<std::string>{"fc1.weight", "fc2.weight"}));
  EXPECT_EQ(s.whole, 1);
  EXPECT_NEAR(s.score[0][0], (184.0 - 60) / 184, 1e-12);
  EXPECT_NEAR(s.score[1][1], (184.0 - 48) / 184, 1e-12);
  EXPECT_NE(s.table().find("fc2.weight"), std::string::npos);
  const TensorFile now = f.net.state_dict();
  ASSERT_EQ(now.tensors.size(), before.tensors.size()) << "no mask is left";
  for (size_t i = 0; i < now.tensors.size(); ++i) EXPECT_TRUE(equal(now.tensors[i].second, before.tensors[i].second));
  expect_error<ValueError>([&] { compress::sensitivity(f.net, [] { return 0.0; }, {.densities = {1.2}}); }, {"1.2"});
  EXPECT_THROW(compress::sensitivity(f.net, []() -> double { throw IoError("no"); }), IoError);
  EXPECT_EQ(f.net.fc1.weight.ref().type(), WeightType::dense);
}

TEST(Sensitivity, PutsBackWhatScoringChanged) {
  Fixture f;
  const ParameterRef w = f.net.fc1.weight.ref();
  w.set_mask(gt(rand(w.shape()), 0.5), MaskGradient::dense);
  const Tensor mask = clone(w.mask()), raw = clone(w.raw().detach());
  // The score of a network that trains on a little.
  const auto s = compress::sensitivity(f.net,
                                       [&] {
                                         const compress::Pruner pruner(f.net, {.density = 0.1});
                                         Tensor(w.raw().detach()).fill_(1);
                                         return compress::prune_report(f.net).density();
                                       },
                                       {.densities = {0.5}});
  EXPECT_EQ(s.score.size(), 2u);
  EXPECT_TRUE(equal(w.raw(), raw));
  EXPECT_TRUE(equal(w.mask(), mask));
  EXPECT_EQ(w.mask_gradient(), MaskGradient::dense);
  EXPECT_EQ(f.net.fc2.weight.ref().type(), WeightType::dense);
  // What cannot be put back is an error like any other.
  expect_error<FormatError>(
      [&] {
        compress::sensitivity(f.net, [&] {
          compress::quantize::share_weights(f.net, {.clusters = 4});
          return 0.0;
        });
      },
      {"Snapshot.restore"});
}

}  // namespace
}  // namespace hone::test
