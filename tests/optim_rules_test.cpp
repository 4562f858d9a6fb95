// Each optimizer against PyTorch's traces, or against its paper's formula written again as plain loops in f64.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "optim_support.h"
#include "simd_targets.h"

namespace hone {
namespace {

using namespace optim;
using namespace optim_test;
constexpr double kInf = std::numeric_limits<double>::infinity();

// ---- PyTorch's traces

const std::map<std::string, Make>& makers() {
  static const std::map<std::string, Make> table = {
      {"adam_amsgrad", make<Adam>(AdamOptions{.lr = 0.03, .beta1 = 0.8, .beta2 = 0.9, .amsgrad = true})},
      {"adamw_amsgrad",
       make<AdamW>(AdamWOptions{.lr = 0.02, .beta2 = 0.95, .weight_decay = 0.1, .amsgrad = true, .maximize = true})},
      {"adagrad", make<Adagrad>(AdagradOptions{})},
      {"adagrad_decay", make<Adagrad>(AdagradOptions{.lr = 0.1, .lr_decay = 0.05, .weight_decay = 0.1})},
      {"adagrad_start",
       make<Adagrad>(AdagradOptions{.lr = 0.2, .initial_accumulator = 0.5, .eps = 1e-3, .maximize = true})},
      {"adadelta", make<Adadelta>(AdadeltaOptions{})},
      {"adadelta_rho", make<Adadelta>(AdadeltaOptions{.lr = 0.5, .rho = 0.7, .eps = 1e-3, .weight_decay = 0.05})},
      {"adadelta_maximize", make<Adadelta>(AdadeltaOptions{.lr = 2, .rho = 0.95, .maximize = true})},
      {"rmsprop", make<RMSprop>(RMSpropOptions{})},
      {"rmsprop_momentum",
       make<RMSprop>(RMSpropOptions{.lr = 0.005, .beta = 0.9, .weight_decay = 0.1, .momentum = 0.8})},
      {"rmsprop_centered",
       make<RMSprop>(RMSpropOptions{.lr = 0.02, .beta = 0.8, .eps = 1e-2, .centered = true, .maximize = true})},
      {"rmsprop_both", make<RMSprop>(RMSpropOptions{.beta = 0.95, .momentum = 0.5, .centered = true})},
      {"adamax", make<Adamax>(AdamaxOptions{.lr = 0.01})},
      {"adamax_decay",
       make<Adamax>(AdamaxOptions{.lr = 0.05, .beta1 = 0.7, .beta2 = 0.9, .eps = 1e-2, .weight_decay = 0.1})},
      {"adamax_maximize", make<Adamax>(AdamaxOptions{.maximize = true})},
      {"nadam", make<NAdam>(NAdamOptions{})},
      {"nadam_decay",
       make<NAdam>(NAdamOptions{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1, .momentum_decay = 0.1})},
      {"nadam_decoupled",
       make<NAdam>(
           NAdamOptions{.lr = 0.01, .eps = 1e-3, .weight_decay = 0.2, .decoupled_decay = true, .maximize = true})},
      {"radam", make<RAdam>(RAdamOptions{.lr = 0.01})},
      {"radam_decay",
       make<RAdam>(RAdamOptions{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-2, .weight_decay = 0.1})},
      {"radam_decoupled",
       make<RAdam>(
           RAdamOptions{.lr = 0.03, .beta2 = 0.6, .weight_decay = 0.2, .decoupled_decay = true, .maximize = true})},
      {"rprop", make<Rprop>(RpropOptions{})},
      {"rprop_etas",
       make<Rprop>(RpropOptions{.lr = 0.05, .eta_minus = 0.3, .eta_plus = 1.5, .step_min = 1e-3, .step_max = 0.2})},
      {"rprop_maximize", make<Rprop>(RpropOptions{.lr = 0.1, .maximize = true})},
      {"asgd", make<ASGD>(ASGDOptions{})},
      {"asgd_decay", make<ASGD>(ASGDOptions{.lr = 0.1, .lambd = 0.5, .alpha = 0.6, .t0 = 20, .weight_decay = 0.1})},
      {"asgd_maximize", make<ASGD>(ASGDOptions{.lr = 0.02, .lambd = 0.1, .alpha = 1, .t0 = 0, .maximize = true})},
      {"adafactor", make<Adafactor>(AdafactorOptions{})},
      {"adafactor_decay",
       make<Adafactor>(AdafactorOptions{
           .lr = 0.3, .beta2_decay = -0.5, .eps1 = 1e-4, .eps2 = 0.02, .clip_threshold = 1.5, .weight_decay = 0.1})},
      {"adafactor_maximize", make<Adafactor>(AdafactorOptions{.lr = 0.1, .eps1 = 0.5, .maximize = true})},
      {"muon", make<Muon>(MuonOptions{.lr = 0.02})},
      {"muon_plain",
       make<Muon>(MuonOptions{
           .lr = 0.01, .weight_decay = 0, .momentum = 0.8, .nesterov = false, .adjust = MuonAdjust::match_rms_adamw})},
      {"muon_spectral", make<Muon>(MuonOptions{.lr = 0.05,
                                               .weight_decay = 0.5,
                                               .a = 2,
                                               .b = -1.5,
                                               .c = 0.5,
                                               .eps = 0.1,
                                               .iterations = 8,
                                               .adjust = MuonAdjust::spectral_unclamped})},
  };
  return table;
}

Shape parse_shape(std::string text) {
  std::replace(text.begin(), text.end(), 'x', ' ');
  std::istringstream in(text);
  std::vector<int64_t> sizes;
  for (int64_t n; in >> n;) sizes.push_back(n);
  return Shape(std::span<const int64_t>(sizes));
}

void expect_traces() {
  std::ifstream file(HONE_GOLDEN_DIR "/optim_rule_traces.txt");
  ASSERT_TRUE(file) << HONE_GOLDEN_DIR;
  size_t traces = 0;
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("#")) continue;
    std::vector<std::string> words;
    for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1)
      words.push_back(line.substr(at, (end = line.find(' ', at)) - at));
    const std::string name = words[0];
    ASSERT_TRUE(makers().contains(name)) << name;
    std::vector<Shape> shapes;
    for (size_t i = 1; i < words.size(); ++i) shapes.push_back(parse_shape(words[i]));
    std::vector<Parameter> parameters = make_parameters(f64, shapes);
    auto optimizer = makers().at(name)(refs(parameters));
    for (int t = 0; t < 50; ++t) {
      set_gradients(parameters, t);
      optimizer->step();
      if (t % 10 != 9) continue;
      ASSERT_TRUE(std::getline(file, line)) << name;
      std::istringstream numbers(line);
      std::vector<double> want;
      for (double v; numbers >> v;) want.push_back(v);
      expect_near(values(parameters), want, 1e-10, name + " after step " + std::to_string(t), 1e-3);
    }
    ++traces;
  }
  EXPECT_EQ(traces, makers().size());
}
TEST(OptimRulesGolden, TracesEqualPyTorchOnEveryTarget) {
  test::on_every_target([](int64_t) { expect_traces(); });
}

