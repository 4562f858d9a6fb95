#pragma once
// Convolution by plain loops, for f64 and for sizes beyond the direct kernels. Inner loops run along a row.

#include <algorithm>
#include <cstdint>

#include "hone/core/parallel.h"
#include "hone/ops/simd/conv_geometry.h"

namespace hone::detail {

/// Calls body(out_row, in_row, low, high, in) for kernel element (p, q): output columns [low, high) have their input
/// column at in + j·stride_w, inside the row.
template <class Body> void conv_rows(const ConvGeometry& s, int64_t p, int64_t q, Body&& body) {
  const int64_t shift = q * s.dilation_w - s.pad_w;
  const int64_t low = shift < 0 ? std::min((-shift + s.stride_w - 1) / s.stride_w, s.ow) : 0;
  const int64_t last = s.w - 1 - shift;
  const int64_t high = last < 0 ? low : std::max(low, std::min(last / s.stride_w + 1, s.ow));
  for (int64_t i = 0; i < s.oh; ++i) {
    const int64_t r = i * s.stride_h + p * s.dilation_h - s.pad_h;
    if (r >= 0 && r < s.h) body(i, r, low, high, shift);
  }
}

template <class T> void conv_plain(const ConvGeometry& s, const T* x, const T* weight, const T* bias, T* y) {
  parallel_for(s.n * s.groups * s.o, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {  // one plane of y
      const int64_t image = u / (s.groups * s.o), o = u % (s.groups * s.o), gr = o / s.o;
      T* out = y + u * s.out_plane();
      std::fill_n(out, s.out_plane(), bias ? bias[o] : T(0));
      const T* w = weight + o * s.taps();
      for (int64_t c = 0; c < s.c; ++c) {
        const T* in = x + ((image * s.groups + gr) * s.c + c) * s.in_plane();
        for (int64_t p = 0; p < s.kh; ++p)
          for (int64_t q = 0; q < s.kw; ++q, ++w)
            conv_rows(s, p, q, [&](int64_t i, int64_t r, int64_t low, int64_t high, int64_t shift) {
              for (int64_t j = low; j < high; ++j) out[i * s.ow + j] += *w * in[r * s.w + j * s.stride_w + shift];
            });
      }
    }
  });
}

template <class T> void conv_plain_input_grad(const ConvGeometry& s, const T* g, const T* weight, T* dx) {
  parallel_for(s.n * s.groups * s.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {  // one plane of dx
      const int64_t c = u % s.c, gr = u / s.c % s.groups, image = u / (s.c * s.groups);
      T* to = dx + u * s.in_plane();
      std::fill_n(to, s.in_plane(), T(0));
      for (int64_t o = gr * s.o; o < (gr + 1) * s.o; ++o) {
        const T* from = g + (image * s.groups * s.o + o) * s.out_plane();
        const T* w = weight + o * s.taps() + c * s.kh * s.kw;
        for (int64_t p = 0; p < s.kh; ++p)
          for (int64_t q = 0; q < s.kw; ++q, ++w)
            conv_rows(s, p, q, [&](int64_t i, int64_t r, int64_t low, int64_t high, int64_t shift) {
              for (int64_t j = low; j < high; ++j) to[r * s.w + j * s.stride_w + shift] += *w * from[i * s.ow + j];
            });
      }
    }
  });
}

template <class T> void conv_plain_weight_grad(const ConvGeometry& s, const T* x, const T* g, T* dw, T* db) {
  parallel_for(s.groups * s.o, 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      T* to = dw + o * s.taps();
      for (int64_t c = 0; c < s.c; ++c)
        for (int64_t p = 0; p < s.kh; ++p)
          for (int64_t q = 0; q < s.kw; ++q, ++to) {
            T sum = 0;
            for (int64_t image = 0; image < s.n; ++image) {
              const T* in = x + ((image * s.groups + o / s.o) * s.c + c) * s.in_plane();
              const T* from = g + (image * s.groups * s.o + o) * s.out_plane();
              conv_rows(s, p, q, [&](int64_t i, int64_t r, int64_t low, int64_t high, int64_t shift) {
                for (int64_t j = low; j < high; ++j) sum += from[i * s.ow + j] * in[r * s.w + j * s.stride_w + shift];
              });
            }
            *to = sum;
          }
      if (!db) continue;
      T sum = 0;
      for (int64_t image = 0; image < s.n; ++image) {
        const T* from = g + (image * s.groups * s.o + o) * s.out_plane();
        for (int64_t q = 0; q < s.out_plane(); ++q) sum += from[q];
      }
      db[o] = sum;
    }
  });
}

}  // namespace hone::detail
