// Rows of convolution and pooling.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

struct Conv {
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
};
Conv2dOptions options(const Conv& c) {
  return {.stride = {c.stride_h, c.stride_w},
          .padding = {c.pad_h, c.pad_w},
          .dilation = {c.dilation_h, c.dilation_w},
          .groups = c.groups};
}
int64_t extent(int64_t n, int64_t k, int64_t stride, int64_t pad, int64_t dilation) {
  return (n + 2 * pad - dilation * (k - 1) - 1) / stride + 1;
}

// f(n, o, c in x, i, j in y, h, w in x, p, q in the kernel) for every product of the convolution.
template <class F> void each_product(const Shape& x, const Shape& w, const Conv& c, F f) {
  const int64_t oh = extent(x[2], w[2], c.stride_h, c.pad_h, c.dilation_h),
                ow = extent(x[3], w[3], c.stride_w, c.pad_w, c.dilation_w);
  const int64_t per_group = w[0] / c.groups;
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t o = 0; o < w[0]; ++o)
      for (int64_t k = 0; k < w[1]; ++k)
        for (int64_t i = 0; i < oh; ++i)
          for (int64_t j = 0; j < ow; ++j)
            for (int64_t p = 0; p < w[2]; ++p)
              for (int64_t q = 0; q < w[3]; ++q) {
                const int64_t h = i * c.stride_h - c.pad_h + p * c.dilation_h,
                              v = j * c.stride_w - c.pad_w + q * c.dilation_w;
                if (h < 0 || h >= x[2] || v < 0 || v >= x[3]) continue;
                f(Shape{n, o, i, j}, Shape{n, o / per_group * w[1] + k, h, v}, Shape{o, k, p, q});
              }
}
Shape output_shape(const Shape& x, const Shape& w, const Conv& c) {
  return {x[0], w[0], extent(x[2], w[2], c.stride_h, c.pad_h, c.dilation_h),
          extent(x[3], w[3], c.stride_w, c.pad_w, c.dilation_w)};
}

struct Variant {
  std::string name;
  Conv c;
  Shape x, w;
  bool bias;
};
std::vector<Variant> variants() {
  return {{"plain", {}, {2, 3, 5, 6}, {4, 3, 3, 3}, true},
          {"one_by_one", {}, {2, 3, 3, 2}, {4, 3, 1, 1}, false},
          {"strided_padded", {.stride_h = 2, .stride_w = 3, .pad_h = 1, .pad_w = 2}, {1, 2, 5, 7}, {3, 2, 3, 2}, true},
          {"dilated", {.dilation_h = 2, .dilation_w = 3}, {1, 2, 6, 8}, {2, 2, 2, 3}, false},
          {"groups", {.pad_h = 1, .pad_w = 1, .groups = 2}, {2, 4, 4, 3}, {6, 2, 3, 3}, true},
          {"depthwise",
           {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 3},
           {2, 3, 5, 5},
           {3, 1, 3, 3},
           false},
          {"no_images", {}, {0, 3, 5, 5}, {2, 3, 3, 3}, false}};
}
Tensor draw(const Shape& s, uint64_t seed) { return uniform(s, -1, 1, seed); }
constexpr Tolerance kF32 = {3e-5, 3e-5}, kBf16 = {2e-2, 4e-2};

