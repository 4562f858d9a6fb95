#include "hone/ops/simd/int8_kernels.h"

#include <algorithm>
#include <cstring>

#include "hone/ops/packed/fixed_point.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/int8_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL  // for VNNI
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hone/ops/simd/pairs-inl.h"
#include "hone/ops/simd/quads-inl.h"

HONE_BEFORE_QUADS();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other kernel files have functions of the same names

constexpr int64_t kBlock = kInt8Outs * kInt8Group;  // weights of one group in a panel

#if HWY_TARGET == HWY_SCALAR

using Element = uint8_t;
constexpr int64_t kLanes = 1;

void widen(const uint8_t* x, int64_t n, void* to) { std::copy_n(x, n, static_cast<uint8_t*>(to)); }

void product(const Int8Product& a) {
  const auto* const x = static_cast<const uint8_t*>(a.x);
  const auto outs = static_cast<int>(kInt8Outs);
  for (int64_t first = 0; first < a.outs; first += kInt8Outs) {
    const int8_t* const panel = a.w + first * a.depth * kInt8Group;
    for (int64_t p = 0; p < a.count; ++p) {
      uint32_t sums[kInt8Outs];  // unsigned: sums wrap
      for (int o = 0; o < outs; ++o) sums[o] = static_cast<uint32_t>(a.start[first + o]);
      for (int64_t t = 0; t < a.depth; ++t) {
        const uint8_t* const in = x + a.positions[p] + a.groups[t];
        const int8_t* const w = panel + t * kBlock;
        for (int o = 0; o < outs; ++o)
          for (int k = 0; k < kInt8Group; ++k) sums[o] += static_cast<uint32_t>(in[k] * w[o * kInt8Group + k]);
      }
      for (int o = 0; o < outs; ++o) a.y[p * a.pitch + first + o] = static_cast<int32_t>(sums[o]);
    }
  }
}

void unpack4(const int8_t* from, int64_t blocks, int8_t* to) {
  constexpr int64_t half = kBlock / 2;
  for (; blocks > 0; --blocks, from += half, to += kBlock) {
    for (int64_t i = 0; i < half; ++i) {
      to[i] = static_cast<int8_t>(((from[i] & 15) ^ 8) - 8);
      to[half + i] = static_cast<int8_t>(from[i] >> 4);
    }
  }
}

// The largest of height × width positions in rows of `cols`.
void largest(const int32_t* s, int64_t cols, int64_t height, int64_t width, int64_t outs, int32_t* to) {
  std::copy_n(s, outs, to);
  for (int64_t r = 0; r < height; ++r)
    for (int64_t q = 0; q < width; ++q)
      for (int64_t o = 0; o < outs; ++o) to[o] = std::max(to[o], s[(r * cols + q) * kInt8Outs + o]);
}

void requantize_rows(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const Int8Codes& c, uint8_t* y,
                     int64_t y_pitch) {
  for (; count > 0; --count, s += pitch, y += y_pitch)
    for (int64_t o = 0; o < outs; ++o)
      y[o] = requantize(s[o], {c.multiplier[o], c.shift[o]}, c.zero_point, c.low, c.high);
}

void scale_rows(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const float* scale, float* y,
                int64_t y_pitch) {
  for (; count > 0; --count, s += pitch, y += y_pitch)
    for (int64_t o = 0; o < outs; ++o) y[o] = static_cast<float>(s[o]) * scale[o];
}

// Every column of x's rows [rows, cols] as a row.
void turn(const uint8_t* x, const uint8_t*, int64_t x_pitch, int64_t rows, int64_t cols, uint8_t* y, int64_t y_pitch) {
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t i = 0; i < rows; ++i) y[j * y_pitch + i] = x[i * x_pitch + j];
}

#else  // vectors

using D = hn::ScalableTag<int32_t>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = static_cast<int64_t>(HWY_LANES(int32_t));