// ---- formulas, written again

const std::vector<Shape> kShapes = {{3, 4}, {3}};
using Vector = std::vector<double>;

// Runs 50 steps of the optimizer beside reference(parameter, t from 1, g, w), which changes w, on both parameters.
template <class F> void expect_formula(const Make& m, const F& reference, double tolerance = 1e-12) {
  std::vector<Parameter> parameters = make_parameters(f64, kShapes);
  auto optimizer = m(refs(parameters));
  std::vector<Vector> w = {parameters[0].raw().to_vector<double>(), parameters[1].raw().to_vector<double>()};
  for (int t = 1; t <= 50; ++t) {
    set_gradients(parameters, t);
    optimizer->step();
    int64_t i = 0;
    for (size_t k = 0; k < 2; ++k) {
      Vector g;
      for (double v : w[k]) g.push_back(gradient(i++, t, v));
      reference(k, t, g, w[k]);
      expect_near(parameters[k].raw().to_vector<double>(), w[k], tolerance,
                  std::string(optimizer->name()) + ", step " + std::to_string(t));
    }
  }
}
struct Memory {  // a zero vector of each parameter
  Vector of[2] = {Vector(12), Vector(3)};
  Vector& operator[](size_t k) { return of[k]; }
};
double norm(const Vector& v) {
  double s = 0;
  for (double x : v) s += x * x;
  return std::sqrt(s);
}
double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

