// Sums of products of four bytes, the step of integer products with VNNI, on that target alone.
// Included once per target (Highway's rule for -inl headers).

#if defined(HONE_OPS_SIMD_QUADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HONE_OPS_SIMD_QUADS_INL_H_
#undef HONE_OPS_SIMD_QUADS_INL_H_
#else
#define HONE_OPS_SIMD_QUADS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

// What follows in a file that has kernels for VNNI stands between these: Highway detects the instruction, but does not
// name it to the compiler.
#undef HONE_BEFORE_QUADS
#undef HONE_AFTER_QUADS
#if HWY_TARGET == HWY_AVX3_DL
#define HONE_BEFORE_QUADS() \
  HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni") static_assert(true, "for the semicolon that follows")
#define HONE_AFTER_QUADS() HWY_POP_ATTRIBUTES static_assert(true, "for the semicolon that follows")
#else
#define HONE_BEFORE_QUADS() HWY_BEFORE_NAMESPACE()
#define HONE_AFTER_QUADS() HWY_AFTER_NAMESPACE()
#endif

#if HWY_TARGET == HWY_AVX3_DL

HONE_BEFORE_QUADS();
namespace hone::simd {
namespace HWY_NAMESPACE {

using QuadSums = hwy::HWY_NAMESPACE::Vec<hwy::HWY_NAMESPACE::ScalableTag<int32_t> >;

/// sums[i] + Σ_{k < 4} x[4 i + k] · w[4 i + k], modulo 2^32; x unsigned, w signed.
HWY_INLINE QuadSums add_quads(QuadSums sums, QuadSums x, QuadSums w) {
  sums.raw = _mm512_dpbusd_epi32(sums.raw, x.raw, w.raw);
#if HWY_COMPILER_GCC_ACTUAL
  asm volatile("" : "+v"(sums.raw));  // in this order: g++ 12 would move sums between registers
#endif
  return sums;
}

/// The four bytes at p, in every lane.
HWY_INLINE QuadSums every_lane(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return hwy::HWY_NAMESPACE::Set(hwy::HWY_NAMESPACE::ScalableTag<int32_t>(), four);
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HONE_AFTER_QUADS();

#endif

#endif  // HONE_OPS_SIMD_QUADS_INL_H_
