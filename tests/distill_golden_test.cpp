// Losses of knowledge distillation and their gradients against PyTorch's, from golden/generate_distill.py.

#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include "regularizer_support.h"

namespace hone {
namespace {

using regularizer_test::values;
using test::expect_close;

Tensor wave(const Shape& shape, double phase, double scale = 1) { return regularizer_test::wave(shape, phase) * scale; }

struct Golden {
  double value = 0;
  std::vector<std::vector<double>> gradients;
};

std::map<std::string, Golden> read_golden() {
  std::ifstream file(HONE_GOLDEN_DIR "/distill.txt");
  EXPECT_TRUE(file) << HONE_GOLDEN_DIR;
  std::map<std::string, Golden> all;
  Golden* now = nullptr;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind, name;
    words >> kind;
    if (kind == "case") {
      words >> name;
      now = &all[name];
    } else if (kind == "value") {
      words >> now->value;
    } else if (kind == "grad") {
      now->gradients.emplace_back();
      for (double v = 0; words >> v;) now->gradients.back().push_back(v);
    }
  }
  return all;
}

using Inputs = std::vector<Tensor>;
struct Case {
  std::string name;
  Inputs inputs;
  std::function<Tensor(const Inputs&)> loss;
};

std::vector<Case> cases() {
  using namespace compress;
  const int64_t n = 6, c = 5;
  const Tensor s = wave({n, c}, 0.3, 3), t = wave({n, c}, 1.1, 4), u = wave({n, c}, 2.2, 2);
  const Tensor y = tensor({0, 4, 2, 2, 1, 3}), partly = tensor({0, -100, 2, -100, -100, 3});
  const Tensor soft = softmax(wave({n, c}, 2.0), 1);
  std::vector<Case> all;
  for (const auto& [name, temperature, alpha] : {std::tuple{"kd_4_0.9", 4.0, 0.9},
                                                 {"kd_1_0.5", 1.0, 0.5},
                                                 {"kd_0.5_0.3", 0.5, 0.3},
                                                 {"kd_20_0.7", 20.0, 0.7},
                                                 {"kd_3_0", 3.0, 0.0}}) {
    const KdOptions options{.temperature = temperature, .alpha = alpha};  // clang 14 captures no structured binding
    all.push_back({name, {s}, [=](const Inputs& x) { return kd_loss(x[0], t, y, options); }});
  }
  all.push_back({"kd_unlabelled", {s}, [=](const Inputs& x) { return kd_loss(x[0], t, {}, {.temperature = 20}); }});
  for (const auto& [name, labels] : {std::pair{"kd_partly_labelled", partly}, {"kd_soft_labels", soft}})
    all.push_back({name, {s}, [=, labels = labels](const Inputs& x) {
                     return kd_loss(x[0], t, labels, {.temperature = 2, .alpha = 0.6});
                   }});
  all.push_back(
      {"kd_large_logits", {s * 200.0}, [=](const Inputs& x) { return kd_loss(x[0], t * 300.0, y, {.alpha = 1}); }});
  all.push_back({"teacher_class", {s}, [=](const Inputs& x) { return teacher_class_loss(x[0], t); }});

  for (const auto& [name, temperature, alpha, beta] : {std::tuple{"dkd_4_1_8", 4.0, 1.0, 8.0},
                                                       {"dkd_1_0.5_2", 1.0, 0.5, 2.0},
                                                       {"dkd_2_0_1", 2.0, 0.0, 1.0},
                                                       {"dkd_2_1_0", 2.0, 1.0, 0.0}})
    all.push_back({name, {s}, [=, temperature = temperature, alpha = alpha, beta = beta](const Inputs& x) {
                     return decoupled_kd_loss(x[0], t, y, {.temperature = temperature, .alpha = alpha, .beta = beta});
                   }});
  all.push_back({"dkd_two_classes", {slice(s, 1, 0, 2)}, [=](const Inputs& x) {
                   return decoupled_kd_loss(x[0], slice(t, 1, 0, 2), tensor({0, 0, 0, 0, 1, 1}), {.temperature = 2});
                 }});
  all.push_back({"mutual_2", {s, t}, [=](const Inputs& x) { return mutual_loss(x, y); }});
  all.push_back(
      {"mutual_3", {s, t, u}, [=](const Inputs& x) { return mutual_loss(x, y, {.temperature = 2, .weight = 0.5}); }});
  all.push_back({"ensemble_probabilities", {s, t, u}, [=](const Inputs& x) { return sum(ensemble_logits(x) * soft); }});
  all.push_back({"ensemble_weighted", {s, t, u}, [=](const Inputs& x) {
                   return sum(ensemble_logits(x, {.temperature = 3, .weights = {1, 2, 0.5}}) * soft);
                 }});
  all.push_back({"ensemble_logits", {s, t}, [=](const Inputs& x) {
                   return sum(ensemble_logits(x, {.mean = EnsembleMean::logits, .weights = {1, 3}}) * soft);
                 }});

  const Tensor fs = wave({3, 2, 4, 5}, 0.4), ft = wave({3, 3, 4, 5}, 0.9, 2);
  all.push_back({"hint", {fs, wave({3, 2, 1, 1}, 0.7), wave({3}, 0.2)}, [=](const Inputs& x) {
                   return hint_loss(conv2d(x[0], x[1], x[2]), ft);
                 }});
  all.push_back({"hint_linear", {wave({n, 3}, 0.8), wave({c, 3}, 0.1), wave({c}, 0.6)}, [=](const Inputs& x) {
                   return hint_loss(linear(x[0], x[1], x[2]), t);
                 }});
  const Tensor dead = fs * tensor({1.0, 0.0, 1.0}, {3, 1, 1, 1});
  for (const auto& [name, x] : {std::pair{"attention", fs}, {"attention_dead_sample", dead}})
    all.push_back({name, {x}, [=](const Inputs& in) { return attention_transfer_loss(in[0], ft); }});
  const Tensor rt = wave({n, 7}, 1.9, 5);
  for (const auto& [name, distance, angle] :
       {std::tuple{"relational_25_50", 25.0, 50.0}, {"relational_1_0", 1.0, 0.0}, {"relational_0_1", 0.0, 1.0}})
    all.push_back({name, {wave({n, 2, 4}, 0.3)}, [=, distance = distance, angle = angle](const Inputs& x) {
                     return relational_kd_loss(x[0], rt, {.distance = distance, .angle = angle});
                   }});
  return all;
}

TEST(DistillGolden, EqualsPyTorch) {
  const std::map<std::string, Golden> golden = read_golden();
  const std::vector<Case> all = cases();
  EXPECT_EQ(golden.size(), all.size());
  for (const Case& c : all) {
    SCOPED_TRACE(c.name);
    ASSERT_TRUE(golden.count(c.name));
    const Golden& want = golden.at(c.name);
    Inputs inputs;
    for (const Tensor& x : c.inputs) inputs.push_back(clone(x).requires_grad_());
    const Tensor loss = c.loss(inputs);
    EXPECT_EQ(loss.ndim(), 0);
    EXPECT_NEAR(loss.item(), want.value, 1e-11 * (1 + std::abs(want.value)));
    loss.backward();
    ASSERT_EQ(want.gradients.size(), inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i)
      expect_close(values(inputs[i].grad()), want.gradients[i], {1e-9, 1e-11}, str("gradient ", i));
  }
}

TEST(DistillGolden, Gradcheck) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    if (c.name.starts_with("mutual") || c.name == "attention_dead_sample") continue;  // constants; no derivative at 0
    Inputs inputs;
    for (const Tensor& x : c.inputs) inputs.push_back(clone(x).requires_grad_());
    const auto f = [&](const Inputs& x) { return Inputs{c.loss(x)}; };
    EXPECT_NO_THROW(gradcheck(f, inputs));
    EXPECT_NO_THROW(gradgradcheck(f, inputs));
  }
}

}  // namespace
}  // namespace hone
