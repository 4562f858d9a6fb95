#include "hone/ops/simd/code_kernels.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/code_kernels.cpp"
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

// One element, as the vectors do it.
uint8_t code_of(float x, float inverse, const CodeRange& r) {
  const float low = static_cast<float>(r.low - r.zero_point), high = static_cast<float>(r.high - r.zero_point);
  float v = x * inverse;
  v = v >= low ? v : low;  // and NaN
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(std::min(v, high))) + r.zero_point);
}

#if HWY_TARGET == HWY_SCALAR
constexpr int64_t kLanes = 1;
#else
using D = hn::ScalableTag<int32_t>;
using Real = hn::RebindToFloat<D>;
using Bytes = hn::Rebind<uint8_t, D>;
constexpr int64_t kLanes = static_cast<int64_t>(HWY_LANES(int32_t));
#endif

void quantize_run(const float* x, int64_t n, float inverse, const CodeRange& r, uint8_t* y) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  // Adding 1.5 · 2^23 leaves no room for a fraction: the sum's bits are its own plus the nearest integer, ties to even.
  const Real real;
  const hn::RebindToUnsigned<D> d;
  const auto low = hn::Set(real, static_cast<float>(r.low - r.zero_point));
  const auto high = hn::Set(real, static_cast<float>(r.high - r.zero_point));
  const auto factor = hn::Set(real, inverse), round = hn::Set(real, 12582912.0f);
  const auto zero = hn::Set(d, static_cast<uint32_t>(r.zero_point) - 0x4B400000u);
  for (; i + kLanes <= n; i += kLanes) {
    auto v = hn::Mul(hn::LoadU(real, x + i), factor);
#if HWY_ARCH_X86  // of a NaN and a number, the instruction takes the second
    v = hn::Max(v, low);
#else
    v = hn::IfThenElse(hn::Ge(v, low), v, low);
#endif
    const auto code = hn::Add(hn::BitCast(d, hn::Add(hn::Min(v, high), round)), zero);
    hn::StoreU(hn::U8FromU32(code), Bytes(), y + i);
  }
#endif
  for (; i < n; ++i) y[i] = code_of(x[i], inverse, r);
}

void dequantize_run(const uint8_t* x, int64_t n, float scale, int32_t zero_point, float* y) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const D d;
  const Real real;
  const auto factor = hn::Set(real, scale);
  const auto zero = hn::Set(d, zero_point);
  for (; i + kLanes <= n; i += kLanes) {
    const auto q = hn::Sub(hn::PromoteTo(d, hn::LoadU(Bytes(), x + i)), zero);
    hn::StoreU(hn::Mul(hn::ConvertTo(real, q), factor), real, y + i);
  }
#endif
  for (; i < n; ++i) y[i] = static_cast<float>(x[i] - zero_point) * scale;
}

#if HWY_TARGET != HWY_SCALAR
// The bytes that 16-bit lanes in [0, 255] hold: block by block, low's and then high's.
HWY_INLINE hn::Vec<hn::ScalableTag<uint8_t> > bytes_of(Halves low, Halves high) {
#if HWY_TARGET == HWY_AVX2
  return hn::Vec<hn::ScalableTag<uint8_t> >{_mm256_packus_epi16(low.raw, high.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3  // and better ones, which have smaller numbers
  return hn::Vec<hn::ScalableTag<uint8_t> >{_mm512_packus_epi16(low.raw, high.raw)};
#else
  const hn::ScalableTag<uint8_t> d;
  static_assert(HWY_LANES(uint8_t) <= 16);
  return hn::ConcatEven(d, hn::BitCast(d, high), hn::BitCast(d, low));
#endif
}
#endif

void add_run(const uint8_t* a, int32_t a_zero_point, const uint8_t* b, int32_t b_zero_point, const FixedPair& f,
             int64_t n, const CodeRange& r, uint8_t* y) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  // a and b lie side by side in each lane's halves, as their factors do; what saturates on the way to 16 bits is beyond
  // the range. Blocks of 16 bytes stay apart until the end, which has them in order again.
  const D d;
  const hn::ScalableTag<uint8_t> bytes;
  const hn::ScalableTag<int16_t> halves;
  constexpr auto kBytes = static_cast<int64_t>(HWY_LANES(uint8_t));
  const auto nothing = hn::Zero(bytes);
  const auto factors =
      hn::BitCast(halves, hn::Set(d, (f.first & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(f.second) << 16)));
  // The zero points and the half go into one constant.
  const auto constant = hn::Set(d, (1 << (f.shift - 1)) - a_zero_point * f.first - b_zero_point * f.second);
  const auto zero = hn::Set(halves, static_cast<int16_t>(r.zero_point));
  const auto low = hn::Set(halves, static_cast<int16_t>(r.low)), high = hn::Set(halves, static_cast<int16_t>(r.high));
  const auto sum = [&](auto pairs) HWY_ATTR {
    return hn::ShiftRightSame(add_pairs(constant, hn::BitCast(halves, pairs), factors), f.shift);
  };
  const auto codes = [&](auto pairs) HWY_ATTR {
    const auto made = hn::ReorderDemote2To(halves, sum(hn::InterleaveLower(bytes, pairs, nothing)),
                                           sum(hn::InterleaveUpper(bytes, pairs, nothing)));
    return hn::Min(hn::Max(hn::SaturatedAdd(made, zero), low), high);
  };
  for (; i + kBytes <= n; i += kBytes) {
    const auto p = hn::LoadU(bytes, a + i), q = hn::LoadU(bytes, b + i);
    hn::StoreU(bytes_of(codes(hn::InterleaveLower(bytes, p, q)), codes(hn::InterleaveUpper(bytes, p, q))), bytes,
               y + i);
  }
#endif
  for (; i < n; ++i) y[i] = requantize_sum(a[i] - a_zero_point, b[i] - b_zero_point, f, r.zero_point, r.low, r.high);
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(quantize_run);
HWY_EXPORT(dequantize_run);
HWY_EXPORT(add_run);
void quantize(const float* x, int64_t n, float inverse_scale, const CodeRange& r, uint8_t* y) {
  HWY_DYNAMIC_DISPATCH(quantize_run)(x, n, inverse_scale, r, y);
}
void dequantize(const uint8_t* x, int64_t n, float scale, int32_t zero_point, float* y) {
  HWY_DYNAMIC_DISPATCH(dequantize_run)(x, n, scale, zero_point, y);
}
void add_codes(const uint8_t* a, int32_t a_zero_point, const uint8_t* b, int32_t b_zero_point, const FixedPair& f,
               int64_t n, const CodeRange& r, uint8_t* y) {
  HWY_DYNAMIC_DISPATCH(add_run)(a, a_zero_point, b, b_zero_point, f, n, r, y);
}
}  // namespace hone::simd
#endif
