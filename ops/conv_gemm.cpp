#include "hone/ops/conv_gemm.h"

#include <algorithm>

#include "hone/core/parallel.h"
#include "hone/ops/blas.h"
#include "hone/ops/lane_sum.h"

namespace hone::detail {
namespace {

constexpr int64_t kColumns = 512 * 1024;  // elements of one band of columns: beyond, they leave the caches
constexpr int64_t kDepth = 4096;          // most taps of one band
constexpr int64_t kNarrowest = 32;        // fewest positions of one product, below which packing costs more than it
constexpr int64_t kPieces = 16;           // parallel pieces wanted where the batch alone gives fewer
constexpr double kPieceMacs = 1'000'000;  // of one parallel piece: some 20 microseconds

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Units of `macs` multiply-adds each for one parallel piece.
int64_t units_a_piece(double macs) { return static_cast<int64_t>(kPieceMacs / std::max(macs, 1.0)); }

// Positions of a band over `depth` taps; `units` is how many bands there would be if each held a whole plane.
int64_t band_width(const ConvGeometry& s, int64_t depth, int64_t units) {
  const int64_t fit = std::max(kColumns / depth, kNarrowest);
  const int64_t share =
      units < kPieces ? std::max(ceil_div(s.out_plane(), ceil_div(kPieces, units)), kNarrowest) : s.out_plane();
  return std::min({fit, share, s.out_plane()});
}

// Taps [tap, tap + taps) by output positions [first, first + width) of a group's planes: one band of the column matrix.
struct Band {
  int64_t tap, taps, first, width;
};

// Calls body(at, n, low, high, in) for each tap and each output row that the band touches: n elements of the band from
// `at` on. Of these, element k in [low, high) reads place in + k·stride_w of the group's planes, the others padding.
template <class Body> void each_run(const ConvGeometry& s, const Band& b, Body&& body) {
  for (int64_t t = 0; t < b.taps; ++t) {
    const int64_t tap = b.tap + t, q = tap % s.kw, p = tap / s.kw % s.kh, c = tap / (s.kw * s.kh);
    const int64_t shift = q * s.dilation_w - s.pad_w, last = s.w - 1 - shift;
    const int64_t left = shift < 0 ? std::min((-shift + s.stride_w - 1) / s.stride_w, s.ow) : 0;
    const int64_t right = last < 0 ? left : std::max(left, std::min(last / s.stride_w + 1, s.ow));
    int64_t i = b.first / s.ow, j = b.first % s.ow;
    for (int64_t done = 0; done < b.width; ++i, j = 0) {
      const int64_t n = std::min(s.ow - j, b.width - done);
      const int64_t r = i * s.stride_h + p * s.dilation_h - s.pad_h;
      const bool inside = r >= 0 && r < s.h;
      const int64_t low = inside ? std::clamp<int64_t>(left - j, 0, n) : n;
      const int64_t high = inside ? std::clamp<int64_t>(right - j, low, n) : n;
      body(t * b.width + done, n, low, high, (c * s.h + r) * s.w + shift + j * s.stride_w);
      done += n;
    }
  }
}

template <class T> void im2col(const ConvGeometry& s, const Band& b, const T* x, T* columns) {
  each_run(s, b, [&](int64_t at, int64_t n, int64_t low, int64_t high, int64_t in) {
    T* to = columns + at;
    std::fill(to, to + low, T(0));
    if (s.stride_w == 1) {
      std::copy(x + in + low, x + in + high, to + low);
    } else {
      for (int64_t k = low; k < high; ++k) to[k] = x[in + k * s.stride_w];
    }
    std::fill(to + high, to + n, T(0));
  });
}
// The transpose of im2col: what an element of x gave is added back to it.
template <class T> void col2im_add(const ConvGeometry& s, const Band& b, const T* columns, T* dx) {
  each_run(s, b, [&](int64_t at, int64_t, int64_t low, int64_t high, int64_t in) {
    for (int64_t k = low; k < high; ++k) dx[in + k * s.stride_w] += columns[at + k];
  });
}

}  // namespace

template <class T> void conv_gemm(const ConvGeometry& s, const T* x, const T* weight, const T* bias, T* y) {
  const int64_t taps = s.taps(), depth = std::min(taps, kDepth), plane = s.out_plane();
  const int64_t width = band_width(s, depth, s.n * s.groups), bands = ceil_div(plane, width);
  const double macs = static_cast<double>(s.o * taps) * static_cast<double>(width);
  parallel_for_scratch<T>(
      s.n * s.groups * bands, units_a_piece(macs), depth * width, [&](int64_t begin, int64_t end, T* columns) {
        for (int64_t u = begin; u < end; ++u) {
          const int64_t image = u / bands, first = u % bands * width, n = std::min(width, plane - first);  // × group
          const int64_t gr = image % s.groups;
          T* to = y + image * s.o * plane + first;
          for (int64_t o = 0; o < s.o; ++o) std::fill_n(to + o * plane, n, bias ? bias[gr * s.o + o] : T(0));
          for (int64_t tap = 0; tap < taps; tap += depth) {
            const Band band{tap, std::min(depth, taps - tap), first, n};
            im2col(s, band, x + image * s.c * s.in_plane(), columns);
            blas::gemm(false, false, s.o, n, band.taps, T(1), weight + gr * s.o * taps + tap, taps, columns, n, T(1),
                       to, plane);
          }
        }
      });
}

template <class T> void conv_gemm_input_grad(const ConvGeometry& s, const T* g, const T* weight, T* dx) {
  // A piece of work owns some channels of one image, so that no two add to the same element.
  const int64_t kernel = s.kh * s.kw, taps = s.taps(), plane = s.out_plane(), images = s.n * s.groups;
  const int64_t fit = std::max<int64_t>(kDepth / kernel, 1);
  const int64_t share =
      images < kPieces ? std::max(ceil_div(s.c, ceil_div(kPieces, images)), ceil_div(64, kernel)) : s.c;
  const int64_t channels = std::min({fit, share, s.c}), blocks = ceil_div(s.c, channels);
  const int64_t depth = std::min(channels * kernel, kDepth), width = band_width(s, depth, kPieces);
  const double macs = static_cast<double>(s.o * channels * kernel) * static_cast<double>(plane);
  parallel_for_scratch<T>(
      images * blocks, units_a_piece(macs), depth * width, [&](int64_t begin, int64_t end, T* columns) {
        for (int64_t u = begin; u < end; ++u) {
          const int64_t image = u / blocks, c = u % blocks * channels, stop = std::min(c + channels, s.c);
          T* to = dx + image * s.c * s.in_plane();
          std::fill(to + c * s.in_plane(), to + stop * s.in_plane(), T(0));
          for (int64_t first = 0; first < plane; first += width) {
            for (int64_t tap = c * kernel; tap < stop * kernel; tap += depth) {
              const Band band{tap, std::min(depth, stop * kernel - tap), first, std::min(width, plane - first)};
              blas::gemm(true, false, band.taps, band.width, s.o, T(1), weight + image % s.groups * s.o * taps + tap,
                         taps, g + image * s.o * plane + first, plane, T(0), columns, band.width);
              col2im_add(s, band, columns, to);
            }
          }
        }
      });
}

template <class T>
void conv_gemm_weight_grad(const ConvGeometry& s, const T* x, const T* g, T* dw, T* db, Workspace& workspace) {
  // A piece of work owns some taps of one group over some images; parts of images are summed in their order.
  const int64_t taps = s.taps(), plane = s.out_plane(), numel = s.groups * s.o * taps;
  const int64_t depth = std::min<int64_t>(taps, 256), blocks = ceil_div(taps, depth);
  const int64_t wanted = std::clamp<int64_t>(kPieces / (s.groups * blocks), 1, s.n), images = ceil_div(s.n, wanted);
  const int64_t parts = ceil_div(s.n, images);
  const int64_t width = band_width(s, depth, kPieces);
  T* const sums = parts == 1 ? dw : workspace.get<T>(parts * numel);
  const double macs = static_cast<double>(s.o * depth) * static_cast<double>(plane) * static_cast<double>(images);
  parallel_for_scratch<T>(
      parts * s.groups * blocks, units_a_piece(macs), depth * width, [&](int64_t begin, int64_t end, T* columns) {
        for (int64_t u = begin; u < end; ++u) {
          const int64_t tap = u % blocks * depth, gr = u / blocks % s.groups, part = u / (blocks * s.groups);
          T* to = sums + part * numel + gr * s.o * taps + tap;
          T beta = 0;
          for (int64_t n = part * images; n < std::min((part + 1) * images, s.n); ++n) {
            const int64_t image = n * s.groups + gr;
            for (int64_t first = 0; first < plane; first += width, beta = 1) {
              const Band band{tap, std::min(depth, taps - tap), first, std::min(width, plane - first)};
              im2col(s, band, x + image * s.c * s.in_plane(), columns);
              blas::gemm(false, true, s.o, band.taps, band.width, T(1), g + image * s.o * plane + first, plane, columns,
                         band.width, beta, to, taps);
            }
          }
        }
      });
  if (parts > 1) {
    parallel_for(numel, 16384, [&](int64_t begin, int64_t end) {
      std::copy(sums + begin, sums + end, dw + begin);
      for (int64_t p = 1; p < parts; ++p)
        for (int64_t i = begin; i < end; ++i) dw[i] += sums[p * numel + i];
    });
  }
  if (!db) return;
  parallel_for(s.groups * s.o, std::max<int64_t>(1, 65536 / (s.n * plane)), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      double sum = 0;
      for (int64_t n = 0; n < s.n; ++n) {
        const T* from = g + (n * s.groups * s.o + o) * plane;
        sum += lane_sum(plane, [&](int64_t q) { return static_cast<double>(from[q]); });
      }
      db[o] = static_cast<T>(sum);
    }
  });
}

#define HONE_CONV_GEMM(T)                                                          \
  template void conv_gemm(const ConvGeometry&, const T*, const T*, const T*, T*);  \
  template void conv_gemm_input_grad(const ConvGeometry&, const T*, const T*, T*); \
  template void conv_gemm_weight_grad(const ConvGeometry&, const T*, const T*, T*, T*, Workspace&);
HONE_CONV_GEMM(float)
HONE_CONV_GEMM(double)
#undef HONE_CONV_GEMM

}  // namespace hone::detail