// What differs between targets: elements of x, how many outputs a vector of sums stands for, one step of the sums
// (outputs × 4 inputs), and the sums of kUnit neighbouring vectors, stored.
#if HWY_TARGET == HWY_AVX3_DL

using Element = uint8_t;
using Weights = V;
constexpr int kOuts = 16, kPair = 1;
HWY_INLINE Weights load_weights(const int8_t* w) { return hn::LoadU(D(), reinterpret_cast<const int32_t*>(w)); }
HWY_INLINE V load_inputs(const Element* x) { return every_lane(x); }
HWY_INLINE V step(V sums, V x, Weights w) { return add_quads(sums, x, w); }
HWY_INLINE void finish(const V* sums, const int32_t* start, int32_t* y) {
  hn::StoreU(hn::Add(sums[0], hn::LoadU(D(), start)), D(), y);
}

#else

// Each sum is kept in two lanes, of two inputs each.
using Element = int16_t;
using D16 = hn::ScalableTag<int16_t>;
using Weights = hn::Vec<D16>;
constexpr int kOuts = static_cast<int>(kLanes / 2), kPair = 2;
HWY_INLINE Weights load_weights(const int8_t* w) {
  return hn::PromoteTo(D16(), hn::LoadU(hn::Rebind<int8_t, D16>(), w));
}
HWY_INLINE Weights load_inputs(const Element* x) {
  int64_t four;
  std::memcpy(&four, x, sizeof four);
  return hn::BitCast(D16(), hn::Set(hn::ScalableTag<int64_t>(), four));
}
HWY_INLINE V step(V sums, Weights x, Weights w) { return add_pairs(sums, x, w); }
HWY_INLINE void finish(const V* sums, const int32_t* start, int32_t* y) {
  const D d;
  const V whole = hn::Add(hn::ConcatEven(d, sums[1], sums[0]), hn::ConcatOdd(d, sums[1], sums[0]));
  hn::StoreU(hn::Add(whole, hn::LoadU(d, start)), d, y);
}

#endif

void widen(const uint8_t* x, int64_t n, void* to) {
  auto* const y = static_cast<Element*>(to);
  if constexpr (sizeof(Element) == 1) {
    std::copy_n(x, n, y);  // x is null in an image of no columns
  } else {
    const hn::ScalableTag<int16_t> d;
    const hn::Rebind<uint8_t, decltype(d)> narrow;
    constexpr auto step = static_cast<int64_t>(HWY_LANES(int16_t));
    int64_t i = 0;
    for (; i + step <= n; i += step)
      hn::StoreU(hn::PromoteTo(d, hn::LoadU(narrow, x + i)), d, reinterpret_cast<int16_t*>(y) + i);
    for (; i < n; ++i) y[i] = x[i];
  }
}

struct Tile {
  const Element* x;
  const int32_t *positions, *groups;
  int64_t depth;
  const int8_t* w;
  int64_t panel;  // bytes
  const int32_t* start;
  int32_t* y;
  int64_t pitch;
};

// P positions by T vectors of sums.
template <int P, int T> HWY_NOINLINE void tile(const Tile& a) {
  constexpr int kPanels = std::max(1, T * kOuts / static_cast<int>(kInt8Outs)), kEach = T / kPanels;
  V sums[P][T];
  const Element* HWY_RESTRICT x[P];
  const int8_t* HWY_RESTRICT w[kPanels];
#pragma GCC unroll 16
  for (int q = 0; q < kPanels; ++q) w[q] = a.w + q * a.panel;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    x[p] = a.x + a.positions[p];
#pragma GCC unroll 16
    for (int k = 0; k < T; ++k) sums[p][k] = hn::Zero(D());
  }
  const int32_t* HWY_RESTRICT groups = a.groups;
  for (int64_t t = 0; t < a.depth; ++t) {
    const int64_t at = groups[t];
    Weights weights[T];
#pragma GCC unroll 16
    for (int k = 0; k < T; ++k) weights[k] = load_weights(w[k / kEach] + k % kEach * kOuts * kInt8Group);
#pragma GCC unroll 16
    for (int q = 0; q < kPanels; ++q) w[q] += kBlock;
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const auto in = load_inputs(x[p] + at);
#pragma GCC unroll 16
      for (int k = 0; k < T; ++k) sums[p][k] = step(sums[p][k], in, weights[k]);
    }
  }
  int32_t* HWY_RESTRICT y = a.y;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p, y += a.pitch) {
#pragma GCC unroll 16
    for (int k = 0; k < T; k += kPair) finish(&sums[p][k], a.start + k * kOuts, y + k * kOuts);
  }
}