TEST(OptimRulesFormula, AdagradAsTheDocumentsWriteIt) {
  Memory s;
  expect_formula(make<Adagrad>(AdagradOptions{.lr = 0.1, .eps = 1e-3}), [&](size_t k, int, const Vector& g, Vector& w) {
    for (size_t i = 0; i < w.size(); ++i) {
      s[k][i] = s[k][i] + g[i] * g[i];
      w[i] = w[i] - 0.1 * g[i] / (std::sqrt(s[k][i]) + 1e-3);
    }
  });
}

TEST(OptimRulesFormula, RMSpropAsTheDocumentsWriteIt) {
  Memory s;
  const auto m = make<RMSprop>(RMSpropOptions{.lr = 0.05, .beta = 0.9, .eps = 1e-3});
  expect_formula(m, [&](size_t k, int, const Vector& g, Vector& w) {
    for (size_t i = 0; i < w.size(); ++i) {
      s[k][i] = 0.9 * s[k][i] + (1 - 0.9) * g[i] * g[i];
      w[i] = w[i] - 0.05 * g[i] / (std::sqrt(s[k][i]) + 1e-3);
    }
  });
}

TEST(OptimRulesFormula, EpsilonInsideTheRoot) {
  const double eps = 0.01;
  {
    Memory s;
    expect_formula(make<Adagrad>(AdagradOptions{.lr = 0.1, .eps = eps, .eps_inside_sqrt = true}),
                   [&](size_t k, int, const Vector& g, Vector& w) {
                     for (size_t i = 0; i < w.size(); ++i)
                       w[i] -= 0.1 * g[i] / std::sqrt((s[k][i] += g[i] * g[i]) + eps);
                   });
  }
  for (const bool centered : {false, true}) {
    Memory s, a;
    expect_formula(make<RMSprop>(RMSpropOptions{
                       .lr = 0.05, .beta = 0.9, .eps = eps, .centered = centered, .eps_inside_sqrt = true}),
                   [&](size_t k, int, const Vector& g, Vector& w) {
                     for (size_t i = 0; i < w.size(); ++i) {
                       s[k][i] = 0.9 * s[k][i] + 0.1 * g[i] * g[i];
                       a[k][i] = centered ? 0.9 * a[k][i] + 0.1 * g[i] : 0;
                       w[i] -= 0.05 * g[i] / std::sqrt(s[k][i] - a[k][i] * a[k][i] + eps);
                     }
                   });
  }
  {
    Memory s, d;  // outside, where the paper has it inside
    expect_formula(make<Adadelta>(AdadeltaOptions{.eps = eps, .eps_inside_sqrt = false}),
                   [&](size_t k, int, const Vector& g, Vector& w) {
                     for (size_t i = 0; i < w.size(); ++i) {
                       s[k][i] = 0.9 * s[k][i] + 0.1 * g[i] * g[i];
                       const double delta = (std::sqrt(d[k][i]) + eps) / (std::sqrt(s[k][i]) + eps) * g[i];
                       d[k][i] = 0.9 * d[k][i] + 0.1 * delta * delta;
                       w[i] -= delta;
                     }
                   });
  }
  // Adam, AMSGrad, NAdam, RAdam: what stands below the moments.
  for (const bool amsgrad : {false, true}) {
    Memory m, v, top;
    expect_formula(
        make<Adam>(AdamOptions{.lr = 0.05, .beta2 = 0.9, .eps = eps, .amsgrad = amsgrad, .eps_inside_sqrt = true}),
        [&](size_t k, int t, const Vector& g, Vector& w) {
          for (size_t i = 0; i < w.size(); ++i) {
            m[k][i] = 0.9 * m[k][i] + 0.1 * g[i];
            v[k][i] = 0.9 * v[k][i] + 0.1 * g[i] * g[i];
            top[k][i] = amsgrad ? std::max(top[k][i], v[k][i]) : v[k][i];
            const double root = std::sqrt(top[k][i] / (1 - std::pow(0.9, t)) + eps);
            w[i] -= 0.05 * m[k][i] / (1 - std::pow(0.9, t)) / root;
          }
        });
  }
  {
    Memory m, v;
    double product[2] = {1, 1};
    const auto mu = [](int t) { return 0.9 * (1 - 0.5 * std::pow(0.96, t * 0.1)); };
    expect_formula(
        make<NAdam>(NAdamOptions{.lr = 0.05, .beta2 = 0.9, .eps = eps, .momentum_decay = 0.1, .eps_inside_sqrt = true}),
        [&](size_t k, int t, const Vector& g, Vector& w) {
          product[k] *= mu(t);
          for (size_t i = 0; i < w.size(); ++i) {
            m[k][i] = 0.9 * m[k][i] + 0.1 * g[i];
            v[k][i] = 0.9 * v[k][i] + 0.1 * g[i] * g[i];
            const double hat =
                mu(t + 1) * m[k][i] / (1 - product[k] * mu(t + 1)) + (1 - mu(t)) * g[i] / (1 - product[k]);
            w[i] -= 0.05 * hat / std::sqrt(v[k][i] / (1 - std::pow(0.9, t)) + eps);
          }
        });
  }
  {
    Memory m, v;
    expect_formula(make<RAdam>(RAdamOptions{.lr = 0.05, .beta2 = 0.95, .eps = eps, .eps_inside_sqrt = true}),
                   [&](size_t k, int t, const Vector& g, Vector& w) {
                     const double p = std::pow(0.95, t), far = 2 / (1 - 0.95) - 1, rho = far - 2 * t * p / (1 - p);
                     for (size_t i = 0; i < w.size(); ++i) {
                       m[k][i] = 0.9 * m[k][i] + 0.1 * g[i];
                       v[k][i] = 0.95 * v[k][i] + 0.05 * g[i] * g[i];
                       double step = m[k][i] / (1 - std::pow(0.9, t));
                       if (rho > 5)
                         step *= std::sqrt((rho - 4) * (rho - 2) * far / ((far - 4) * (far - 2) * rho)) *
                                 std::sqrt(1 - p) / std::sqrt(v[k][i] + eps);
                       w[i] -= 0.05 * step;
                     }
                   });
  }
}

