#include "hone/ops/simd/int8_tile_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/int8_tile_kernels.cpp"
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

const TileKernels* kernels() {
  static constexpr TileKernels none = {0, nullptr, nullptr};
  return &none;
}

#else

using D = hn::ScalableTag<int32_t>;
using D16 = hn::ScalableTag<int16_t>;
constexpr int kLanes = static_cast<int>(HWY_LANES(int32_t)), kVectors = static_cast<int>(kRowBlock) / kLanes;

// Columns 0, 2, … of the n bytes at `low` as pairs with those at `high`, or with 0, to `even`; 1, 3, … to `odd`.
template <bool kTwo>
HWY_INLINE void split(const uint8_t* low, const uint8_t* high, int64_t n, int32_t* even, int32_t* odd) {
  const hn::RebindToUnsigned<D> d;
  const auto byte = hn::Set(d, 0xff);
  const auto two = [&](const uint8_t* x) HWY_ATTR {
    return hn::PromoteTo(
        d, hn::BitCast(hn::Rebind<uint16_t, D>(), hn::LoadU(hn::Repartition<uint8_t, hn::Rebind<uint16_t, D> >(), x)));
  };
  const auto put = [&](auto a, auto b, int32_t* to)
                       HWY_ATTR { hn::StoreU(hn::BitCast(D(), kTwo ? hn::Or(a, hn::ShiftLeft<16>(b)) : a), D(), to); };
  const int64_t all = n / 2;
  for (int64_t begin = 0; begin < all && all >= kLanes; begin += kLanes) {
    const int64_t i = std::min(begin, all - kLanes);
    const auto a = two(low + 2 * i), b = kTwo ? two(high + 2 * i) : a;
    put(hn::And(a, byte), hn::And(b, byte), even + i);
    put(hn::ShiftRight<8>(a), hn::ShiftRight<8>(b), odd + i);
  }
  const auto pair = [&](int64_t i) { return kTwo ? low[i] | high[i] << 16 : low[i]; };
  for (int64_t i = 0; i < all && all < kLanes; ++i) even[i] = pair(2 * i), odd[i] = pair(2 * i + 1);
  if (n % 2 == 1) even[all] = pair(n - 1);
}

void pack(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs) {
  const int64_t line = s.line(), half = line / 2, pad = s.pad_w / 2;
  // x's columns 0, 2, … are even ones or, behind an odd padding, odd ones.
  const bool turned = s.pad_w % 2 == 1;
  const int64_t even = turned ? half + pad : pad, odd = turned ? pad + 1 : half + pad;
  for (int64_t r = s.top - s.pad_h, end = r + s.rows + s.kh; r < end; ++r) {
    for (int64_t c = 0; c < s.c; c += 2, pairs += line) {
      const bool two = c + 1 < s.c;
      const int32_t nothing = two ? code | code << 16 : code;
      const bool outside = r < 0 || r >= s.h;
      if (outside || pad >= kLanes || half - pad - s.w / 2 > kLanes) {
        std::fill_n(pairs, line, nothing);
        if (outside) continue;
      }
      for (const int64_t i : {int64_t{0}, half - kLanes, half, line - kLanes})
        hn::StoreU(hn::Set(D(), nothing), D(), pairs + i);
      const uint8_t* const row = x + (c * s.h + r) * s.w;
      two ? split<true>(row, row + s.h * s.w, s.w, pairs + even, pairs + odd)
          : split<false>(row, row, s.w, pairs + even, pairs + odd);
    }
  }
}

