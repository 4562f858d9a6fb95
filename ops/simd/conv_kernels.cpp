#include "hone/ops/simd/conv_kernels.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/conv_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = static_cast<int64_t>(HWY_LANES(float));

// Register tiles of `ob` channels by `vectors_for(ob)` vectors: accumulators, inputs and one weight fill the registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kBlock = 8;
constexpr int vectors_for(int ob) { return ob <= 2 ? 8 : ob == 3 ? 7 : ob == 4 ? 5 : ob <= 6 ? 4 : 3; }
#else
constexpr int kBlock = 6;
constexpr int vectors_for(int ob) { return ob <= 2 ? 4 : ob <= 4 ? 3 : 2; }
#endif

// Keeps a loaded vector in its register: the compiler would read memory again in each multiply-add.
HWY_INLINE void hold(V& v) {
#if HWY_TARGET <= HWY_AVX2
  asm("" : "+v"(v.raw));
#else
  (void)v;
#endif
}

// Loads and stores of the first n < kLanes elements that touch no others.
HWY_INLINE V load_first(D d, const float* p, int64_t n) {
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float buffer[kLanes] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
  return hn::Load(d, buffer);
#endif
}
HWY_INLINE void store_first(V v, D d, float* p, int64_t n) {
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float buffer[kLanes];
  hn::Store(v, d, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
#endif
}

// Output columns [low, high) whose input column for kernel column k lies inside x.
struct Span {
  int64_t low, high;
};
HWY_INLINE Span inside(int64_t k, int64_t size, int64_t outs, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t shift = pad - k * dilation;  // input = output · stride − shift
  const int64_t low = shift > 0 ? (shift + stride - 1) / stride : 0;
  const int64_t last = size - 1 + shift;
  const int64_t high = last < 0 ? 0 : last / stride + 1;
  const int64_t l = std::min(low, outs);
  return {l, std::max(l, std::min(high, outs))};
}

// Rows are written in order of their address, whole vectors at a time: what spills over an end is written again later.
// Reads spill likewise where x goes on for a vector.
void pack(const ConvGeometry& s, const float* x, int64_t row, int64_t rows, float* packed) {
  const D d;
  const V zero = hn::Zero(d);
  const int64_t classes = packed_classes(s), per_class = packed_rows(s, rows), first = row * s.stride_h - s.pad_h;
  const float* const end = x + s.c * s.in_plane();
  float* out = packed;
  for (int64_t c = 0; c < s.c; ++c) {
    const float* plane = x + c * s.in_plane();
    for (int64_t k = 0; k < s.kw; ++k) {
      const Span span = inside(k, s.w, s.ow, s.stride_w, s.pad_w, s.dilation_w);
      const int64_t shift = k * s.dilation_w - s.pad_w, n = span.high - span.low;
      const int64_t spilled = (n + kLanes - 1) / kLanes * kLanes;
      for (int64_t m = 0; m < classes; ++m) {
        for (int64_t j = 0; j < per_class; ++j, out += s.ow) {
          const int64_t in_row = first + j * s.stride_h + m;
          if (in_row < 0 || in_row >= s.h || n == 0) {
            for (int64_t i = 0; i < s.ow; i += kLanes) hn::StoreU(zero, d, out + i);
            continue;
          }
          const float* in = plane + in_row * s.w + span.low * s.stride_w + shift;
          for (int64_t i = 0; i < span.low; i += kLanes) hn::StoreU(zero, d, out + i);
          float* to = out + span.low;
          if (s.stride_w != 1) {
            for (int64_t i = 0; i < n; ++i) to[i] = in[i * s.stride_w];
          } else if (end - in >= spilled) {
            for (int64_t i = 0; i < spilled; i += kLanes) hn::StoreU(hn::LoadU(d, in + i), d, to + i);
          } else {
            int64_t i = 0;
            for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::LoadU(d, in + i), d, to + i);
            if (i < n) hn::StoreU(load_first(d, in + i, n - i), d, to + i);
          }
          for (int64_t i = span.high; i < s.ow; i += kLanes) hn::StoreU(zero, d, out + i);
        }
      }
    }
  }
  for (int64_t i = 0; i < kConvSlack; i += kLanes) hn::StoreU(zero, d, out + i);
}

