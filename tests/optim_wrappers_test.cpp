// L-BFGS against PyTorch's traces; what stands around optimizers: averages, Lookahead, SAM, accumulation.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using optim::Adam;
using optim::LBFGS;
using optim::SGD;
using test::expect_error;

Parameter start() { return Parameter(tensor<double>({-1.2, 1.0, 0.6, -0.4, 0.9})); }
std::vector<double> values(const Parameter& p) { return p.raw().to_vector<double>(); }

// The functions of tests/golden/generate_lbfgs.py, in its words.
Tensor rosenbrock(const Tensor& p) {
  const int64_t n = p.size(0);
  const Tensor a = slice(p, 0, 0, n - 1), b = slice(p, 0, 1, n);
  return sum(square(1.0 - a)) + 100.0 * sum(square(b - square(a)));
}
Tensor logistic(const Tensor& p) {
  std::vector<double> x, y;
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 5; ++j) x.push_back(std::sin(1.3 * i + 0.7 * j * j) + 0.1 * j);
    y.push_back((i * 7) % 5 < 2 ? 1 : 0);
  }
  const Tensor z = reshape(matmul(tensor(x, {12, 5}), reshape(p, {5, 1})), {12});
  const Tensor softplus = relu(z) + log(1.0 + exp(-abs(z)));
  return mean(softplus - tensor(y) * z) + 0.01 * sum(square(p));
}
Tensor quartic(const Tensor& p) {
  const Tensor k = tensor<double>({1, 2, 3, 4, 5});
  return sum(k * square(square(p - 1.0 / k))) + 0.5 * sum(square(p)) + sum(square(select(p, 0, 0) * select(p, 0, 4)));
}

using Function = std::function<Tensor(const Tensor&)>;
const std::map<std::string, Function> kFunctions = {
    {"rosenbrock", rosenbrock}, {"logistic", logistic}, {"quartic", quartic}};
const std::map<std::string, optim::LBFGSOptions> kSettings = {
    {"wolfe", {.lr = 1, .max_iterations = 4}},
    {"wolfe_short_history", {.lr = 0.5, .max_iterations = 6, .history = 2}},
    {"wolfe_few_evaluations", {.lr = 1, .max_iterations = 20, .max_evaluations = 7, .history = 5}},
    {"plain", {.lr = 0.02, .max_iterations = 5, .strong_wolfe = false}},
    {"plain_one", {.lr = 0.01, .max_iterations = 1, .history = 3, .strong_wolfe = false}}};

optim::Closure closure_of(const Parameter& p, const Function& f) {
  return [&p, f] {
    p.ref().zero_grad();
    Tensor loss = f(p.value());
    loss.backward();
    return loss;
  };
}

TEST(LBFGS, TracesEqualPyTorch) {
  std::ifstream file(HONE_GOLDEN_DIR "/lbfgs.txt");
  ASSERT_TRUE(file);
  std::string word, function, setting;
  int traces = 0;
  while (file >> word >> function >> setting) {
    ASSERT_EQ(word, "trace");
    const Parameter p = start();
    LBFGS lbfgs({p.ref()}, kSettings.at(setting));
    for (int step = 0; step < 8; ++step) {
      double loss = 0, v = 0;
      int64_t evaluations = 0;
      ASSERT_TRUE(file >> loss >> evaluations);
      const double got = lbfgs.step(closure_of(p, kFunctions.at(function)));
      ASSERT_NEAR(got, loss, 1e-8 * std::max(1.0, std::abs(loss))) << function << " " << setting << " step " << step;
      ASSERT_EQ(lbfgs.evaluations(), evaluations) << function << " " << setting << " step " << step;
      for (double g : values(p)) {
        ASSERT_TRUE(file >> v);
        ASSERT_NEAR(g, v, 1e-8 * std::max(1.0, std::abs(v))) << function << " " << setting << " step " << step;
      }
    }
    ++traces;
  }
  EXPECT_EQ(traces, 15);
}

TEST(LBFGS, FindsRosenbrocksMinimumInEveryDtype) {
  for (DType dtype : {f64, f32}) {
    const Parameter p(cast(tensor<double>({-1.2, 1.0}), dtype));  // of more variables there are other local minima
    LBFGS lbfgs({p.ref()}, {.max_iterations = 200, .tolerance_gradient = 1e-9, .tolerance_change = 1e-15});
    lbfgs.step(closure_of(p, rosenbrock));
    for (double v : values(p)) EXPECT_NEAR(v, 1, dtype == f64 ? 1e-8 : 2e-3) << name(dtype);
  }
}

