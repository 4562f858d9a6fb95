// Clipping and what else is done to gradients: against PyTorch's results and the papers' formulas.

#include <fstream>

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace regularizer_test;
using Refs = std::vector<ParameterRef>;

// The problem of golden/generate_clip.py.
std::vector<Parameter> golden_problem(double scale) {
  std::vector<Parameter> p;
  p.emplace_back(zeros({3, 4}, f64));
  p.emplace_back(zeros({5}, f64));
  std::vector<double> g;
  for (int i = 0; i < 17; ++i) g.push_back(scale * std::sin(3.0 * i + 1));
  p[0].raw().set_grad(tensor(std::vector<double>(g.begin(), g.begin() + 12), {3, 4}));
  p[1].raw().set_grad(tensor(std::vector<double>(g.begin() + 12, g.end())));
  return p;
}
std::vector<double> gradients(const std::vector<Parameter>& p) {
  std::vector<double> v;
  for (const Parameter& one : p)
    for (double x : values(one.grad())) v.push_back(x);
  return v;
}

TEST(Clip, EqualsPyTorch) {
  std::ifstream file(HONE_GOLDEN_DIR "/clip.txt");
  ASSERT_TRUE(file) << HONE_GOLDEN_DIR;
  std::string line, word;
  std::getline(file, line);
  int cases = 0;
  while (file >> word) {
    double scale = 0, limit = 0;
    std::string p, total;
    file >> scale >> limit;
    std::vector<Parameter> problem = golden_problem(scale);
    if (word == "norm") {
      file >> p >> total;
      EXPECT_NEAR(optim::grad_norm(refs(problem), {.p = std::stod(p)}), std::stod(total),
                  1e-12 * (1 + std::stod(total)));
      EXPECT_EQ(gradients(problem), gradients(golden_problem(scale)));
      EXPECT_NEAR(optim::clip_grad_norm(refs(problem), limit, {.p = std::stod(p)}), std::stod(total),
                  1e-13 * std::stod(total))
          << cases;
    } else {
      ASSERT_EQ(word, "value");
      optim::clip_grad_value(refs(problem), limit);
    }
    for (double got : gradients(problem)) {
      double want = 0;
      ASSERT_TRUE(file >> want);
      EXPECT_NEAR(got, want, 1e-13 * std::abs(want)) << "case " << cases;
    }
    ++cases;
  }
  EXPECT_EQ(cases, 9);
}

TEST(Clip, PassesOverParametersWithoutAGradient) {
  const Parameter a(zeros({2}, f64)), b(zeros({2}, f64));
  EXPECT_EQ(optim::clip_grad_norm({a, b}, 1), 0);
  b.raw().set_grad(tensor({3.0, 4.0}));
  EXPECT_EQ(optim::clip_grad_norm({a, b}, 1), 5);
  EXPECT_FALSE(a.grad().defined());
  EXPECT_NEAR(values(b.grad())[1], 4 / (5 + 1e-6), 1e-15);
}

// Backward of sum() may leave a broadcast view, and transposes a strided one: each element must be scaled once.
TEST(Clip, StridedAndBroadcastGradients) {
  const Parameter a(zeros({2, 3}, f64)), b(zeros({3, 2}, f64));
  a.raw().set_grad(expand(tensor({3.0}), {2, 3}));
  const Tensor base = wave({2, 3}, 0.3);
  b.raw().set_grad(transpose(base));
  double squares = 6 * 9;
  for (double v : values(base)) squares += v * v;
  const double norm = optim::clip_grad_norm({a, b}, 1), factor = 1 / (std::sqrt(squares) + 1e-6);
  EXPECT_NEAR(norm, std::sqrt(squares), 1e-14);
  for (double v : values(a.grad())) EXPECT_NEAR(v, 3 * factor, 1e-15);
  EXPECT_NEAR(values(b.grad())[1], values(base)[3] * factor, 1e-15);
}

TEST(Clip, NormsBeyondTheRangeOfSquares) {
  const Parameter p(zeros({2}, f64));
  p.raw().set_grad(tensor({3e200, 4e200}));
  EXPECT_NEAR(optim::clip_grad_norm({p}, 1) / 5e200, 1, 1e-14);
  EXPECT_NEAR(values(p.grad())[0], 0.6, 1e-14);
  p.raw().set_grad(tensor({3e-200, -4e-200}));
  EXPECT_NEAR(optim::grad_norm({p}) / 5e-200, 1, 1e-14);
  EXPECT_NEAR(optim::grad_norm({p}, {.p = 1}) / 7e-200, 1, 1e-14);
  EXPECT_EQ(optim::grad_norm({p}, {.p = kInf}), 4e-200);
}

