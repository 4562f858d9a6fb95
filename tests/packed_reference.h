#pragma once
// What the ops on packed weights compute, in plain loops in f64 over the stored values: for tests.

#include <vector>

#include "hone/hone.h"

namespace hone::detail {

/// x [batch, cols] by a packed weight; bias may be undefined. f32.
template <class W> Tensor linear_reference(const Tensor& x, const W& w, const Tensor& bias) {
  const int64_t batch = x.size(0);
  const std::vector<double> in = x.to_vector<double>();
  const std::vector<double> b = bias.defined() ? bias.to_vector<double>() : std::vector<double>(w.rows);
  std::vector<double> y;
  for (int64_t n = 0; n < batch; ++n) y.insert(y.end(), b.begin(), b.end());
  w.each([&](int64_t row, int64_t col, float v) {
    for (int64_t n = 0; n < batch; ++n) y[n * w.rows + row] += double{v} * in[n * w.cols + col];
  });
  return tensor(std::vector<float>(y.begin(), y.end()), {batch, w.rows});
}

/// x [N, C, H, W]; `a` as conv2d's, with the kernel as its size; y's height and width are oh and ow.
template <class W>
Tensor conv2d_reference(const Tensor& x, const W& w, const Tensor& bias, const ConvAttrs& a, int64_t oh, int64_t ow) {
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const std::vector<double> in = x.to_vector<double>();
  const std::vector<double> b = bias.defined() ? bias.to_vector<double>() : std::vector<double>(w.rows);
  std::vector<double> y(images * w.rows * oh * ow);
  for (size_t i = 0; i < y.size(); ++i) y[i] = b[i / (oh * ow) % w.rows];
  w.each([&](int64_t row, int64_t col, float v) {
    const int64_t q = col % a.size_w, p = col / a.size_w % a.size_h;
    const int64_t c = row / (w.rows / a.groups) * (channels / a.groups) + col / (a.size_w * a.size_h);
    for (int64_t n = 0; n < images; ++n)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j) {
          const int64_t h = i * a.stride_h - a.pad_h + p * a.dilation_h,
                        k = j * a.stride_w - a.pad_w + q * a.dilation_w;
          if (h < 0 || h >= height || k < 0 || k >= width) continue;
          y[((n * w.rows + row) * oh + i) * ow + j] += double{v} * in[((n * channels + c) * height + h) * width + k];
        }
  });
  return tensor(std::vector<float>(y.begin(), y.end()), {images, w.rows, oh, ow});
}

}  // namespace hone::detail
