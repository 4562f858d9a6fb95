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

using D16 = hn::CappedTag<int16_t, kOuts>;
using V16 = hn::Vec<D16>;
constexpr auto kChannels = static_cast<int64_t>(std::min<size_t>(HWY_LANES(int16_t), 16));

// The combinations of one tile's columns, kLanes16 channels: x and `to` begin with its first.
template <int kSpan, int kLanes16>
HWY_INLINE void input_tile(const int16_t* x, int64_t c, int64_t line, int64_t pitch, int16_t* to) {
  constexpr int kCombined = static_cast<int>(combined_count(kSpan - 1));
  const hn::CappedTag<int16_t, kLanes16> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t apart = kSumsTogether * pitch;
#pragma GCC unroll 1
  for (int i = 0; i < kCombined; ++i, x += line) {
    V in[kSpan], out[kCombined];
#pragma GCC unroll 6
    for (int j = 0; j < kSpan; ++j) in[j] = hn::LoadU(d, x + j * c);
    combine<kSpan - 1>([&](int64_t j) HWY_ATTR { return in[j]; }, out);
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
      combine<kSpan - 1>([&](int64_t j) HWY_ATTR { return in[j]; }, out);
#pragma GCC unroll 7
      for (int i = 0; i < kCombined; ++i) hn::StoreU(out[i], d, rows + i * made + k);
    }
    for (int64_t col = 0; col < across; ++col, ++tile) {
      const int16_t* const from = rows + col * 2 * c;
      int16_t* const to = v + (tile / kSumsTogether * plane.values() * kSumsTogether + tile % kSumsTogether) * pitch;
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

// What products take from kTaps weights.
template <int kTaps, class V> HWY_INLINE void combine_weights(const V* w, V* to) {
  const V ends = hn::Add(w[0], w[2]);
  to[0] = hn::Add(w[0], w[0]), to[1] = hn::Add(ends, w[1]), to[2] = hn::Sub(ends, w[1]), to[3] = hn::Add(w[2], w[2]);
  if constexpr (kTaps == 5) {
    const V both = hn::Add(w[3], w[4]);
    to[4] = hn::Add(w[3], w[3]), to[5] = hn::Add(both, both), to[6] = hn::Add(w[4], w[4]);
  }
}
// The same along both axes, from weights whose row i, column j is w(i, j); put(value, v).
template <int kTaps, class V, class W, class Put> HWY_INLINE void combine_both(const W& w, const Put& put) {
  constexpr int kCombined = static_cast<int>(combined_count(kTaps));
  V half[kTaps][kCombined];
  for (int i = 0; i < kTaps; ++i) {
    V row[kTaps];
    for (int j = 0; j < kTaps; ++j) row[j] = w(i, j);
    combine_weights<kTaps>(row, half[i]);
  }
  for (int j = 0; j < kCombined; ++j) {
    V column[kTaps], out[kCombined];
    for (int i = 0; i < kTaps; ++i) column[i] = half[i][j];
    combine_weights<kTaps>(column, out);
    for (int i = 0; i < kCombined; ++i) put(i * kCombined + j, out[i]);
  }
}

// 3 × 3 kernels of a multiple of four channels, whose panels have the four of an output side by side.
void weights_by_fours(const int8_t* panel, int64_t c, int16_t* u) {
  const D16 d;
  const hn::Repartition<int32_t, D16> pairs;
  constexpr int64_t block = kOuts * 4;  // weights of four channels
  for (int64_t k = 0; k < c; k += 4) {
    HWY_ALIGN int16_t fours[kPlaces][block];
    for (int64_t part = 0; part < block; part += kChannels)
      combine_both<3, V16>(
          [&](int i, int j) HWY_ATTR {
            const int64_t at = ((i * 3 + j) * c + k) / 4 * block + part;
            return hn::PromoteTo(d, hn::LoadU(hn::Rebind<int8_t, D16>(), panel + at));
          },
          [&](int value, V16 v) HWY_ATTR { hn::Store(v, d, fours[value] + part); });
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

template <int kTaps> void weights_of(const int8_t* panel, const WinogradPlane& plane, int16_t* u) {
  const D d;
  constexpr int64_t block = kOuts * 4, values = combined_count(kTaps) * combined_count(kTaps);
  const int64_t row = (plane.c * kTaps + 3) / 4 * block;
  const WinogradOrder order(kTaps);
  HWY_ALIGN int32_t made[2][values * kLanes];
  for (int64_t o = 0; o < kOuts; o += kLanes) {
    for (int64_t c = 0; c < plane.c; c += 2) {
      if (c + 1 == plane.c) std::fill_n(made[1], values * kLanes, 0);
      for (int64_t which = 0; which < std::min<int64_t>(2, plane.c - c); ++which) {
        int32_t* const to = made[which];
        combine_both<kTaps, Sums>(
            [&](int i, int j) HWY_ATTR {
              const int64_t k = j * plane.c + c + which;
              const auto four = hn::LoadU(hn::Repartition<int8_t, D>(), panel + i * row + k / 4 * block + o * 4);
              return hn::ShiftRight<24>(hn::ShiftLeftSame(hn::BitCast(d, four), static_cast<int>(24 - k % 4 * 8)));
            },
            [&](int value, Sums v) HWY_ATTR { hn::Store(v, d, to + value * kLanes); });
      }
      const auto mask = hn::Set(d, 0xffff);
      for (int64_t n = 0; n < values; ++n) {
        const int64_t at = order.value[n] * kLanes;
        const auto both =
            hn::Or(hn::And(hn::Load(d, made[0] + at), mask), hn::ShiftLeft<16>(hn::Load(d, made[1] + at)));
        hn::StoreU(hn::BitCast(hn::Repartition<int16_t, D>(), both), hn::Repartition<int16_t, D>(),
                   u + ((n * plane.pairs() + c / 2) * kOuts + o) * 2);
      }
    }
  }
}
void weights(const int8_t* panel, const WinogradPlane& plane, int16_t* u) {
  if (plane.kernel == 3 && plane.c % 4 == 0) return weights_by_fours(panel, plane.c, u);
  plane.kernel == 3 ? weights_of<3>(panel, plane, u) : weights_of<5>(panel, plane, u);
}

struct Block {
  const int16_t *v, *u;
  const int32_t* offsets;
  int64_t pitch, pairs;
  const WinogradOrder* order;
  int32_t* room;
};

// room [16, kSumsTogether, 16] = the sums of places, for the first P tiles of a block.
template <int P> HWY_NOINLINE void tiles(const Block& a) {
  const D d;
  const hn::ScalableTag<int16_t> pairs;
  const int16_t* HWY_RESTRICT v[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) v[p] = a.v + p * a.pitch;
  const int16_t* HWY_RESTRICT u = a.u;
  const int32_t* HWY_RESTRICT offsets = a.offsets;
  int32_t* HWY_RESTRICT room = a.room;
  for (int i = 0; i < kPlaces; ++i, room += kSumsTogether * kOuts) {
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
      for (int i = 0; i < kSide; ++i) s[i] = hn::LoadU(d, m + (i * kSide + j) * kSumsTogether * kOuts + o);
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
  static constexpr WinogradOrder of_3(3), of_5(5);
  Block block{v, u, offsets, plane.pitch(), plane.pairs(), plane.kernel == 3 ? &of_3 : &of_5, room};
  int64_t row = 0, col = 0;
  for (int64_t tile = 0; tile < count;
       tile += kSumsTogether, block.v += plane.values() * kSumsTogether * plane.pitch()) {
    const int64_t n = std::min<int64_t>(kSumsTogether, count - tile);
    tiles_of<kSumsTogether>(n, block);
    for (int64_t p = 0; p < n; ++p) {
      outputs(room + p * kOuts, start, row + 1 < plane.rows, col + 1 < plane.cols, pitch,
              y + row * pitch + col * kOuts);
      if ((col += 2) >= 2 * across) col = 0, row += 2;
    }
  }
}

const WinogradKernels* kernels() {
  static constexpr WinogradKernels table = {kSumsTogether, weights, inputs, product};
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
