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

// to[i] = low[i] + 2^16 high[i].
HWY_INLINE void join(const uint8_t* low, const uint8_t* high, int64_t n, int32_t* to) {
  const D d;
  const hn::Rebind<uint8_t, D> bytes;
  for (int64_t first = 0; first < n && n >= kLanes; first += kLanes) {
    const int64_t i = std::min(first, n - kLanes);
    hn::StoreU(hn::Or(hn::PromoteTo(d, hn::LoadU(bytes, low + i)),
                      hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(bytes, high + i)))),
               d, to + i);
  }
  for (int64_t i = 0; i < n && n < kLanes; ++i) to[i] = low[i] | high[i] << 16;
}

void pack(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs) {
  const int64_t line = s.line();
  const int32_t nothing = code | code << 16;
  for (int64_t r = s.top - s.pad_h, end = r + s.rows + s.kh; r < end; ++r) {
    for (int64_t c = 0; c < s.c; c += 2, pairs += line) {
      const bool outside = r < 0 || r >= s.h || s.w == 0;
      if (outside || s.pad_w > kLanes || line - s.pad_w - s.w > kLanes) {
        std::fill_n(pairs, line, nothing);
        if (outside) continue;
      }
      hn::StoreU(hn::Set(D(), nothing), D(), pairs);
      hn::StoreU(hn::Set(D(), nothing), D(), pairs + line - kLanes);
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
template <int kTaps> void combine_rows(const int32_t* x, int64_t n, int32_t* to) {
  constexpr int kCombined = static_cast<int>(combined_count(kTaps));
  const D d;
  for (int64_t first = 0; first < n; first += kLanes) {
    const int64_t i = std::min(first, n - kLanes);
    Halves made[kCombined];
    combine<kTaps>([&](int64_t r) HWY_ATTR { return hn::BitCast(D16(), hn::LoadU(d, x + r * n + i)); }, made);
#pragma GCC unroll 7
    for (int k = 0; k < kCombined; ++k) hn::StoreU(hn::BitCast(d, made[k]), d, to + k * n + i);
  }
}

// One block of O outputs: kRowBlock positions of two rows.
struct Block {
  const int32_t *x, *offsets, *w;
  const int64_t* first;  ///< bounds of the steps of a, b, c, d
  const int32_t* start;
  const RowConv* s;
  int64_t plane;
  bool below;  ///< whether the second row is one of the output
  int32_t *room, *y;
};

// The sums of place k added to `sums`.
template <int O> HWY_INLINE void add_place(const Block& a, int k, Sums (&sums)[O][kVectors]) {
  const D d;
  const D16 halves;
  const int32_t* HWY_RESTRICT offsets = a.offsets + a.first[k];
  const int32_t* HWY_RESTRICT w = a.w + a.first[k] * O;
  for (int64_t t = a.first[k + 1] - a.first[k]; t > 0; --t, w += O) {
    const int32_t* const at = a.x + *offsets++;
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
}

// What is added up stays in registers: b waits for c, their difference and then the first row for the second.
template <int O> HWY_NOINLINE void block_of(const Block& a) {
  const D d;
  Sums sums[O][kVectors];
  const auto zero = [&](int o, int q) HWY_ATTR { sums[o][q] = hn::Zero(d); };
  const auto keep = [&](int o, int q) HWY_ATTR { hn::Store(sums[o][q], d, a.room + o * kRowBlock + q * kLanes); };
  const auto kept = [&](int o, int q) HWY_ATTR { return hn::Load(d, a.room + o * kRowBlock + q * kLanes); };
  const auto every = [](const auto& f) HWY_ATTR {
#pragma GCC unroll 16
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) f(o, q);
  };
  every(zero);
  add_place<O>(a, 1, sums);
  every(keep);
  every(zero);
  add_place<O>(a, 2, sums);
  every([&](int o, int q) HWY_ATTR {
    const Sums b = kept(o, q), c = sums[o][q];
    sums[o][q] = hn::Sub(b, c);
    keep(o, q);
    sums[o][q] = hn::Add(b, c);
  });
  add_place<O>(a, 0, sums);
  every([&](int o, int q) HWY_ATTR {
    const Sums difference = kept(o, q);
    keep(o, q);
    sums[o][q] = difference;
  });
  add_place<O>(a, 3, sums);

  int32_t* y = a.y;
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o, y += a.plane) {
    const Sums first = hn::Set(d, a.start[o]);
    const auto whole = [&](Sums twice) HWY_ATTR { return hn::Add(hn::ShiftRight<1>(twice), first); };
    if (a.s->pools) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; q += 2) {
        const int last = std::min(q + 1, kVectors - 1);
        const Sums left = hn::Max(kept(o, q), sums[o][q]), right = hn::Max(kept(o, last), sums[o][last]);
        const Sums best = hn::Max(hn::ConcatEven(d, right, left), hn::ConcatOdd(d, right, left));
        hn::StoreU(whole(best), d, y + q / 2 * kLanes);
      }
      continue;
    }
#pragma GCC unroll 4
    for (int q = 0; q < kVectors; ++q) {
      hn::StoreU(whole(kept(o, q)), d, y + q * kLanes);
      if (a.below) hn::StoreU(whole(sums[o][q]), d, y + a.s->pitch() + q * kLanes);
    }
  }
}
template <int O> HWY_INLINE void block_of(int64_t outs, const Block& a) {
  if constexpr (O >= 1) {
    if (outs == O) return block_of<O>(a);
    block_of<O - 1>(outs, a);
  }
}

void product(const RowConv& s, const int32_t* pairs, const int32_t* offsets, const int32_t* w, const int32_t* start,
             int32_t* combined, int32_t* room, int32_t* y) {
  const SumOrder order = sum_order(s.kh);
  const int64_t n = s.planes() * s.line(), plane = s.plane();
  int64_t first[kSumPlaces + 1];
  for (int64_t k = 0; k <= kSumPlaces; ++k) first[k] = order.first[k] * s.row_taps();
  Block block{nullptr, offsets, nullptr, first, nullptr, &s, plane, false, room, nullptr};
  for (int64_t r = 0; r < (s.pools ? s.rows - 1 : s.rows); r += 2) {
    s.kh == 3 ? combine_rows<3>(pairs + r * n, n, combined) : combine_rows<5>(pairs + r * n, n, combined);
    block.below = r + 1 < s.rows;
    int32_t* const to = y + (s.pools ? r / 2 : r) * s.pitch();
    for (int64_t j = 0; j < s.cols; j += kRowBlock) {
      block.x = combined + j;
      for (int64_t o = 0; o < s.outs; o += kSumsTogether) {
        block.w = w + o * s.steps(), block.start = start + o;
        block.y = to + o * plane + (s.pools ? j / 2 : j);
        block_of<kSumsTogether>(std::min<int64_t>(kSumsTogether, s.outs - o), block);
      }
    }
  }
}

const RowKernels* kernels() {
  static constexpr RowKernels table = {kSumsTogether, pack, product};
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
