// Rows of convolution and pooling.

#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

struct Pair { int64_t h, w; };
struct Window { Pair kernel, stride = {1, 1}, pad = {0, 0}, dilation = {1, 1}; int64_t groups = 1; };

Tensor draw(const Shape& s, uint64_t seed) { return uniform(s, -1, 1, seed); }

Array conv_reference(const Array& x, const Array& weight, const Array* bias, const Window& k) {
  const int64_t outs = weight.shape[0], cg = weight.shape[1], og = outs / k.groups;
  const auto size = [](int64_t n, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
    return (n + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
  };
  Array y({x.shape[0], outs, size(x.shape[2], k.kernel.h, k.stride.h, k.pad.h, k.dilation.h),
           size(x.shape[3], k.kernel.w, k.stride.w, k.pad.w, k.dilation.w)});
  for (int64_t i = 0; i < y.numel(); ++i) {
    const Shape at = index_of(y.shape, i);
    if (bias) y[i] = (*bias)[at[1]];
    for (int64_t c = 0; c < cg; ++c)
      for (int64_t p = 0; p < k.kernel.h; ++p)
        for (int64_t q = 0; q < k.kernel.w; ++q) {
          const int64_t r = at[2] * k.stride.h + p * k.dilation.h - k.pad.h, s = at[3] * k.stride.w + q * k.dilation.w - k.pad.w;
          if (r < 0 || s < 0 || r >= x.shape[2] || s >= x.shape[3]) continue;
          y[i] += x.at({at[0], at[1] / og * cg + c, r, s}) * weight.at({at[1], c, p, q});
        }
  }
  return y;
}

OpRow conv_row(const char* variant, const Window& k, bool bias, std::vector<Sample> (*samples)()) {
  const Conv2dOptions options = {.stride = {k.stride.h, k.stride.w}, .padding = {k.pad.h, k.pad.w},
                                 .dilation = {k.dilation.h, k.dilation.w}, .groups = k.groups};
  return {.op = "conv2d",
          .variant = variant,
          .call = [=](const Tensors& in) { return Tensors{conv2d(in[0], in[1], bias ? in[2] : Tensor(), options)}; },
          .samples = samples,
          .reference = [=](const Arrays& in) { return Arrays{conv_reference(in[0], in[1], bias ? &in[2] : nullptr, k)}; },
          .f32 = {2e-5, 2e-5},
          .bf16 = {2e-2, 2e-2}};
}

// Max or mean over the windows of a plane; `count` divides the mean.
Array pool_reference(const Array& x, const Shape& out, bool max,
                     const std::function<std::vector<int64_t>(int dim, int64_t i)>& elements,
                     const std::function<double(int64_t i, int64_t j)>& count) {
  Array y({x.shape[0], x.shape[1], out[0], out[1]});
  for (int64_t i = 0; i < y.numel(); ++i) {
    const Shape at = index_of(y.shape, i);
    double sum = 0, best = -kInf;
    for (const int64_t r : elements(0, at[2]))
      for (const int64_t s : elements(1, at[3])) {
        const double v = x.at({at[0], at[1], r, s});
        sum += v;
        if (v > best || std::isnan(v)) best = v;
      }
    y[i] = max ? best : sum / count(at[2], at[3]);
  }
  return y;
}

std::vector<Sample> pool_samples() {
  return {{"odd rows, even columns", {draw({2, 3, 7, 6}, 900)}},
          {"even planes", {draw({1, 2, 8, 8}, 901)}},
          {"wider than a vector", {draw({1, 1, 4, 70}, 902)}, false},
          {"infinities", {values({1, -kInf, 2, -kInf, -kInf, -kInf, 3, kInf, -kInf, -kInf, 4, 5, 6, 7, 8, 9}, {1, 1, 4, 4})}, false},
          {"no images", {draw({0, 2, 6, 6}, 0)}}};
}

OpRow window_row(bool max, const char* variant, const Window& k, bool include_pad = true) {
  const Shape kernel = {k.kernel.h, k.kernel.w}, stride = {k.stride.h, k.stride.w}, pad = {k.pad.h, k.pad.w};
  const Shape dilation = {k.dilation.h, k.dilation.w};
  return {.op = max ? "max_pool2d" : "avg_pool2d",
          .variant = variant,
          .call =
              [=](const Tensors& in) {
                return Tensors{max ? max_pool2d(in[0], kernel, {.stride = stride, .padding = pad, .dilation = dilation})
                                   : avg_pool2d(in[0], kernel, {.stride = stride, .padding = pad, .count_include_pad = include_pad})};
              },
          .samples = pool_samples,
          .reference =
              [=](const Arrays& in) {
                const Array& x = in[0];
                const auto elements = [&](int dim, int64_t i) {
                  std::vector<int64_t> inside;
                  for (int64_t a = 0; a < kernel[dim]; ++a) {
                    const int64_t at = i * stride[dim] - pad[dim] + a * dilation[dim];
                    if (at >= 0 && at < x.shape[2 + dim]) inside.push_back(at);
                  }
                  return inside;
                };
                const auto along = [&](int dim, int64_t i) {
                  if (!include_pad) return static_cast<double>(elements(dim, i).size());
                  double n = 0;
                  for (int64_t a = 0; a < kernel[dim]; ++a) n += i * stride[dim] - pad[dim] + a < x.shape[2 + dim] + pad[dim];
                  return n;
                };
                const auto size = [&](int dim) {
                  return (x.shape[2 + dim] + 2 * pad[dim] - dilation[dim] * (kernel[dim] - 1) - 1) / stride[dim] + 1;
                };
                return Arrays{pool_reference(x, {size(0), size(1)}, max, elements,
                                             [&](int64_t i, int64_t j) { return along(0, i) * along(1, j); })};
              }};
}

OpRow adaptive_row(bool max, const char* variant, const Shape& out) {
  return {.op = max ? "adaptive_max_pool2d" : "adaptive_avg_pool2d",
          .variant = variant,
          .call = [=](const Tensors& in) { return Tensors{max ? adaptive_max_pool2d(in[0], out) : adaptive_avg_pool2d(in[0], out)}; },
          .samples = pool_samples,
          .reference =
              [=](const Arrays& in) {
                const auto elements = [&](int dim, int64_t i) {
                  const int64_t n = in[0].shape[2 + dim];
                  std::vector<int64_t> inside;
                  for (int64_t at = i * n / out[dim]; at * out[dim] < (i + 1) * n; ++at) inside.push_back(at);
                  return inside;
                };
                return Arrays{pool_reference(in[0], out, max, elements, [&](int64_t i, int64_t j) {
                  return static_cast<double>(elements(0, i).size() * elements(1, j).size());
                })};
              }};
}

}  // namespace

