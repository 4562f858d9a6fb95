#include "hone/ops/simd/pool_kernels.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/pool_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;

// Rows are shorter than vectors, so vectors spill into the rows after: what they read there is not used, what they
// write there is written again. Only before the end of the arrays single elements take over.
void max_pool(const float* x, const float* x_end, int64_t planes, int64_t h, int64_t w, float* y, int32_t* index) {
  const D d;
  const DI di;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  const int64_t oh = h / 2, ow = w / 2;
  const float* const y_end = y + planes * oh * ow;
  const auto even = hn::Add(hn::Iota(di, 0), hn::Iota(di, 0));
  const auto one = hn::Set(di, 1), below = hn::Set(di, static_cast<int32_t>(w)), both = hn::Add(one, below);
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t i = 0; i < oh; ++i, y += ow, index += ow) {
      const float* top = x + (p * h + 2 * i) * w;
      const float* bottom = top + w;
      const auto row = static_cast<int32_t>(2 * i * w);
      int64_t j = 0;
      for (; j < ow && y_end - (y + j) >= n && x_end - (bottom + 2 * j) >= 2 * n; j += n) {
        auto best = hn::Undefined(d), b = best, c = best, e = best;
        hn::LoadInterleaved2(d, top + 2 * j, best, b);
        hn::LoadInterleaved2(d, bottom + 2 * j, c, e);
        const auto at = hn::Add(even, hn::Set(di, row + static_cast<int32_t>(2 * j)));
        auto take = hn::Or(hn::Gt(b, best), hn::IsNaN(b));
        best = hn::IfThenElse(take, b, best);
        auto place = hn::IfThenElse(hn::RebindMask(di, take), hn::Add(at, one), at);
        take = hn::Or(hn::Gt(c, best), hn::IsNaN(c));
        best = hn::IfThenElse(take, c, best);
        place = hn::IfThenElse(hn::RebindMask(di, take), hn::Add(at, below), place);
        take = hn::Or(hn::Gt(e, best), hn::IsNaN(e));
        best = hn::IfThenElse(take, e, best);
        place = hn::IfThenElse(hn::RebindMask(di, take), hn::Add(at, both), place);
        hn::StoreU(best, d, y + j);
        hn::StoreU(place, di, index + j);
      }
      for (; j < ow; ++j) {
        const float v[4] = {top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1]};
        int best = 0;
        for (int k = 1; k < 4; ++k)
          if (v[k] > v[best] || std::isnan(v[k])) best = k;
        y[j] = v[best];
        index[j] = row + static_cast<int32_t>(2 * j + best % 2 + best / 2 * w);
      }
    }
  }
}

void max_pool_grad(const float* g, const int32_t* index, int64_t readable, int64_t planes, int64_t oh, int64_t ow,
                   float* dx) {
  const D d;
  const DI di;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  const int64_t w = 2 * ow;
  const float* const g_end = g + readable;
  const float* const dx_end = dx + planes * 4 * oh * ow;
  const auto even = hn::Add(hn::Iota(di, 0), hn::Iota(di, 0));
  const auto one = hn::Set(di, 1), below = hn::Set(di, static_cast<int32_t>(w)), both = hn::Add(one, below);
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t i = 0; i < oh; ++i, g += ow, index += ow, dx += 2 * w) {
      const auto row = static_cast<int32_t>(2 * i * w);
      int64_t j = 0;
      // The upper row is done first: it spills into the lower one.
      const int64_t vectors_end =
          g_end - g >= (ow + n - 1) / n * n && dx_end - (dx + w) >= 2 * ((ow + n - 1) / n * n) ? ow : 0;
      for (; j < vectors_end; j += n) {
        const auto v = hn::LoadU(d, g + j);
        const auto place =
            hn::Sub(hn::LoadU(di, index + j), hn::Add(even, hn::Set(di, row + static_cast<int32_t>(2 * j))));
        hn::StoreInterleaved2(hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(place, hn::Zero(di))), v),
                              hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(place, one)), v), d, dx + 2 * j);
      }
      for (int64_t k = 0; k < vectors_end; k += n) {
        const auto v = hn::LoadU(d, g + k);
        const auto place =
            hn::Sub(hn::LoadU(di, index + k), hn::Add(even, hn::Set(di, row + static_cast<int32_t>(2 * k))));
        hn::StoreInterleaved2(hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(place, below)), v),
                              hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(place, both)), v), d, dx + w + 2 * k);
      }
      for (; j < ow; ++j) {
        const int64_t place = index[j] - row - 2 * j, places[4] = {0, 1, w, w + 1};
        for (const int64_t k : places) dx[2 * j + k] = place == k ? g[j] : 0.0f;
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(max_pool);
HWY_EXPORT(max_pool_grad);
void max_pool_2x2(const float* x, const float* x_end, int64_t planes, int64_t h, int64_t w, float* y, int32_t* index) {
  HWY_DYNAMIC_DISPATCH(max_pool)(x, x_end, planes, h, w, y, index);
}
void max_pool_2x2_grad(const float* g, const int32_t* index, int64_t readable, int64_t planes, int64_t oh, int64_t ow,
                       float* dx) {
  HWY_DYNAMIC_DISPATCH(max_pool_grad)(g, index, readable, planes, oh, ow, dx);
}
}  // namespace hone::simd
#endif