TEST(OptimRulesFormula, LionOfChenEtAl) {
  Memory m;
  expect_formula(make<Lion>(LionOptions{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.3}),
                 [&](size_t k, int, const Vector& g, Vector& w) {
                   for (size_t i = 0; i < w.size(); ++i) {
                     const double c = 0.8 * m[k][i] + (1 - 0.8) * g[i];
                     w[i] = w[i] - 0.02 * (sign(c) + 0.3 * w[i]);
                     m[k][i] = 0.95 * m[k][i] + (1 - 0.95) * g[i];
                   }
                 });
}

TEST(OptimRulesFormula, LionHasNoDirectionWithoutGradient) {
  std::vector<Parameter> p = make_parameters(f32, {{9}});
  const std::vector<double> before = values(p);
  Lion lion(refs(p), {.lr = 1});
  set_gradients_by(p, [](int64_t i, double) { return i % 2 ? 0.0 : -0.0; });
  lion.step();
  EXPECT_EQ(values(p), before);
}

TEST(OptimRulesFormula, LARSOfYouEtAl) {
  for (const double trust : {1e-3, 0.2}) {
    Memory v;
    expect_formula(
        make<LARS>(LARSOptions{.lr = 0.5, .momentum = 0.8, .weight_decay = 0.05, .trust_coefficient = trust}),
        [&](size_t k, int, const Vector& g, Vector& w) {
          const double local = trust * norm(w) / (norm(g) + 0.05 * norm(w));
          for (size_t i = 0; i < w.size(); ++i) {
            v[k][i] = 0.8 * v[k][i] + 0.5 * local * (g[i] + 0.05 * w[i]);
            w[i] -= v[k][i];
          }
        });
  }
}

