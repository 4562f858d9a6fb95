// Forward results and gradients against PyTorch's, from the files that golden/generate.py wrote.

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_close;

const TensorFile& golden(const std::string& name) {
  static std::map<std::string, TensorFile> files;
  auto it = files.find(name);
  if (it == files.end()) it = files.emplace(name, load_safetensors(std::string(HONE_GOLDEN_DIR) + "/" + name)).first;
  return it->second;
}
const Tensor* find(const TensorFile& f, const std::string& name) {
  for (const auto& [n, t] : f.tensors) {
    if (n == name) return &t;
  }
  return nullptr;
}

using Inputs = std::vector<Tensor>;
struct Case {
  std::string name;
  std::function<Tensor(const Inputs&)> call;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases() {
  const auto at = [](const Inputs& x, size_t i) { return i < x.size() ? x[i] : Tensor(); };
  std::vector<Case> all = {
      {"conv2d/plain", [](const Inputs& x) { return conv2d(x[0], x[1], x[2]); }},
      {"conv2d/no_bias", [](const Inputs& x) { return conv2d(x[0], x[1]); }},
      {"conv2d/stride_padding_dilation",
       [](const Inputs& x) {
         return conv2d(x[0], x[1], x[2], {.stride = {2, 1}, .padding = {1, 2}, .dilation = {2, 1}});
       }},
      {"conv2d/groups", [](const Inputs& x) { return conv2d(x[0], x[1], x[2], {.padding = {1}, .groups = 2}); }},
      {"conv2d/depthwise",
       [](const Inputs& x) { return conv2d(x[0], x[1], {}, {.stride = {2}, .padding = {1}, .groups = 4}); }},
      {"max_pool2d/2", [](const Inputs& x) { return max_pool2d(x[0], 2); }},
      {"max_pool2d/3_2_1", [](const Inputs& x) { return max_pool2d(x[0], 3, {.stride = {2}, .padding = {1}}); }},
      {"avg_pool2d/2", [](const Inputs& x) { return avg_pool2d(x[0], 2); }},
      {"avg_pool2d/3_2_1", [](const Inputs& x) { return avg_pool2d(x[0], 3, {.stride = {2}, .padding = {1}}); }},
      {"avg_pool2d/3_2_1_exclude",
       [](const Inputs& x) {
         return avg_pool2d(x[0], 3, {.stride = {2}, .padding = {1}, .count_include_pad = false});
       }},
      {"adaptive_avg_pool2d/3_2",
       [](const Inputs& x) {
         return adaptive_avg_pool2d(x[0], Shape{3, 2});
       }},
      {"adaptive_max_pool2d/3_2",
       [](const Inputs& x) {
         return adaptive_max_pool2d(x[0], Shape{3, 2});
       }},
      {"linear/bias", [](const Inputs& x) { return linear(x[0], x[1], x[2]); }},
      {"linear/three_dims", [](const Inputs& x) { return linear(x[0], x[1]); }},
      {"mse_loss/mean", [](const Inputs& x) { return mse_loss(x[0], x[1]); }},
      {"l1_loss/mean", [](const Inputs& x) { return l1_loss(x[0], x[1]); }},
      {"huber_loss/sum", [](const Inputs& x) { return huber_loss(x[0], x[1], 0.7, Reduction::sum); }},
      {"softmax/last", [](const Inputs& x) { return softmax(x[0]); }},
      {"softmax/first", [](const Inputs& x) { return softmax(x[0], 0); }},
      {"log_softmax/middle", [](const Inputs& x) { return log_softmax(x[0], 1); }},
      {"logsumexp/last", [](const Inputs& x) { return logsumexp(x[0], {-1}); }},
      {"logsumexp/two_keep",
       [](const Inputs& x) {
         return logsumexp(x[0], {0, 2}, true);
       }},
      {"gelu/exact", [](const Inputs& x) { return gelu(x[0]); }},
      {"gelu/tanh", [](const Inputs& x) { return gelu(x[0], Gelu::tanh); }},
      {"silu/plain", [](const Inputs& x) { return silu(x[0]); }},
      {"layer_norm/affine",
       [](const Inputs& x) {
         return layer_norm(x[0], {3, 4}, x[1], x[2]);
       }},
      {"layer_norm/plain", [](const Inputs& x) { return layer_norm(x[0], {6}, {}, {}, 1e-3); }}};
  for (const char* kind : {"matrix", "broadcast", "row", "column"}) {
    all.push_back({std::string("matmul/") + kind, [](const Inputs& x) { return matmul(x[0], x[1]); }});
  }
  for (Reduction r : {Reduction::mean, Reduction::sum, Reduction::none}) {
    for (bool smooth : {false, true}) {
      for (bool weighted : {false, true}) {
        for (const char* kind : {"labels", "ignored", "soft"}) {
          all.push_back({str("cross_entropy/", kind, "_", name(r), smooth ? "_smooth" : "", weighted ? "_weight" : ""),
                         [=](const Inputs& x) {
                           return cross_entropy(
                               x[0], x[1], {.weight = at(x, 2), .label_smoothing = smooth ? 0.1 : 0, .reduction = r});
                         }});
        }
      }
    }
  }
  struct Kl {
    const char* name;
    KlReduction r;
  };
  for (const Kl& k : {Kl{"batchmean", KlReduction::batchmean}, Kl{"mean", KlReduction::mean},
                      Kl{"sum", KlReduction::sum}, Kl{"none", KlReduction::none}}) {
    for (bool log_target : {false, true}) {
      all.push_back({str("kl_div/", k.name, log_target ? "_log_target" : ""), [=](const Inputs& x) {
                       return kl_div(x[0], x[1], {.log_target = log_target, .reduction = k.r});
                     }});
    }
  }
  for (std::string n : {"2d", "4d"}) {
    const std::string state = "batch_norm/" + n + "_state/";
    const auto before = [state](const char* which) {
      return clone(golden("ops.safetensors").at(state + which + "_before"));
    };
    all.push_back({"batch_norm/" + n + "_eval", [=](const Inputs& x) {
                     return batch_norm(x[0], before("mean"), before("var"), x[1], x[2], {.eps = 1e-4});
                   }});
    all.push_back(
        {"batch_norm/" + n + "_training", [=](const Inputs& x) {
           const Tensor mean = before("mean"), var = before("var");
           const Tensor y = batch_norm(x[0], mean, var, x[1], x[2], {.training = true, .momentum = 0.3, .eps = 1e-4});
           expect_close(mean, golden("ops.safetensors").at(state + "mean_after"), {1e-12, 1e-12}, "running mean");
           expect_close(var, golden("ops.safetensors").at(state + "var_after"), {1e-12, 1e-12}, "running variance");
           return y;
         }});
  }
  return all;
}

class Golden : public testing::TestWithParam<Case> {};
TEST_P(Golden, MatchesPyTorch) {
  const auto& [name, call] = GetParam();
  const TensorFile& file = golden("ops.safetensors");
  Inputs inputs, wanted, gradients;
  for (int i = 0;; ++i) {
    const Tensor* x = find(file, str(name, "/in", i));
    if (!x) break;
    inputs.push_back(clone(*x));
    if (const Tensor* g = find(file, str(name, "/grad", i))) {
      wanted.push_back(inputs.back().requires_grad_());
      gradients.push_back(*g);
    }
  }
  ASSERT_FALSE(wanted.empty()) << name << ": nothing in the golden file";
  const Tensor y = call(inputs);
  expect_close(y, file.at(name + "/out"), {1e-11, 1e-12}, "forward");
  const Inputs got = grad({y}, wanted, {}, {file.at(name + "/seed")});
  for (size_t i = 0; i < got.size(); ++i) expect_close(got[i], gradients[i], {1e-10, 1e-11}, str("gradient ", i));
}
INSTANTIATE_TEST_SUITE_P(Op, Golden, testing::ValuesIn(cases()), [](const testing::TestParamInfo<Case>& c) {
  std::string n = c.param.name;
  for (char& x : n) x = x == '/' ? '_' : x;
  return n;
});

// A case of the file that no test reads would be no test.
TEST(GoldenFile, EveryCaseIsRead) {
  std::map<std::string, int> known;
  for (const Case& c : cases()) known[c.name] = 1;
  for (const auto& [entry, t] : golden("ops.safetensors").tensors) {
    const std::string name = entry.substr(0, entry.rfind('/'));
    EXPECT_TRUE(known.count(name) || name.ends_with("_state")) << name;
  }
}

// As golden/generate.py's pattern().
Tensor pattern(const Shape& shape, int64_t seed, double scale) {
  Tensor t = empty(shape);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] =
        static_cast<float>(static_cast<double>((i * 7919 + seed * 104729) % 2003 - 1001) / 1001 * scale);
  }
  return t;
}

