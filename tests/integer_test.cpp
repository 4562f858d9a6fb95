// Static quantization: the integer network beside the f32 one, and beside plain integer arithmetic.

#include <cmath>

#include "graph_support.h"
#include "hone/ops/packed/reference.h"
#include "support.h"

namespace hone::test {
namespace {

using reference::Codes;
using reference::codes_of;
using reference::linear_sums;

using compress::quantize::calibration;
using compress::quantize::quantize_static;
using compress::quantize::StaticCounts;
using compress::quantize::StaticOptions;
using graph::Network;

/// Images of ten classes: a class' own pattern, and noise.
struct Patterns {
  Tensor patterns;
  Patterns() {
    manual_seed(1);
    const Tensor coarse = randn({10, 3, 8, 1, 8, 1});
    patterns = reshape(expand(coarse, {10, 3, 8, 4, 8, 4}), {10, 3, 32, 32});
  }
  std::pair<Tensor, Tensor> draw(int64_t n) const {
    const Tensor labels = randint(0, 10, {n});
    return {index_select(patterns, 0, labels) + randn({n, 3, 32, 32}) * 3.0, labels};
  }
};
double accuracy(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, const Tensor& labels) {
  const NoGrad no_grad;
  const auto got = argmax(f(x), 1).to_vector<int64_t>(), want = labels.to_vector<int64_t>();
  int64_t right = 0;
  for (size_t i = 0; i < got.size(); ++i) right += got[i] == want[i];
  return static_cast<double>(right) / static_cast<double>(got.size());
}
template <class M> void train(M& module, const Patterns& data, int steps) {
  optim::Adam adam(module.parameters(), {.lr = 2e-3});
  for (int i = 0; i < steps; ++i) {
    const auto [x, labels] = data.draw(32);
    Tensor loss = cross_entropy(module(x), labels);
    adam.zero_grad();
    loss.backward();
    adam.step();
  }
  module.eval();
}
double relative_error(const Tensor& got, const Tensor& want) {
  const auto a = got.to_vector<double>(), b = want.to_vector<double>();
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return std::sqrt(error / size);
}

TEST(QuantizeStatic, LeNetKeepsItsAccuracy) {
  const Patterns data;
  nn::LeNet module;
  train(module, data, 100);
  const auto [x, labels] = data.draw(1000);
  const auto [c, unused] = data.draw(200);
  const double before = accuracy(module, x, labels);
  ASSERT_GT(before, 0.6);
  const Network net = graph::trace(module, x);
  const NoGrad no_grad;
  for (const compress::quantize::Observe method :
       {compress::quantize::Observe::min_max, compress::quantize::Observe::percentile, compress::quantize::Observe::mse,
        compress::quantize::Observe::entropy, compress::quantize::Observe::moving_average}) {
    StaticCounts counts;
    Network small = quantize_static(net, calibration({slice(c, 0, 0, 100), slice(c, 0, 100, 200)}),
                                    {.activations = {.method = method}, .bias_correction = true}, &counts);
    EXPECT_EQ(counts.integer, 6);  // two convolutions with their tails, flatten, three linear layers
    EXPECT_EQ(counts.real, 0);
    EXPECT_NEAR(accuracy(small, x, labels), before, 0.006) << static_cast<int>(method);
    EXPECT_LT(relative_error(small(x), module(x)), 0.05) << static_cast<int>(method);
  }
  Network four = quantize_static(net, calibration({c}), {.bits = 4});
  EXPECT_GT(accuracy(four, x, labels), before - 0.1);

  // The file holds integers: 62,006 weights and little else.
  const Network small = quantize_static(net, calibration({c}));
  int64_t bytes = 0;
  for (const auto& [name, t] : graph::to_tensor_file(small).tensors) bytes += t.numel() * size_of(t.dtype());
  EXPECT_LT(bytes, 80000);
}

TEST(QuantizeStatic, SavedLoadedAndExecutedBitsAreTheSame) {
  manual_seed(2);
  nn::ResNet module{{.depth = 8, .in = 1, .width = 8}};
  disturb_norms(module);
  const Tensor x = randn({5, 1, 32, 32});
  StaticCounts counts;
  Network small = quantize_static(graph::trace(module, x), calibration({randn({16, 1, 32, 32})}), {}, &counts);
  EXPECT_EQ(counts.real, 0) << small.table();
  const NoGrad no_grad;
  const Tensor want = small(x);
  Network back = graph::from_tensor_file(graph::to_tensor_file(small));
  EXPECT_EQ(graph::difference(small, back), "");
  EXPECT_TRUE(equal(back(x), want));
  graph::Executor executor(small, {.batch = 5});
  EXPECT_TRUE(equal(executor.run(x), want));
  // A row's answer does not depend on the rows beside it, nor on the threads.
  graph::Executor one(small, {.batch = 1});
  EXPECT_TRUE(equal(one.run(slice(x, 0, 2, 3)), slice(want, 0, 2, 3)));
  const int threads = num_threads();
  set_num_threads(3);
  EXPECT_TRUE(equal(small(x), want));
  set_num_threads(threads);
  EXPECT_LT(relative_error(want, module.eval()(x)), 0.15);
}

TEST(QuantizeStatic, IsTheArithmeticOfTheFormulas) {
  manual_seed(3);
  struct Two : nn::Module {
    nn::Linear a{{.in = 6, .out = 5}}, b{{.in = 5, .out = 3}};
    HONE_MODULE(Two, a, b)
    Tensor forward(const Tensor& x) { return b(relu(a(x))); }
  } module;
  const Tensor x = randn({40, 6});
  Network small = quantize_static(graph::trace(module, x), calibration({x}));
  const NoGrad no_grad;
  const Tensor got = small(x);
  // By hand, in f64 where the formulas have real numbers.
  const auto scale_of = [](double low, double high) { return std::max(high, 0.0) / 255 - std::min(low, 0.0) / 255; };
  const auto ends = [](const Tensor& t) {
    const auto v = t.to_vector<double>();
    return std::pair(*std::min_element(v.begin(), v.end()), *std::max_element(v.begin(), v.end()));
  };
  const Tensor hidden = relu(module.a(x));
  const auto [low, high] = ends(x);
  const double sx = scale_of(low, high), sh = scale_of(0, ends(hidden).second);
  const int64_t zx = std::lrint(-low / sx);
  struct Layer {
    Codes w, b;
    std::vector<double> unit;
  };
  const auto layer = [](nn::Linear& l, double s) {
    Layer r;
    const auto w = l.weight.raw().to_vector<double>(), b = l.bias.raw().to_vector<double>();
    const size_t in = w.size() / b.size();
    for (size_t o = 0; o < b.size(); ++o) {
      double most = 0;
      for (size_t k = 0; k < in; ++k) most = std::max(most, std::abs(w[o * in + k]));
      for (size_t k = 0; k < in; ++k) r.w.push_back(std::lrint(w[o * in + k] / (most / 127)));
      r.unit.push_back(s * (most / 127));
      r.b.push_back(std::lrint(b[o] / r.unit.back()));
    }
    return r;
  };
  Codes q;
  for (const float v : x.to_vector<float>())
    q.push_back(std::clamp<int64_t>(zx + std::lrint(v * static_cast<float>(1 / sx)), 0, 255));
  const Layer a = layer(module.a, sx), b = layer(module.b, sh);
  std::vector<double> ratio = a.unit;
  for (double& r : ratio) r /= sh;
  const Codes h = codes_of(linear_sums(q, zx, a.w, a.b, 6), Int8Output::codes(ratio, 0), 1);
  const Codes y = linear_sums(h, 0, b.w, b.b, 5);
  for (size_t i = 0; i < y.size(); ++i)
    ASSERT_EQ(got.data<float>()[i], static_cast<float>(y[i]) * static_cast<float>(b.unit[i % 3])) << i;
}

/// Every op that has an integer form, and dims that depend on the batch.
struct Everything : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 6, .kernel = 3, .padding = 1}};
  nn::Conv2d conv2{{.in = 6, .out = 6, .kernel = 3, .padding = 1, .groups = 2, .bias = false}};
  nn::BatchNorm2d bn{{.features = 6}};
  nn::Linear fc{{.in = 12 * 4, .out = 7}}, last{{.in = 7, .out = 5}};
  HONE_MODULE(Everything, conv1, conv2, bn, fc, last)
  Tensor forward(const Tensor& x) {
    const Tensor h = tanh(conv1(x));
    const Tensor g = relu(bn(conv2(h)) + h);
    Tensor y = concat({max_pool2d(g, 2), avg_pool2d(clamp(h, -0.5, 0.75), 2)}, 1);
    y = adaptive_avg_pool2d(y, 2);
    y = silu(fc(reshape(permute(y, {0, 2, 3, 1}), {x.size(0), -1})));
    return relu(last(y));
  }
};