void add_convolutions(std::vector<OpRow>& rows) {
  for (const Variant& v : variants()) {
    const Shape y = output_shape(v.x, v.w, v.c);
    const bool empty = v.x[0] == 0;
    OpRow forward = {
        .op = "conv2d",
        .variant = v.name,
        .call = [v](const Tensors& x) { return Tensors{conv2d(x[0], x[1], v.bias ? x[2] : Tensor(), options(v.c))}; },
        .samples =
            [v] {
              Tensors in = {draw(v.x, 600), draw(v.w, 601)};
              if (v.bias) in.push_back(draw({v.w[0]}, 602));
              return std::vector<Sample>{{"random", in}};
            },
        .reference =
            [v, y](const Arrays& in) {
              Array r(y);
              for (int64_t i = 0; v.bias && i < r.numel(); ++i) r[i] = in[2][index_of(y, i)[1]];
              each_product(v.x, v.w, v.c, [&](const Shape& o, const Shape& a, const Shape& k) {
                r.at(o) += in[0].at(a) * in[1].at(k);
              });
              return Arrays{r};
            },
        .f32 = kF32,
        .bf16 = kBf16};
    OpRow input = {.op = "conv2d_input_grad",
                   .variant = v.name,
                   .call =
                       [v](const Tensors& x) {
                         return Tensors{conv2d_input_grad(x[0], x[1], {v.x[2], v.x[3]}, options(v.c))};
                       },
                   .samples =
                       [v, y] {
                         return std::vector<Sample>{{"random", {draw(y, 603), draw(v.w, 604)}}};
                       },
                   .reference =
                       [v](const Arrays& in) {
                         Array r(v.x);
                         each_product(v.x, v.w, v.c, [&](const Shape& o, const Shape& a, const Shape& k) {
                           r.at(a) += in[0].at(o) * in[1].at(k);
                         });
                         return Arrays{r};
                       },
                   .f32 = kF32,
                   .bf16 = kBf16};
    OpRow weight = {.op = "conv2d_weight_grad",
                    .variant = v.name,
                    .call =
                        [v](const Tensors& x) {
                          const Outputs d = conv2d_weight_grad(x[0], x[1], {v.w[2], v.w[3]}, options(v.c), v.bias);
                          return v.bias ? Tensors{d[0], d[1]} : Tensors{d[0]};
                        },
                    .samples =
                        [v, y] {
                          return std::vector<Sample>{{"random", {draw(v.x, 605), draw(y, 606)}}};
                        },
                    .reference =
                        [v, y](const Arrays& in) {
                          Array r(v.w), b(Shape{v.w[0]});
                          each_product(v.x, v.w, v.c, [&](const Shape& o, const Shape& a, const Shape& k) {
                            r.at(k) += in[0].at(a) * in[1].at(o);
                          });
                          for (int64_t i = 0; i < in[1].numel(); ++i) b[index_of(y, i)[1]] += in[1][i];
                          return v.bias ? Arrays{r, b} : Arrays{r};
                        },
                    .f32 = kF32,
                    .bf16 = {3e-2, 1e-1}};
    for (OpRow r : {forward, input, weight}) {
      r.differentiable = r.second_order = !empty;
      rows.push_back(r);
    }
  }
}

struct Pool {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation;
};
// The places of each window: f(places in the plane that exist, whole window's size) → the value.
Array pooled(const Array& x, const Pool& p,
             const std::function<double(const Array&, const std::vector<Shape>&, int64_t)>& f) {
  const Shape& s = x.shape;
  Array y(Shape{s[0], s[1], extent(s[2], p.kernel_h, p.stride_h, p.pad_h, p.dilation),
                extent(s[3], p.kernel_w, p.stride_w, p.pad_w, p.dilation)});
  for (int64_t o = 0; o < y.numel(); ++o) {
    const Shape at = index_of(y.shape, o);
    std::vector<Shape> places;
    int64_t padded = 0;
    for (int64_t a = 0; a < p.kernel_h; ++a) {
      for (int64_t b = 0; b < p.kernel_w; ++b) {
        const int64_t h = at[2] * p.stride_h - p.pad_h + a * p.dilation,
                      w = at[3] * p.stride_w - p.pad_w + b * p.dilation;
        padded += h < s[2] + p.pad_h && w < s[3] + p.pad_w;
        if (h >= 0 && h < s[2] && w >= 0 && w < s[3]) places.push_back({at[0], at[1], h, w});
      }
    }
    y[o] = f(x, places, padded);
  }
  return y;
}
Array adaptive(const Array& x, int64_t oh, int64_t ow,
               const std::function<double(const Array&, const std::vector<Shape>&, int64_t)>& f) {
  const Shape& s = x.shape;
  Array y(Shape{s[0], s[1], oh, ow});
  for (int64_t o = 0; o < y.numel(); ++o) {
    const Shape at = index_of(y.shape, o);
    std::vector<Shape> places;
    for (int64_t h = at[2] * s[2] / oh; h < ((at[2] + 1) * s[2] + oh - 1) / oh; ++h) {
      for (int64_t w = at[3] * s[3] / ow; w < ((at[3] + 1) * s[3] + ow - 1) / ow; ++w)
        places.push_back({at[0], at[1], h, w});
    }
    y[o] = f(x, places, static_cast<int64_t>(places.size()));
  }
  return y;
}
double largest(const Array& x, const std::vector<Shape>& places, int64_t) {
  double m = -kInf;
  for (const Shape& p : places) {
    if (std::isnan(x.at(p))) return kNan;
    m = std::max(m, x.at(p));
  }
  return m;
}
double mean_of(const Array& x, const std::vector<Shape>& places, int64_t count) {
  double s = 0;
  for (const Shape& p : places) s += x.at(p);
  return s / static_cast<double>(count);
}
double mean_inside(const Array& x, const std::vector<Shape>& places, int64_t) {
  return mean_of(x, places, static_cast<int64_t>(places.size()));
}

