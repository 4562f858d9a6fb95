// Knowledge distillation: properties of the losses, degenerate cases, and what they refuse.

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace compress;
using namespace regularizer_test;
using test::expect_close;

struct Logits {
  Tensor s, t, y;
};
Logits random_logits(uint64_t seed, int64_t n = 8, int64_t classes = 10, DType dtype = f64) {
  manual_seed(seed);
  return {cast(randn({n, classes}, f64) * 3.0, dtype).requires_grad_(), cast(randn({n, classes}, f64) * 4.0, dtype),
          randint(0, classes, {n})};
}

/// Plain loops: softmax(z/T).
std::vector<double> plain_softmax(const Tensor& z, double temperature) {
  std::vector<double> p = values(z);
  const size_t classes = static_cast<size_t>(z.size(1));
  for (size_t row = 0; row < p.size(); row += classes) {
    double most = -kInf, total = 0;
    for (size_t k = row; k < row + classes; ++k) most = std::max(most, p[k]);
    for (size_t k = row; k < row + classes; ++k) total += p[k] = std::exp((p[k] - most) / temperature);
    for (size_t k = row; k < row + classes; ++k) p[k] /= total;
  }
  return p;
}

TEST(KdLoss, IsTheFormulaOnRandomLogits) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Logits l = random_logits(seed);
    const double temperature = 0.5 + static_cast<double>(seed), alpha = static_cast<double>(seed % 5) / 4;
    const auto p = plain_softmax(l.s, temperature), q = plain_softmax(l.t, temperature), own = plain_softmax(l.s, 1);
    double kl = 0, ce = 0;
    for (size_t i = 0; i < p.size(); ++i) kl += q[i] * std::log(q[i] / p[i]);
    for (size_t n = 0; n < 8; ++n) ce -= std::log(own[n * 10 + static_cast<size_t>(l.y.to_vector<int64_t>()[n])]);
    const double want = (alpha * temperature * temperature * kl + (1 - alpha) * ce) / 8;
    EXPECT_NEAR(kd_loss(l.s, l.t, l.y, {.temperature = temperature, .alpha = alpha}).item(), want, 1e-11 * (1 + want));
  }
}

TEST(KdLoss, EqualTeacherGivesExactlyZeroAndNoGradient) {
  for (DType dtype : {f64, f32, bf16}) {
    const Logits l = random_logits(3, 8, 10, dtype);
    for (double temperature : {0.25, 1.0, 4.0, 1e6}) {
      l.s.set_grad({});
      const Tensor loss = kd_loss(l.s, l.s.detach(), {}, {.temperature = temperature, .alpha = 1});
      EXPECT_EQ(loss.item(), 0);
      EXPECT_EQ(loss.dtype(), dtype);
      loss.backward();
      for (double g : values(l.s.grad())) EXPECT_NEAR(g, 0, dtype == f64 ? 1e-9 : 0.05);
    }
  }
}

TEST(KdLoss, HotSoftmaxMatchesLogits) {
  const Logits l = random_logits(5);
  const auto centred = [](const Tensor& z) { return z - mean(z, 1, true); };
  const Tensor d = centred(l.s) - centred(l.t);
  const Tensor loss = kd_loss(l.s, l.t, {}, {.temperature = 1e4, .alpha = 1});
  EXPECT_NEAR(loss.item(), sum(square(d)).item() / (2.0 * 10 * 8), 2e-2);
  loss.backward();
  expect_close(l.s.grad(), d.detach() / (10.0 * 8), {1e-2, 1e-4}, "gradient");
}

TEST(KdLoss, SinglePrecisionAtHighTemperature) {
  const Logits exact = random_logits(6), rounded = random_logits(6, 8, 10, f32);
  for (double temperature : {1.0, 20.0, 1000.0}) {
    double loss[2];
    for (const Logits& l : {exact, rounded}) {
      l.s.set_grad({});
      const Tensor v = kd_loss(l.s, l.t, {}, {.temperature = temperature, .alpha = 1});
      v.backward();
      loss[l.s.dtype() == f32] = v.item();
    }
    EXPECT_NEAR(loss[1], loss[0], 2e-7 * temperature * temperature + 1e-5);
    expect_close(cast(rounded.s.grad(), f64), exact.s.grad(), {1e-4, 1e-7 * temperature + 1e-6}, str(temperature));
  }
}

