#pragma once
// Sizes of a 2-d convolution, as its kernels see them.

#include <cstdint>

namespace hone {

/// x [n, groups·c, h, w] ⋆ weight [groups·o, c, kh, kw] → y [n, groups·o, oh, ow]. Contiguous arrays.
struct ConvGeometry {
  int64_t n = 0, groups = 1;
  int64_t c = 0, h = 0, w = 0;    ///< c: input channels of one group
  int64_t o = 0, kh = 0, kw = 0;  ///< o: output channels of one group
  int64_t oh = 0, ow = 0;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;

  int64_t taps() const { return c * kh * kw; }
  int64_t in_plane() const { return h * w; }
  int64_t out_plane() const { return oh * ow; }
};

}  // namespace hone