std::vector<Sample> planes() {
  Tensor nan = draw({1, 1, 6, 6}, 612);
  nan.data<double>()[7] = kNan;
  nan.data<double>()[20] = -kInf;
  return {{"random, odd", {draw({2, 3, 5, 7}, 610)}},
          {"even", {draw({1, 2, 6, 8}, 611)}},
          {"NaN and −inf", {nan}, false, false},
          {"below zero: padding must not win a maximum", {uniform({1, 1, 6, 6}, -3, -1, 613)}},
          {"no images", {uniform({0, 2, 6, 6}, 0, 1, 0)}}};
}
OpRow pool_row(const std::string& op, const std::string& variant, std::function<Tensor(const Tensor&)> call,
               std::function<Array(const Array&)> reference) {
  return {.op = op,
          .variant = variant,
          .call = [call](const Tensors& x) { return Tensors{call(x[0])}; },
          .samples = planes,
          .reference = [reference](const Arrays& x) { return Arrays{reference(x[0])}; },
          .f32 = {2e-5, 2e-5}};
}

}  // namespace

std::vector<OpRow> conv_rows() {
  std::vector<OpRow> rows;
  add_convolutions(rows);
  const Pool two{2, 2, 2, 2, 0, 0, 1}, mixed{3, 2, 2, 1, 1, 0, 1}, dilated{2, 2, 1, 2, 0, 0, 2};
  rows.push_back(pool_row(
      "max_pool2d", "2", [](const Tensor& x) { return max_pool2d(x, 2); },
      [=](const Array& x) { return pooled(x, two, largest); }));
  rows.push_back(pool_row(
      "max_pool2d", "padded",
      [](const Tensor& x) {
        return max_pool2d(x, Shape{3, 2}, {.stride = {2, 1}, .padding = {1, 0}});
      },
      [=](const Array& x) { return pooled(x, mixed, largest); }));
  rows.push_back(pool_row(
      "max_pool2d", "dilated",
      [](const Tensor& x) {
        return max_pool2d(x, Shape{2, 2}, {.stride = {1, 2}, .dilation = {2}});
      },
      [=](const Array& x) { return pooled(x, dilated, largest); }));
  rows.push_back({.op = "max_pool2d",
                  .variant = "with_indices",
                  .call =
                      [](const Tensors& x) {
                        const Outputs o = max_pool2d_with_indices(x[0], Shape{2, 2});
                        return Tensors{o[0], o[1]};
                      },
                  .samples =
                      [] {
                        return std::vector<Sample>{{"random", {draw({2, 2, 4, 5}, 614)}}};
                      },
                  .reference =
                      [=](const Arrays& x) {
                        const Array place =
                            pooled(x[0], two, [](const Array& a, const std::vector<Shape>& places, int64_t) {
                              const Shape* best = &places[0];
                              for (const Shape& p : places) best = a.at(p) > a.at(*best) ? &p : best;
                              return static_cast<double>((*best)[2] * a.shape[3] + (*best)[3]);
                            });
                        return Arrays{pooled(x[0], two, largest), place};
                      }});
  rows.push_back(pool_row(
      "avg_pool2d", "2", [](const Tensor& x) { return avg_pool2d(x, 2); },
      [=](const Array& x) { return pooled(x, two, mean_of); }));
  rows.push_back(pool_row(
      "avg_pool2d", "padded",
      [](const Tensor& x) {
        return avg_pool2d(x, Shape{3, 2}, {.stride = {2, 1}, .padding = {1, 0}});
      },
      [=](const Array& x) { return pooled(x, mixed, mean_of); }));
  rows.push_back(pool_row(
      "avg_pool2d", "padded_exclude",
      [](const Tensor& x) {
        return avg_pool2d(x, Shape{3, 2}, {.stride = {2, 1}, .padding = {1, 0}, .count_include_pad = false});
      },
      [=](const Array& x) { return pooled(x, mixed, mean_inside); }));
  rows.push_back(pool_row(
      "adaptive_avg_pool2d", "3_2",
      [](const Tensor& x) {
        return adaptive_avg_pool2d(x, Shape{3, 2});
      },
      [](const Array& x) { return adaptive(x, 3, 2, mean_of); }));
  rows.push_back(pool_row(
      "adaptive_avg_pool2d", "global", [](const Tensor& x) { return adaptive_avg_pool2d(x, 1); },
      [](const Array& x) { return adaptive(x, 1, 1, mean_of); }));
  rows.push_back(pool_row(
      "adaptive_max_pool2d", "3_2",
      [](const Tensor& x) {
        return adaptive_max_pool2d(x, Shape{3, 2});
      },
      [](const Array& x) { return adaptive(x, 3, 2, largest); }));
  // Ties within an expanded plane: which of equal elements gets the gradient is the op's own rule.
  return rows;
}

}  // namespace hone::test