template <int T, int P> HWY_INLINE void tile_of(int64_t count, const Tile& a) {
  if constexpr (P >= 1) {
    if (count == P) return tile<P, T>(a);
    tile_of<T, P - 1>(count, a);
  }
}

// T vectors of sums by all positions, P at a time.
template <int T, int P> HWY_INLINE void columns(const Int8Product& p, Tile a) {
  for (int64_t i = 0; i < p.count; i += P) {
    a.positions = p.positions + i;
    a.y = p.y + i * p.pitch + (a.start - p.start);
    tile_of<T, P>(std::min<int64_t>(P, p.count - i), a);
  }
}

// Register tiles: sums, weights and one input fill the registers; each position needs an address in one as well.
#if HWY_TARGET == HWY_AVX3_DL
constexpr int kWide = 3, kWidePositions = 8, kNarrow = 1, kNarrowPositions = 8;
#elif HWY_TARGET == HWY_AVX3
constexpr int kWide = 4, kWidePositions = 6, kNarrow = 2, kNarrowPositions = 8;
#elif HWY_TARGET == HWY_NEON
constexpr int kWide = 8, kWidePositions = 3, kNarrow = 4, kNarrowPositions = 6;
#else  // AVX2
constexpr int kWide = 4, kWidePositions = 3, kNarrow = 2, kNarrowPositions = 6;
#endif
// Whether tiles of kNarrow do fewer loads where positions are many.
constexpr bool kNarrowForMany = HWY_TARGET != HWY_AVX3_DL && HWY_TARGET != HWY_AVX3;

void product(const Int8Product& p) {
  const int64_t panel = p.depth * kBlock;
  Tile a{static_cast<const Element*>(p.x), nullptr, p.groups, p.depth, p.w, panel, p.start, nullptr, p.pitch};
  int64_t o = 0;
  const auto at = [&](int64_t out) {
    a.w = p.w + out / kInt8Outs * panel + out % kInt8Outs * kInt8Group;
    a.start = p.start + out;
  };
  if (!kNarrowForMany || p.count <= kWidePositions) {
    constexpr int64_t outs = kWide * kOuts;
    for (; o + outs <= int8_columns(p.outs) && o + kNarrow * kOuts < p.outs; o += outs) {
      at(o);
      columns<kWide, kWidePositions>(p, a);
    }
  }
  for (; o < p.outs; o += kNarrow * kOuts) {
    at(o);
    columns<kNarrow, kNarrowPositions>(p, a);
  }
}

void unpack4(const int8_t* from, int64_t blocks, int8_t* to) {
  const hn::CappedTag<int8_t, kBlock / 2> d;
  const hn::Repartition<uint16_t, decltype(d)> d16;
  const auto low = hn::Set(d, 15), sign = hn::Set(d, 8);
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  const auto shown = [&](auto v) HWY_ATTR { return hn::Sub(hn::Xor(hn::And(v, low), sign), sign); };
  for (; blocks > 0; --blocks, from += kBlock / 2, to += kBlock) {
    for (int64_t i = 0; i < kBlock / 2; i += n) {
      const auto v = hn::LoadU(d, from + i);
      hn::StoreU(shown(v), d, to + i);
      hn::StoreU(shown(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, v)))), d, to + kBlock / 2 + i);
    }
  }
}

