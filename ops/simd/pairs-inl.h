// Sums of products of 16-bit neighbours, the step of integer products, on one SIMD target.
// Included once per target (Highway's rule for -inl headers).

#if defined(HONE_OPS_SIMD_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HONE_OPS_SIMD_PAIRS_INL_H_
#undef HONE_OPS_SIMD_PAIRS_INL_H_
#else
#define HONE_OPS_SIMD_PAIRS_INL_H_
#endif

#include <hwy/highway.h>

#include "hone/ops/simd/two_outputs.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR

using Sums = hwy::HWY_NAMESPACE::Vec<hwy::HWY_NAMESPACE::ScalableTag<int32_t> >;
using Halves = hwy::HWY_NAMESPACE::Vec<hwy::HWY_NAMESPACE::ScalableTag<int16_t> >;

// Where HONE_PAIRS, the instruction adds products of neighbours; elsewhere Highway is free to add others.
#undef HONE_PAIRS
#define HONE_PAIRS (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

/// sums[i] + x[2i] · w[2i] + x[2i + 1] · w[2i + 1], modulo 2^32.
HWY_INLINE Sums add_pairs(Sums sums, Halves x, Halves w) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<int32_t> d;
#if HONE_PAIRS && HWY_COMPILER_GCC_ACTUAL
  // Left alone, g++ 12 makes all products of a tile before it adds the first, and has no registers for them.
  Sums unused = sums;
  const Sums product = hn::ReorderWidenMulAccumulate(d, x, w, hn::Zero(d), unused);
  asm volatile("vpaddd %1, %0, %0" : "+v"(sums.raw) : "v"(product.raw));
  return sums;
#elif HONE_PAIRS
  Sums unused = sums;
  return hn::ReorderWidenMulAccumulate(d, x, w, sums, unused);
#else
  const auto low = [d](Halves v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(d, v))); };
  const auto high = [d](Halves v) HWY_ATTR { return hn::ShiftRight<16>(hn::BitCast(d, v)); };
  return hn::Add(sums, hn::Add(hn::Mul(low(x), low(w)), hn::Mul(high(x), high(w))));
#endif
}

/// What products take from the inputs of two outputs (two_outputs.h), combined_count(kTaps) values: row(i) is x_i.
template <int kTaps, class Row, class V> HWY_INLINE void combine(const Row& row, V* to) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V x1 = row(1), x2 = row(2), x3 = row(3);
  to[0] = hn::Sub(row(0), x2), to[1] = hn::Add(x1, x2), to[2] = hn::Sub(x2, x1), to[3] = hn::Sub(x3, x1);
  if constexpr (kTaps == 5) {
    const V x4 = row(4);
    to[4] = hn::Sub(x3, x4), to[5] = x4, to[6] = hn::Sub(row(5), x4);
  }
}

/// Outputs, or tiles, whose sums in 16 lanes fill the registers with one block of inputs and one weight.
constexpr int kSumsTogether = HWY_TARGET == HWY_AVX3    ? 12
                              : HWY_TARGET == HWY_NEON  ? 6
                              : HWY_LANES(int32_t) == 8 ? 6
                                                        : 2;

#endif

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#endif  // per target