// Rows that begin with x's row 0, combined.
template <int kTaps> void combine_rows(const RowConv& s, const int32_t* x, int32_t* to) {
  constexpr int kCombined = static_cast<int>(combined_count(kTaps));
  const D d;
  const D16 halves;
  const int64_t line = s.line(), pitch = s.planes() * line, n = s.c / 2 * line;
  Halves made[combined_count(kTaps)];
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    const int64_t i = std::min(begin, n - kLanes);
    combine<kTaps>([&](int64_t r) HWY_ATTR { return hn::BitCast(halves, hn::LoadU(d, x + r * pitch + i)); }, made);
#pragma GCC unroll 7
    for (int k = 0; k < kCombined; ++k) hn::StoreU(hn::BitCast(d, made[k]), d, to + k * n + i);
  }
  if (s.c % 2 == 0) return;
  x += n, to += kCombined * n;
  for (int64_t begin = 0; begin < line; begin += kLanes) {
    const int64_t i = std::min(begin, line - kLanes);
    combine<kTaps>([&](int64_t r) HWY_ATTR { return hn::BitCast(halves, hn::LoadU(d, x + r * pitch + i)); }, made);
    Sums places[kSumPlaces];
#pragma GCC unroll 4
    for (int k = 0; k < kSumPlaces; ++k) places[k] = hn::BitCast(d, made[k]);
    if constexpr (kTaps == 5) {  // the second row of a place goes to the upper halves, which are 0
      const auto with = [&](Sums place, Halves second)
                            HWY_ATTR { return hn::Or(place, hn::ShiftLeft<16>(hn::BitCast(d, second))); };
      places[0] = with(places[0], made[4]), places[1] = with(places[1], made[5]), places[3] = with(places[3], made[6]);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kSumPlaces; ++k) hn::StoreU(places[k], d, to + k * line + i);
  }
}

// One block of O outputs: kRowBlock tiles.
struct Block {
  const int32_t* x;
  const TileOffsets* offsets;
  const int32_t *w, *start;
  int64_t kernel;
  int64_t down[kSumPlaces];  ///< steps of one combination of columns at each place of rows
  bool pools, below;         ///< below: whether the second row is one of the output
  int64_t plane, pitch;
  int32_t *room, *y;
};

enum class Columns { difference, sum, first };
template <int O, Columns kColumns>
HWY_INLINE void add_steps(const int32_t* x, int64_t steps, const TileOffsets*& offsets, const int32_t*& w,
                          Sums (&sums)[O][kVectors]) {
  const D d;
  const D16 halves;
  for (const TileOffsets* const end = offsets + steps; offsets < end; ++offsets, w += O) {
    const TileOffsets at = *offsets;
    Halves in[kVectors];
#pragma GCC unroll 16
    for (int q = 0; q < kVectors; ++q) {
      in[q] = hn::BitCast(halves, hn::LoadU(d, x + at.first + q * kLanes));
      if constexpr (kColumns == Columns::first) continue;
      const Halves second = hn::BitCast(halves, hn::LoadU(d, x + at.second + q * kLanes));
      in[q] = kColumns == Columns::sum ? hn::Add(in[q], second) : hn::Sub(in[q], second);
    }
#pragma GCC unroll 16
    for (int o = 0; o < O; ++o) {
      const Halves weight = hn::BitCast(halves, hn::Set(d, w[o]));
#pragma GCC unroll 16
      for (int q = 0; q < kVectors; ++q) sums[o][q] = add_pairs(sums[o][q], in[q], weight);
    }
  }
}