TEST(QuantizeStatic, KnowsEveryIntegerOp) {
  manual_seed(4);
  Everything module;
  disturb_norms(module);
  const Tensor x = randn({6, 2, 8, 8});
  StaticCounts counts;
  Network small = quantize_static(graph::trace(module, x), calibration({randn({64, 2, 8, 8})}), {}, &counts);
  EXPECT_EQ(counts.real, 1) << small.table();  // the last ReLU
  std::set<std::string> ops;
  for (const graph::Node& n : small.nodes()) ops.insert(n.op->name);
  for (const char* op : {"int8_quantize", "int8_conv2d", "int8_linear", "int8_add", "int8_max_pool2d",
                         "int8_avg_pool2d", "int8_lookup", "concat", "permute"})
    EXPECT_TRUE(ops.count(op)) << op << "\n" << small.table();
  const NoGrad no_grad;
  EXPECT_LT(relative_error(small(x), module.eval()(x)), 0.1);
  graph::Executor executor(small, {.batch = 6});
  EXPECT_TRUE(equal(executor.run(x), small(x)));
}

TEST(QuantizeStatic, FallsBackToF32WhereAsked) {
  manual_seed(5);
  struct Soft : nn::Module {
    nn::Linear a{{.in = 6, .out = 8}}, b{{.in = 8, .out = 3}};
    HONE_MODULE(Soft, a, b)
    Tensor forward(const Tensor& x) { return b(softmax(a(x), 1) * 3.0); }
  } module;
  const Tensor x = randn({30, 6});
  const Network net = graph::trace(module, x);
  expect_error<GraphError>([&] { quantize_static(net, calibration({x})); }, {"softmax", "float_fallback"});
  StaticCounts counts;
  Network small = quantize_static(net, calibration({x}), {.float_fallback = true}, &counts);
  EXPECT_EQ(counts.integer, 2);
  EXPECT_EQ(counts.real, 2);
  const NoGrad no_grad;
  EXPECT_LT(relative_error(small(x), module(x)), 0.05);
}

