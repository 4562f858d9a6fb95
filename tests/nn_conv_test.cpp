// Convolution and pooling layers against plain f64 loops and differences.

#include <gtest/gtest.h>

#include "nn_support.h"

namespace hone {
namespace {

using namespace nn_test;

TEST(Conv2d, CorrelatesAndStartsUniform) {
  manual_seed(2);
  nn::Conv2d layer{
      {.in = 4, .out = 6, .kernel = {3, 2}, .stride = {2, 1}, .padding = 1, .dilation = {1, 2}, .groups = 2}};
  EXPECT_EQ(layer.weight.shape(), (Shape{6, 2, 3, 2}));
  EXPECT_EQ(layer.in(), 4);
  EXPECT_EQ(layer.out(), 6);
  EXPECT_EQ(layer.kernel(), (nn::Size2{3, 2}));
  const double bound = 1 / std::sqrt(12.0);  // fan_in is per group
  const Moments m = moments(layer.weight.raw());
  EXPECT_LE(std::max(-m.low, m.high), bound);
  EXPECT_GT(std::min(-m.low, m.high), 0.8 * bound);
  layer.to(f64);

  const int64_t n = 2, h = 5, w = 6;
  const Tensor x = randn({n, 4, h, w}, f64);
  const Tensor y = layer(x);
  const int64_t oh = (h + 2 - 2 - 1) / 2 + 1, ow = (w + 2 - 2 - 1) / 1 + 1;
  ASSERT_EQ(y.shape(), (Shape{n, 6, oh, ow}));
  const auto xs = values(x), ws = values(layer.weight.raw()), bs = values(layer.bias.raw()), got = values(y);
  size_t at = 0;
  for (int64_t b = 0; b < n; ++b)
    for (int64_t o = 0; o < 6; ++o)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j, ++at) {
          double sum = bs[static_cast<size_t>(o)];
          for (int64_t c = 0; c < 2; ++c)
            for (int64_t p = 0; p < 3; ++p)
              for (int64_t q = 0; q < 2; ++q) {
                const int64_t r = i * 2 + p - 1, s = j + q * 2 - 1, channel = (o / 3) * 2 + c;
                if (r < 0 || r >= h || s < 0 || s >= w) continue;
                sum += xs[static_cast<size_t>(((b * 4 + channel) * h + r) * w + s)] *
                       ws[static_cast<size_t>(((o * 2 + c) * 3 + p) * 2 + q)];
              }
          ASSERT_NEAR(got[at], sum, 1e-12);
        }
  check_gradients(layer, input({1, 4, 4, 4}));
  nn::Conv2d bare{{.in = 1, .out = 2, .kernel = 3, .bias = false}};
  EXPECT_EQ(bare.parameter_count(), 18);
  check_gradients(bare, input({1, 1, 4, 4}));

  EXPECT_THROW((nn::Conv2d{{.in = 3, .out = 2}}), ValueError);
  EXPECT_THROW((nn::Conv2d{{.in = 3, .out = 2, .kernel = 3, .groups = 2}}), ValueError);
  EXPECT_THROW((nn::Conv2d{{.in = 3, .out = 2, .kernel = 3, .stride = 0}}), ValueError);
  EXPECT_THROW((nn::Conv2d{{.in = 3, .out = 2, .kernel = 3, .padding = {0, -1}}}), ValueError);
  EXPECT_THROW(bare(randn({1, 2, 4, 4}, f64)), ShapeError);
}

TEST(Layers, PoolsReduceWindows) {
  manual_seed(7);
  const Tensor x = input({2, 2, 4, 6});
  const auto xs = values(x);
  const auto window = [&](size_t plane, size_t h0, size_t h1, size_t w0, size_t w1, bool largest) {
    double sum = 0, high = -1e30;
    for (size_t h = h0; h < h1; ++h)
      for (size_t w = w0; w < w1; ++w) {
        sum += xs[(plane * 4 + h) * 6 + w];
        high = std::max(high, xs[(plane * 4 + h) * 6 + w]);
      }
    return largest ? high : sum / static_cast<double>((h1 - h0) * (w1 - w0));
  };
  const auto expect = [&](nn::Module&& m, size_t oh, size_t ow, size_t sh, size_t sw, size_t kh, size_t kw,
                          bool largest) {
    const Tensor y = m(x);
    ASSERT_EQ(y.shape(), (Shape{2, 2, static_cast<int64_t>(oh), static_cast<int64_t>(ow)})) << m.type_name();
    const auto got = values(y);
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t plane = i / (oh * ow), h = i / ow % oh * sh, w = i % ow * sw;
      EXPECT_NEAR(got[i], window(plane, h, h + kh, w, w + kw, largest), 1e-12) << m.type_name();
    }
    check_gradients(m, x);
  };
  expect(nn::MaxPool2d{{.kernel = 2}}, 2, 3, 2, 2, 2, 2, true);
  expect(nn::MaxPool2d{{.kernel = {2, 3}, .stride = {2, 1}}}, 2, 4, 2, 1, 2, 3, true);
  expect(nn::AvgPool2d{{.kernel = 2}}, 2, 3, 2, 2, 2, 2, false);
  expect(nn::AvgPool2d{{.kernel = {4, 2}, .stride = {1, 2}}}, 1, 3, 1, 2, 4, 2, false);
  expect(nn::AdaptiveAvgPool2d(), 1, 1, 1, 1, 4, 6, false);
  expect(nn::AdaptiveAvgPool2d{{.output = {2, 3}}}, 2, 3, 2, 2, 2, 2, false);
  expect(nn::AdaptiveMaxPool2d{{.output = {2, 1}}}, 2, 1, 2, 6, 2, 6, true);
  EXPECT_EQ((nn::MaxPool2d{{.kernel = 3, .stride = 2, .padding = 1}}(x).shape()), (Shape{2, 2, 2, 3}));
  EXPECT_EQ((nn::MaxPool2d{{.kernel = 2, .stride = 1, .dilation = {3, 2}}}(x).shape()), (Shape{2, 2, 1, 4}));
  // The corner window holds one element and three zeros.
  const double corner = xs[0];
  EXPECT_NEAR(values(nn::AvgPool2d{{.kernel = 2, .padding = 1}}(x))[0], corner / 4, 1e-12);
  EXPECT_NEAR(values(nn::AvgPool2d{{.kernel = 2, .padding = 1, .count_include_pad = false}}(x))[0], corner, 1e-12);
  EXPECT_THROW((nn::MaxPool2d{{}}), ValueError);
  EXPECT_THROW((nn::MaxPool2d{{.kernel = 2, .dilation = 0}}), ValueError);
  EXPECT_THROW((nn::AvgPool2d{{.kernel = 2, .stride = -1}}), ValueError);
  EXPECT_THROW((nn::AvgPool2d{{.kernel = 2, .padding = -1}}), ValueError);
  EXPECT_THROW((nn::AdaptiveAvgPool2d{{.output = 0}}), ValueError);
}

}  // namespace
}  // namespace hone