// By places of columns; along rows, what is added up stays in registers: b waits for c, and their difference for d.
template <int O> HWY_NOINLINE void block_of(const Block& a) {
  constexpr int64_t kSize = O * kRowBlock;
  const D d;
  const TileOffsets* offsets = a.offsets;
  const int32_t* w = a.w;
  int32_t *top = a.room, *bottom = a.room + kSumPlaces * kSize;
  for (int across = 0; across < static_cast<int>(kSumPlaces); ++across, top += kSize, bottom += kSize) {
    Sums sums[O][kVectors];
    const auto every = [](const auto& f) HWY_ATTR {
#pragma GCC unroll 16
      for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
        for (int q = 0; q < kVectors; ++q) f(o, q, o * kRowBlock + q * kLanes);
    };
    const auto add = [&](int64_t steps) HWY_ATTR {
      if (across == 1) {
        add_steps<O, Columns::sum>(a.x, steps, offsets, w, sums);
        if (a.kernel == 5) add_steps<O, Columns::first>(a.x, steps, offsets, w, sums);
      } else {
        add_steps<O, Columns::difference>(a.x, across == 2 || a.kernel == 3 ? steps : 2 * steps, offsets, w, sums);
      }
    };
    every([&](int o, int q, int64_t) HWY_ATTR { sums[o][q] = hn::Zero(d); });
    add(a.down[1]);
    every([&](int o, int q, int64_t at) HWY_ATTR {
      hn::Store(sums[o][q], d, top + at);
      sums[o][q] = hn::Zero(d);
    });
    add(a.down[2]);
    every([&](int o, int q, int64_t at) HWY_ATTR {
      const Sums b = hn::Load(d, top + at);
      hn::Store(hn::Sub(b, sums[o][q]), d, bottom + at);
      sums[o][q] = hn::Add(b, sums[o][q]);
    });
    add(a.down[0]);
    every([&](int o, int q, int64_t at) HWY_ATTR {
      hn::Store(sums[o][q], d, top + at);
      sums[o][q] = hn::Load(d, bottom + at);
    });
    add(a.down[3]);
    every([&](int o, int q, int64_t at) HWY_ATTR { hn::Store(sums[o][q], d, bottom + at); });
  }

  for (int64_t o = 0; o < O; ++o) {
    const Sums first = hn::Set(d, a.start[o]);
    int32_t* const y = a.y + o * a.plane;
    for (int64_t t = 0; t < kRowBlock; t += kLanes) {
      Sums tile[2][2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const int32_t* const m = a.room + i * kSumPlaces * kSize + o * kRowBlock + t;
        const Sums m1 = hn::Load(d, m + kSize), m2 = hn::Load(d, m + 2 * kSize);
        tile[i][0] = hn::Add(hn::Add(hn::Load(d, m), m1), m2);
        tile[i][1] = hn::Add(hn::Sub(m1, m2), hn::Load(d, m + 3 * kSize));
      }
      const auto whole = [&](Sums fourfold) HWY_ATTR { return hn::Add(hn::ShiftRight<2>(fourfold), first); };
      if (a.pools) {
        const Sums best = hn::Max(hn::Max(tile[0][0], tile[0][1]), hn::Max(tile[1][0], tile[1][1]));
        hn::StoreU(whole(best), d, y + t);
        continue;
      }
      hn::StoreInterleaved2(whole(tile[0][0]), whole(tile[0][1]), d, y + 2 * t);
      if (a.below) hn::StoreInterleaved2(whole(tile[1][0]), whole(tile[1][1]), d, y + a.pitch + 2 * t);
    }
  }
}
template <int O> HWY_INLINE void block_of(int64_t outs, const Block& a) {
  if constexpr (O >= 1) {
    if (outs == O) return block_of<O>(a);
    block_of<O - 1>(outs, a);
  }
}

void product(const RowConv& s, const int32_t* pairs, const TileOffsets* offsets, const int32_t* w, const int32_t* start,
             int32_t* combined, int32_t* room, int32_t* y) {
  const TileSteps tiles{s.kh, s.c};
  const SumOrder order = sum_order(s.kh);
  Block block{nullptr, offsets, nullptr, nullptr, s.kh, {}, s.pools, false, s.plane(), s.pitch(), room, nullptr};
  for (int64_t k = 0; k < kSumPlaces; ++k)
    block.down[k] = (order.first[k + 1] - order.first[k]) * tiles.planes() + tiles.odd();
  for (int64_t r = 0; r < (s.pools ? s.rows - 1 : s.rows); r += 2) {
    s.kh == 3 ? combine_rows<3>(s, pairs + r * s.planes() * s.line(), combined)
              : combine_rows<5>(s, pairs + r * s.planes() * s.line(), combined);
    block.below = r + 1 < s.rows;
    int32_t* const to = y + (s.pools ? r / 2 : r) * s.pitch();
    for (int64_t j = 0; j < s.cols; j += kTileColumns) {
      block.x = combined + j / 2;
      for (int64_t o = 0; o < s.outs; o += kSumsTogether) {
        block.w = w + o * tiles.steps(), block.start = start + o;
        block.y = to + o * block.plane + (s.pools ? j / 2 : j);
        block_of<kSumsTogether>(std::min<int64_t>(kSumsTogether, s.outs - o), block);
      }
    }
  }
}

const TileKernels* kernels() {
  static constexpr TileKernels table = {kSumsTogether, pack, product};
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
const TileKernels& tile_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