// The largest of height × width positions in rows of `cols`.
HWY_INLINE void largest(const int32_t* s, int64_t cols, int64_t height, int64_t width, int64_t outs, int32_t* to) {
  const D d;
  if (height == 2 && width == 2) {  // as most are
    const int32_t* const below = s + cols * kInt8Outs;
    for (int64_t o = 0; o < outs; o += kLanes) {
      const V top = hn::Max(hn::LoadU(d, s + o), hn::LoadU(d, s + kInt8Outs + o));
      hn::StoreU(hn::Max(top, hn::Max(hn::LoadU(d, below + o), hn::LoadU(d, below + kInt8Outs + o))), d, to + o);
    }
    return;
  }
  for (int64_t o = 0; o < outs; o += kLanes, s += kLanes) {
    V best = hn::LoadU(d, s);
    for (int64_t r = 0; r < height; ++r)
      for (int64_t q = 0; q < width; ++q) best = hn::Max(best, hn::LoadU(d, s + (r * cols + q) * kInt8Outs));
    hn::StoreU(best, d, to + o);
  }
}

template <class T> HWY_INLINE void store_some(hn::VFromD<hn::Rebind<T, D> > v, T* p, int64_t n) {
  const hn::Rebind<T, D> d;
  if (n >= kLanes) {
    hn::StoreU(v, d, p);
  } else {
    HWY_ALIGN T buffer[kLanes];
    hn::Store(v, d, buffer);
    std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
  }
}

// rescale() with logical shifts, which are all that AVX2 has for 64 bits: a · M + 2^(s−1) + 2^62 is not negative, and
// 2^(62−s) is taken off again, modulo 2^32. What then is beyond the range would wrap with the zero point added, so that
// comes last.
void requantize_rows(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const Int8Codes& c, uint8_t* y,
                     int64_t y_pitch) {
  const D d;
  const hn::Repartition<uint64_t, D> wide;
  const hn::RebindToUnsigned<D> unsigned_lanes;
  const auto one = hn::Set(wide, 1), lifted = hn::Set(wide, uint64_t{1} << 62), most = hn::Set(wide, 62);
  const V low = hn::Set(d, c.low - c.zero_point), high = hn::Set(d, c.high - c.zero_point);
  const V zero_point = hn::Set(d, c.zero_point);
  const int64_t room = y_pitch == kInt8Outs ? kInt8Outs : outs;
  for (int64_t o = 0; o < outs; o += kLanes) {
    const V even_factor = hn::LoadU(d, c.multiplier + o);
    const V odd_factor = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, even_factor)));
    const auto shifts = hn::BitCast(wide, hn::LoadU(d, c.shift + o));
    const auto even_shift = hn::ShiftRight<32>(hn::ShiftLeft<32>(shifts)), odd_shift = hn::ShiftRight<32>(shifts);
    const auto even_half = hn::Add(hn::Shl(one, hn::Sub(even_shift, one)), lifted);
    const auto odd_half = hn::Add(hn::Shl(one, hn::Sub(odd_shift, one)), lifted);
    const auto join = [&](auto even, auto odd) HWY_ATTR {
      return hn::BitCast(
          d, hn::OddEven(hn::BitCast(unsigned_lanes, hn::ShiftLeft<32>(odd)), hn::BitCast(unsigned_lanes, even)));
    };
    const V lift = join(hn::Shl(one, hn::Sub(most, even_shift)), hn::Shl(one, hn::Sub(most, odd_shift)));
    const int32_t* from = s + o;
    uint8_t* to = y + o;
    for (int64_t p = 0; p < count; ++p, from += pitch, to += y_pitch) {
      const V a = hn::LoadU(d, from), b = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a)));
      const auto even = hn::Add(hn::BitCast(wide, hn::MulEven(a, even_factor)), even_half);
      const auto odd = hn::Add(hn::BitCast(wide, hn::MulEven(b, odd_factor)), odd_half);
      const V rescaled = hn::Sub(join(hn::Shr(even, even_shift), hn::Shr(odd, odd_shift)), lift);
      const V q = hn::Add(hn::Min(hn::Max(rescaled, low), high), zero_point);
      store_some<uint8_t>(hn::U8FromU32(hn::BitCast(unsigned_lanes, q)), to, room - o);
    }
  }
}

