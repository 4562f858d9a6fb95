#pragma once
// What the ops on packed weights compute, in plain loops over the stored values: scalar references, written apart from
// the kernels, with nothing of the library's arithmetic. A kernel for a new target is right when it agrees with these:
// on integers (8 and 4 bits) to the bit, in f32 (sparse weights, codebooks) as sums in f64 do.

#include <algorithm>
#include <vector>

#include "hone/ops/conv.h"
#include "hone/ops/packed/int8.h"
#include "hone/ops/pool.h"

namespace hone::reference {

// ---- integers

using Codes = std::vector<int64_t>;

/// ⌊a · multiplier / 2^shift + ½⌋ by a floored division in 128 bits.
inline int64_t rescaled(int64_t a, int64_t multiplier, int64_t shift) {
  const __int128 numerator = static_cast<__int128>(2 * a) * multiplier + (static_cast<__int128>(1) << shift);
  const __int128 denominator = static_cast<__int128>(1) << (shift + 1);
  __int128 q = numerator / denominator;
  if (numerator % denominator < 0) --q;
  return static_cast<int64_t>(q);
}

/// Sums [rows, outs] of codes x [rows, in] less their zero point, by weights [outs, in], from a bias.
inline Codes linear_sums(const Codes& x, int64_t zero_point, const Codes& w, const Codes& bias, int64_t in) {
  const auto outs = static_cast<int64_t>(bias.size()), rows = in == 0 ? 1 : static_cast<int64_t>(x.size()) / in;
  Codes y;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outs; ++o) {
      int64_t sum = bias[static_cast<size_t>(o)];
      for (int64_t k = 0; k < in; ++k)
        sum += (x[static_cast<size_t>(r * in + k)] - zero_point) * w[static_cast<size_t>(o * in + k)];
      y.push_back(sum);
    }
  return y;
}

/// Sums of a convolution and its output's shape; x: u8 [N, C, H, W], w: i8 [O, C/groups, KH, KW].
inline Codes conv_sums(const Tensor& x, int64_t zero_point, const Tensor& w, const Codes& bias, const Conv2dOptions& o,
                       Shape& shape) {
  const auto both = [](const Shape& s, int i) { return s[s.ndim() == 1 ? 0 : i]; };
  const int64_t kh = w.size(2), kw = w.size(3), each = w.size(1), outs = w.size(0), h = x.size(2), v = x.size(3);
  shape = {x.size(0), outs, (h + 2 * both(o.padding, 0) - both(o.dilation, 0) * (kh - 1) - 1) / both(o.stride, 0) + 1,
           (v + 2 * both(o.padding, 1) - both(o.dilation, 1) * (kw - 1) - 1) / both(o.stride, 1) + 1};
  const Codes q = x.to_vector<int64_t>(), u = w.to_vector<int64_t>();
  Codes y;
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t f = 0; f < outs; ++f)
      for (int64_t i = 0; i < shape[2]; ++i)
        for (int64_t j = 0; j < shape[3]; ++j) {
          int64_t sum = bias[static_cast<size_t>(f)];
          for (int64_t c = 0; c < each; ++c)
            for (int64_t a = 0; a < kh; ++a)
              for (int64_t b = 0; b < kw; ++b) {
                const int64_t row = i * both(o.stride, 0) - both(o.padding, 0) + a * both(o.dilation, 0);
                const int64_t col = j * both(o.stride, 1) - both(o.padding, 1) + b * both(o.dilation, 1);
                if (row < 0 || row >= h || col < 0 || col >= v) continue;
                const int64_t channel = f / (outs / o.groups) * each + c;
                sum += (q[static_cast<size_t>(((n * x.size(1) + channel) * h + row) * v + col)] - zero_point) *
                       u[static_cast<size_t>(((f * each + c) * kh + a) * kw + b)];
              }
          y.push_back(sum);
        }
  return y;
}

/// The codes of sums whose output is index / inner % outs.
inline Codes codes_of(const Codes& sums, const Int8Output& to, int64_t inner) {
  const Codes m = to.multiplier.to_vector<int64_t>(), s = to.shift.to_vector<int64_t>();
  Codes y;
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t o = i / static_cast<size_t>(inner) % m.size();
    y.push_back(std::clamp(to.zero_point + rescaled(sums[i], m[o], s[o]), to.low, to.high));
  }
  return y;
}

/// Largest of each window of planes [.., h, w].
inline Codes max_pooled(const Codes& x, const Shape& shape, const Shape& kernel, const MaxPool2dOptions& o,
                        Shape& out) {
  const auto both = [](const Shape& s, int i) { return s[s.ndim() == 1 ? 0 : i]; };
  const Shape& stride = o.stride.empty() ? kernel : o.stride;
  out = shape;
  for (int d = 0; d < 2; ++d)
    out[d + 2] =
        (shape[d + 2] + 2 * both(o.padding, d) - both(o.dilation, d) * (both(kernel, d) - 1) - 1) / both(stride, d) + 1;
  Codes y;
  for (int64_t p = 0; p < shape[0] * shape[1]; ++p)
    for (int64_t i = 0; i < out[2]; ++i)
      for (int64_t j = 0; j < out[3]; ++j) {
        int64_t best = INT64_MIN;
        for (int64_t a = 0; a < both(kernel, 0); ++a)
          for (int64_t b = 0; b < both(kernel, 1); ++b) {
            const int64_t row = i * both(stride, 0) - both(o.padding, 0) + a * both(o.dilation, 0);
            const int64_t col = j * both(stride, 1) - both(o.padding, 1) + b * both(o.dilation, 1);
            if (row < 0 || row >= shape[2] || col < 0 || col >= shape[3]) continue;
            best = std::max(best, x[static_cast<size_t>((p * shape[2] + row) * shape[3] + col)]);
          }
        y.push_back(best);
      }
  return y;
}

// ---- f32

/// x [batch, cols] by a weight of w.rows and w.cols whose w.each(f) calls f(row, column, value) for what it stores;
/// bias may be undefined. f32.
template <class W> Tensor linear(const Tensor& x, const W& w, const Tensor& bias) {
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
Tensor conv2d(const Tensor& x, const W& w, const Tensor& bias, const ConvAttrs& a, int64_t oh, int64_t ow) {
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

}  // namespace hone::reference