void unpack_add(const ConvGeometry& s, const float* packed, int64_t row, int64_t rows, float* dx) {
  const D d;
  const int64_t per_class = packed_rows(s, rows), first = row * s.stride_h - s.pad_h;
  const int64_t classes = packed_classes(s), per_column = classes * per_class * s.ow;
  for (int64_t c = 0; c < s.c; ++c) {
    float* plane = dx + c * s.in_plane();
    for (int64_t k = 0; k < s.kw; ++k) {
      const Span span = inside(k, s.w, s.ow, s.stride_w, s.pad_w, s.dilation_w);
      const int64_t shift = k * s.dilation_w - s.pad_w, n = span.high - span.low;
      const float* in = packed + (c * s.kw + k) * per_column + span.low;
      for (int64_t m = 0; m < classes; ++m) {
        for (int64_t j = 0; j < per_class; ++j, in += s.ow) {
          const int64_t in_row = first + j * s.stride_h + m;
          if (in_row < 0 || in_row >= s.h) continue;
          float* to = plane + in_row * s.w + span.low * s.stride_w + shift;
          int64_t i = 0;
          if (s.stride_w == 1) {
            for (; i + kLanes <= n; i += kLanes)
              hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::LoadU(d, in + i)), d, to + i);
            if (i < n) store_first(hn::Add(load_first(d, to + i, n - i), hn::LoadU(d, in + i)), d, to + i, n - i);
          } else {
            for (; i < n; ++i) to[i * s.stride_w] += in[i];
          }
        }
      }
    }
  }
}

struct CorrelateArgs {
  const float* x;
  const int32_t* offsets;
  int64_t taps;
  const float* w;
  int64_t w_step;
  const float* bias;
  bool accumulate;
  float* y;
  int64_t pitch;
  int64_t last;  // elements of the last vector that are stored
};

template <int OB, int VB> HWY_NOINLINE void correlate_tile(const CorrelateArgs& a) {
  const D d;
  V acc[OB][VB];
#pragma GCC unroll 8
  for (int o = 0; o < OB; ++o) {
    const V start = hn::Set(d, a.bias ? a.bias[o] : 0.0f);
#pragma GCC unroll 8
    for (int v = 0; v < VB; ++v) acc[o][v] = a.accumulate ? hn::LoadU(d, a.y + o * a.pitch + v * kLanes) : start;
  }
  const float* HWY_RESTRICT w = a.w;
  const int64_t w_step = a.w_step;
  for (int64_t t = 0; t < a.taps; ++t, w += w_step) {
    const float* HWY_RESTRICT x = a.x + a.offsets[t];
    V in[VB];
#pragma GCC unroll 8
    for (int v = 0; v < VB; ++v) in[v] = hn::LoadU(d, x + v * kLanes);
#pragma GCC unroll 8
    for (int o = 0; o < OB; ++o) {
      const V weight = hn::Set(d, w[o]);
#pragma GCC unroll 8
      for (int v = 0; v < VB; ++v) acc[o][v] = hn::MulAdd(weight, in[v], acc[o][v]);
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < OB; ++o) {
#pragma GCC unroll 8
    for (int v = 0; v < VB; ++v) {
      float* to = a.y + o * a.pitch + v * kLanes;
      if (v + 1 == VB && a.last < kLanes) {
        store_first(acc[o][v], d, to, a.last);
      } else {
        hn::StoreU(acc[o][v], d, to);
      }
    }
  }
}

template <int OB, int VB = vectors_for(OB)> HWY_INLINE void correlate_vectors(int64_t vectors, const CorrelateArgs& a) {
  if constexpr (VB >= 1) {
    if (vectors == VB) return correlate_tile<OB, VB>(a);
    correlate_vectors<OB, VB - 1>(vectors, a);
  }
}
template <int OB = kBlock> HWY_INLINE void correlate_block(int64_t ob, int64_t vectors, const CorrelateArgs& a) {
  if constexpr (OB >= 1) {
    if (ob == OB) return correlate_vectors<OB>(vectors, a);
    correlate_block<OB - 1>(ob, vectors, a);
  }
}

void correlate(const float* x, const int32_t* offsets, int64_t taps, const float* w, int64_t w_step, int64_t outs,
               int64_t length, const float* bias, bool accumulate, float* y, int64_t pitch) {
  const ConvBlocks blocks(outs, kBlock);
  const int64_t tile = vectors_for(static_cast<int>(blocks.size(0))), total = (length + kLanes - 1) / kLanes;
  for (int64_t v = 0; v < total; v += tile) {
    const int64_t vectors = std::min(tile, total - v);
    const float* block_w = w;
    int64_t o = 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t ob = blocks.size(b);
      const CorrelateArgs a{x + v * kLanes,
                            offsets,
                            taps,
                            block_w,
                            w_step > 0 ? w_step : ob,
                            bias ? bias + o : nullptr,
                            accumulate,
                            y + o * pitch + v * kLanes,
                            pitch,
                            std::min(kLanes, length - (v + vectors - 1) * kLanes)};
      correlate_block(ob, vectors, a);
      block_w += w_step > 0 ? ob : ob * taps;
      o += ob;
    }
  }
}

struct WeightGradArgs {
  const float* x;
  int64_t x_unit;
  const int32_t* offsets;
  const float* g;
  int64_t g_unit, pitch, length, units;
  float* dw;
  int64_t taps;
};

