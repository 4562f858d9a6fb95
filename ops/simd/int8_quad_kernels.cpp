#include "hone/ops/simd/int8_quad_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/int8_quad_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL  // for VNNI
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hone/ops/simd/quads-inl.h"

HONE_BEFORE_QUADS();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other kernel files have functions of the same names

#if HWY_TARGET == HWY_AVX3_DL

using D = hn::ScalableTag<int32_t>;
using V = hn::Vec<D>;
constexpr int kOuts = 6;  // at once: 2 rows × 2 vectors × 6 sums, 4 inputs and a weight fill the registers

void quads(const RowConv& s, const uint8_t* packed, int32_t* to) {
  const D d;
  HWY_ALIGN uint8_t places[64];
  for (int64_t lane = 0; lane < 16; ++lane)
    for (int64_t k = 0; k < kInt8Group; ++k)
      places[lane * kInt8Group + k] = static_cast<uint8_t>((lane * s.c + k) % 64);
  const __m512i index = _mm512_load_si512(places);
  const int64_t line = (s.w + 2 * s.pad_w) * s.c, groups = quad_groups(s), cols = s.padded_cols();
  for (int64_t r = 0; r < s.rows + s.kh; ++r, packed += line)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t j = 0; j < cols; j += kRowBlock, to += kRowBlock) {
        V lanes;
        lanes.raw = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(packed + j * s.c + g * kInt8Group));
        hn::StoreU(lanes, d, to);
      }
}

struct Tile {
  const int32_t* x;    // first group of the upper row
  int64_t row, group;  // elements between rows, between groups
  int64_t kh, groups;
  const int8_t* w;
  const int32_t* start;
  bool pools, below;
  int32_t* y;
  int64_t plane, pitch;
};

// Two rows of O outputs at N vectors of positions.
template <int O, int N> HWY_NOINLINE void tile(const Tile& a) {
  const D d;
  V sums[2][N][O];
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[0][n][o] = sums[1][n][o] = hn::Set(d, a.start[o]);
  const int8_t* w = a.w;
  const int32_t* above = a.x;
  for (int64_t i = 0; i < a.kh; ++i, above += a.row) {
    const int32_t* x = above;
    for (int64_t g = 0; g < a.groups; ++g, x += a.group, w += kInt8Outs * kInt8Group) {
      V in[2][N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        in[0][n] = hn::LoadU(d, x + n * kRowBlock);
        in[1][n] = hn::LoadU(d, x + a.row + n * kRowBlock);
      }
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) {
        const V weight = every_lane(w + o * kInt8Group);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) {
          sums[0][n][o] = add_quads(sums[0][n][o], in[0][n], weight);
          sums[1][n][o] = add_quads(sums[1][n][o], in[1][n], weight);
        }
      }
    }
  }
  int32_t* y = a.y;
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o, y += a.plane) {
    if (a.pools) {
      const V left = hn::Max(sums[0][0][o], sums[1][0][o]), right = hn::Max(sums[0][N - 1][o], sums[1][N - 1][o]);
      hn::StoreU(hn::Max(hn::ConcatEven(d, right, left), hn::ConcatOdd(d, right, left)), d, y);
      continue;
    }
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      hn::StoreU(sums[0][n][o], d, y + n * kRowBlock);
      if (a.below) hn::StoreU(sums[1][n][o], d, y + a.pitch + n * kRowBlock);
    }
  }
}
template <int N, int O> HWY_INLINE void tile_of(int64_t outs, const Tile& a) {
  if constexpr (O >= 1) {
    if (outs == O) return tile<O, N>(a);
    tile_of<N, O - 1>(outs, a);
  }
}

void product(const RowConv& s, const int32_t* quads, const int8_t* panels, const int32_t* start, int32_t* y) {
  const int64_t row = quad_row(s), groups = quad_groups(s), panel = s.kh * groups * kInt8Outs * kInt8Group;
  for (int64_t r = 0; r < (s.pools ? s.rows - 1 : s.rows); r += 2)
    for (int64_t j = 0; j < s.cols; j += 2 * kRowBlock)
      for (int64_t o = 0; o < s.outs;) {
        const int64_t left = std::min(kInt8Outs - o % kInt8Outs, s.outs - o), tiles = (left + kOuts - 1) / kOuts;
        const int64_t outs = (left + tiles - 1) / tiles;
        const Tile a{quads + r * row + j,
                     row,
                     s.padded_cols(),
                     s.kh,
                     groups,
                     panels + o / kInt8Outs * panel + o % kInt8Outs * kInt8Group,
                     start + o,
                     s.pools,
                     r + 1 < s.rows,
                     y + o * s.plane() + (s.pools ? r / 2 * s.pitch() + j / 2 : r * s.pitch() + j),
                     s.plane(),
                     s.pitch()};
        if (s.padded_cols() - j >= 2 * kRowBlock) {
          tile_of<2, kOuts>(outs, a);
        } else {
          tile_of<1, kOuts>(outs, a);
        }
        o += outs;
      }
}

const QuadKernels* kernels() {
  static constexpr QuadKernels table = {quads, product};
  return &table;
}

#else

const QuadKernels* kernels() {
  static constexpr QuadKernels none = {nullptr, nullptr};
  return &none;
}

#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HONE_AFTER_QUADS();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(kernels);
const QuadKernels& quad_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
