// Rows of fused products and of those with weights in panels.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

Tensor draw(const Shape& s, uint64_t seed) { return uniform(s, -1, 1, seed); }

double shown(double v, const ActivationAttrs& a) {
  const double gauss = std::erfc(-v / std::sqrt(2.0)) / 2, inner = v + 0.044715 * v * v * v;
  switch (a.activation()) {
    case Activation::none: return v;
    case Activation::relu: return std::max(v, 0.0);
    case Activation::leaky_relu: return v > 0 ? v : a.a * v;
    case Activation::clamp: return std::clamp(v, a.a, a.b);
    case Activation::tanh: return std::tanh(v);
    case Activation::sigmoid: return 1 / (1 + std::exp(-v));
    case Activation::gelu: return v * gauss;
    case Activation::gelu_tanh: return v * (1 + std::tanh(std::sqrt(2 / M_PI) * inner)) / 2;
    case Activation::silu: return v / (1 + std::exp(-v));
  }
  return kNan;
}

// Stride {2, 1}, padding {1, 2}, two groups; windows of 2×3, one row and two columns further each, one column of
// padding.
FusedConv2dOptions conv_options(ActivationAttrs a, bool pool) {
  FusedConv2dOptions o{.conv = {.stride = {2, 1}, .padding = {1, 2}, .groups = 2}, .activation = a};
  if (pool) o.pool = {2, 3}, o.pool_options = {.stride = {1, 2}, .padding = {0, 1}};
  return o;
}
Array conv_reference(const Arrays& in, const ActivationAttrs& a, bool pool) {
  const Array &x = in[0], &w = in[1];
  const int64_t kh = w.shape[2], kw = w.shape[3], half = w.shape[0] / 2, channels = w.shape[1];
  Array y(Shape{x.shape[0], w.shape[0], (x.shape[2] + 2 - kh) / 2 + 1, x.shape[3] + 4 - kw + 1});
  for (int64_t i = 0; i < y.numel(); ++i) {
    const Shape at = index_of(y.shape, i);
    double sum = in.size() > 2 ? in[2][at[1]] : 0;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t p = 0; p < kh; ++p)
        for (int64_t q = 0; q < kw; ++q) {
          const int64_t h = at[2] * 2 - 1 + p, v = at[3] - 2 + q;
          if (h < 0 || h >= x.shape[2] || v < 0 || v >= x.shape[3]) continue;
          sum += w.at({at[1], c, p, q}) * x.at({at[0], at[1] / half * channels + c, h, v});
        }
    y[i] = shown(sum, a);
  }
  if (!pool) return y;
  Array z(Shape{y.shape[0], y.shape[1], y.shape[2] - 2 + 1, (y.shape[3] + 2 - 3) / 2 + 1});
  for (int64_t i = 0; i < z.numel(); ++i) {
    const Shape at = index_of(z.shape, i);
    z[i] = -kInf;
    for (int64_t p = 0; p < 2; ++p)
      for (int64_t q = 0; q < 3; ++q) {
        const int64_t v = at[3] * 2 - 1 + q;
        if (v >= 0 && v < y.shape[3]) z[i] = std::max(z[i], y.at({at[0], at[1], at[2] + p, v}));
      }
  }
  return z;
}
std::vector<Sample> conv_samples() {
  return {{"a batch", {draw({2, 4, 7, 5}, 800), draw({6, 2, 3, 2}, 801), draw({6}, 802)}},
          {"no bias", {draw({1, 2, 5, 9}, 803), draw({18, 1, 3, 3}, 804)}},
          {"no images", {draw({0, 4, 7, 5}, 805), draw({6, 2, 3, 2}, 806)}}};
}

std::vector<Sample> linear_samples() {
  return {{"a batch", {draw({5, 7}, 810), draw({19, 7}, 811), draw({19}, 812)}},
          {"one vector, no bias", {draw({4}, 813), draw({3, 4}, 814)}},
          {"three dims", {draw({2, 3, 4}, 815), draw({9, 4}, 816), draw({9}, 817)}},
          {"no rows", {draw({0, 4}, 818), draw({2, 4}, 819)}}};
}
Array linear_reference(const Arrays& in, const ActivationAttrs& a) {
  const Array &x = in[0], &w = in[1];
  const int64_t depth = w.shape[1], outs = w.shape[0];
  Shape shape = x.shape;
  shape[shape.ndim() - 1] = outs;
  Array y(shape);
  for (int64_t i = 0; i < y.numel(); ++i) {
    double sum = in.size() > 2 ? in[2][i % outs] : 0;
    for (int64_t k = 0; k < depth; ++k) sum += x[i / outs * depth + k] * w[i % outs * depth + k];
    y[i] = shown(sum, a);
  }
  return y;
}

Tensor bias_of(const Tensors& x) { return x.size() > 2 ? x[2] : Tensor(); }

}  // namespace

std::vector<OpRow> fused_rows() {
  const std::vector<std::pair<std::string, ActivationAttrs>> activations = {
      {"none", Activation::none},
      {"relu", Activation::relu},
      {"leaky_relu", {Activation::leaky_relu, 0.2}},
      {"clamp", {Activation::clamp, -0.3, 0.6}},
      {"tanh", Activation::tanh},
      {"sigmoid", Activation::sigmoid},
      {"gelu", Activation::gelu},
      {"gelu_tanh", Activation::gelu_tanh},
      {"silu", Activation::silu}};
  std::vector<OpRow> rows;
  for (const auto& entry : activations) {
    const ActivationAttrs a = entry.second;
    rows.push_back({.op = "linear_fused",
                    .variant = entry.first,
                    .call = [a](const Tensors& x) { return Tensors{linear_fused(x[0], x[1], bias_of(x), a)}; },
                    .samples = linear_samples,
                    .reference = [a](const Arrays& x) { return Arrays{linear_reference(x, a)}; },
                    .bf16 = {3e-2, 3e-2}});
    rows.push_back(
        {.op = "panel_linear",
         .variant = entry.first,
         .call = [a](const Tensors& x) { return Tensors{panel_linear(x[0], PanelMatrix::pack(x[1]), bias_of(x), a)}; },
         .samples = linear_samples,
         .reference = [a](const Arrays& x) { return Arrays{linear_reference(x, a)}; },
         .differentiable = false,
         .second_order = false,
         .dtypes = {DType::f32}});
    for (const bool pool : {false, true}) {
      if (pool && a.activation() != Activation::none && a.activation() != Activation::relu &&
          a.activation() != Activation::tanh)
        continue;
      rows.push_back({.op = "conv2d_fused",
                      .variant = entry.first + (pool ? "_pool" : ""),
                      .call =
                          [a, pool](const Tensors& x) {
                            return Tensors{conv2d_fused(x[0], x[1], bias_of(x), conv_options(a, pool))};
                          },
                      .samples = conv_samples,
                      .reference = [a, pool](const Arrays& x) { return Arrays{conv_reference(x, a, pool)}; },
                      .bf16 = {3e-2, 4e-2}});
      rows.push_back({.op = "panel_conv2d",
                      .variant = entry.first + (pool ? "_pool" : ""),
                      .call =
                          [a, pool](const Tensors& x) {
                            return Tensors{
                                panel_conv2d(x[0], PanelMatrix::pack(x[1], 2), bias_of(x), conv_options(a, pool))};
                          },
                      .samples = conv_samples,
                      .reference = [a, pool](const Arrays& x) { return Arrays{conv_reference(x, a, pool)}; },
                      .differentiable = false,
                      .second_order = false,
                      .dtypes = {DType::f32}});
    }
  }
  return rows;
}

}  // namespace hone::test