TEST(LBFGS, StateContinues) {
  const Parameter a = start(), b = start();
  LBFGS one({a.ref()}, {.max_iterations = 2, .history = 3}), two({b.ref()}, {.max_iterations = 2, .history = 3});
  for (int i = 0; i < 4; ++i) one.step(closure_of(a, rosenbrock));
  b.ref().replace(clone(a.raw().detach()));
  two.load_state_dict(one.state_dict());
  for (int i = 0; i < 4; ++i) {
    one.step(closure_of(a, rosenbrock));
    two.step(closure_of(b, rosenbrock));
    ASSERT_EQ(values(a), values(b)) << i;
  }
  EXPECT_EQ(one.evaluations(), two.evaluations());
  const Parameter c(tensor<double>({1, 2}));
  LBFGS other({c.ref()});
  expect_error<FormatError>([&] { other.load_state_dict(one.state_dict()); }, "expected f64 [2]");
  TensorFile bad = one.state_dict();
  const auto with = [&](const std::string& name, const Tensor& t) {
    TensorFile f = bad;
    for (auto& [entry, value] : f.tensors)
      if (entry == name) value = t;
    return f;
  };
  const double nan = std::nan("");
  for (double v : {nan, -1.0, 0.5, 1e300})
    expect_error<FormatError>([&] { two.load_state_dict(with("numbers", tensor<double>({v, 1, 1, 1}))); }, "'numbers'");
  expect_error<FormatError>([&] { two.load_state_dict(with("numbers", tensor<double>({3, 1, nan, 1}))); }, "'numbers'");
  bad.tensors.emplace_back("more", ones({1}));
  expect_error<FormatError>([&] { two.load_state_dict(bad); }, "entries, expected");
  SGD sgd({c.ref()});
  expect_error<FormatError>([&] { sgd.load_state_dict(one.state_dict()); }, "the state is of 'LBFGS'");
}

TEST(LBFGS, DecayAndDirection) {
  // min of ½(p−3)² + λ/2 p² is 3/(1+λ); maximize of the negated loss finds the same.
  for (bool maximize : {false, true}) {
    const Parameter p(tensor<double>({0.0}));
    LBFGS lbfgs({p.ref()}, {.weight_decay = 0.5, .maximize = maximize});
    lbfgs.step(closure_of(p, [&](const Tensor& w) { return (maximize ? -0.5 : 0.5) * sum(square(w - 3.0)); }));
    EXPECT_NEAR(values(p)[0], 2, 1e-9);
  }
}

TEST(LBFGS, Errors) {
  const Parameter p = start();
  expect_error<ValueError>([&] { LBFGS({p.ref()}, {.lr = -1}); }, "LBFGS: lr");
  expect_error<ValueError>([&] { LBFGS({p.ref()}, {.max_iterations = 0}); },
                           "max_iterations must be at least 1, got 0");
  expect_error<ValueError>([&] { LBFGS({p.ref()}, {.history = 0}); }, "history");
  LBFGS lbfgs({p.ref()});
  expect_error<ValueError>([&] { lbfgs.step(); }, "closure");
  const std::vector<double> before = values(p);
  expect_error<NumericError>([&] { lbfgs.step(closure_of(p, [](const Tensor& w) { return sum(w) * std::nan(""); })); },
                             "not finite");
  EXPECT_EQ(values(p), before);
  // A closure that throws in the middle of a search leaves the parameters as they were.
  int calls = 0;
  expect_error<ValueError>(
      [&] {
        lbfgs.step([&] {
          if (++calls == 3) throw ValueError("enough");
          return closure_of(p, rosenbrock)();
        });
      },
      "enough");
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(values(p), before);
}

TEST(LBFGS, StepsBackFromInfinity) {
  const Parameter p(tensor<double>({1.0}));
  LBFGS lbfgs({p.ref()}, {.max_iterations = 50});
  // −log p + p: its minimum is 1; at p ≤ 0 it is NaN or infinite, where the first long steps land.
  p.ref().replace(tensor<double>({30.0}));
  lbfgs.step(closure_of(p, [](const Tensor& w) { return sum(w - log(w)); }));
  EXPECT_NEAR(values(p)[0], 1, 1e-4);
}

// ---- averages

