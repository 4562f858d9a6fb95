#include "hone/ops/simd/panel_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/panel_kernels.cpp"
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

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = static_cast<int64_t>(HWY_LANES(float));

// Accumulators of a register tile; weights and one input take the other registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif
constexpr int vectors_of(int64_t columns) { return columns <= kLanes ? 1 : static_cast<int>(columns / kLanes); }
// Each position needs an address in a register.
constexpr int positions_for(int vectors) { return std::max(1, std::min(8, kAccumulators / vectors)); }

HWY_INLINE void store_first(V v, D d, float* p, int64_t n) {
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float buffer[kLanes];
  hn::Store(v, d, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
#endif
}

// As the op relu: 0 below 0, NaN for NaN, −0 for −0.
HWY_INLINE V relu_of(V v) { return hn::IfThenElse(hn::Lt(v, hn::Zero(D())), hn::Zero(D()), v); }
// As the op max_pool2d: the first of equal ones, NaN where there is one.
HWY_INLINE V larger(V best, V v) { return hn::IfThenElse(hn::Or(hn::Gt(v, best), hn::IsNaN(v)), v, best); }
float larger(float best, float v) { return v > best || std::isnan(v) ? v : best; }

struct Tile {
  const float* x;
  const int32_t *positions, *taps;
  int64_t depth;
  const float* w;
  int64_t panel, width;  // elements of a panel, and of one tap of it
  const float* start;
  int64_t start_pitch;
  bool relu;
  float* y;
  int64_t pitch, outs;
};

// P positions by Q panels of PV vectors.
template <int P, int Q, int PV> HWY_NOINLINE void tile(const Tile& a) {
  constexpr int T = Q * PV;
  const D d;
  V acc[P][T];
  const float* HWY_RESTRICT x[P];
  const float* HWY_RESTRICT w[Q];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) x[p] = a.x + a.positions[p];
#pragma GCC unroll 16
  for (int q = 0; q < Q; ++q) {
    w[q] = a.w + q * a.panel;
#pragma GCC unroll 16
    for (int v = 0; v < PV; ++v) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p)
        acc[p][q * PV + v] = hn::LoadU(d, a.start + p * a.start_pitch + q * kPanel + v * kLanes);
    }
  }
  const int32_t* HWY_RESTRICT taps = a.taps;
  const int64_t width = a.width;
  for (int64_t t = 0; t < a.depth; ++t) {
    const int64_t at = taps[t];
    V weight[T];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 16
      for (int v = 0; v < PV; ++v) weight[q * PV + v] = hn::LoadU(d, w[q] + v * kLanes);
      w[q] += width;
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const V in = hn::Set(d, x[p][at]);
#pragma GCC unroll 16
      for (int k = 0; k < T; ++k) acc[p][k] = hn::MulAdd(in, weight[k], acc[p][k]);
    }
  }
  if (a.relu) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
      for (int k = 0; k < T; ++k) acc[p][k] = relu_of(acc[p][k]);
    }
  }
  const int64_t outs = a.outs, pitch = a.pitch;
  float* HWY_RESTRICT y = a.y;
  const bool whole = outs >= T * kLanes;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p, y += pitch) {
#pragma GCC unroll 16
    for (int k = 0; k < T; ++k) {
      const int64_t left = outs - k * kLanes;
      if (whole || left >= kLanes) {
        hn::StoreU(acc[p][k], d, y + k * kLanes);
      } else if (left > 0) {
        store_first(acc[p][k], d, y + k * kLanes, left);
      }
    }
  }
}

template <int Q, int PV, int P = positions_for(Q* PV)> HWY_INLINE void tile_of(int64_t count, const Tile& a) {
  if constexpr (P >= 1) {
    if (count == P) return tile<P, Q, PV>(a);
    tile_of<Q, PV, P - 1>(count, a);
  }
}

// Q panels by all positions.
template <int Q, int PV> HWY_INLINE void panels(const PanelProduct& p, Tile a) {
  constexpr int64_t kMost = positions_for(Q * PV);
  const float* const start = a.start;
  for (int64_t i = 0; i < p.count; i += kMost) {
    a.positions = p.positions + i;
    a.start = start + i * p.start_pitch;
    a.y = p.y + i * p.pitch + (start - p.start);
    tile_of<Q, PV>(std::min(kMost, p.count - i), a);
  }
}

void product(const PanelProduct& p) {
  constexpr int kVectors = vectors_of(kPanel), kNarrow = vectors_of(kPanel / 2);
  // Few positions leave registers for several panels at once: enough sums side by side to hide the latency of each.
  constexpr int kTogether = std::max(1, 8 / kVectors);
  Tile a{p.x,           nullptr, p.taps,  p.depth, p.w,   p.depth * kPanel, kPanel, p.start,
         p.start_pitch, p.relu,  nullptr, p.pitch, p.outs};
  const auto next = [&a](int64_t n) {
    a.w += n * a.panel;
    a.start += n * kPanel;
    a.outs -= n * kPanel;
  };
  if constexpr (kTogether > 1) {
    if (p.count <= positions_for(kTogether * kVectors))
      for (; a.outs >= kTogether * kPanel; next(kTogether)) panels<kTogether, kVectors>(p, a);
  }
  for (; a.outs > kPanel / 2; next(1)) panels<1, kVectors>(p, a);
  if (a.outs <= 0) return;
  a.width = kPanel / 2;
  panels<1, kNarrow>(p, a);
}

// n elements, written in whole vectors: what follows them is written later. Read likewise where x goes on.
HWY_INLINE void copy_run(const float* from, const float* end, int64_t n, float* to) {
  const D d;
  if (end - from >= (n + kLanes - 1) / kLanes * kLanes) {
    for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  } else {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  }
}
HWY_INLINE void zero_run(int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Zero(D()), D(), to + i);
}

