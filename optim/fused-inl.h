// The loop under every optimizer's kernel: included once per SIMD target, inside no namespace.

#if defined(HONE_OPTIM_FUSED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HONE_OPTIM_FUSED_INL_H_
#undef HONE_OPTIM_FUSED_INL_H_
#else
#define HONE_OPTIM_FUSED_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::optim {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Applies rule(d, p, g, s) to every vector of elements: p and the kSlots state vectors s are read and written, g is
/// read. The last elements go through a padded copy, so that each element sees the same arithmetic wherever it stands.
template <class T, int kSlots, class Rule>
HWY_ATTR void fused_update(T* p, const T* g, void* const* state, int64_t n, const Rule& rule) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  T* s[kSlots > 0 ? kSlots : 1] = {};
  for (int k = 0; k < kSlots; ++k) s[k] = static_cast<T*>(state[k]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    V vp = hn::LoadU(d, p + i);
    const V vg = hn::LoadU(d, g + i);
    V v0 = kSlots > 0 ? hn::LoadU(d, s[0] + i) : vg, v1 = kSlots > 1 ? hn::LoadU(d, s[kSlots > 1 ? 1 : 0] + i) : vg;
    rule(d, vp, vg, v0, v1);
    hn::StoreU(vp, d, p + i);
    if constexpr (kSlots > 0) hn::StoreU(v0, d, s[0] + i);
    if constexpr (kSlots > 1) hn::StoreU(v1, d, s[1] + i);
  }
  const int64_t rest = n - i;
  if (rest == 0) return;
  HWY_ALIGN T buffer[4][HWY_MAX_BYTES / sizeof(T)] = {};
  for (int64_t j = 0; j < rest; ++j) {
    buffer[0][j] = p[i + j];
    buffer[1][j] = g[i + j];
    for (int k = 0; k < kSlots; ++k) buffer[2 + k][j] = s[k][i + j];
  }
  V vp = hn::Load(d, buffer[0]), v0 = hn::Load(d, buffer[2]), v1 = hn::Load(d, buffer[3]);
  rule(d, vp, hn::Load(d, buffer[1]), v0, v1);
  hn::Store(vp, d, buffer[0]);
  hn::Store(v0, d, buffer[2]);
  hn::Store(v1, d, buffer[3]);
  for (int64_t j = 0; j < rest; ++j) {
    p[i + j] = buffer[0][j];
    for (int k = 0; k < kSlots; ++k) s[k][i + j] = buffer[2 + k][j];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::optim
HWY_AFTER_NAMESPACE();

#endif
