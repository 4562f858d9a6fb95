// L-BFGS against PyTorch's traces; its state, and what shrinks or is not finite.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

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
  const auto refused = [&](const char* entry, const Tensor& t, const std::string& part) {
    TensorFile f = one.state_dict();
    for (auto& [name, value] : f.tensors)
      if (name == entry) value = t;
    expect_error<FormatError>([&] { two.load_state_dict(f); }, part);
  };
  refused("lbfgs.iterations", tensor<int64_t>({-1}, Shape{}), "lbfgs.iterations must be at least 0, got -1");
  refused("lbfgs.evaluations", scalar(1), "expected i64 []");
  refused("lbfgs.length", scalar(std::nan(""), f64), "length must be finite");
  refused("lbfgs.pairs", tensor<int64_t>({9}, Shape{}), "no entry 'lbfgs.s.3'");
  refused("lbfgs.pairs", tensor<int64_t>({2}, Shape{}), "not known here: 'lbfgs.s.2'");
  refused("lbfgs.y.1", zeros({5}, f64), "pair 1 has no curvature");
  TensorFile more = one.state_dict();
  more.tensors.emplace_back("more", ones({1}));
  expect_error<FormatError>([&] { two.load_state_dict(more); }, "'more'");
  EXPECT_EQ(two.iterations(), one.iterations());
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

TEST(LBFGS, StepsThatAreNotFiniteAreLeftOutWhereItIsAllowed) {
  for (const auto policy : {optim::NonFinite::skip, optim::NonFinite::clip}) {
    const Parameter p = start(), q = start();
    LBFGS a({p.ref()}, {.max_iterations = 3}), b({q.ref()}, {.max_iterations = 3});
    a.set_non_finite(policy);
    a.step(closure_of(p, rosenbrock));
    b.step(closure_of(q, rosenbrock));
    const double loss = a.step(closure_of(p, [](const Tensor& w) { return sum(w) * std::nan(""); }));
    EXPECT_TRUE(std::isnan(loss));
    // A finite loss with a gradient that is not.
    a.step(closure_of(p, [](const Tensor& w) { return sum(sqrt(w - w.detach())); }));
    EXPECT_EQ(a.non_finite_steps(), 2);
    a.step(closure_of(p, rosenbrock));
    b.step(closure_of(q, rosenbrock));
    EXPECT_EQ(values(p), values(q));
  }
}

// Coordinates that never move and have no gradient add nothing to any sum: without them, the same bits.
TEST(LBFGS, ShrinkSlicesEveryVector) {
  const std::vector<int64_t> kept{0, 2};
  for (const int64_t dim : {0, 1}) {
    const Tensor large = tensor<double>({0.5, -0.2, 0.3, 0.4, 0.1, -0.7, 0.6, 0.2, -0.3}, {3, 3});
    const auto keep = [&](const Tensor& t) { return index_select(t, dim, tensor(kept)); };
    const Parameter before = start(), a(clone(large)), b(keep(large)), after = start(), first = start(), last = start();
    const auto loss = [](const Parameter& x, const Parameter& m, const Tensor& used, const Parameter& y) {
      return [&x, &m, &y, used] {
        for (const Parameter* p : {&x, &m, &y}) p->ref().zero_grad();
        Tensor f = rosenbrock(x.value()) + quartic(y.value()) + sum(square(square(used * m.value() - 0.3))) +
                   square(sum(used * m.value()) * sum(x.value()));
        f.backward();
        return f;
      };
    };
    Tensor used = ones({3, 3}, f64);
    for (int64_t i = 0; i < 3; ++i) used.data<double>()[dim == 0 ? 3 + i : 3 * i + 1] = 0;
    LBFGS one({before.ref(), a.ref(), after.ref()}, {.max_iterations = 3, .history = 4}),
        two({first.ref(), b.ref(), last.ref()}, {.max_iterations = 3, .history = 4});
    for (int i = 0; i < 3; ++i) {
      one.step(loss(before, a, used, after));
      two.step(loss(first, b, keep(used), last));
    }
    a.ref().replace(keep(a.raw().detach()));
    expect_error<GradError>([&] { one.step(loss(before, a, keep(used), after)); }, "stale");
    one.apply(Shrink{a.ref(), dim, kept});
    EXPECT_EQ(one.state_bytes(), two.state_bytes());
    for (int i = 0; i < 3; ++i) {
      one.step(loss(before, a, keep(used), after));
      two.step(loss(first, b, keep(used), last));
      for (const auto& [x, y] : {std::pair(&before, &first), {&a, &b}, {&after, &last}})
        for (size_t k = 0; k < values(*x).size(); ++k)
          ASSERT_NEAR(values(*x)[k], values(*y)[k], 1e-9) << dim << ", step " << i;
    }
  }
}

TEST(LBFGS, ShrinkDropsPairsWithoutCurvature) {
  const Parameter p(tensor<double>({3, 0}));
  LBFGS lbfgs({p.ref()}, {.max_iterations = 3});
  const Tensor k = tensor<double>({1, 0});
  const auto f = [&](const Tensor& w) { return sum(square(square(w * k))) + 0.5 * sum(square(w * k)); };
  lbfgs.step(closure_of(p, f));
  EXPECT_GT(lbfgs.state_dict().at("lbfgs.pairs").item<int64_t>(), 0);
  p.ref().replace(tensor<double>({2}));
  lbfgs.apply(Shrink{p.ref(), 0, {1}});
  EXPECT_EQ(lbfgs.state_dict().at("lbfgs.pairs").item<int64_t>(), 0);
  for (int i = 0; i < 20; ++i) lbfgs.step(closure_of(p, [](const Tensor& w) { return sum(square(w - 1.0)); }));
  EXPECT_NEAR(values(p)[0], 1, 1e-6);
}

TEST(LBFGS, StepsBackFromInfinity) {
  const Parameter p(tensor<double>({1.0}));
  LBFGS lbfgs({p.ref()}, {.max_iterations = 50});
  // −log p + p: its minimum is 1; at p ≤ 0 it is NaN or infinite, where the first long steps land.
  p.ref().replace(tensor<double>({30.0}));
  lbfgs.step(closure_of(p, [](const Tensor& w) { return sum(w - log(w)); }));
  EXPECT_NEAR(values(p)[0], 1, 1e-4);
}

}  // namespace
}  // namespace hone