TEST(OptimRulesFormula, LAMBOfYouEtAl) {
  struct Setting {
    double low, high;
    bool corrected, inside;
  };
  for (const Setting o : {Setting{0, kInf, true, false}, {0, kInf, false, true}, {1.5, 2.5, true, false}}) {
    Memory m, v;
    const auto maker = make<LAMB>(LAMBOptions{.lr = 0.02,
                                              .beta1 = 0.8,
                                              .beta2 = 0.9,
                                              .eps = 1e-3,
                                              .weight_decay = 0.3,
                                              .norm_min = o.low,
                                              .norm_max = o.high,
                                              .bias_correction = o.corrected,
                                              .eps_inside_sqrt = o.inside});
    expect_formula(maker, [&](size_t k, int t, const Vector& g, Vector& w) {
      Vector u;
      for (size_t i = 0; i < w.size(); ++i) {
        m[k][i] = 0.8 * m[k][i] + (1 - 0.8) * g[i];
        v[k][i] = 0.9 * v[k][i] + (1 - 0.9) * g[i] * g[i];
        const double mh = o.corrected ? m[k][i] / (1 - std::pow(0.8, t)) : m[k][i];
        const double vh = o.corrected ? v[k][i] / (1 - std::pow(0.9, t)) : v[k][i];
        u.push_back(mh / (o.inside ? std::sqrt(vh + 1e-3) : std::sqrt(vh) + 1e-3) + 0.3 * w[i]);
      }
      const double phi = std::min(std::max(norm(w), o.low), o.high), ratio = phi / norm(u);
      for (size_t i = 0; i < w.size(); ++i) w[i] -= 0.02 * ratio * u[i];
    });
  }
}

TEST(OptimRulesFormula, LargeBatchRatioIsOneWithoutNorm) {
  std::vector<Parameter> p = make_parameters(f64, {{5}, {4}});
  p[0].raw().detach().zero_();
  LARS lars(refs(p), {.lr = 0.5, .momentum = 0});
  set_gradients_by(p, [](int64_t i, double) { return i < 5 ? 2.0 : 0.0; });
  const std::vector<double> before = p[1].raw().to_vector<double>();
  lars.step();
  EXPECT_EQ(p[0].raw().to_vector<double>(), std::vector<double>(5, -1.0));
  EXPECT_EQ(p[1].raw().to_vector<double>(), before);
  p[0].raw().detach().zero_();
  LAMB lamb(refs(p), {.lr = 0.5, .eps = 0, .weight_decay = 0});  // 0/0 in the second
  lamb.step();
  for (double v : p[0].raw().to_vector<double>()) EXPECT_NEAR(v, -0.5, 1e-12);
  EXPECT_EQ(p[1].raw().to_vector<double>(), before);
}

