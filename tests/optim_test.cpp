// Optimizers: against their formulas written again as plain f64 loops, and against PyTorch's traces.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "optim_support.h"
#include "simd_targets.h"

namespace hone {
namespace {

using namespace optim_test;
using test::expect_error;

using optim::Adam;
using optim::AdamW;
using optim::SGD;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> initial(int64_t n) { return values(make_parameters(f64, {{n}})); }

// ---- PyTorch's traces

Make maker(const std::string& name) {
  if (name == "sgd") return make<SGD>(optim::SGDOptions{.lr = 0.05});
  if (name == "sgd_decay_maximize")
    return make<SGD>(optim::SGDOptions{.lr = 0.01, .weight_decay = 0.1, .maximize = true});
  if (name == "sgd_momentum") return make<SGD>(optim::SGDOptions{.lr = 0.05, .momentum = 0.9});
  if (name == "sgd_dampening")
    return make<SGD>(optim::SGDOptions{.lr = 0.05, .momentum = 0.8, .dampening = 0.3, .weight_decay = 0.02});
  if (name == "sgd_nesterov")
    return make<SGD>(optim::SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true});
  if (name == "adam") return make<Adam>(optim::AdamOptions{.lr = 0.01});
  if (name == "adam_betas") return make<Adam>(optim::AdamOptions{.lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3});
  if (name == "adam_decay") return make<Adam>(optim::AdamOptions{.lr = 0.02, .weight_decay = 0.1, .maximize = true});
  if (name == "adamw") return make<AdamW>(optim::AdamWOptions{.lr = 0.01});
  if (name == "adamw_decay")
    return make<AdamW>(optim::AdamWOptions{.lr = 0.05, .beta1 = 0.7, .beta2 = 0.9, .weight_decay = 0.2});
  if (name == "adamw_maximize") return make<AdamW>(optim::AdamWOptions{.lr = 0.01, .eps = 1e-4, .maximize = true});
  return {};
}

void expect_traces() {
  std::ifstream file(HONE_GOLDEN_DIR "/optim_traces.txt");
  ASSERT_TRUE(file) << HONE_GOLDEN_DIR;
  int traces = 0;
  std::string word, name;
  while (file >> word) {
    if (word != "trace") continue;
    file >> name;
    const Make m = maker(name);
    ASSERT_TRUE(m) << name;
    std::vector<Parameter> parameters = make_parameters(f64, {{3, 4}, {5}});
    auto optimizer = m(refs(parameters));
    for (int t = 0; t < 50; ++t) {
      set_gradients(parameters, t);
      optimizer->step();
      if (t % 10 != 9) continue;
      std::vector<double> want(17);
      for (double& v : want) ASSERT_TRUE(file >> v) << name;
      expect_near(values(parameters), want, 1e-12, name + " after step " + std::to_string(t));
    }
    ++traces;
  }
  EXPECT_EQ(traces, 11);
}

TEST(OptimGolden, TracesEqualPyTorchOnEveryTarget) {
  test::on_every_target([](int64_t) { expect_traces(); });
}

// ---- the formulas, written again

TEST(Optim, AdamAsTheDocumentsWriteIt) {
  std::vector<Parameter> parameters = make_parameters(f64, {{17}});
  Adam adam(refs(parameters), {.lr = 0.01, .bias_correction = false});
  std::vector<double> w = initial(17), m(17), v(17);
  for (int t = 0; t < 50; ++t) {
    set_gradients(parameters, t);
    adam.step();
    for (size_t i = 0; i < 17; ++i) {
      const double g = gradient(static_cast<int64_t>(i), t, w[i]), before = w[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      w[i] -= 0.01 * m[i] / (std::sqrt(v[i]) + 1e-8);
      if (t == 0) {
        EXPECT_NEAR(std::abs(w[i] - before), 0.1 / std::sqrt(0.001) * 0.01, 1e-6);  // about 3.2 times the rate
      }
    }
    expect_near(values(parameters), w, 1e-13, "step " + std::to_string(t));
  }
}

TEST(Optim, EveryLengthAndEveryDtype) {
  // Lengths around the vector and block borders, and one of several pieces of work; an empty one between them.
  const std::vector<Shape> shapes = {{1}, {3}, {0}, {7}, {8}, {9}, {31}, {64, 1}, {257}, {}, {40000}};
  for (DType dtype : {f64, f32, bf16}) {
    std::vector<Parameter> parameters = make_parameters(dtype, shapes);
    SGD sgd(refs(parameters), {.lr = 0.05, .momentum = 0.9});
    std::vector<double> w = values(parameters), b(w.size());
    for (int t = 0; t < 4; ++t) {
      set_gradients(parameters, t);
      std::vector<double> g;
      for (const Parameter& p : parameters)
        for (double x : p.grad().to_vector<double>()) g.push_back(x);
      sgd.step();
      for (size_t i = 0; i < w.size(); ++i) {
        b[i] = 0.9 * b[i] + g[i];
        w[i] -= 0.05 * b[i];
      }
      expect_near(values(parameters), w, dtype == f64 ? 1e-14 : dtype == f32 ? 1e-6 : 1e-2, name(dtype));
      w = values(parameters);  // bf16 rounds: follow it
    }
    EXPECT_EQ(sgd.state(parameters[8].ref(), 0).dtype(), dtype == f64 ? f64 : f32);
  }
}

TEST(Optim, ThreadsAndNeighboursDoNotChangeBits) {
  const auto run = [](int threads, bool together) {
    set_num_threads(threads);
    std::vector<Parameter> parameters = make_parameters(f32, {{50021}, {33}});
    std::vector<std::unique_ptr<AdamW>> optimizers;
    if (together) {
      optimizers.push_back(std::make_unique<AdamW>(refs(parameters)));
    } else {
      for (const Parameter& p : parameters)
        optimizers.push_back(std::make_unique<AdamW>(std::vector<ParameterRef>{p.ref()}));
    }
    for (int t = 0; t < 5; ++t) {
      set_gradients(parameters, t);
      for (auto& o : optimizers) o->step();
    }
    return values(parameters);
  };
  const int before = num_threads();
  const std::vector<double> one = run(1, true);
  EXPECT_EQ(one, run(3, true));
  EXPECT_EQ(one, run(2, false));
  set_num_threads(before);
}

TEST(Optim, GroupsHaveTheirOwnOptions) {
  std::vector<Parameter> parameters = make_parameters(f64, {{4}, {5}, {6}});
  SGD sgd({{.parameters = {parameters[0].ref(), parameters[1].ref()}, .options = {.lr = 0.1}},
           {.parameters = {parameters[2].ref()}, .options = {.lr = 0.01, .momentum = 0.5}}});
  ASSERT_EQ(sgd.groups(), 2);
  std::vector<double> w = values(parameters), b(w.size());
  for (int t = 0; t < 3; ++t) {
    set_gradients(parameters, t);
    sgd.step();
    for (size_t i = 0; i < w.size(); ++i) {
      b[i] = (i < 9 ? 0 : 0.5) * b[i] + gradient(static_cast<int64_t>(i), t, w[i]);
      w[i] -= (i < 9 ? 0.1 : 0.01) * b[i];
    }
  }
  expect_near(values(parameters), w, 1e-14, "groups");
  sgd.set_lr(0.3, 1);
  EXPECT_EQ(sgd.lr(0), 0.1);
  EXPECT_EQ(sgd.lr(1), 0.3);
  sgd.set_lr(0.2);
  EXPECT_EQ(sgd.lr(0), 0.2);
  EXPECT_EQ(sgd.lr(1), 0.2);
}

TEST(Optim, ParametersWithoutGradientAreSkipped) {
  std::vector<Parameter> parameters = make_parameters(f64, {{4}, {5}});
  Adam adam(refs(parameters), {.lr = 0.1});
  set_gradients(parameters, 0);
  parameters[1].ref().zero_grad();
  const std::vector<double> before = parameters[1].raw().to_vector<double>();
  adam.step();
  EXPECT_EQ(parameters[1].raw().to_vector<double>(), before);
  EXPECT_EQ(adam.steps(parameters[0].ref()), 1);
  EXPECT_EQ(adam.steps(parameters[1].ref()), 0);
  EXPECT_FALSE(adam.state(parameters[1].ref(), 0).defined());
  // Its first update, later, is corrected as a first one: η·sign(g).
  set_gradients(parameters, 1);
  adam.step();
  const std::vector<double> after = parameters[1].raw().to_vector<double>();
  for (size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(std::abs(after[i] - before[i]), 0.1, 1e-6);
  adam.zero_grad();
  EXPECT_FALSE(parameters[0].grad().defined());
}

TEST(Optim, NonContiguousGradientAndVersion) {
  std::vector<Parameter> parameters = make_parameters(f64, {{6}});
  SGD sgd(refs(parameters), {.lr = 1});
  // A broadcast gradient: one element seen six times.
  parameters[0].raw().set_grad(expand(tensor(std::vector<double>{2.0}, {1}), {6}));
  ASSERT_FALSE(parameters[0].grad().is_contiguous());
  const uint64_t version = parameters[0].raw().version();
  sgd.step();
  EXPECT_GT(parameters[0].raw().version(), version);
  std::vector<double> want = initial(6);
  for (double& x : want) x -= 2;
  expect_near(values(parameters), want, 1e-15, "broadcast gradient");

  // A transposed one: read in memory order it would land elsewhere.
  std::vector<Parameter> matrix = make_parameters(f64, {{2, 3}});
  SGD plain(refs(matrix), {.lr = 1});
  matrix[0].raw().set_grad(transpose(tensor(std::vector<double>{1, 2, 3, 4, 5, 6}, {3, 2}), 0, 1));
  ASSERT_FALSE(matrix[0].grad().is_contiguous());
  std::vector<double> moved = values(matrix);
  plain.step();
  const double rows[] = {1, 3, 5, 2, 4, 6};
  for (size_t i = 0; i < 6; ++i) moved[i] -= rows[i];
  expect_near(values(matrix), moved, 1e-15, "transposed gradient");
}

// ---- errors

TEST(OptimErrors, Options) {
  std::vector<Parameter> p = make_parameters(f32, {{4}, {5}});
  expect_error<ValueError>([&] { SGD(refs(p), {.lr = -1}); }, "SGD: lr must be finite and at least 0, got -1");
  expect_error<ValueError>([&] { SGD(refs(p), {.lr = kNaN}); }, "lr");
  expect_error<ValueError>([&] { SGD(refs(p), {.momentum = -0.1}); }, "momentum");
  expect_error<ValueError>([&] { SGD(refs(p), {.nesterov = true}); }, "nesterov");
  expect_error<ValueError>([&] { SGD(refs(p), {.momentum = 0.9, .dampening = 0.1, .nesterov = true}); }, "nesterov");
  expect_error<ValueError>([&] { Adam(refs(p), {.beta1 = 1}); }, "Adam: beta1 must be in [0, 1), got 1");
  expect_error<ValueError>([&] { Adam(refs(p), {.beta2 = kNaN}); }, "beta2");
  expect_error<ValueError>([&] { Adam(refs(p), {.eps = -1e-8}); }, "eps");
  expect_error<ValueError>([&] { AdamW(refs(p), {.weight_decay = -1}); }, "AdamW: weight_decay");
  Adam adam(refs(p));
  expect_error<ValueError>([&] { adam.set_lr(kNaN); }, "lr");
  expect_error<ValueError>([&] { adam.set_lr(1, 1); }, "group 1 of 1");
  EXPECT_EQ(adam.lr(), 1e-3);
  SGD sgd(refs(p));
  expect_error<ValueError>([&] { sgd.set_momentum(0.5, 0); }, "momentum");
}

TEST(OptimErrors, Lists) {
  std::vector<Parameter> p = make_parameters(f32, {{4}, {5}});
  expect_error<ValueError>([&] { Adam(std::vector<ParameterRef>{}); }, "empty");
  expect_error<ValueError>(
      [&] {
        Adam(std::vector<ParameterRef>{p[0].ref(), ParameterRef()});
      },
      "parameter 1 is undefined");
  expect_error<ValueError>(
      [&] {
        Adam(std::vector<ParameterRef>{p[0].ref(), p[1].ref(), p[0].ref()});
      },
      "parameter 2 of shape [4] is listed twice");
  expect_error<ValueError>(
      [&] {
        SGD({{.parameters = {p[0].ref()}, .options = {}}, {.parameters = {p[0].ref()}, .options = {}}});
      },
      "twice");
  Adam adam({p[0].ref()});
  expect_error<ValueError>([&] { adam.state(p[1].ref(), 0); }, "not in this optimizer");
  expect_error<ValueError>([&] { adam.state(p[0].ref(), 2); }, "slot 2 of 2");
}

TEST(OptimErrors, StepChecksAllBeforeItChangesAny) {
  std::vector<Parameter> p = make_parameters(f64, {{4}, {5}});
  SGD sgd(refs(p), {.lr = 0.1, .momentum = 0.9});
  expect_error<GradError>([&] { sgd.step(); }, "no parameter has a gradient");
  set_gradients(p, 0);
  p[1].ref().replace(zeros({6}, f64));
  const std::vector<double> before = p[0].raw().to_vector<double>();
  expect_error<GradError>([&] { sgd.step(); }, "parameter 1 changed its shape");
  EXPECT_EQ(p[0].raw().to_vector<double>(), before);
  EXPECT_EQ(sgd.steps(p[0].ref()), 0);
}

TEST(OptimErrors, GradientOfAnotherShapeIsRefusedAtTheDoor) {
  std::vector<Parameter> p = make_parameters(f64, {{4}, {5}});
  Adam adam(refs(p));
  set_gradients(p, 0);
  expect_error<ShapeError>([&] { p[1].raw().set_grad(zeros({4}, f64)); }, "[4] for a tensor of shape [5]");
  expect_error<DTypeError>([&] { p[1].raw().set_grad(zeros({5}, f32)); }, "dtype f32 for a tensor of dtype f64");
  adam.step();  // with the gradients it had
  EXPECT_EQ(adam.steps(p[1].ref()), 1);
}

}  // namespace
}  // namespace hone