TEST(Clip, NonFiniteGradientsAreNamedOrLeft) {
  for (double bad : {kNaN, kInf, -kInf})
    for (double p : {2.0, 1.0, kInf}) {
      const Parameter a(zeros({2}, f64)), b(zeros({1, 3}, f64));
      a.raw().set_grad(tensor({3.0, 4.0}));
      b.raw().set_grad(tensor({1.0, bad, 1.0}, {1, 3}));
      expect_error<NumericError>(
          [&] {
            optim::clip_grad_norm({a, b}, 1, {.p = p});
          },
          std::string("clip_grad_norm: the gradient of parameter 1 (shape [1, 3]) holds ") +
              (std::isnan(bad) ? "NaN" : "infinity"));
      EXPECT_EQ(values(a.grad())[0], 3);
      const double norm = optim::clip_grad_norm({a, b}, 1, {.p = p, .error_if_non_finite = false});
      EXPECT_TRUE(std::isnan(bad) ? std::isnan(norm) : norm == kInf) << norm;
      EXPECT_EQ(values(a.grad())[0], 3);
      EXPECT_EQ(values(b.grad())[0], 1);
    }
}

TEST(Clip, ValueLimitsInfinitiesAndKeepsNaN) {
  for (DType dtype : {f64, f32, bf16}) {
    const Parameter p(zeros({5}, dtype));
    p.raw().set_grad(cast(tensor({kInf, -kInf, kNaN, 0.25, -0.75}), dtype));
    optim::clip_grad_value({p}, 0.5);
    const auto v = values(p.grad());
    EXPECT_EQ(v[0], 0.5);
    EXPECT_EQ(v[1], -0.5);
    EXPECT_TRUE(std::isnan(v[2]));
    EXPECT_EQ(v[3], 0.25);
    EXPECT_EQ(v[4], -0.5);
  }
}

TEST(Clip, AdaptiveIsTheFormulaUnitByUnit) {
  std::vector<Parameter> p = some_parameters();
  p.emplace_back(zeros({2, 2}, f64));  // zero weights: eps keeps them moving
  std::vector<std::vector<double>> before;
  for (size_t i = 0; i < p.size(); ++i) {
    p[i].raw().set_grad(wave(p[i].shape(), 2.0 + static_cast<double>(i)) * (i == 2 ? 0.01 : 5.0));
    before.push_back(values(p[i].grad()));
  }
  const double clip = 0.05, eps = 0.5;
  optim::clip_grad_adaptive(refs(p), {.clip = clip, .eps = eps});
  int clipped = 0, kept = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const auto w = values(p[i].raw()), g = values(p[i].grad());
    const size_t units = p[i].raw().ndim() < 2 ? 1 : static_cast<size_t>(p[i].shape()[0]), n = w.size() / units;
    for (size_t u = 0; u < units; ++u) {
      double ww = 0, gg = 0;
      for (size_t k = u * n; k < (u + 1) * n; ++k) {
        ww += w[k] * w[k];
        gg += before[i][k] * before[i][k];
      }
      const double most = clip * std::max(std::sqrt(ww), eps), norm = std::sqrt(gg);
      (norm > most ? clipped : kept) += 1;
      for (size_t k = u * n; k < (u + 1) * n; ++k)
        EXPECT_NEAR(g[k], norm > most ? before[i][k] * most / norm : before[i][k], 1e-14) << i << ' ' << k;
    }
  }
  EXPECT_GT(clipped, 3);
  EXPECT_GT(kept, 3);
}

TEST(GradientNoise, HasItsVarianceAndComesFromTheGenerator) {
  const int64_t n = 200000;
  const auto noise = [&](int64_t step) {
    manual_seed(5);
    const Parameter p(zeros({n}, f64));
    p.raw().set_grad(full({n}, 2, f64));
    optim::add_gradient_noise({p}, step, {.eta = 0.3, .gamma = 0.55});
    return p.grad();
  };
  for (int64_t step : {0, 99}) {
    const auto v = values(noise(step));
    double mean = 0, squares = 0;
    for (double x : v) mean += x / static_cast<double>(n);
    for (double x : v) squares += (x - mean) * (x - mean) / static_cast<double>(n);
    const double variance = 0.3 / std::pow(1.0 + static_cast<double>(step), 0.55);
    EXPECT_NEAR(mean, 2, 5 * std::sqrt(variance / static_cast<double>(n)));
    EXPECT_NEAR(squares / variance, 1, 5 * std::sqrt(2.0 / static_cast<double>(n)));
  }
  EXPECT_TRUE(equal(noise(3), noise(3)));
  const Parameter a(zeros({4}, f64)), b(zeros({4}, f64));
  a.raw().set_grad(zeros({4}, f64));
  b.raw().set_grad(zeros({4}, f64));
  optim::add_gradient_noise({a, b}, 0);
  EXPECT_FALSE(equal(a.grad(), b.grad()));  // each its own noise
}