TEST(OptimRulesFormula, ScheduleFreeOfDefazioEtAl) {
  for (const auto& [warmup, inside] : {std::pair(0, false), {7, false}, {3, true}}) {
    std::vector<Parameter> parameters = make_parameters(f64, {{13}});
    ScheduleFreeAdamW optimizer(refs(parameters), {.lr = 0.05,
                                                   .beta1 = 0.8,
                                                   .beta2 = 0.95,
                                                   .eps = 1e-2,
                                                   .weight_decay = 0.1,
                                                   .warmup_steps = warmup,
                                                   .eps_inside_sqrt = inside});
    Vector x = values(parameters), z = x, v(13);
    double sum = 0;
    for (int t = 1; t <= 50; ++t) {
      set_gradients(parameters, t);
      optimizer.step();
      const double rate = 0.05 * (warmup ? std::min(1.0, t / static_cast<double>(warmup)) : 1);
      sum += rate * rate;
      Vector next;
      for (size_t i = 0; i < 13; ++i) {
        const double y = (1 - 0.8) * z[i] + 0.8 * x[i], g = gradient(static_cast<int64_t>(i), t, y);
        v[i] = 0.95 * v[i] + (1 - 0.95) * g * g;
        const double hat = v[i] / (1 - std::pow(0.95, t));
        z[i] -= rate * g / (inside ? std::sqrt(hat + 1e-2) : std::sqrt(hat) + 1e-2) + rate * 0.1 * y;
        const double c = rate * rate / sum;
        x[i] = (1 - c) * x[i] + c * z[i];
        next.push_back((1 - 0.8) * z[i] + 0.8 * x[i]);
      }
      expect_near(values(parameters), next, 1e-12, "y at step " + std::to_string(t));
      if (t % 9 == 0) {
        optimizer.eval();
        optimizer.eval();  // again: nothing
        expect_near(values(parameters), x, 1e-12, "x at step " + std::to_string(t));
        test::expect_error<ValueError>([&] { optimizer.step(); }, "call train() first");
        const TensorFile saved = optimizer.state_dict();
        optimizer.train();
        expect_near(values(parameters), next, 1e-12, "y again at step " + std::to_string(t));
        const TensorFile in_training = optimizer.state_dict();
        optimizer.load_state_dict(saved);
        EXPECT_FALSE(optimizer.training());
        optimizer.load_state_dict(in_training);
        EXPECT_TRUE(optimizer.training());
      }
    }
  }
}

TEST(OptimRulesFormula, CentredRMSpropStaysFiniteUnderAConstantGradient) {
  // s − a⊙a is 0 but for rounding, which makes it negative in f32.
  for (const double beta : {0.5, 0.9, 0.97, 0.99}) {
    std::vector<Parameter> p = make_parameters(f32, {{400}});
    RMSprop rmsprop(refs(p), {.lr = 1e-6, .beta = beta, .eps = 1e-3, .centered = true});
    for (int t = 0; t < 400; ++t) {
      set_gradients_by(p, [](int64_t i, double) { return 0.1 + 0.37 * static_cast<double>(i); });
      rmsprop.step();
    }
    for (double v : values(p)) ASSERT_TRUE(std::isfinite(v)) << beta;
  }
}

TEST(OptimRulesFormula, RpropSeesTheSignsOfTinyGradients) {
  // Their product underflows in f32.
  std::vector<Parameter> p = make_parameters(f32, {{3}});
  Rprop rprop(refs(p), {.lr = 0.01});
  for (int t = 0; t < 3; ++t) {
    set_gradients_by(p, [&](int64_t i, double) { return (i == 0 || t != 1 ? 1 : -1) * 1e-30; });
    rprop.step();
  }
  const std::vector<double> step = rprop.state(p[0].ref(), 1).to_vector<double>();
  expect_near(step, {0.01 * 1.44, 0.01 * 0.5, 0.01 * 0.5}, 1e-6, "steps", 0.001);
}

TEST(OptimRulesFormula, ASGDKeepsTheMeanOfItsWeights) {
  std::vector<Parameter> p = make_parameters(f64, {{6}});
  ASGD asgd(refs(p), {.lr = 0.1, .t0 = 10});
  Vector sum(6);
  for (int t = 1; t <= 30; ++t) {
    set_gradients(p, t);
    asgd.step();
    const Vector w = values(p);
    // From update t0 + 2 on, 1/(t − 1 − t0) starts anew at 1: the mean of those since.
    for (size_t i = 0; i < 6; ++i) sum[i] = t <= 12 ? w[i] : sum[i] + w[i];
    Vector mean = sum;
    for (double& v : mean) v /= std::max(1, t - 11);
    expect_near(asgd.state(p[0].ref(), 0).to_vector<double>(), mean, 1e-13, "update " + std::to_string(t));
  }
}

