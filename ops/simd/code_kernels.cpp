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

void add_run(const uint8_t* a, int32_t a_zero_point, const uint8_t* b, int32_t b_zero_point, const FixedPair& f,
             int64_t n, const CodeRange& r, uint8_t* y) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const D d;
  // The zero points and the half go into one constant.
  const auto first = hn::Set(d, f.first), second = hn::Set(d, f.second);
  const auto constant = hn::Set(d, (1 << (f.shift - 1)) - a_zero_point * f.first - b_zero_point * f.second);
  const auto zero = hn::Set(d, r.zero_point), low = hn::Set(d, r.low), high = hn::Set(d, r.high);
  for (; i + kLanes <= n; i += kLanes) {
    const auto p = hn::Mul(hn::PromoteTo(d, hn::LoadU(Bytes(), a + i)), first);
    const auto q = hn::Mul(hn::PromoteTo(d, hn::LoadU(Bytes(), b + i)), second);
    const auto sum = hn::ShiftRightSame(hn::Add(hn::Add(p, q), constant), f.shift);
    hn::StoreU(hn::DemoteTo(Bytes(), hn::Min(hn::Max(hn::Add(sum, zero), low), high)), Bytes(), y + i);
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