void scale_rows(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const float* scale, float* y,
                int64_t y_pitch) {
  const D d;
  const hn::RebindToFloat<D> real;
  const int64_t room = y_pitch == kInt8Outs ? kInt8Outs : outs;
  for (int64_t o = 0; o < outs; o += kLanes) {
    const auto factor = hn::LoadU(real, scale + o);
    for (int64_t p = 0; p < count; ++p)
      store_some<float>(hn::Mul(hn::ConvertTo(real, hn::LoadU(d, s + p * pitch + o)), factor), y + p * y_pitch + o,
                        room - o);
  }
}

// Columns of eight rows of 16 as 16 rows of 8: to + j · y_pitch, rising.
HWY_INLINE void turn_8x16(const uint8_t* const* x, uint8_t* y, int64_t y_pitch) {
  const hn::FixedTag<uint8_t, 16> d;
  const hn::FixedTag<uint16_t, 8> pairs;
  const hn::FixedTag<uint32_t, 4> fours;
  const hn::FixedTag<uint64_t, 2> eights;
  hn::Vec<decltype(pairs)> two[2][4];
  for (int i = 0; i < 4; ++i) {
    const auto a = hn::LoadU(d, x[2 * i]), b = hn::LoadU(d, x[2 * i + 1]);
    two[0][i] = hn::BitCast(pairs, hn::InterleaveLower(d, a, b));
    two[1][i] = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b));
  }
  const auto put = [&](auto lower, auto upper, int64_t j) HWY_ATTR {
    const auto first = hn::BitCast(eights, hn::InterleaveLower(fours, lower, upper));
    const auto last = hn::BitCast(eights, hn::InterleaveUpper(fours, lower, upper));
    const uint64_t columns[4] = {hn::GetLane(first), hn::ExtractLane(first, 1), hn::GetLane(last),
                                 hn::ExtractLane(last, 1)};
    for (int k = 0; k < 4; ++k) std::memcpy(y + (j + k) * y_pitch, &columns[k], 8);
  };
  for (int half = 0; half < 2; ++half) {
    const auto* const t = two[half];
    put(hn::BitCast(fours, hn::InterleaveLower(pairs, t[0], t[1])),
        hn::BitCast(fours, hn::InterleaveLower(pairs, t[2], t[3])), 8 * half);
    put(hn::BitCast(fours, hn::InterleaveUpper(pairs, t[0], t[1])),
        hn::BitCast(fours, hn::InterleaveUpper(pairs, t[2], t[3])), 8 * half + 4);
  }
}

// n rows, eight or fewer. Not a lambda, for which clang takes no pushed attributes.
HWY_INLINE void turn_rows(const uint8_t* x, const uint8_t* x_end, int64_t x_pitch, int64_t n, int64_t cols, uint8_t* y,
                          int64_t y_pitch) {
  const uint8_t* from[8];
  for (int64_t k = 0; k < 8; ++k) from[k] = x + std::min(k, n - 1) * x_pitch;
  int64_t j = 0;
  for (; j < cols && x_end - from[7] >= 16; j += 16) {
    if (n == 3) {  // images of three colours
      const hn::FixedTag<uint8_t, 16> d;
      hn::StoreInterleaved3(hn::LoadU(d, from[0]), hn::LoadU(d, from[1]), hn::LoadU(d, from[2]), d, y + j * 3);
    } else {
      turn_8x16(from, y + j * y_pitch, y_pitch);
    }
    for (const uint8_t*& f : from) f += 16;
  }
  for (; j < cols; ++j)
    for (int64_t k = 0; k < n; ++k) y[j * y_pitch + k] = x[k * x_pitch + j];
}