// Decoupled decay is w ← (1 − η λ) w before an update without decay; coupled, the gradient g + λ w.
TEST(OptimRulesFormula, Decay) {
  const double lr = 0.05, decay = 0.3;
  const auto expect = [&](const Make& with, const Make& without, bool decoupled,
                          const std::vector<Shape>& shapes = kShapes) {
    std::vector<Parameter> a = make_parameters(f64, shapes), b = make_parameters(f64, shapes);
    auto one = with(refs(a)), two = without(refs(b));
    for (int t = 0; t < 10; ++t) {
      set_gradients(a, t);
      one->step();
      set_gradients_by(b, [&](int64_t i, double w) { return gradient(i, t, w) + (decoupled ? 0 : decay * w); });
      if (decoupled)
        for (Parameter& p : b) p.raw().detach().copy_(p.raw().detach() * (1 - lr * decay));
      two->step();
      expect_near(values(a), values(b), 1e-13, std::string(one->name()) + (decoupled ? " decoupled" : " coupled"));
    }
  };
  const auto one = [&]<class O, class Options>(Options with, O*, bool decoupled,
                                               const std::vector<Shape>& shapes = kShapes) {
    Options without = with;
    without.weight_decay = 0;
    with.decoupled_decay = decoupled;
    expect(make<O>(with), make<O>(without), decoupled, shapes);
  };
  const auto both = [&](auto with, auto* type) {
    one(with, type, false);
    one(with, type, true);
  };
  both(SGDOptions{.lr = lr, .momentum = 0.9, .weight_decay = decay}, static_cast<SGD*>(nullptr));
  both(AdamOptions{.lr = lr, .weight_decay = decay}, static_cast<Adam*>(nullptr));
  both(AdagradOptions{.lr = lr, .weight_decay = decay}, static_cast<Adagrad*>(nullptr));
  both(AdadeltaOptions{.lr = lr, .weight_decay = decay}, static_cast<Adadelta*>(nullptr));
  both(RMSpropOptions{.lr = lr, .weight_decay = decay}, static_cast<RMSprop*>(nullptr));
  both(AdamaxOptions{.lr = lr, .weight_decay = decay}, static_cast<Adamax*>(nullptr));
  both(NAdamOptions{.lr = lr, .weight_decay = decay}, static_cast<NAdam*>(nullptr));
  both(RAdamOptions{.lr = lr, .weight_decay = decay}, static_cast<RAdam*>(nullptr));
  both(LionOptions{.lr = lr, .weight_decay = decay}, static_cast<Lion*>(nullptr));
  both(RpropOptions{.lr = lr, .weight_decay = decay}, static_cast<Rprop*>(nullptr));
  both(ASGDOptions{.lr = lr, .lambd = 0.2, .weight_decay = decay}, static_cast<ASGD*>(nullptr));
  const MuonOptions muon{.lr = lr, .weight_decay = decay};
  for (const bool decoupled : {false, true}) one(muon, static_cast<Muon*>(nullptr), decoupled, {{3, 4}});
  // The other form of these is a formula of its own, checked above or in the traces.
  one(LARSOptions{.lr = lr, .weight_decay = decay, .trust_coefficient = 0.1}, static_cast<LARS*>(nullptr), true);
  one(LAMBOptions{.lr = lr, .weight_decay = decay}, static_cast<LAMB*>(nullptr), false);
  one(ScheduleFreeAdamWOptions{.lr = lr, .weight_decay = decay}, static_cast<ScheduleFreeAdamW*>(nullptr), false);
  one(AdafactorOptions{.lr = lr, .weight_decay = decay}, static_cast<Adafactor*>(nullptr), false);
}

}  // namespace
}  // namespace hone
