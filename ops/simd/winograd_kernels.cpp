#include "hone/ops/simd/winograd_kernels.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/winograd_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hone/ops/simd/pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other kernel files have functions of the same names

#if HWY_TARGET == HWY_SCALAR

const WinogradKernels* kernels() {
  static constexpr WinogradKernels none = {0, nullptr, nullptr, nullptr};
  return &none;
}

#else

constexpr int kSide = static_cast<int>(kSumPlaces), kPlaces = static_cast<int>(kWinogradPlaces);
constexpr int64_t kOuts = 16;  // of a panel
using D = hn::ScalableTag<int32_t>;
constexpr int kLanes = static_cast<int>(HWY_LANES(int32_t)), kVectors = static_cast<int>(kOuts) / kLanes;
// Sums, weights and one input fill the registers.
constexpr int kTogether = HWY_TARGET == HWY_AVX3 ? 12 : HWY_TARGET == HWY_NEON ? 6 : kVectors == 2 ? 6 : 2;

using D16 = hn::CappedTag<int16_t, kOuts>;
using V16 = hn::Vec<D16>;
constexpr auto kChannels = static_cast<int64_t>(std::min<size_t>(HWY_LANES(int16_t), 16));

// The combinations of kSpan inputs.
template <int kSpan, class V> HWY_INLINE void combine(const V* x, V* to) {
  to[0] = hn::Sub(x[0], x[2]), to[1] = hn::Add(x[1], x[2]), to[2] = hn::Sub(x[2], x[1]), to[3] = hn::Sub(x[3], x[1]);
  if constexpr (kSpan == 6) to[4] = hn::Sub(x[3], x[4]), to[5] = x[4], to[6] = hn::Sub(x[5], x[4]);
}

// The combinations of one tile's columns, kLanes16 channels: x and `to` begin with its first.
template <int kSpan, int kLanes16>
HWY_INLINE void input_tile(const int16_t* x, int64_t c, int64_t line, int64_t pitch, int16_t* to) {
  constexpr int kCombined = static_cast<int>(combined_count(kSpan - 1));
  const hn::CappedTag<int16_t, kLanes16> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t apart = kTogether * pitch;
#pragma GCC unroll 1
  for (int i = 0; i < kCombined; ++i, x += line) {
    V in[kSpan], out[kCombined];
#pragma GCC unroll 6
    for (int j = 0; j < kSpan; ++j) in[j] = hn::LoadU(d, x + j * c);
    combine<kSpan>(in, out);
#pragma GCC unroll 7
    for (int j = 0; j < kCombined; ++j, to += apart) hn::StoreU(out[j], d, to);
  }
}

template <int kSpan>
void inputs_of(const int16_t* x, int64_t line, const WinogradPlane& plane, int16_t* rows, int16_t* v) {
  constexpr int kCombined = static_cast<int>(combined_count(kSpan - 1));
  const D16 d;
  const int64_t across = plane.tile_cols(), c = plane.c, pitch = plane.pitch(), made = line + c + kOuts;
  for (int64_t tile = 0; tile < plane.tiles(); x += 2 * line) {
    for (int64_t k = 0; k < line; k += kChannels) {
      V16 in[kSpan], out[kCombined];
#pragma GCC unroll 6
      for (int i = 0; i < kSpan; ++i) in[i] = hn::LoadU(d, x + i * line + k);
      combine<kSpan>(in, out);
#pragma GCC unroll 7
      for (int i = 0; i < kCombined; ++i) hn::StoreU(out[i], d, rows + i * made + k);
    }
    for (int64_t col = 0; col < across; ++col, ++tile) {
      const int16_t* const from = rows + col * 2 * c;
      int16_t* const to = v + (tile / kTogether * plane.values() * kTogether + tile % kTogether) * pitch;
      if (c < 16) {
        for (int64_t k = 0; k < c; k += 8) input_tile<kSpan, 8>(from + k, c, made, pitch, to + k);
        continue;
      }
      for (int64_t k = 0; k < c; k += kChannels) {
        const int64_t first = std::min(k, c - kChannels);
        input_tile<kSpan, kOuts>(from + first, c, made, pitch, to + first);
      }
    }
  }
}
void inputs(const int16_t* x, int64_t line, const WinogradPlane& plane, int16_t* rows, int16_t* v) {
  plane.kernel == 3 ? inputs_of<4>(x, line, plane, rows, v) : inputs_of<6>(x, line, plane, rows, v);
}

// Three weights w, `step` apart, to the four of 2G w, `to_step` apart.
template <int step, int to_step> HWY_INLINE void weight_line(const V16* w, V16* to) {
  const V16 ends = hn::Add(w[0], w[2 * step]);
  to[0] = hn::Add(w[0], w[0]);
  to[to_step] = hn::Add(ends, w[step]);
  to[2 * to_step] = hn::Sub(ends, w[step]);
  to[3 * to_step] = hn::Add(w[2 * step], w[2 * step]);
}