void copy_rows(const float* x, int64_t c, int64_t h, int64_t w, int64_t pad, int64_t row, int64_t rows, int64_t plane,
               float* to) {
  const float* const x_end = x + c * h * w;
  const int64_t pitch = w + 2 * pad, begin = std::clamp<int64_t>(-row, 0, rows),
                end = std::clamp<int64_t>(h - row, begin, rows);
  for (int64_t k = 0; k < c; ++k, x += h * w, to += plane) {
    zero_run(begin * pitch, to);
    if (pad == 0) {
      copy_run(x + (row + begin) * w, x_end, (end - begin) * w, to + begin * pitch);
    } else {
      for (int64_t r = begin; r < end; ++r) {
        float* const line = to + r * pitch;
        zero_run(pad, line);
        copy_run(x + (row + r) * w, x_end, w, line + pad);
        zero_run(pad, line + pad + w);
      }
    }
    zero_run((rows - end) * pitch, to + end * pitch);
  }
}

void pool_positions(const float* s, const PoolGeometry& g, int64_t first, int64_t begin, int64_t end, int64_t width,
                    float* to) {
  const D d;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < g.out_cols; ++j, to += width) {
      const int64_t left = std::max<int64_t>(j * g.stride_w - g.pad_w, 0),
                    right = std::min(j * g.stride_w - g.pad_w + g.kernel_w, g.cols);
      for (int64_t v = 0; v < width; v += kLanes) {
        const float* const corner = s + ((g.first_row(i) - first) * g.cols + left) * width + v;
        V best = hn::LoadU(d, corner);
        for (int64_t r = 0; r < g.end_row(i) - g.first_row(i); ++r)
          for (int64_t q = 0; q < right - left; ++q)
            best = larger(best, hn::LoadU(d, corner + (r * g.cols + q) * width));
        hn::StoreU(best, d, to + v);
      }
    }
  }
}

void spread(const float* s, int64_t count, int64_t width, int64_t outs, float* y, int64_t plane) {
  int64_t o = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  for (; o + 4 <= outs; o += 4, y += 4 * plane) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {  // four by four, turned
      const float* p = s + i * width + o;
      const auto a = hn::LoadU(d, p), b = hn::LoadU(d, p + width), c = hn::LoadU(d, p + 2 * width),
                 e = hn::LoadU(d, p + 3 * width);
      const auto ab = hn::BitCast(pairs, hn::InterleaveLower(d, a, b)),
                 ce = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
      const auto ab2 = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b)),
                 ce2 = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)), d, y + i);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce)), d, y + plane + i);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab2, ce2)), d, y + 2 * plane + i);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab2, ce2)), d, y + 3 * plane + i);
    }
    for (; i < count; ++i)
      for (int64_t k = 0; k < 4; ++k) y[k * plane + i] = s[i * width + o + k];
  }
#endif
  for (; o < outs; ++o, y += plane)
    for (int64_t i = 0; i < count; ++i) y[i] = s[i * width + o];
}

void pool_planes(const float* s, int64_t s_plane, int64_t pitch, const PoolGeometry& g, int64_t first, int64_t begin,
                 int64_t end, int64_t planes, bool relu, float* y, int64_t y_plane) {
  const D d;
  const auto shown = [relu](V v) HWY_ATTR { return relu ? relu_of(v) : v; };
  const auto shown_one = [relu](float v) { return relu && v < 0 ? 0.0f : v; };
  for (int64_t o = 0; o < planes; ++o, s += s_plane, y += y_plane) {
    float* to = y;
    for (int64_t i = begin; i < end; ++i, to += g.out_cols) {
      const float* top = s + (g.first_row(i) - first) * pitch;
      if (g.is_tiling()) {
        for (int64_t j = 0; j < g.out_cols; j += kLanes) {
          V a, b, c, e;
          hn::LoadInterleaved2(d, top + 2 * j, a, b);
          hn::LoadInterleaved2(d, top + pitch + 2 * j, c, e);
          const V best = larger(larger(larger(shown(a), shown(b)), shown(c)), shown(e));
          if (g.out_cols - j >= kLanes) {
            hn::StoreU(best, d, to + j);
          } else {
            store_first(best, d, to + j, g.out_cols - j);
          }
        }
        continue;
      }
      for (int64_t j = 0; j < g.out_cols; ++j) {
        const int64_t left = std::max<int64_t>(j * g.stride_w - g.pad_w, 0),
                      right = std::min(j * g.stride_w - g.pad_w + g.kernel_w, g.cols);
        float best = shown_one(top[left]);
        for (int64_t r = 0; r < g.end_row(i) - g.first_row(i); ++r)
          for (int64_t q = left; q < right; ++q) best = larger(best, shown_one(top[r * pitch + q]));
        to[j] = best;
      }
    }
  }
}

void copy_planes(const float* s, int64_t s_plane, int64_t pitch, int64_t rows, int64_t cols, int64_t planes, bool relu,
                 float* y, int64_t y_plane) {
  const D d;
  for (int64_t o = 0; o < planes; ++o, s += s_plane, y += y_plane) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < cols; j += kLanes) {
        V v = hn::LoadU(d, s + r * pitch + j);
        if (relu) v = relu_of(v);
        if (cols - j >= kLanes) {
          hn::StoreU(v, d, y + r * cols + j);
        } else {
          store_first(v, d, y + r * cols + j, cols - j);
        }
      }
    }
  }
}

const PanelKernels* kernels() {
  static constexpr PanelKernels table = {kLanes, copy_rows, product, pool_positions, spread, pool_planes, copy_planes};
  return &table;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(kernels);
const PanelKernels& panel_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