TEST(GradientCentralization, TakesTheMeanOfEachFilterAway) {
  std::vector<Parameter> p = some_parameters();
  for (size_t i = 0; i < p.size(); ++i) p[i].raw().set_grad(wave(p[i].shape(), 0.7 + static_cast<double>(i)));
  const auto bias = values(p[1].grad());
  std::vector<std::vector<double>> before = {values(p[0].grad()), values(p[2].grad())};
  optim::centralize_gradients(refs(p));
  EXPECT_EQ(values(p[1].grad()), bias);
  for (size_t k : {0, 1}) {
    const Parameter& one = p[k * 2];
    const auto g = values(one.grad());
    const size_t rows = static_cast<size_t>(one.shape()[0]), n = g.size() / rows;
    for (size_t r = 0; r < rows; ++r) {
      double mean = 0;
      for (size_t i = r * n; i < (r + 1) * n; ++i) mean += before[k][i] / static_cast<double>(n);
      for (size_t i = r * n; i < (r + 1) * n; ++i) EXPECT_NEAR(g[i], before[k][i] - mean, 1e-14);
    }
  }
}

TEST(Clip, SameBitsAtAnyThreadCount) {
  Tensor results[2];
  double norms[2];
  const int threads = num_threads();
  for (int k : {0, 1}) {
    set_num_threads(k == 0 ? 1 : 4);
    manual_seed(3);
    const Parameter p(randn({70, 2003}));
    p.raw().set_grad(randn({70, 2003}) * 10.0);
    optim::centralize_gradients({p});
    optim::add_gradient_noise({p}, 4);
    norms[k] = optim::clip_grad_norm({p}, 100, {.p = 3});
    optim::clip_grad_adaptive({p});
    results[k] = p.grad();
  }
  set_num_threads(threads);
  EXPECT_EQ(norms[0], norms[1]);
  EXPECT_TRUE(equal(results[0], results[1]));
}

TEST(Clip, RefusesBadArguments) {
  const Refs p = {Parameter(zeros({2}, f64))};
  expect_list_errors("clip_grad_norm", [](const Refs& r) { optim::clip_grad_norm(r, 1); });
  expect_list_errors("grad_norm", [](const Refs& r) { optim::grad_norm(r); });
  expect_list_errors("clip_grad_value", [](const Refs& r) { optim::clip_grad_value(r, 1); });
  expect_list_errors("clip_grad_adaptive", [](const Refs& r) { optim::clip_grad_adaptive(r); });
  expect_list_errors("add_gradient_noise", [](const Refs& r) { optim::add_gradient_noise(r, 0); });
  expect_list_errors("centralize_gradients", [](const Refs& r) { optim::centralize_gradients(r); });
  for (double bad : {0.0, -1.0, kNaN, kInf}) {
    const std::string rule = " must be finite and above 0, got ";
    expect_error<ValueError>([&] { optim::clip_grad_norm(p, bad); }, "clip_grad_norm: max" + rule);
    expect_error<ValueError>([&] { optim::clip_grad_value(p, bad); }, "clip_grad_value: limit" + rule);
    expect_error<ValueError>([&] { optim::clip_grad_adaptive(p, {.clip = bad}); }, "clip_grad_adaptive: clip" + rule);
    expect_error<ValueError>([&] { optim::clip_grad_adaptive(p, {.eps = bad}); }, "clip_grad_adaptive: eps" + rule);
  }
  for (double bad : {0.0, -2.0, kNaN})
    expect_error<ValueError>([&] { optim::clip_grad_norm(p, 1, {.p = bad}); }, "p must be above 0 or infinity");
  expect_error<ValueError>([&] { optim::add_gradient_noise(p, -1); }, "step must be at least 0, got -1");
  expect_error<ValueError>([&] { optim::add_gradient_noise(p, 0, {.eta = -1}); }, "add_gradient_noise: eta");
  expect_error<ValueError>([&] { optim::add_gradient_noise(p, 0, {.gamma = kNaN}); }, "add_gradient_noise: gamma");
}

}  // namespace
}  // namespace hone
