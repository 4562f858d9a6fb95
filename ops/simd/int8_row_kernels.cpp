#include "hone/ops/simd/int8_row_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/int8_row_kernels.cpp"
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

const RowKernels* kernels() {
  static constexpr RowKernels none = {0, nullptr, nullptr};
  return &none;
}

#else

using D = hn::ScalableTag<int32_t>;
using D16 = hn::ScalableTag<int16_t>;
constexpr int kLanes = static_cast<int>(HWY_LANES(int32_t)), kVectors = static_cast<int>(kRowBlock) / kLanes;
// Sums, one block of inputs and one weight fill the registers.
constexpr int kTogether = HWY_TARGET == HWY_AVX3 ? 12 : HWY_TARGET == HWY_NEON ? 6 : kVectors == 2 ? 6 : 2;

// to[i] = low[i] + 2^16 high[i].
HWY_INLINE void join(const uint8_t* low, const uint8_t* high, int64_t n, int32_t* to) {
  const D d;
  const hn::Rebind<uint8_t, D> bytes;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    hn::StoreU(hn::Or(hn::PromoteTo(d, hn::LoadU(bytes, low + i)),
                      hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(bytes, high + i)))),
               d, to + i);
  for (; i < n; ++i) to[i] = low[i] | high[i] << 16;
}

void pack(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs) {
  const int64_t line = s.line(), nothing = code | code << 16;
  for (int64_t r = s.top - s.pad_h, end = r + s.rows + s.kh; r < end; ++r) {
    for (int64_t c = 0; c < s.c; c += 2, pairs += line) {
      std::fill_n(pairs, line, static_cast<int32_t>(nothing));
      if (r < 0 || r >= s.h || s.w == 0) continue;
      const uint8_t* const row = x + (c * s.h + r) * s.w;
      if (c + 1 < s.c) {
        join(row, row + s.h * s.w, s.w, pairs + s.pad_w);
        continue;
      }
      // Columns x and x + 1; before the first column and behind the last, one of them is the padding.
      if (s.pad_w > 0) pairs[s.pad_w - 1] = code | row[0] << 16;
      join(row, row + 1, s.w - 1, pairs + s.pad_w);
      pairs[s.pad_w + s.w - 1] = row[s.w - 1] | code << 16;
    }
  }
}

// The combined rows of the two output rows that begin with x's row 0; n elements a row.
void combine(const int32_t* x, int64_t kh, int64_t n, int32_t* to) {
  const D d;
  const D16 halves;
  const auto row = [&](int64_t r, int64_t i) HWY_ATTR { return hn::BitCast(halves, hn::LoadU(d, x + r * n + i)); };
  for (int64_t first = 0; first < n; first += kLanes) {
    const int64_t i = std::min(first, n - kLanes);
    const auto put = [&](int64_t r, Halves v) HWY_ATTR { hn::StoreU(hn::BitCast(d, v), d, to + r * n + i); };
    const Halves x1 = row(1, i), x2 = row(2, i), x3 = row(3, i);
    put(0, hn::Sub(row(0, i), x2));
    put(1, hn::Add(x1, x2));
    put(2, hn::Sub(x2, x1));
    put(3, hn::Sub(x3, x1));
    if (kh == 3) continue;
    const Halves x4 = row(4, i);
    put(4, hn::Sub(x3, x4));
    put(5, x4);
    put(6, hn::Sub(row(5, i), x4));
  }
}