// Every column of x's rows [rows, cols] as a row, y_pitch = rows apart. Up to 16 columns too many are written.
void turn(const uint8_t* x, const uint8_t* x_end, int64_t x_pitch, int64_t rows, int64_t cols, uint8_t* y,
          int64_t y_pitch) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) turn_rows(x + i * x_pitch, x_end, x_pitch, 8, cols, y + i, y_pitch);
  // Fewer than eight rows are the only ones: what eight bytes spill into the next column's place is written later.
  if (i == 0 && rows > 0) return turn_rows(x, x_end, x_pitch, rows, cols, y, y_pitch);
  for (; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) y[j * y_pitch + i] = x[i * x_pitch + j];
}

#endif  // vectors

void pack_rows(const uint8_t* x, int64_t c, int64_t h, int64_t w, int64_t pad, int64_t row, int64_t rows, uint8_t code,
               void* to) {
  const int64_t line = (w + 2 * pad) * c;
  const uint8_t* const x_end = x + c * h * w;
  auto* y = static_cast<Element*>(to);
  for (int64_t r = row; r < row + rows; ++r, y += line) {
    if (r < 0 || r >= h) {
      std::fill_n(y, line, code);
      continue;
    }
    Element* const inner = y + pad * c;
    // Bytes wait in the last half of where their elements will be; c = 1 needs no turning.
    const uint8_t* bytes = x + r * w;
    if (c > 1) {
      uint8_t* const turned = reinterpret_cast<uint8_t*>(inner) + w * c * (static_cast<int64_t>(sizeof(Element)) - 1);
      turn(bytes, x_end, h * w, c, w, turned, c);
      bytes = turned;
    }
    if (bytes != reinterpret_cast<const uint8_t*>(inner)) widen(bytes, w * c, inner);
    std::fill_n(y, pad * c, code);
    std::fill_n(inner + w * c, pad * c, code);
  }
}

void pool(const int32_t* s, const PoolGeometry& g, int64_t first, int64_t begin, int64_t end, int64_t outs,
          int32_t* to) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < g.out_cols; ++j, to += kInt8Outs) {
      const int64_t left = std::max<int64_t>(j * g.stride_w - g.pad_w, 0);
      const int64_t width = std::min(j * g.stride_w - g.pad_w + g.kernel_w, g.cols) - left;
      const int64_t top = g.first_row(i), height = g.end_row(i) - top;
      largest(s + ((top - first) * g.cols + left) * kInt8Outs, g.cols, height, width, outs, to);
    }
  }
}

void spread(const uint8_t* s, int64_t count, int64_t outs, uint8_t* y, int64_t plane) {
  int64_t p = 0;
#if HWY_TARGET != HWY_SCALAR
  uint8_t turned[16][8];
  for (; p + 8 <= count; p += 8) {
    const uint8_t* from[8];
    for (int64_t k = 0; k < 8; ++k) from[k] = s + (p + k) * kInt8Outs;
    turn_8x16(from, turned[0], 8);
    for (int64_t o = 0; o < outs; ++o) std::memcpy(y + o * plane + p, turned[o], 8);
  }
#endif
  for (; p < count; ++p)
    for (int64_t o = 0; o < outs; ++o) y[o * plane + p] = s[p * kInt8Outs + o];
}

const Int8Kernels* kernels() {
  static constexpr Int8Kernels table = {sizeof(Element), kLanes, widen,           pack_rows,  unpack4,
                                        product,         pool,   requantize_rows, scale_rows, spread};
  return &table;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HONE_AFTER_QUADS();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(kernels);
const Int8Kernels& int8_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