TEST(KdLoss, EdgesOfAlphaAndOfLabels) {
  const Logits l = random_logits(7);
  EXPECT_NEAR(kd_loss(l.s, l.t, l.y, {.alpha = 0}).item(), cross_entropy(l.s, l.y).item(), 1e-14);
  const double pure = kd_loss(l.s, l.t, l.y, {.alpha = 1}).item();
  EXPECT_EQ(kd_loss(l.s, l.t, {}, {.alpha = 1}).item(), pure);
  // Without labels, and with none in the batch: the teacher's share alone.
  EXPECT_NEAR(kd_loss(l.s, l.t, {}, {.alpha = 0.3}).item(), 0.3 * pure, 1e-12);
  EXPECT_NEAR(kd_loss(l.s, l.t, full({8}, -100, i64), {.alpha = 0.3}).item(), 0.3 * pure, 1e-12);
  // A part of weight 0 is not looked at, infinite or not.
  const Tensor certain = masked_fill(l.s, one_hot(l.y, 10, DType::boolean), -kInf);
  EXPECT_EQ(kd_loss(certain, certain, l.y, {.alpha = 1}).item(), 0);
  const Tensor sure = masked_fill(l.t, gt(one_hot(l.y, 10, f64), 0.5), 800);
  EXPECT_TRUE(std::isfinite(kd_loss(l.s, sure, l.y).item()));
  EXPECT_NEAR(kd_loss(l.s, l.t, l.y, {.alpha = 0.5}).item(),
              0.5 *
                  (kd_loss(slice(l.s, 0, 0, 3), slice(l.t, 0, 0, 3), slice(l.y, 0, 0, 3), {.alpha = 0.5}).item() * 3 +
                   kd_loss(slice(l.s, 0, 3), slice(l.t, 0, 3), slice(l.y, 0, 3), {.alpha = 0.5}).item() * 5) /
                  4,
              1e-12);  // a mean over samples
}

TEST(Losses, ATeacherWithoutAnswerIsNotHidden) {
  const Logits l = random_logits(8, 3, 4);
  Tensor all = full({3, 4}, kNaN, f64), one = clone(l.t);
  one.data<double>()[4 * 1 + 2] = kNaN;
  for (const Tensor& t : {all, one}) {
    EXPECT_TRUE(std::isnan(kd_loss(l.s, t, l.y).item()));
    EXPECT_TRUE(std::isnan(decoupled_kd_loss(l.s, t, l.y).item()));
    EXPECT_TRUE(std::isnan(mutual_loss({l.s, t}, {}).item()));
    l.s.set_grad({});
    const Tensor loss = teacher_class_loss(l.s, t);
    EXPECT_TRUE(std::isnan(loss.item()));
    loss.backward();
    EXPECT_TRUE(std::isnan(values(l.s.grad())[4 * 1]));
    EXPECT_EQ(std::isnan(values(l.s.grad())[0]), t.is_same(all));  // the row's alone
  }
  // Infinity is an answer: of a class that is out of the question, or certain.
  Tensor sure = clone(l.t);
  sure.data<double>()[0] = -kInf;
  sure.data<double>()[4 * 1 + 2] = kInf;
  EXPECT_EQ(teacher_class_loss(l.s, sure).item(), cross_entropy(l.s, argmax(sure, 1)).item());
  EXPECT_TRUE(std::isfinite(teacher_class_loss(l.s, sure).item()));
}

TEST(KdLoss, OneClassAndNoGradientForTheTeacher) {
  const Tensor s = tensor({1.0, -2.0}, {2, 1}).requires_grad_(), t = tensor({3.0, 5.0}, {2, 1}).requires_grad_();
  const Tensor loss = kd_loss(s, t, tensor({0, 0}));
  EXPECT_EQ(loss.item(), 0);
  loss.backward();
  EXPECT_EQ(values(s.grad()), (std::vector<double>{0, 0}));
  EXPECT_FALSE(t.grad().defined());
  expect_error<ShapeError>([&] { decoupled_kd_loss(s, t, tensor({0, 0})); }, "[2, 1]");

  const Logits l = random_logits(8);
  const Tensor teacher = clone(l.t).requires_grad_();
  (kd_loss(l.s, teacher, l.y) + teacher_class_loss(l.s, teacher) + decoupled_kd_loss(l.s, teacher, l.y) +
   hint_loss(l.s, teacher) + relational_kd_loss(l.s, teacher))
      .backward();
  EXPECT_FALSE(teacher.grad().defined());
  EXPECT_TRUE(l.s.grad().defined());
}