void weights(const int8_t* panel, int64_t c, int16_t* u) {
  const D16 d;
  const hn::Repartition<int32_t, D16> pairs;
  constexpr int64_t block = kOuts * 4;  // weights of four channels
  for (int64_t k = 0; k < c; k += 4) {
    HWY_ALIGN int16_t fours[kPlaces][block];
    for (int64_t part = 0; part < block; part += kChannels) {
      V16 w[9], half[12], t[kPlaces];
      for (int i = 0; i < 9; ++i)
        w[i] = hn::PromoteTo(d, hn::LoadU(hn::Rebind<int8_t, D16>(), panel + (i * c + k) / 4 * block + part));
      for (int i = 0; i < 3; ++i) weight_line<1, 1>(w + i * 3, half + i * kSide);
      for (int j = 0; j < kSide; ++j) weight_line<kSide, kSide>(half + j, t + j);
      for (int i = 0; i < kPlaces; ++i) hn::Store(t[i], d, fours[i] + part);
    }
    // [16 outputs, 4 channels] to two of [16 outputs, 2].
    for (int i = 0; i < kPlaces; ++i) {
      int16_t* const to = u + i * kOuts * c + k * kOuts;
      for (int64_t part = 0; part < block; part += 2 * kChannels) {
        const auto low = hn::BitCast(pairs, hn::Load(d, fours[i] + part));
        const auto high = hn::BitCast(pairs, hn::Load(d, fours[i] + part + kChannels));
        hn::StoreU(hn::BitCast(d, hn::ConcatEven(pairs, high, low)), d, to + part / 2);
        hn::StoreU(hn::BitCast(d, hn::ConcatOdd(pairs, high, low)), d, to + 2 * kOuts + part / 2);
      }
    }
  }
}

struct Block {
  const int16_t *v, *u;
  const int32_t* offsets;
  int64_t pitch, pairs;
  const WinogradOrder* order;
  int32_t* room;
};

// room [16, kTogether, 16] = the sums of places, for the first P tiles of a block.
template <int P> HWY_NOINLINE void tiles(const Block& a) {
  const D d;
  const hn::ScalableTag<int16_t> pairs;
  const int16_t* HWY_RESTRICT v[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) v[p] = a.v + p * a.pitch;
  const int16_t* HWY_RESTRICT u = a.u;
  const int32_t* HWY_RESTRICT offsets = a.offsets;
  int32_t* HWY_RESTRICT room = a.room;
  for (int i = 0; i < kPlaces; ++i, room += kTogether * kOuts) {
    Sums sums[P][kVectors];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) sums[p][q] = hn::Zero(d);
    for (int64_t t = (a.order->first[i + 1] - a.order->first[i]) * a.pairs; t > 0; --t, u += 2 * kOuts) {
      const int64_t at = *offsets++;
      Halves w[kVectors];
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) w[q] = hn::LoadU(pairs, u + q * 2 * kLanes);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        int32_t two;
        std::memcpy(&two, v[p] + at, sizeof two);
        const Halves x = hn::BitCast(pairs, hn::Set(d, two));
#pragma GCC unroll 16
        for (int q = 0; q < kVectors; ++q) sums[p][q] = add_pairs(sums[p][q], x, w[q]);
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) hn::StoreU(sums[p][q], d, room + p * kOuts + q * kLanes);
  }
}
template <int P> HWY_INLINE void tiles_of(int64_t count, const Block& a) {
  if constexpr (P >= 1) {
    if (count == P) return tiles<P>(a);
    tiles_of<P - 1>(count, a);
  }
}

// Aᵀ m A / 4 + start of one tile, `pitch` from row to row of y; what is outside the plane is left out.
HWY_INLINE void outputs(const int32_t* m, const int32_t* start, bool below, bool right, int64_t pitch, int32_t* y) {
  const D d;
  for (int64_t o = 0; o < kOuts; o += kLanes) {
    Sums half[2][kSide], t[2][2];
#pragma GCC unroll 4
    for (int j = 0; j < kSide; ++j) {
      Sums s[kSide];
#pragma GCC unroll 4
      for (int i = 0; i < kSide; ++i) s[i] = hn::LoadU(d, m + (i * kSide + j) * kTogether * kOuts + o);
      half[0][j] = hn::Add(hn::Add(s[0], s[1]), s[2]);
      half[1][j] = hn::Add(hn::Sub(s[1], s[2]), s[3]);
    }
    const Sums first = hn::LoadU(d, start + o);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Sums* const s = half[i];
      t[i][0] = hn::Add(hn::ShiftRight<2>(hn::Add(hn::Add(s[0], s[1]), s[2])), first);
      t[i][1] = hn::Add(hn::ShiftRight<2>(hn::Add(hn::Sub(s[1], s[2]), s[3])), first);
    }
    hn::StoreU(t[0][0], d, y + o);
    if (right) hn::StoreU(t[0][1], d, y + kOuts + o);
    if (!below) continue;
    hn::StoreU(t[1][0], d, y + pitch + o);
    if (right) hn::StoreU(t[1][1], d, y + pitch + kOuts + o);
  }
}

void product(const int16_t* v, const int16_t* u, const int32_t* offsets, const WinogradPlane& plane,
             const int32_t* start, int32_t* room, int32_t* y) {
  const int64_t count = plane.tiles(), across = plane.tile_cols(), pitch = plane.cols * kOuts;
  const WinogradOrder order(plane.kernel);
  Block block{v, u, offsets, plane.pitch(), plane.pairs(), &order, room};
  int64_t row = 0, col = 0;
  for (int64_t tile = 0; tile < count; tile += kTogether, block.v += plane.values() * kTogether * plane.pitch()) {
    const int64_t n = std::min<int64_t>(kTogether, count - tile);
    tiles_of<kTogether>(n, block);
    for (int64_t p = 0; p < n; ++p) {
      outputs(room + p * kOuts, start, row + 1 < plane.rows, col + 1 < plane.cols, pitch,
              y + row * pitch + col * kOuts);
      if ((col += 2) >= 2 * across) col = 0, row += 2;
    }
  }
}

const WinogradKernels* kernels() {
  static constexpr WinogradKernels table = {kTogether, weights, inputs, product};
  return &table;
}

#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(kernels);
const WinogradKernels& winograd_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