// room [O, kRowBlock] = the sums of O outputs over `steps`.
template <int O>
HWY_NOINLINE void sums_of(const int32_t* x, const int32_t* offsets, const int32_t* w, int64_t steps, int32_t* room) {
  const D d;
  const D16 halves;
  Sums sums[O][kVectors];
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
    for (int q = 0; q < kVectors; ++q) sums[o][q] = hn::Zero(d);
  for (int64_t t = 0; t < steps; ++t, w += O) {
    const int32_t* const at = x + offsets[t];
    Halves in[kVectors];
#pragma GCC unroll 16
    for (int q = 0; q < kVectors; ++q) in[q] = hn::BitCast(halves, hn::LoadU(d, at + q * kLanes));
#pragma GCC unroll 16
    for (int o = 0; o < O; ++o) {
      const Halves weight = hn::BitCast(halves, hn::Set(d, w[o]));
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) sums[o][q] = add_pairs(sums[o][q], in[q], weight);
    }
  }
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
    for (int q = 0; q < kVectors; ++q) hn::StoreU(sums[o][q], d, room + o * kRowBlock + q * kLanes);
}
template <int O>
HWY_INLINE void sums_of(int64_t outs, const int32_t* x, const int32_t* offsets, const int32_t* w, int64_t steps,
                        int32_t* room) {
  if constexpr (O >= 1) {
    if (outs == O) return sums_of<O>(x, offsets, w, steps, room);
    sums_of<O - 1>(outs, x, offsets, w, steps, room);
  }
}

// A block of one output's two rows from a, b, c, d, `apart` from each other.
HWY_INLINE void finish(const int32_t* m, int64_t apart, int32_t start, const RowConv& s, bool below, int32_t* y) {
  const D d;
  const Sums first = hn::Set(d, start);
  const auto whole = [&](Sums twice) HWY_ATTR { return hn::Add(hn::ShiftRight<1>(twice), first); };
  Sums row[2][kVectors];
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q, m += kLanes) {
    const Sums b = hn::LoadU(d, m + apart), c = hn::LoadU(d, m + 2 * apart);
    row[0][q] = hn::Add(hn::Add(hn::LoadU(d, m), b), c);
    row[1][q] = hn::Add(hn::Sub(b, c), hn::LoadU(d, m + 3 * apart));
  }
  if (s.pools) {
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; q += 2) {
      const int last = std::min(q + 1, kVectors - 1);
      const Sums left = hn::Max(row[0][q], row[1][q]), right = hn::Max(row[0][last], row[1][last]);
      const Sums best = hn::Max(hn::ConcatEven(d, right, left), hn::ConcatOdd(d, right, left));
      hn::StoreU(whole(best), d, y + q / 2 * kLanes);
    }
    return;
  }
#pragma GCC unroll 4
  for (int q = 0; q < kVectors; ++q) {
    hn::StoreU(whole(row[0][q]), d, y + q * kLanes);
    if (below) hn::StoreU(whole(row[1][q]), d, y + s.pitch() + q * kLanes);
  }
}

void product(const RowConv& s, const int32_t* pairs, const int32_t* offsets, const int32_t* w, const int32_t* start,
             int32_t* combined, int32_t* room, int32_t* y) {
  constexpr int64_t apart = kTogether * kRowBlock;
  const SumOrder order = sum_order(s.kh);
  const int64_t n = s.planes() * s.line(), taps = s.row_taps(), plane = s.plane();
  for (int64_t r = 0; r < (s.pools ? s.rows - 1 : s.rows); r += 2) {
    combine(pairs + r * n, s.kh, n, combined);
    int32_t* const to = y + (s.pools ? r / 2 : r) * s.pitch();
    for (int64_t j = 0; j < s.cols; j += kRowBlock) {
      for (int64_t o = 0; o < s.outs; o += kTogether) {
        const int64_t outs = std::min<int64_t>(kTogether, s.outs - o);
        for (int64_t k = 0; k < kSumPlaces; ++k) {
          const int64_t first = order.first[k] * taps, steps = order.first[k + 1] * taps - first;
          sums_of<kTogether>(outs, combined + j, offsets + first, w + o * s.steps() + first * outs, steps,
                             room + k * apart);
        }
        for (int64_t i = 0; i < outs; ++i)
          finish(room + i * kRowBlock, apart, start[o + i], s, r + 1 < s.rows,
                 to + (o + i) * plane + (s.pools ? j / 2 : j));
      }
    }
  }
}

const RowKernels* kernels() {
  static constexpr RowKernels table = {kTogether, pack, product};
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
const RowKernels& row_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