TEST(DecoupledKd, SumsToKdWhenBetaIsTheRest) {
  for (uint64_t seed = 0; seed < 10; ++seed) {  // one sample, so that 1 − p_y is one number
    const Logits l = random_logits(seed, 1);
    const double temperature = 3;
    const double rest = 1 - plain_softmax(l.t, temperature)[static_cast<size_t>(l.y.item<int64_t>())];
    EXPECT_NEAR(decoupled_kd_loss(l.s, l.t, l.y, {.temperature = temperature, .alpha = 1, .beta = rest}).item(),
                kd_loss(l.s, l.t, {}, {.temperature = temperature, .alpha = 1}).item(), 1e-11);
  }
}

TEST(DecoupledKd, CertainLogitsStayFinite) {
  const Tensor s = tensor({500.0, 0.0, -500.0, -500.0, 0.0, 500.0}, {2, 3}).requires_grad_();
  const Tensor loss =
      decoupled_kd_loss(s, tensor({0.0, 1000.0, 0.0, 0.0, 0.0, 1000.0}, {2, 3}), tensor({0, 0}), {.temperature = 1});
  EXPECT_TRUE(std::isfinite(loss.item()));
  loss.backward();
  for (double g : values(s.grad())) EXPECT_TRUE(std::isfinite(g));
  EXPECT_NEAR(decoupled_kd_loss(s, s.detach(), tensor({0, 0})).item(), 0, 1e-12);
}

TEST(MutualLoss, IsEachNetworksOwnLoss) {
  const Logits l = random_logits(9);
  const Tensor z = clone(l.t).requires_grad_();
  const Tensor both = mutual_loss({l.s, z}, l.y);
  both.backward();
  const auto alone = [&](const Tensor& own, const Tensor& other) {
    const Tensor x = clone(own.detach()).requires_grad_();
    (cross_entropy(x, l.y) + kd_loss(x, other, {}, {.temperature = 1, .alpha = 1})).backward();
    return x.grad();
  };
  expect_close(l.s.grad(), alone(l.s, z), {1e-12, 1e-14}, "first");
  expect_close(z.grad(), alone(z, l.s), {1e-12, 1e-14}, "second");
  EXPECT_NEAR(mutual_loss({l.s, z}, {}).item(),
              kd_loss(l.s, z, {}, {.temperature = 1, .alpha = 1}).item() +
                  kd_loss(z, l.s, {}, {.temperature = 1, .alpha = 1}).item(),
              1e-12);
}

