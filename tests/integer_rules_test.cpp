// Static quantization at the edges of its rules: ranges, biases, grids and ops that just do, or do not, have integers.

#include <cmath>

#include "graph_support.h"
#include "support.h"

namespace hone::test {
namespace {

using compress::quantize::calibration;
using compress::quantize::quantize_static;
using compress::quantize::StaticCounts;
using graph::Network;

template <class F> struct Made : nn::Module {
  nn::Conv2d conv{{.in = 2, .out = 4, .kernel = 3, .padding = 1}};
  nn::Linear a{{.in = 6, .out = 6}}, b{{.in = 6, .out = 3}};
  F f;
  HONE_MODULE(Made, conv, a, b)
  explicit Made(F g) : f(g) {}
  Tensor forward(const Tensor& x) { return f(*this, x); }
};
double largest(const Tensor& t) { return max(abs(t)).item(); }
void set(const Parameter& p, const Tensor& to) { p.ref().replace(to); }

TEST(IntegerRules, BoundsOfAClampBeyondZeroAreKept) {
  // The range of codes holds 0, which the clamp leaves out.
  for (const auto& [low, high] : {std::pair{0.5, 2.0}, {-2.0, -0.5}}) {
    manual_seed(1);
    Made module([low = low, high = high](auto& m, const Tensor& x) { return m.b(clamp(m.a(x), low, high)); });
    const Tensor x = randn({100, 6});
    Network small = quantize_static(graph::trace(module, x), calibration({x}));
    const NoGrad no_grad;
    EXPECT_LT(largest(small(x) - module(x)), 0.05 * largest(module(x))) << low;
  }
}

TEST(IntegerRules, BiasCorrectionKnowsGroupsAndRowsOfRows) {
  const auto worst = [](const Network& net, const Tensor& x, Tensor (*mean_of)(const Tensor&), bool correct) {
    Network f32 = net, small = quantize_static(net, calibration({x}), {.bits = 4, .bias_correction = correct});
    return largest(mean_of(small(x)) - mean_of(f32(x)));
  };
  const NoGrad no_grad;
  manual_seed(2);
  nn::Conv2d grouped{{.in = 6, .out = 6, .kernel = 3, .groups = 3}};
  const Tensor each = reshape(arange(1, 7), {1, 6, 1, 1});  // a mean of its own for each channel
  const Tensor x = rand({20, 6, 6, 6}) + cast(each, f32);
  const Network conv = graph::trace(grouped, x);
  const auto planes = [](const Tensor& y) { return mean(y, {0, 2, 3}); };
  EXPECT_LT(worst(conv, x, planes, true), 0.1 * worst(conv, x, planes, false));

  nn::Linear module{{.in = 8, .out = 5}};
  const Tensor rows = rand({20, 3, 8}) + cast(arange(1, 9), f32);
  const Network linear = graph::trace(module, rows);
  const auto outputs = [](const Tensor& y) { return mean(y, {0, 1}); };
  EXPECT_LT(worst(linear, rows, outputs, true), 0.1 * worst(linear, rows, outputs, false));
}

/// The channels of one value are those of dim 1 to a convolution, of the last dim to a linear layer.
TEST(IntegerRules, BiasCorrectionKnowsHowEachReaderReads) {
  const NoGrad no_grad;
  for (const bool conv_first : {true, false}) {
    manual_seed(3);
    nn::Conv2d first{{.in = 1, .out = 24, .kernel = 3, .padding = 1}}, conv{{.in = 24, .out = 4, .kernel = 1}};
    nn::Linear linear{{.in = 4, .out = 3}};
    set(first.bias, full({24}, 4.0));  // means far from 0
    struct Both : nn::Module {
      nn::Conv2d first, conv;
      nn::Linear linear;
      bool conv_first;
      HONE_MODULE(Both, first, conv, linear)
      Both(nn::Conv2d f, nn::Conv2d c, nn::Linear l, bool order) : first(f), conv(c), linear(l), conv_first(order) {}
      Tensor forward(const Tensor& x) {
        const Tensor h = relu(first(x)), a = conv_first ? conv(h) : Tensor(), b = linear(h);
        return concat({flatten(a.defined() ? a : conv(h), 1), flatten(b, 1)}, 1);
      }
    } module{first, conv, linear, conv_first};
    const Tensor x = rand({50, 1, 4, 4}) + 1.0;
    const Network net = graph::trace(module, x);
    const auto worst = [&](bool correct) {
      Network small =
          quantize_static(net, calibration({x}), {.bits = 4, .bias_correction = correct, .float_fallback = true});
      Network f32 = net;
      const Tensor error = mean(small(x) - f32(x), {0});
      const Tensor by_conv = mean(reshape(slice(error, 0, 0, 64), {4, 16}), {1});
      const Tensor by_linear = mean(reshape(slice(error, 0, 64, error.numel()), {96, 3}), {0});
      return std::pair(largest(by_conv), largest(by_linear));
    };
    const auto [conv_with, linear_with] = worst(true);
    const auto [conv_without, linear_without] = worst(false);
    EXPECT_LT(conv_with, 0.4 * conv_without) << conv_first;
    EXPECT_LT(linear_with, 0.4 * linear_without) << conv_first;
  }
}

TEST(IntegerRules, BiasesBeyondTheirWeightsAreKept) {
  // 1e4 in units of 1e-12 / 127 does not fit 32 bits: the scale gives way, not the bias.
  manual_seed(3);
  nn::Linear module{{.in = 6, .out = 3}};
  set(module.weight, randn({3, 6}) * 1e-12);
  set(module.bias, tensor({1e4f, -1e4f, 0.0f}));
  const Tensor x = randn({20, 6});
  const NoGrad no_grad;
  Network small = quantize_static(graph::trace(module, x), calibration({x}));
  EXPECT_LT(largest(small(x) - module(x)), 1e-2);
}

/// y = bias ± Σ x of as many inputs, all 1, whose codes are all the largest.
TEST(IntegerRules, SumsOfSaturatedCodesLeaveRoomForTheBias) {
  const NoGrad no_grad;
  for (const int64_t taps : {kMostInt8Taps, 2 * kMostInt8Taps})
    for (const int64_t bits : {8, 4})
      for (const float bias : {1000.0f, 30000.0f, -30000.0f, 40000.0f}) {
        SCOPED_TRACE(str(taps, " taps of ", bits, " bits, bias ", bias));
        const float weight = bias < 0 ? -1.0f : 1.0f;
        nn::Linear module{{.in = taps, .out = 1}};
        set(module.weight, full({1, taps}, weight));
        set(module.bias, full({1}, bias));
        const Tensor x = ones({1, taps});
        const Network net = graph::trace(module, x);
        const double want = bias + weight * static_cast<double>(taps);
        StaticCounts counts;
        Network small = quantize_static(net, calibration({x}), {.bits = bits, .float_fallback = true}, &counts);
        EXPECT_EQ(counts.integer, taps == kMostInt8Taps ? 1 : 0);
        EXPECT_NEAR(small(x).item(), want, 0.01 * std::abs(want));
        compress::quantize::QatNetwork qat(net, {.bits = bits, .float_fallback = true});
        EXPECT_NEAR(qat.train()(x).item(), want, 0.01 * std::abs(want));
        EXPECT_NEAR(qat.eval()(x).item(), want, 0.01 * std::abs(want));
        EXPECT_NEAR(compress::quantize::quantize_dynamic(net, bits)(x).item(), want, 0.01 * std::abs(want));
      }
}

TEST(IntegerRules, ResultsFarSmallerThanTheirTermsHaveCodes) {
  manual_seed(4);
  const Tensor h = randn({50, 3}), x = concat({h, h}, 1);
  // Terms that cancel: the result's step is as fine as factors below 1 allow.
  Made product([](auto& m, const Tensor& t) { return m.b(m.a(t)); });
  const Tensor w = randn({6, 3});
  set(product.a.weight, concat({w, neg(w)}, 1));
  set(product.a.bias, full({6}, 1e-7));
  Made sum_of_two([](auto& m, const Tensor& t) { return m.b(m.a(t) + neg(t)); });
  set(sum_of_two.a.weight, eye(6));
  set(sum_of_two.a.bias, full({6}, 1e-5));
  const NoGrad no_grad;
  Network a = quantize_static(graph::trace(product, x), calibration({x}));
  EXPECT_LT(largest(a(x) - product(x)), 0.1);
  Network b = quantize_static(graph::trace(sum_of_two, x), calibration({x}), {.float_fallback = true});
  EXPECT_LT(largest(b(x) - sum_of_two(x)), 0.1);
  struct Pool : nn::Module {
    nn::Conv2d last{{.in = 1, .out = 1, .kernel = 1}};
    HONE_MODULE(Pool, last)
    Tensor forward(const Tensor& t) { return last(avg_pool2d(t, 2)); }
  } pool;
  Tensor image = randn({4, 1, 8, 8});
  const Tensor mean_of = avg_pool2d(image, 2);
  image = image - reshape(expand(reshape(mean_of, {4, 1, 4, 1, 4, 1}), {4, 1, 4, 2, 4, 2}), {4, 1, 8, 8});
  Network c = quantize_static(graph::trace(pool, image), calibration({image}));
  EXPECT_LT(largest(c(image) - pool(image)), 0.1);
}

TEST(IntegerRules, AWeightsGridIsKeptWhereCodesExpressIt) {
  manual_seed(5);
  nn::Linear module{{.in = 12, .out = 4}};
  const Tensor x = randn({30, 12}), w = module.weight.raw();
  struct Kept {
    std::vector<double> codes, values;
    double error;
    int64_t regridded;
  };
  const auto codes_with = [&](const Tensor& scale, std::vector<double> point, bool dynamic) {
    nn::Linear copy = module;
    std::vector<double> points;
    for (int64_t l = 0; l < scale.numel(); ++l) points.insert(points.end(), point.begin(), point.end());
    copy.weight.ref().set_grid({.scale = scale, .points = tensor(points, {scale.numel(), 4})});
    const Network net = graph::trace(copy, x);
    StaticCounts counts;
    Network small = dynamic ? compress::quantize::quantize_dynamic(net, 4)
                            : quantize_static(net, calibration({x}), {.bits = 4}, &counts);
    const Int8Matrix packed{small.constant(small.find("weight.codes")).value, {4, 12}, 1, 4, 1};
    const NoGrad no_grad;
    return Kept{packed.dense().to_vector<double>(), copy.weight.value().to_vector<double>(),
                largest(small(x) - copy(x)), counts.regridded};
  };
  for (const bool dynamic : {false, true}) {
    // Steps that no fit of the values would find; also one for all, and one below 0, which counts as |Δ|. Bounds beyond
    // the codes of 4 bits, [−7, 7], do no harm where no weight has such a code.
    for (const auto& [low, high] : {std::pair{-5.0, 6.0}, {-8.0, 7.0}, {-128.0, 127.0}}) {
      for (const Tensor& scale : {full({4}, 0.11), full({1}, 0.11), full({4}, -0.11)}) {
        const Kept k = codes_with(scale, {0, low, high, 0}, dynamic);
        for (size_t i = 0; i < k.codes.size(); ++i) {
          ASSERT_NEAR(k.codes[i] * 0.11, k.values[i], 1e-6) << low;
          ASSERT_EQ(k.codes[i], std::clamp(std::nearbyint(w.to_vector<double>()[i] / 0.11), low, high));
        }
        EXPECT_LT(k.error, 0.02);
        EXPECT_EQ(k.regridded, 0);
      }
    }
    // Grids that codes do not express are rounded anew: a shift, codes that 4 bits lack, weights kept as floats.
    const std::vector<std::pair<Tensor, std::vector<double>>> others = {{full({4}, 0.11), {0.05, -4, 3, 0}},
                                                                        {full({4}, 0.02), {0, -60, 7, 0}},
                                                                        {full({4}, 0.02), {0, -8, 7, 0}},
                                                                        {full({4}, 0.02), {0, -7, 60, 0}},
                                                                        {zeros({4}), {0, -1, 1, 0}}};
    for (const auto& [scale, point] : others) {
      const Kept k = codes_with(scale, point, dynamic);
      for (size_t row = 0; row < 4; ++row) {  // the largest of each row has the largest code
        double most = 0;
        for (size_t i = 0; i < 12; ++i) most = std::max(most, std::abs(k.codes[12 * row + i]));
        EXPECT_EQ(most, 7);
      }
      EXPECT_LT(k.error, 0.3);
      if (!dynamic) { EXPECT_EQ(k.regridded, max(abs(scale)).item() > 0 ? 1 : 0) << point[1]; }
    }
  }
}

TEST(IntegerRules, DynamicQuantizationNamesAWeightThatIsNoNumber) {
  manual_seed(9);
  for (const bool gridded : {false, true}) {
    nn::Linear module{{.in = 6, .out = 3}};
    Tensor w = clone(module.weight.raw().detach());
    w.data<float>()[2] = gridded ? INFINITY : NAN;  // which the grid would clamp
    set(module.weight, w);
    if (gridded)
      module.weight.ref().set_grid({.scale = full({1}, 0.1), .points = tensor({0.0, -7.0, 7.0, 0.0}, {1, 4})});
    const Network net = graph::trace(module, randn({4, 6}));
    expect_error<NumericError>([&] { compress::quantize::quantize_dynamic(net); },
                               {"quantize_dynamic", "'weight'", gridded ? "inf" : "nan"});
  }
  nn::Linear module{{.in = 6, .out = 3}};
  set(module.bias, full({3}, NAN));
  const Network net = graph::trace(module, randn({4, 6}));
  expect_error<NumericError>([&] { compress::quantize::quantize_dynamic(net); }, {"'bias'", "nan"});
}

TEST(IntegerRules, AnActivationTooSmallForAnF32ScaleIsZero) {
  manual_seed(10);
  nn::Linear module{{.in = 6, .out = 3}};
  const NoGrad no_grad;
  for (const double tiny : {1e-38, -1e-38, 1e-45}) {
    const Tensor x = full({4, 6}, tiny);
    Network small = quantize_static(graph::trace(module, x), calibration({x}));
    EXPECT_TRUE(std::isfinite(largest(small(x))));
    // What is left is the bias, in units of a weight's step, as behind zeros.
    EXPECT_LE(largest(small(x) - module(x)), 0.5001 * largest(module.weight.raw()) / 127) << tiny;
  }
}

TEST(IntegerRules, DynamicQuantizationOfZerosIsTheBiasExactly) {
  manual_seed(8);
  nn::Linear module{{.in = 9, .out = 4}};
  Network small = compress::quantize::quantize_dynamic(graph::trace(module, randn({3, 9})));
  const NoGrad no_grad;
  const Tensor y = small(zeros({2, 9}));
  for (int64_t row = 0; row < 2; ++row) EXPECT_TRUE(equal(select(y, 0, row), module.bias.raw().detach()));
}

TEST(IntegerRules, NetworksThatAreOptimizedOrIntegerAreRefused) {
  manual_seed(9);
  nn::LeNet module;
  const Tensor x = randn({2, 3, 32, 32});
  const Network traced = graph::trace(module, x);
  for (const bool pack : {true, false}) {
    const Network fast = graph::optimize(traced, {.pack = pack});
    const auto refused = [](const auto& f) { expect_error<GraphError>(f, {"'conv1'", "optimize()", "traced"}); };
    refused([&] { quantize_static(fast, calibration({x}), {.float_fallback = true}); });
    refused([&] { compress::quantize::quantize_dynamic(fast); });
    refused([&] { compress::quantize::QatNetwork q(fast); });
  }
  const Network integers = quantize_static(traced, calibration({x}));
  expect_error<GraphError>([&] { quantize_static(integers, calibration({x}), {.float_fallback = true}); },
                           {"int8_", "already"});
}

TEST(IntegerRules, WhatHasNoIntegerFormIsNamed) {
  manual_seed(6);
  const auto refused = [](auto f, const Tensor& x, const char* node) {
    Made module(f);
    const Network net = graph::trace(module, x);
    expect_error<GraphError>([&] { quantize_static(net, calibration({x})); }, {node, "float_fallback"});
    Network small = quantize_static(net, calibration({x}), {.float_fallback = true});
    const NoGrad no_grad;
    EXPECT_LT(largest(small(x) - module(x)), 0.05 * largest(module(x))) << node;
  };
  const Tensor rows = randn({20, 6}), image = randn({10, 2, 8, 8});
  refused([](auto& m, const Tensor& x) { return m.b(m.a(x) + slice(x, 1, 0, 1)); }, rows, "add");  // broadcast
  const auto with_indices = [](auto& m, const Tensor& x) {
    const Outputs pooled = max_pool2d_with_indices(m.conv(x), {2, 2});
    return m.conv(slice(pooled[0] + cast(pooled[1], f32) * 0.0, 1, 0, 2));
  };
  refused(with_indices, image, "max_pool2d");
  refused([](auto& m, const Tensor& x) { return m.conv(avg_pool2d(x, 2, {.padding = {1}})); }, image, "avg_pool2d");
  refused([](auto& m, const Tensor& x) { return m.conv(adaptive_avg_pool2d(x, 3)); }, image, "avg_pool2d");
  nn::Linear wide{{.in = kMostInt8Taps + 1, .out = 1}};
  const Tensor x = randn({1, kMostInt8Taps + 1});
  expect_error<GraphError>([&] { quantize_static(graph::trace(wide, x), calibration({x})); }, {"linear"});
  expect_error<ValueError>([&] { quantize_static(graph::trace(wide, x), {}); }, {"quantize_static", "calibration()"});
}

TEST(IntegerRules, DilatedPoolingBehindAConvolutionIsAnOpOfItsOwn) {
  manual_seed(7);
  struct Dilated : nn::Module {
    nn::Conv2d conv{{.in = 2, .out = 4, .kernel = 3, .padding = 1}}, last{{.in = 4, .out = 3, .kernel = 1}};
    HONE_MODULE(Dilated, conv, last)
    Tensor forward(const Tensor& x) { return last(max_pool2d(conv(x), 2, {.stride = {1}, .dilation = {2}})); }
  } module;
  const Tensor x = randn({10, 2, 8, 8});
  StaticCounts counts;
  Network small = quantize_static(graph::trace(module, x), calibration({x}), {}, &counts);
  EXPECT_EQ(counts.integer, 3);
  const NoGrad no_grad;
  EXPECT_LT(largest(small(x) - module(x)), 0.05 * largest(module(x)));
}

}  // namespace
}  // namespace hone::test
