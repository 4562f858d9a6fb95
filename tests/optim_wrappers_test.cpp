// What stands around optimizers: averages, Lookahead, SAM, accumulation.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using optim::Adam;
using optim::SGD;
using test::expect_error;

std::vector<double> values(const Parameter& p) { return p.raw().to_vector<double>(); }

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

TEST(WeightAverages, FollowAShrink) {
  const Parameter a(tensor<double>({1, 2, 3, 4, 5, 6}, {2, 3})), b(tensor<double>({7, 8}));
  optim::EMA ema({a.ref(), b.ref()}, {.decay = 0.5, .warmup = false});
  optim::SWA fresh({a.ref()});
  ema.update();
  const auto shrink = [&](int64_t dim, std::vector<int64_t> kept) {
    const Shrink s{a.ref(), dim, std::move(kept)};
    ema.apply(s);
    fresh.apply(s);
  };
  a.ref().replace(tensor<double>({10, 20}, {1, 2}));  // both dims at once: a call for each
  expect_error<GradError>([&] { ema.update(); }, "apply() the shrink");
  shrink(0, {1});
  expect_error<GradError>([&] { ema.update(); }, "parameter 0 changed its shape");
  shrink(1, {0, 2});
  EXPECT_EQ(ema.average(0).to_vector<double>(), (std::vector<double>{4, 6}));
  ema.update();
  fresh.update();
  EXPECT_EQ(ema.average(0).to_vector<double>(), (std::vector<double>{7, 13}));
  EXPECT_EQ(ema.average(1).to_vector<double>(), (std::vector<double>{7, 8}));
  const auto guard = ema.use();
  expect_error<ValueError>([&] { shrink(1, {0}); }, "hold the averages just now");
}

TEST(WeightAverages, Errors) {
  const Parameter p(tensor<double>({1.0}));
  expect_error<ValueError>([&] { optim::EMA({p.ref()}, {.decay = 1}); }, "EMA: decay must be in [0, 1), got 1");
  expect_error<ValueError>([&] { optim::SWA(std::vector<ParameterRef>{}); }, "SWA: the list of parameters is empty");
  expect_error<ValueError>([&] { optim::SWA({p.ref(), p.ref()}); }, "SWA: parameter 1 of shape [1] is listed twice");
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

TEST(Lookahead, FollowsAShrink) {
  Parameter w(tensor<double>({1, 2, 3, 4}));
  SGD sgd({w.ref()}, {.lr = 1});
  optim::Lookahead lookahead(sgd, {.steps = 1, .alpha = 0.5});
  w.ref().replace(tensor<double>({10, 20}));
  w.raw().set_grad(zeros({2}, f64));
  expect_error<GradError>([&] { lookahead.step(); }, "parameter 0 changed its shape from [4] to [2]");
  const Shrink shrink{w.ref(), 0, {1, 3}};
  sgd.apply(shrink);
  lookahead.apply(shrink);
  lookahead.step();
  EXPECT_EQ(values(w), (std::vector<double>{6, 12}));
}

TEST(Accumulation, OfABroadcastGradient) {
  Parameter w(tensor<double>({1, 2, 3}));
  SGD sgd({w.ref()}, {.lr = 1});
  optim::GradientAccumulation accumulation(sgd, {.steps = 2});
  accumulation.step();
  w.raw().set_grad(expand(tensor<double>({4}), {3}));  // of one micro-batch alone, and one number in memory
  EXPECT_TRUE(accumulation.step());
  EXPECT_EQ(values(w), (std::vector<double>{-1, 0, 1}));
}

TEST(SAM, LeavesGradientsThatAreNotFiniteToTheOptimizer) {
  Parameter w(tensor<double>({1.0, 4.0}));
  SGD sgd({w.ref()}, {.lr = 0.5});
  optim::SAM sam(sgd);
  int calls = 0;
  const auto closure = [&] {
    ++calls;
    sgd.zero_grad();
    Tensor f = sum(tensor<double>({std::nan(""), 1}) * w.value());
    f.backward();
    return f;
  };
  expect_error<NumericError>([&] { sam.step(closure); }, "SGD.step: the gradient of parameter 0");
  sgd.set_non_finite(optim::NonFinite::skip);
  sam.step(closure);
  EXPECT_EQ(values(w), (std::vector<double>{1, 4}));
  sgd.set_non_finite(optim::NonFinite::clip);
  sam.step(closure);
  EXPECT_EQ(values(w), (std::vector<double>{1, 3.5}));
  EXPECT_EQ(sgd.non_finite_steps(), 2);
  EXPECT_EQ(calls, 3);  // there is no second place to look at
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
