#pragma once
// From tensors to the integer kernels. Contiguous arrays.

#include "hone/core/op.h"
#include "hone/ops/fused.h"
#include "hone/ops/simd/conv_geometry.h"
#include "hone/ops/simd/int8_kernels.h"

namespace hone::detail {

/// Groups of four inputs of a weight [.., channels, kh, kw].
int64_t int8_depth(int64_t channels, int64_t kh, int64_t kw, int64_t dilation);
/// Bytes of a weight [groups·outs, …] in panels; ShapeError beyond any memory.
int64_t int8_elements(int64_t groups, int64_t outs, int64_t depth, int64_t bits);
/// Codes [groups·outs, channels, kh, kw] → panels, and back.
void pack_int8(const int8_t* codes, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
               int64_t dilation, int64_t bits, int8_t* panels);
void unpack_int8(const int8_t* panels, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
                 int64_t dilation, int64_t bits, int8_t* codes);

struct Int8Weight {
  const int8_t* panels;
  int64_t bits;
  const int32_t* start;
};
/// Exactly one of the two results is wanted: codes (multiplier, shift and range) or f32 (scale).
struct Int8Result {
  const int32_t *multiplier = nullptr, *shift = nullptr;
  int32_t zero_point = 0, low = 0, high = 255;
  const float* scale = nullptr;
  void* y = nullptr;
};

/// x [rows, depth codes] · Wᵀ.
void run_int8_linear(int64_t rows, int64_t in, int64_t outs, const uint8_t* x, const Int8Weight& w, const Int8Result& r,
                     Workspace& workspace);
/// Convolutions of few channels, by rows: whether that takes fewer products, and the convolution.
bool int8_rows_fit(const ConvGeometry& s, const FusedPoolAttrs& pool);
/// Whether such a convolution takes fewer products by tiles, which are rows combined along columns as well.
bool int8_tiles_fit(const ConvGeometry& s);
void run_int8_rows(const ConvGeometry& s, const uint8_t* x, uint8_t x_zero_point, const Int8Weight& w, bool pools,
                   const Int8Result& r, Workspace& workspace);
/// Whether Winograd's way, which goes before rows, is shorter than the plain one: no more than 2/3 of the products,
/// with what tiles and panels have too much, and enough tiles to pay for bringing the weights to its form.
bool int8_winograd_fits(const ConvGeometry& s);
/// Whether places in its scratch memory fit 32 bits.
bool int8_conv_fits(const ConvGeometry& s, const FusedPoolAttrs& pool);
void run_int8_conv(const ConvGeometry& s, const uint8_t* x, uint8_t x_zero_point, const Int8Weight& w,
                   const FusedPoolAttrs& pool, const Int8Result& r, Workspace& workspace);

}  // namespace hone::detail