TEST(WeightAverages, AreTheirFormulas) {
  const Parameter p(tensor<double>({1.0, -2.0}));
  optim::EMA ema({p.ref()}, {.decay = 0.9, .warmup = false}), warm({p.ref()}, {.decay = 0.9});
  optim::SWA swa({p.ref()});
  std::vector<double> e, w, mean{0, 0};
  for (int t = 1; t <= 200; ++t) {
    const std::vector<double> v{std::sin(t), std::cos(2.0 * t)};
    p.ref().replace(tensor(v));
    ema.update();
    warm.update();
    swa.update();
    const double beta = std::min(0.9, t / (t + 9.0));
    for (size_t i = 0; i < 2; ++i) {
      if (t == 1) {
        e.push_back(v[i]);
        w.push_back(v[i]);
      } else {
        e[i] = 0.9 * e[i] + 0.1 * v[i];
        w[i] = beta * w[i] + (1 - beta) * v[i];
      }
      mean[i] += v[i] / 200;
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(ema.average(0).to_vector<double>()[i], e[i], 1e-13);
    EXPECT_NEAR(warm.average(0).to_vector<double>()[i], w[i], 1e-13);
    EXPECT_NEAR(swa.average(0).to_vector<double>()[i], mean[i], 1e-13);
  }
}

TEST(WeightAverages, GuardSwapsAndGivesBack) {
  for (DType dtype : {f64, f32, bf16}) {
    Parameter p(cast(tensor<double>({1.0, 2.0, 3.0}), dtype));
    optim::SWA swa({p.ref()});
    expect_error<ValueError>([&] { const auto unused = swa.use(); }, "nothing was averaged");
    swa.update();
    p.ref().replace(cast(tensor<double>({3.0, 4.0, 5.0}), dtype));
    swa.update();
    {
      const auto averaged = swa.use();
      EXPECT_EQ(values(p), (std::vector<double>{2, 3, 4}));
      expect_error<ValueError>([&] { swa.update(); }, "hold the averages");
      expect_error<ValueError>([&] { const auto unused = swa.use(); }, "already");
    }
    EXPECT_EQ(values(p), (std::vector<double>{3, 4, 5}));
    EXPECT_EQ(swa.average(0).dtype(), dtype == f64 ? f64 : f32);
    optim::SWA other({p.ref()});
    other.load_state_dict(swa.state_dict());
    other.copy_to_parameters();
    EXPECT_EQ(values(p), (std::vector<double>{2, 3, 4}));
    optim::EMA ema({p.ref()});
    expect_error<FormatError>([&] { ema.load_state_dict(swa.state_dict()); }, "the state is of 'SWA'");
    p.ref().replace(cast(tensor<double>({1.0}), dtype));
    expect_error<GradError>([&] { swa.update(); }, "changed its shape");
  }
}

TEST(WeightAverages, Errors) {
  const Parameter p(tensor<double>({1.0}));
  expect_error<ValueError>([&] { optim::EMA({p.ref()}, {.decay = 1}); }, "EMA: decay must be in [0, 1), got 1");
  expect_error<ValueError>([&] { optim::SWA(std::vector<ParameterRef>{}); }, "empty");
}

// ---- wrappers

TEST(Accumulation, EqualsTheWholeBatch) {
  manual_seed(4);
  const Tensor x = randn({12, 3}, f64), y = randn({12, 1}, f64);
  const auto run = [&](int64_t micro) {
    Parameter w(tensor<double>({0.3, -0.2, 0.1}, {3, 1}));
    Adam adam({w.ref()}, {.lr = 0.1});
    optim::GradientAccumulation accumulation(adam, {.steps = micro});
    for (int epoch = 0; epoch < 5; ++epoch)
      for (int64_t i = 0; i < micro; ++i) {
        const int64_t n = 12 / micro;
        mse_loss(matmul(slice(x, 0, i * n, (i + 1) * n), w.value()), slice(y, 0, i * n, (i + 1) * n)).backward();
        EXPECT_EQ(accumulation.step(), i + 1 == micro);
      }
    EXPECT_EQ(adam.steps(w.ref()), 5);
    return w.raw().to_vector<double>();
  };
  const std::vector<double> whole = run(1);
  for (int64_t micro : {2, 3, 4, 12}) {
    const std::vector<double> parts = run(micro);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(parts[i], whole[i], 1e-12) << micro;
  }
}

TEST(Accumulation, FlushDividesByWhatThereIs) {
  Parameter w(tensor<double>({1.0}));
  SGD sgd({w.ref()}, {.lr = 1});
  optim::GradientAccumulation accumulation(sgd, {.steps = 4});
  EXPECT_FALSE(accumulation.flush());
  for (double c : {1.0, 3.0}) {
    (sum(w.value()) * c).backward();
    EXPECT_FALSE(accumulation.step());
  }
  EXPECT_TRUE(accumulation.flush());
  EXPECT_DOUBLE_EQ(w.raw().to_vector<double>()[0], 1 - 2);
  EXPECT_EQ(accumulation.pending(), 0);
  EXPECT_FALSE(w.grad().defined());
  expect_error<ValueError>([&] { optim::GradientAccumulation(sgd, {.steps = 0}); }, "steps must be at least 1, got 0");
}

TEST(Lookahead, IsItsFormula) {
  Parameter w(tensor<double>({1.0, -1.0}));
  SGD sgd({w.ref()}, {.lr = 0.1, .momentum = 0.9});
  optim::Lookahead lookahead(sgd, {.steps = 3, .alpha = 0.4});
  std::vector<double> p{1, -1}, slow = p, b{0, 0};
  for (int t = 1; t <= 20; ++t) {
    lookahead.zero_grad();
    sum(square(w.value()) * 0.5 + w.value()).backward();
    lookahead.step();
    for (size_t i = 0; i < 2; ++i) {
      b[i] = 0.9 * b[i] + (p[i] + 1);
      p[i] -= 0.1 * b[i];
      if (t % 3 == 0) p[i] = slow[i] += 0.4 * (p[i] - slow[i]);
      ASSERT_NEAR(values(w)[i], p[i], 1e-13) << t;
    }
    if (t == 10) {  // continues in another one
      optim::Lookahead other(sgd, {.steps = 3, .alpha = 0.4});
      other.load_state_dict(lookahead.state_dict());
      const TensorFile a = other.state_dict(), c = lookahead.state_dict();
      for (size_t i = 0; i < a.tensors.size(); ++i)
        EXPECT_EQ(a.tensors[i].second.to_vector<double>(), c.tensors[i].second.to_vector<double>());
    }
  }
  expect_error<ValueError>([&] { optim::Lookahead(sgd, {.alpha = 0}); }, "alpha must be in (0, 1], got 0");
  expect_error<ValueError>([&] { optim::Lookahead(sgd, {.steps = 0}); }, "steps");
}

TEST(SAM, IsItsFormula) {
  for (bool adaptive : {false, true}) {
    Parameter w(tensor<double>({1.0, -0.5})), v(tensor<double>({2.0}));
    SGD sgd({w.ref(), v.ref()}, {.lr = 0.1});
    optim::SAM sam(sgd, {.rho = 0.3, .adaptive = adaptive});
    std::vector<double> p{1, -0.5, 2};
    // f = Σ c_i p_i⁴/4: gradient c_i p_i³
    const std::vector<double> c{1, 2, 0.5};
    for (int t = 0; t < 6; ++t) {
      const double loss = sam.step([&] {
        sgd.zero_grad();
        Tensor f =
            0.25 * (sum(tensor<double>({1, 2}) * square(square(w.value()))) + 0.5 * sum(square(square(v.value()))));
        f.backward();
        return f;
      });
      double norm = 0, want = 0;
      std::vector<double> e(3);
      for (size_t i = 0; i < 3; ++i) {
        const double g = c[i] * p[i] * p[i] * p[i], a = adaptive ? std::abs(p[i]) : 1;
        want += c[i] * std::pow(p[i], 4) / 4;
        norm += a * g * a * g;
        e[i] = a * a * g;
      }
      ASSERT_NEAR(loss, want, 1e-13);
      for (size_t i = 0; i < 3; ++i) {
        const double at = p[i] + 0.3 * e[i] / std::sqrt(norm);
        p[i] -= 0.1 * c[i] * at * at * at;
      }
      const std::vector<double> got{values(w)[0], values(w)[1], values(v)[0]};
      for (size_t i = 0; i < 3; ++i) ASSERT_NEAR(got[i], p[i], 1e-13) << adaptive << " step " << t;
    }
    const std::vector<double> before = values(w);
    int calls = 0;
    expect_error<ValueError>(
        [&] {
          sam.step([&]() -> Tensor {
            if (++calls == 2) throw ValueError("enough");
            sgd.zero_grad();
            Tensor f = sum(square(w.value()));
            f.backward();
            return f;
          });
        },
        "enough");
    EXPECT_EQ(values(w), before);
    expect_error<ValueError>([&] { optim::SAM(sgd, {.rho = -1}); }, "rho");
  }
}

}  // namespace
}  // namespace hone
