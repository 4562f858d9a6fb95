#include "hone/ops/simd/conv_direct.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "hone/core/allocator.h"
#include "hone/core/parallel.h"
#include "hone/ops/simd/conv_kernels.h"

namespace hone::simd {
namespace {

constexpr int64_t kChunkMacs = 1'000'000;     // of one piece of parallel work: some 20 microseconds
constexpr int64_t kPackedFloats = 64 * 1024;  // of a packed band: a part of a second-level cache

// Uninitialized memory for one call.
template <class T> class Scratch {
 public:
  explicit Scratch(int64_t n) : bytes_(static_cast<size_t>(n) * sizeof(T)), p_(detail::allocate_data(bytes_)) {}
  ~Scratch() { detail::free_data(p_, bytes_); }
  Scratch(const Scratch&) = delete;
  T* get() const { return static_cast<T*>(p_); }

 private:
  size_t bytes_;
  void* p_;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Output rows are computed in bands of equal height whose packed input stays in cache.
struct Bands {
  int64_t rows, count;
  explicit Bands(const ConvGeometry& s) {
    const int64_t row = std::max<int64_t>(s.c * s.kw * packed_classes(s) * s.ow, 1), halo = packed_rows(s, 0);
    const int64_t fit = std::max({kPackedFloats / row - halo, halo, int64_t{1}});
    count = ceil_div(s.oh, std::min(fit, s.oh));
    rows = ceil_div(s.oh, count);
    count = ceil_div(s.oh, rows);
  }
};

// Offsets of taps in a packed band, in the order c, kw, kh: taps that follow each other read almost the same memory.
void tap_offsets(const ConvGeometry& s, int64_t rows, int32_t* offsets) {
  const int64_t per_class = packed_rows(s, rows), per_column = packed_classes(s) * per_class;
  for (int64_t ck = 0; ck < s.c * s.kw; ++ck) {
    for (int64_t k = 0; k < s.kh; ++k) {
      const int64_t r = k * s.dilation_h;
      *offsets++ = static_cast<int32_t>((ck * per_column + r % s.stride_h * per_class + r / s.stride_h) * s.ow);
    }
  }
}

// weight(o, c, kh, kw) in blocks of channels: block, tap (c, kw, kh), channel of the block.
template <class Weight> void pack_weights(const ConvGeometry& s, int64_t block, Weight weight, float* packed) {
  const ConvBlocks blocks(s.o, block);
  for (int64_t b = 0, o = 0; b < blocks.count; o += blocks.size(b), ++b)
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t j = 0; j < s.kw; ++j)
        for (int64_t i = 0; i < s.kh; ++i)
          for (int64_t l = 0; l < blocks.size(b); ++l) *packed++ = weight(o + l, c, i, j);
}

// `weight(group, o, c, kh, kw)` names the weight that joins x's channel c to y's channel o.
template <class Weight>
void correlate(const ConvGeometry& s, const float* x, Weight weight, const float* bias, float* y) {
  const ConvKernels& kernels = conv_kernels();
  const Bands bands(s);
  const int64_t taps = s.taps();
  Scratch<float> weights(s.groups * s.o * taps);
  for (int64_t gr = 0; gr < s.groups; ++gr)
    pack_weights(
        s, kernels.block, [&](auto... i) { return weight(gr, i...); }, weights.get() + gr * s.o * taps);
  Scratch<int32_t> offsets(2 * taps);  // the last band may be lower
  const int64_t last_rows = s.oh - (bands.count - 1) * bands.rows;
  tap_offsets(s, bands.rows, offsets.get());
  tap_offsets(s, last_rows, offsets.get() + taps);
  const int64_t macs = std::max<int64_t>(s.o * taps * bands.rows * s.ow, 1);
  const int64_t size = packed_size(s, bands.rows) + kConvSlack;
  parallel_for_scratch<float>(
      s.n * s.groups * bands.count, kChunkMacs / macs, size, [&](auto begin, auto end, float* packed) {
        for (int64_t u = begin; u < end; ++u) {
          const int64_t image = u / bands.count, band = u % bands.count, gr = image % s.groups;
          const bool last = band + 1 == bands.count;
          const int64_t row = band * bands.rows, rows = last ? last_rows : bands.rows;
          kernels.pack(s, x + image * s.c * s.in_plane(), row, rows, packed);
          kernels.correlate(packed, offsets.get() + (last ? taps : 0), taps, weights.get() + gr * s.o * taps, 0, s.o,
                            rows * s.ow, bias ? bias + gr * s.o : nullptr, false,
                            y + image * s.o * s.out_plane() + row * s.ow, s.out_plane());
        }
      });
}

// The transpose of a forward pass, step by step: what tap (c, kw, kh) read is given back to a packed band, and that to
// dx.
void scatter_input_grad(const ConvGeometry& s, const float* g, const float* weight, float* dx) {
  const ConvKernels& kernels = conv_kernels();
  const Bands bands(s);
  const int64_t taps = s.taps(), per_group = s.o * taps;
  Scratch<float> weights(s.groups * per_group);  // group, kw, kh, block of c, o, channel of the block
  const ConvBlocks blocks(s.c, kernels.block);
  float* to = weights.get();
  for (int64_t gr = 0; gr < s.groups; ++gr)
    for (int64_t j = 0; j < s.kw; ++j)
      for (int64_t i = 0; i < s.kh; ++i)
        for (int64_t b = 0, c = 0; b < blocks.count; c += blocks.size(b), ++b)
          for (int64_t o = 0; o < s.o; ++o)
            for (int64_t l = 0; l < blocks.size(b); ++l)
              *to++ = weight[gr * per_group + ((o * s.c + c + l) * s.kh + i) * s.kw + j];
  const int64_t g_pitch = ceil_div(bands.rows * s.ow, 16) * 16;
  Scratch<int32_t> offsets(s.o);
  for (int64_t o = 0; o < s.o; ++o) offsets.get()[o] = static_cast<int32_t>(o * g_pitch);
  const int64_t macs = std::max<int64_t>(s.o * taps * s.out_plane(), 1);
  const int64_t size = ceil_div(packed_size(s, bands.rows) + kConvSlack, 16) * 16,
                grads_size = s.o * g_pitch + kConvSlack;
  parallel_for_scratch<float>(
      s.n * s.groups, kChunkMacs / macs, size + grads_size, [&](auto begin, auto end, float* packed) {
        float* const grads = packed + size;
        std::memset(grads, 0, static_cast<size_t>(grads_size) * sizeof(float));
        for (int64_t image = begin; image < end; ++image) {
          float* to_image = dx + image * s.c * s.in_plane();
          std::memset(to_image, 0, static_cast<size_t>(s.c * s.in_plane()) * sizeof(float));
          for (int64_t band = 0; band < bands.count; ++band) {
            const int64_t row = band * bands.rows, rows = std::min(bands.rows, s.oh - row), length = rows * s.ow;
            std::memset(packed, 0, static_cast<size_t>(size) * sizeof(float));
            for (int64_t o = 0; o < s.o; ++o)
              std::memcpy(grads + o * g_pitch, g + (image * s.o + o) * s.out_plane() + row * s.ow,
                          static_cast<size_t>(length) * sizeof(float));
            const int64_t per_class = packed_rows(s, rows), column = packed_classes(s) * per_class * s.ow;
            const float* w = weights.get() + image % s.groups * per_group;
            for (int64_t j = 0; j < s.kw; ++j) {
              for (int64_t i = 0; i < s.kh; ++i, w += s.o * s.c) {
                const int64_t r = i * s.dilation_h;
                const int64_t shift = (r % s.stride_h * per_class + r / s.stride_h) * s.ow;
                kernels.correlate(grads, offsets.get(), s.o, w, 0, s.c, length, nullptr, true,
                                  packed + j * column + shift, s.kw * column);
              }
            }
            kernels.unpack_add(s, packed, row, rows, to_image);
          }
        }
      });
}

}  // namespace

bool conv_direct_suits(const ConvGeometry& s) {
  constexpr int64_t kLimit = std::numeric_limits<int32_t>::max() / 4;
  // Beyond, the taps of one tile leave the cache and a gemm with its own blocking is faster.
  if (s.taps() > 1600 || packed_size(s, 1) >= kLimit) return false;  // so that Bands computes with small numbers
  const Bands bands(s);
  return packed_size(s, bands.rows) < kLimit && s.o < kLimit / (bands.rows * s.ow + 16);
}

void conv_direct(const ConvGeometry& s, const float* x, const float* weight, const float* bias, float* y) {
  correlate(
      s, x,
      [&](int64_t gr, int64_t o, int64_t c, int64_t i, int64_t j) {
        return weight[(((gr * s.o + o) * s.c + c) * s.kh + i) * s.kw + j];
      },
      bias, y);
}

void conv_direct_input_grad(const ConvGeometry& s, const float* g, const float* weight, float* dx) {
  ConvGeometry t = s;  // the full correlation of g with the turned weights
  t.c = s.o, t.h = s.oh, t.w = s.ow, t.o = s.c, t.oh = s.h, t.ow = s.w;
  t.pad_h = (s.kh - 1) * s.dilation_h - s.pad_h, t.pad_w = (s.kw - 1) * s.dilation_w - s.pad_w;
  const bool possible = s.stride_h == 1 && s.stride_w == 1 && t.pad_h >= 0 && t.pad_w >= 0 && conv_direct_suits(t);
  // It multiplies the zeros around g as well; the other way adds to memory after each s.o products.
  const double full = static_cast<double>(s.in_plane()) * (1 + 2.5 / static_cast<double>(s.c * s.kh));
  const double scatter =
      static_cast<double>(s.out_plane()) * (1 + 3.0 / static_cast<double>(s.o) + 4.0 / static_cast<double>(s.o * s.kh));
  if (!possible || scatter < full) return scatter_input_grad(s, g, weight, dx);
  correlate(
      t, g,
      [&](int64_t gr, int64_t c, int64_t o, int64_t i, int64_t j) {
        return weight[(((gr * s.o + o) * s.c + c) * s.kh + s.kh - 1 - i) * s.kw + s.kw - 1 - j];
      },
      nullptr, dx);
}

void conv_direct_weight_grad(const ConvGeometry& s, const float* x, const float* g, float* dw, float* db) {
  const ConvKernels& kernels = conv_kernels();
  const Bands bands(s);
  const int64_t taps = s.taps(), per_group = s.o * taps, per_part = per_group + s.o;
  // Images are summed in parts of a size that depends on the geometry alone, and parts in their order.
  int64_t images = 1;
  const int64_t macs = std::max<int64_t>(per_group * s.out_plane(), 1);
  const int64_t most = std::clamp<int64_t>(2'000'000 / (per_part * s.groups), 4, 32);
  while (images * macs * 2 < 3 * kChunkMacs || images * most < s.n ||
         (images * s.out_plane() < 1024 && images * 4 < s.n))
    images *= 2;
  const int64_t parts = ceil_div(s.n, images);
  Scratch<int32_t> offsets(2 * taps);
  const int64_t last_rows = s.oh - (bands.count - 1) * bands.rows;
  tap_offsets(s, bands.rows, offsets.get());
  tap_offsets(s, last_rows, offsets.get() + taps);
  Scratch<float> sums(parts * s.groups * per_part);
  const int64_t unit = ceil_div(packed_size(s, bands.rows) + kConvSlack, 16) * 16;
  const int64_t together = std::clamp<int64_t>(2 * kPackedFloats / unit, 1, images);
  const int64_t g_pitch = ceil_div(bands.rows * s.ow, 16) * 16, g_unit = s.o * g_pitch;
  parallel_for_scratch<float>(
      parts * s.groups, 1, (unit + g_unit) * together, [&](auto begin, auto end, float* packed) {
        float* const grads = packed + unit * together;
        for (int64_t p = begin; p < end; ++p) {
          const int64_t gr = p % s.groups, first = p / s.groups * images, stop = std::min(first + images, s.n);
          float* sum = sums.get() + p * per_part;
          std::memset(sum, 0, static_cast<size_t>(per_part) * sizeof(float));
          for (int64_t image = first; image < stop; image += together) {
            const int64_t units = std::min(together, stop - image);
            const float* gi = g + (image * s.groups + gr) * s.o * s.out_plane();
            for (int64_t band = 0; band < bands.count; ++band) {
              const bool last = band + 1 == bands.count;
              const int64_t row = band * bands.rows, rows = last ? last_rows : bands.rows;
              const int64_t length = rows * s.ow;
              for (int64_t u = 0; u < units; ++u) {
                kernels.pack(s, x + ((image + u) * s.groups + gr) * s.c * s.in_plane(), row, rows, packed + u * unit);
                for (int64_t o = 0; o < s.o; ++o) {
                  float* to = grads + u * g_unit + o * g_pitch;
                  std::memcpy(to, gi + (u * s.groups * s.o + o) * s.out_plane() + row * s.ow,
                              sizeof(float) * static_cast<size_t>(length));
                  std::fill(to + length, to + g_pitch, 0.0f);
                }
              }
              kernels.weight_grad(packed, unit, offsets.get() + (last ? taps : 0), taps, grads, g_unit, g_pitch, s.o,
                                  length, units, sum);
            }
            if (!db) continue;
            for (int64_t o = 0; o < s.o; ++o) {
              auto total = static_cast<double>(sum[per_group + o]);
              for (int64_t u = 0; u < units; ++u)
                total += kernels.sum(gi + (u * s.groups * s.o + o) * s.out_plane(), s.out_plane());
              sum[per_group + o] = static_cast<float>(total);
            }
          }
        }
      });
  parallel_for(s.groups * s.o, std::max<int64_t>(1, 65536 / (taps * parts + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t go = begin; go < end; ++go) {
      const float* first = sums.get() + go / s.o * per_part;
      const int64_t step = s.groups * per_part, o = go % s.o;
      float* to = dw + go * taps;
      const float* from = first + o * taps;
      for (int64_t c = 0; c < s.c; ++c)
        for (int64_t j = 0; j < s.kw; ++j)
          for (int64_t i = 0; i < s.kh; ++i, ++from) {
            float total = from[0];
            for (int64_t p = 1; p < parts; ++p) total += from[p * step];
            to[(c * s.kh + i) * s.kw + j] = total;
          }
      if (db) {
        float total = first[per_group + o];
        for (int64_t p = 1; p < parts; ++p) total += first[p * step + per_group + o];
        db[go] = total;
      }
    }
  });
}

}  // namespace hone::simd