std::vector<OpRow> conv_rows() {
  std::vector<OpRow> rows;
  rows.push_back(conv_row("plain", {.kernel = {3, 2}}, false, [] {
    return std::vector<Sample>{{"small", {draw({2, 2, 5, 4}, 800), draw({3, 2, 3, 2}, 801)}},
                               {"kernel as large as the input", {draw({2, 1, 3, 2}, 802), draw({2, 1, 3, 2}, 803)}},
                               {"no images", {draw({0, 2, 5, 4}, 0), draw({3, 2, 3, 2}, 804)}}};
  }));
  rows.push_back(conv_row("bias", {.kernel = {5, 5}}, true, [] {
    return std::vector<Sample>{
        {"one channel", {draw({2, 1, 6, 7}, 810), draw({2, 1, 5, 5}, 811), draw({2}, 812)}},
        {"LeNet's second layer", {draw({3, 6, 14, 14}, 813), draw({16, 6, 5, 5}, 814), draw({16}, 815)}, false}};
  }));
  rows.push_back(conv_row("strided", {.kernel = {3, 2}, .stride = {2, 3}, .pad = {1, 2}, .dilation = {1, 2}, .groups = 2}, true, [] {
    return std::vector<Sample>{{"everything at once", {draw({2, 4, 5, 6}, 820), draw({6, 2, 3, 2}, 821), draw({6}, 822)}}};
  }));
  rows.push_back(conv_row("depthwise", {.kernel = {3, 3}, .pad = {1, 1}, .groups = 3}, false, [] {
    return std::vector<Sample>{{"a channel each", {draw({2, 3, 5, 4}, 830), draw({3, 1, 3, 3}, 831)}}};
  }));
  rows.push_back(window_row(true, "tiles", {.kernel = {2, 2}, .stride = {2, 2}}));
  rows.push_back(window_row(true, "overlapping", {.kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 1}, .dilation = {1, 2}}));
  rows.push_back(window_row(false, "tiles", {.kernel = {2, 2}, .stride = {2, 2}}));
  rows.push_back(window_row(false, "overlapping", {.kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 1}}));
  rows.push_back(window_row(false, "without_padding", {.kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 1}}, false));
  for (const bool max : {false, true}) {
    rows.push_back(adaptive_row(max, "global", {1, 1}));
    rows.push_back(adaptive_row(max, "uneven", {3, 4}));
  }
  return rows;
}

}  // namespace hone::test