template <int OB, int TB> HWY_NOINLINE void weight_grad_tile(const WeightGradArgs& a) {
  const D d;
  V acc[OB][TB];
#pragma GCC unroll 8
  for (int o = 0; o < OB; ++o) {
#pragma GCC unroll 8
    for (int t = 0; t < TB; ++t) acc[o][t] = hn::Zero(d);
  }
  const int64_t whole = a.length / kLanes * kLanes, rest = a.length - whole;
  for (int64_t u = 0; u < a.units; ++u) {
    const float* HWY_RESTRICT g = a.g + u * a.g_unit;
    const float* x[TB];
#pragma GCC unroll 8
    for (int t = 0; t < TB; ++t) x[t] = a.x + u * a.x_unit + a.offsets[t];
    for (int64_t q = 0; q < whole; q += kLanes) {
      V in[TB];
#pragma GCC unroll 8
      for (int t = 0; t < TB; ++t) in[t] = hn::LoadU(d, x[t] + q);
#pragma GCC unroll 8
      for (int o = 0; o < OB; ++o) {
        V go = hn::Load(d, g + o * a.pitch + q);
        hold(go);
#pragma GCC unroll 8
        for (int t = 0; t < TB; ++t) acc[o][t] = hn::MulAdd(go, in[t], acc[o][t]);
      }
    }
    if (rest > 0) {  // masked: what lies behind may be infinite, and 0 · inf is not 0
      V in[TB];
#pragma GCC unroll 8
      for (int t = 0; t < TB; ++t) in[t] = load_first(d, x[t] + whole, rest);
#pragma GCC unroll 8
      for (int o = 0; o < OB; ++o) {
        const V go = hn::Load(d, g + o * a.pitch + whole);
#pragma GCC unroll 8
        for (int t = 0; t < TB; ++t) acc[o][t] = hn::MulAdd(go, in[t], acc[o][t]);
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < OB; ++o) {
#pragma GCC unroll 8
    for (int t = 0; t < TB; ++t) a.dw[o * a.taps + t] += hn::GetLane(hn::SumOfLanes(d, acc[o][t]));
  }
}

template <int OB, int TB = vectors_for(OB)> HWY_INLINE void weight_grad_taps(int64_t taps, const WeightGradArgs& a) {
  if constexpr (TB >= 1) {
    if (taps == TB) return weight_grad_tile<OB, TB>(a);
    weight_grad_taps<OB, TB - 1>(taps, a);
  }
}
template <int OB = kBlock> HWY_INLINE void weight_grad_block(int64_t ob, int64_t taps, const WeightGradArgs& a) {
  if constexpr (OB >= 1) {
    if (ob == OB) return weight_grad_taps<OB>(taps, a);
    weight_grad_block<OB - 1>(ob, taps, a);
  }
}

void weight_grad(const float* x, int64_t x_unit, const int32_t* offsets, int64_t taps, const float* g, int64_t g_unit,
                 int64_t pitch, int64_t outs, int64_t length, int64_t units, float* dw) {
  // The rows of g of one block stay in the first-level cache while all taps pass by.
  constexpr int64_t kResident = 4096;
  const ConvBlocks blocks(outs, kBlock);
  const int64_t tile = vectors_for(static_cast<int>(blocks.size(0)));
  int64_t o = 0;
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int64_t ob = blocks.size(b), step = std::clamp<int64_t>(kResident / (ob * pitch), 1, units);
    for (int64_t u = 0; u < units; u += step) {
      WeightGradArgs a{x + u * x_unit, x_unit, offsets, g + u * g_unit + o * pitch,
                       g_unit,         pitch,  length,  std::min(step, units - u),
                       dw + o * taps,  taps};
      for (int64_t t = 0; t < taps; t += tile, a.offsets += tile, a.dw += tile)
        weight_grad_block(ob, std::min(tile, taps - t), a);
    }
    o += ob;
  }
}

double sum(const float* g, int64_t length) {
  constexpr int64_t kTogether = 4096;  // summed in f32
  const D d;
  double total = 0;
  for (int64_t q = 0; q < length;) {
    const int64_t end = std::min(q + kTogether, length);
    V a = hn::Zero(d), b = a;
    for (; q + 2 * kLanes <= end; q += 2 * kLanes) {
      a = hn::Add(a, hn::LoadU(d, g + q));
      b = hn::Add(b, hn::LoadU(d, g + q + kLanes));
    }
    for (; q + kLanes <= end; q += kLanes) a = hn::Add(a, hn::LoadU(d, g + q));
    if (q < end) b = hn::Add(b, load_first(d, g + q, end - q));
    q = end;
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b))));
  }
  return total;
}

const ConvKernels* kernels() {
  static constexpr ConvKernels table = {kLanes, kBlock, pack, unpack_add, correlate, weight_grad, sum};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(kernels);
const ConvKernels& conv_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