TEST(GoldenStep, LeNetLossAndEveryGradient) {
  const TensorFile& file = golden("lenet.safetensors");
  const std::vector<std::pair<std::string, Shape>> shapes = {
      {"conv1.weight", {6, 3, 5, 5}}, {"conv1.bias", {6}}, {"conv2.weight", {16, 6, 5, 5}}, {"conv2.bias", {16}},
      {"fc1.weight", {120, 400}},     {"fc1.bias", {120}}, {"fc2.weight", {84, 120}},       {"fc2.bias", {84}},
      {"fc3.weight", {10, 84}},       {"fc3.bias", {10}}};
  std::vector<Tensor> p;
  for (size_t k = 0; k < shapes.size(); ++k) {
    const Shape& s = shapes[k].second;
    double fan = 1;
    for (int d = 1; d < s.ndim(); ++d) fan *= static_cast<double>(s[d]);
    p.push_back(
        pattern(s, static_cast<int64_t>(k) + 1, s.ndim() > 1 ? std::pow(fan, -0.5) * 1.5 : 0.1).requires_grad_());
  }
  const Tensor x = pattern({4, 3, 32, 32}, 50, 1), labels = tensor({int64_t{3}, int64_t{9}, int64_t{0}, int64_t{6}});
  Tensor h = max_pool2d(relu(conv2d(x, p[0], p[1])), 2);
  h = flatten(max_pool2d(relu(conv2d(h, p[2], p[3])), 2), 1);
  h = relu(linear(h, p[4], p[5]));
  h = relu(linear(h, p[6], p[7]));
  const Tensor logits = linear(h, p[8], p[9]), loss = cross_entropy(logits, labels);
  expect_close(logits, file.at("logits"), {1e-5, 1e-5}, "logits");
  expect_close(loss, file.at("loss"), {1e-6, 1e-6}, "loss");
  loss.backward();
  for (size_t k = 0; k < shapes.size(); ++k) {
    const Tensor& want = file.at("grad." + shapes[k].first);
    double scale = 0;
    for (double v : want.to_vector<double>()) scale = std::max(scale, std::abs(v));
    ASSERT_GT(scale, 0);
    expect_close(p[k].grad(), want, {1e-4, 1e-5 * scale}, shapes[k].first);
  }
}

}  // namespace
}  // namespace hone