TEST(QuantizeStatic, MasksConstantsAndDeadOutputsAreHonoured) {
  manual_seed(6);
  nn::LeNet300_100 module;
  compress::prune(module, {.criterion = compress::magnitude(), .density = 0.1});
  {
    const NoGrad no_grad;  // an output of zeros alone, and one that is its bias
    Tensor w = clone(module.fc1.weight.raw());
    slice(w, 0, 0, 2).copy_(zeros({2, 784}));
    module.fc1.weight.ref().replace(w);
    Tensor b = clone(module.fc1.bias.raw());
    b.data<float>()[0] = 0, b.data<float>()[1] = 0.7f;
    module.fc1.bias.ref().replace(b);
  }
  const Tensor x = randn({50, 784});
  Network small = quantize_static(graph::trace(module, x), calibration({x}));
  const NoGrad no_grad;
  EXPECT_LT(relative_error(small(x), module.eval()(x)), 0.05);
}

TEST(QuantizeStatic, BiasCorrectionMakesTheMeanRight) {
  manual_seed(7);
  nn::Linear module{{.in = 40, .out = 12}};
  const Tensor x = rand({400, 40}) + 2.0;  // a mean far from 0
  const Network net = graph::trace(module, x);
  const NoGrad no_grad;
  const auto worst = [&](bool correct) {
    Network small = quantize_static(net, calibration({x}), {.bits = 4, .bias_correction = correct});
    double most = 0;
    for (const double v : (mean(small(x), {0}) - mean(module(x), {0})).to_vector<double>())
      most = std::max(most, std::abs(v));
    return most;
  };
  EXPECT_LT(worst(true), 0.05 * worst(false));
}

TEST(QuantizeDynamic, NeedsNoDataAndARowIsItsOwn) {
  manual_seed(8);
  Everything module;
  disturb_norms(module);
  const Tensor x = randn({6, 2, 8, 8});
  const Network net = graph::trace(module, x);
  Network small = compress::quantize::quantize_dynamic(net);
  const NoGrad no_grad;
  const Tensor want = module.eval()(x), got = small(x);
  EXPECT_LT(relative_error(got, want), 0.05) << small.table();
  // A loud sample does not coarsen the others.
  const Tensor loud = concat({slice(x, 0, 0, 5), slice(x, 0, 5, 6) * 1e4}, 0);
  EXPECT_TRUE(equal(slice(small(loud), 0, 0, 5), slice(got, 0, 0, 5)));
  graph::Executor executor(small, {.batch = 6});
  EXPECT_TRUE(equal(executor.run(x), got));
  Network back = graph::from_tensor_file(graph::to_tensor_file(small));
  EXPECT_TRUE(equal(back(x), got));
  Network four = compress::quantize::quantize_dynamic(net, 4);
  EXPECT_LT(relative_error(four(x), want), 0.5);
  expect_error<ValueError>([&] { compress::quantize::quantize_dynamic(net, 3); }, {"3 bits"});
}

TEST(QuantizeStatic, RefusesWhatItCannotDo) {
  nn::LeNet300_100 module;
  const Tensor x = randn({4, 784});
  const Network net = graph::trace(module, x);
  expect_error<ValueError>([&] { quantize_static(net, calibration(std::vector<Tensor>{})); }, {"no batch"});
  expect_error<ValueError>([&] { quantize_static(net, calibration({x}), {.bits = 5}); }, {"5 bits"});
  expect_error<ValueError>(
      [&] { quantize_static(net, calibration({x}), {.weights = compress::quantize::Granularity::group}); }, {"groups"});
  Tensor bad = clone(x);
  bad.data<float>()[3] = NAN;
  expect_error<NumericError>([&] { quantize_static(net, calibration({bad})); }, {"nan"});
}

}  // namespace
}  // namespace hone::test
