#include "hone/ops/simd/codebook_kernels.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/codebook_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other kernel files have functions of the same names

// Eight codes by one load: half the time of eight loads, and less than a gather takes.
HWY_INLINE void by_words(const uint8_t* HWY_RESTRICT codes, int64_t n, const float* HWY_RESTRICT table,
                         float* HWY_RESTRICT to) {
  for (int64_t i = 0; i < n; i += 8) {
    uint64_t word;
    std::memcpy(&word, codes + i, sizeof word);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) to[i + k] = table[word >> 8 * k & 0xff];
  }
}

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_SSE2
// 16 values in registers, as a table for each of their four bytes: a byte shuffle looks 16 codes up in one of them.
HWY_INLINE void by_bytes(const uint8_t* HWY_RESTRICT codes, int64_t n, const float* HWY_RESTRICT table,
                         float* HWY_RESTRICT to) {
  const hn::FixedTag<uint8_t, 16> bytes;
  const hn::FixedTag<uint16_t, 8> pairs;
  const hn::FixedTag<float, 4> floats;
  auto a = hn::Zero(bytes), b = a, c = a, d = a;
  hn::LoadInterleaved4(bytes, reinterpret_cast<const uint8_t*>(table), a, b, c, d);
  for (int64_t i = 0; i < n; i += 16) {
    const auto code = hn::LoadU(bytes, codes + i);
    const auto p = hn::TableLookupBytes(a, code), q = hn::TableLookupBytes(b, code);
    const auto r = hn::TableLookupBytes(c, code), s = hn::TableLookupBytes(d, code);
    const auto pq = hn::BitCast(pairs, hn::InterleaveLower(bytes, p, q)),
               rs = hn::BitCast(pairs, hn::InterleaveLower(bytes, r, s));
    const auto pq2 = hn::BitCast(pairs, hn::InterleaveUpper(bytes, p, q)),
               rs2 = hn::BitCast(pairs, hn::InterleaveUpper(bytes, r, s));
    hn::StoreU(hn::BitCast(floats, hn::InterleaveLower(pairs, pq, rs)), floats, to + i);
    hn::StoreU(hn::BitCast(floats, hn::InterleaveUpper(pairs, pq, rs)), floats, to + i + 4);
    hn::StoreU(hn::BitCast(floats, hn::InterleaveLower(pairs, pq2, rs2)), floats, to + i + 8);
    hn::StoreU(hn::BitCast(floats, hn::InterleaveUpper(pairs, pq2, rs2)), floats, to + i + 12);
  }
}
#endif

void look_up_run(const uint8_t* codes, int64_t n, const float* table, int64_t used, float* to) {
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_SSE2
  if (used <= 16) return by_bytes(codes, n, table, to);
#endif
  (void)used;
  by_words(codes, n, table, to);
}

uint8_t largest_run(const uint8_t* codes, int64_t n) {
  uint8_t most = 0;
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint8_t> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Zero(d);
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, hn::LoadU(d, codes + i));
  HWY_ALIGN uint8_t each[HWY_MAX_BYTES];
  hn::Store(largest, d, each);
  most = *std::max_element(each, each + lanes);
#endif
  for (; i < n; ++i) most = std::max(most, codes[i]);
  return most;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(look_up_run);
HWY_EXPORT(largest_run);
void look_up(const uint8_t* codes, int64_t n, const float* table, int64_t used, float* to) {
  HWY_DYNAMIC_DISPATCH(look_up_run)(codes, n, table, used, to);
}
uint8_t largest_code(const uint8_t* codes, int64_t n) { return HWY_DYNAMIC_DISPATCH(largest_run)(codes, n); }
}  // namespace hone::simd
#endif