TEST(Ensemble, MeanOfProbabilitiesAtTheTemperature) {
  const Logits l = random_logits(10);
  for (double temperature : {1.0, 5.0}) {
    const std::vector<Tensor> both = {l.s, l.t};
    const Tensor z = ensemble_logits(both, {.temperature = temperature, .weights = {3, 1}});
    const auto p = plain_softmax(l.s, temperature), q = plain_softmax(l.t, temperature),
               r = plain_softmax(z, temperature);
    for (size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(r[i], 0.75 * p[i] + 0.25 * q[i], 1e-14);
  }
  const std::vector<Tensor> pair = {l.s, full({8, 10}, kNaN, f64)};
  expect_close(softmax(ensemble_logits(pair, {.weights = {1, 0}}), 1), softmax(l.s, 1), {1e-13, 1e-15}, "weight of 0");
}

TEST(HintRegressor, FitsTheTeacher) {
  nn::AnyModule conv = hint_regressor({5, 2, 4, 3}, {5, 6, 4, 3}), line = hint_regressor({5, 8}, {5, 3});
  EXPECT_EQ(to_string(conv(randn({5, 2, 4, 3})).shape()), "[5, 6, 4, 3]");
  EXPECT_EQ(to_string(line(randn({5, 8})).shape()), "[5, 3]");
  expect_error<ShapeError>(
      [] {
        hint_regressor({5, 2, 4, 4}, {5, 2, 4, 3});
      },
      {"hint_regressor", "[5, 2, 4, 4]", "pool"});
  expect_error<ShapeError>([] { hint_regressor({5, 2, 4}, {5, 2, 4}); }, "[N, F] or [N, C, H, W]");
  expect_error<ShapeError>([] { hint_regressor({5, 2}, {5, 2, 4, 4}); }, "[5, 2, 4, 4]");
}

TEST(RelationalKd, SeesNeitherScaleNorPositionNorRotation) {
  manual_seed(11);
  const Tensor t = randn({7, 4}, f64);
  const Tensor turned = concat({slice(t, 1, 2), slice(t, 1, 0, 2) * -1.0}, 1) * 3.0 + 5.0;
  EXPECT_NEAR(relational_kd_loss(turned, t).item(), 0, 1e-12);
  EXPECT_GT(relational_kd_loss(t * tensor({1.0, 2.0, 1.0, 1.0}), t).item(), 1e-3);
}

TEST(RelationalKd, EqualRowsAndFewRowsAreFinite) {
  for (const Tensor& x : {full({4, 3}, 2, f64), tensor({1.0, 2.0, 1.0, 2.0, 0.5, 0.1}, {3, 2}), randn({1, 3}, f64)}) {
    const Tensor s = clone(x).requires_grad_();
    const Tensor loss = relational_kd_loss(s, randn({x.size(0), 5}, f64));
    EXPECT_TRUE(std::isfinite(loss.item()));
    loss.backward();
    for (double g : values(s.grad())) EXPECT_TRUE(std::isfinite(g));
  }
}

TEST(Distill, HalfPrecisionComputesInSingle) {
  const Logits l = random_logits(12, 8, 10, bf16), f = {cast(l.s, f32), cast(l.t, f32), l.y};
  EXPECT_EQ(kd_loss(l.s, l.t, l.y).item(), cast(kd_loss(f.s, f.t, f.y), bf16).item());
  EXPECT_EQ(decoupled_kd_loss(l.s, l.t, l.y).item(), cast(decoupled_kd_loss(f.s, f.t, f.y), bf16).item());
  EXPECT_EQ(relational_kd_loss(l.s, l.t).item(), cast(relational_kd_loss(f.s, f.t), bf16).item());
  EXPECT_EQ(mutual_loss({l.s, l.t}, l.y).item(), cast(mutual_loss({f.s, f.t}, f.y), bf16).item());
  const std::vector<Tensor> two = {l.s, l.t};
  EXPECT_EQ(ensemble_logits(two).dtype(), bf16);
  const Tensor soft = cast(softmax(f.t, 1), bf16);
  EXPECT_EQ(kd_loss(l.s, l.t, soft).item(), cast(kd_loss(f.s, f.t, cast(soft, f32)), bf16).item());
}

// What every loss over logits refuses.
template <class F> void expect_pair_errors(const std::string& name, const F& loss) {
  const Tensor s = randn({4, 3}, f64);
  expect_error<ShapeError>([&] { loss(s, randn({4, 5}, f64)); }, {name, "[4, 3]", "3 classes", "[4, 5]", "of 5"});
  expect_error<ShapeError>([&] { loss(s, randn({2, 3}, f64)); }, {name, "[4, 3]", "[2, 3]"});
  expect_error<ShapeError>([&] { loss(randn({4}, f64), s); }, {name, "the student's logits", "[N, C]", "[4]"});
  expect_error<ShapeError>([&] { loss(empty({0, 3}, f64), empty({0, 3}, f64)); }, {name, "not empty", "[0, 3]"});
  expect_error<DTypeError>([&] { loss(s, cast(s, f32)); }, {name, "f64", "f32"});
  expect_error<DTypeError>([&] { loss(cast(s, i64), s); }, {name, "floating"});
  expect_error<ValueError>([&] { loss(Tensor(), s); }, {name, "undefined"});
  expect_error<ValueError>([&] { loss(s, Tensor()); }, {name, "undefined"});
}

TEST(Distill, RefusesBadLogitsAndOptions) {
  const Tensor y = tensor({0, 1, 2, 0}), s = randn({4, 3}, f64), t = randn({4, 3}, f64);
  expect_pair_errors("kd_loss", [&](const Tensor& a, const Tensor& b) { return kd_loss(a, b, y); });
  expect_pair_errors("teacher_class_loss", [](const Tensor& a, const Tensor& b) { return teacher_class_loss(a, b); });
  expect_pair_errors("decoupled_kd_loss", [&](const Tensor& a, const Tensor& b) { return decoupled_kd_loss(a, b, y); });
  expect_pair_errors("mutual_loss", [&](const Tensor& a, const Tensor& b) { return mutual_loss({a, b}, y); });
  const std::vector<Tensor> two = {s, t};
  for (double bad : {0.0, -1.0, kNaN, kInf}) {
    const std::string rule = "temperature must be finite and above 0";
    expect_error<ValueError>([&] { kd_loss(s, t, y, {.temperature = bad}); }, "kd_loss: " + rule);
    expect_error<ValueError>([&] { decoupled_kd_loss(s, t, y, {.temperature = bad}); }, "decoupled_kd_loss: " + rule);
    expect_error<ValueError>([&] { mutual_loss(two, y, {.temperature = bad}); }, "mutual_loss: " + rule);
    expect_error<ValueError>([&] { ensemble_logits(two, {.temperature = bad}); }, "ensemble_logits: " + rule);
  }
  for (double bad : {-0.1, 1.1, kNaN})
    expect_error<ValueError>([&] { kd_loss(s, t, y, {.alpha = bad}); }, "kd_loss: alpha must be in [0, 1]");
  for (double bad : {-0.1, kNaN, kInf}) {
    expect_error<ValueError>([&] { decoupled_kd_loss(s, t, y, {.alpha = bad}); }, "alpha must be finite");
    expect_error<ValueError>([&] { decoupled_kd_loss(s, t, y, {.beta = bad}); }, "beta must be finite");
    expect_error<ValueError>([&] { mutual_loss(two, y, {.weight = bad}); }, "weight must be finite");
    expect_error<ValueError>([&] { relational_kd_loss(s, t, {.distance = bad}); }, "distance must be finite");
    expect_error<ValueError>([&] { relational_kd_loss(s, t, {.angle = bad}); }, "angle must be finite");
    expect_error<ValueError>([&] { ensemble_logits(two, {.weights = {1, bad}}); }, "a weight must be finite");
  }
  expect_error<ValueError>([&] { kd_loss(s, t, {}, {.alpha = 0}); }, "no labels");
  expect_error<ValueError>([&] { kd_loss(s, t, tensor({0, 1, 3, 0})); }, "label 3");
  expect_error<ValueError>([&] { decoupled_kd_loss(s, t, tensor({0, 1, 3, 0})); }, "3");
  expect_error<ShapeError>([&] { decoupled_kd_loss(s, t, tensor({0, 1})); }, {"labels of shape [2]", "expected [4]"});
  expect_error<DTypeError>([&] { decoupled_kd_loss(s, t, softmax(t, 1)); }, "labels must be integers");
  expect_error<DTypeError>([&] { decoupled_kd_loss(s, t, {}); }, "undefined");
  expect_error<DTypeError>([&] { kd_loss(s, t, cast(softmax(t, 1), f32)); }, "f32");
  expect_error<ValueError>([&] { mutual_loss({s}, y); }, "two networks");
  expect_error<ValueError>([&] { ensemble_logits(two, {.weights = {1}}); }, "1 weights for 2 members");
  expect_error<ValueError>([&] { ensemble_logits(two, {.weights = {0, 0}}); }, "sum to 0");
  expect_error<ValueError>([&] { ensemble_logits(std::vector<Tensor>{}); }, "no members");
  expect_error<ShapeError>(
      [&] {
        ensemble_logits(std::vector<Tensor>{s, randn({4, 2}, f64)});
      },
      {"member 1", "[4, 2]"});
  expect_error<DTypeError>([&] { ensemble_logits(std::vector<Tensor>{s, cast(s, f32)}); }, {"member 1", "f32"});
}

TEST(Distill, RefusesFeaturesThatDoNotFit) {
  const Tensor f = randn({2, 3, 4, 4});
  expect_error<ShapeError>(
      [&] {
        hint_loss(f, randn({2, 5, 4, 4}));
      },
      {"hint_loss", "[2, 3, 4, 4]", "[2, 5, 4, 4]", "regressor"});
  expect_error<ShapeError>(
      [&] {
        attention_transfer_loss(f, randn({2, 5, 4, 2}));
      },
      {"attention_transfer_loss", "[2, 5, 4, 2]", "pool"});
  expect_error<ShapeError>([&] { attention_transfer_loss(randn({2, 3}), randn({2, 3})); }, "[N, C, H, W]");
  expect_error<ShapeError>(
      [&] {
        relational_kd_loss(f, randn({3, 3}));
      },
      {"relational_kd_loss", "[3, 3]", "one batch"});
  expect_error<ShapeError>([&] { hint_loss(empty({0, 3}), empty({0, 3})); }, "not empty");
  expect_error<ShapeError>([&] { hint_loss(scalar(1), scalar(1)); }, "[N, …]");
  expect_error<DTypeError>([&] { attention_transfer_loss(f, cast(f, f64)); }, {"f32", "f64"});
  expect_error<DTypeError>([&] { hint_loss(cast(f, i64), cast(f, i64)); }, "floating");
  expect_error<ValueError>([&] { hint_loss(f, {}); }, "the teacher's features are an undefined");
}

}  // namespace
}  // namespace hone
