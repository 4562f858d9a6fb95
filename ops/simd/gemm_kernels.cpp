#include "hone/ops/simd/gemm_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <utility>

#include "hone/core/allocator.h"
#include "hone/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/gemm_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other kernel files have functions of the same names

template <class T> using Tag = hn::ScalableTag<T>;
template <class T> using Vector = hn::Vec<Tag<T> >;
template <class T> constexpr int64_t kLanes = static_cast<int64_t>(HWY_LANES(T));

// A register tile: kRows × kVectors sums; the vectors of B and one element of A take the other registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kRows = 12, kVectors = 2;
#elif HWY_TARGET == HWY_SCALAR
constexpr int kRows = 4, kVectors = 4;
#else
constexpr int kRows = 6, kVectors = 2;
#endif
constexpr bool kMasks = HWY_TARGET == HWY_AVX3;  // edges of B are read where they lie
template <class T> constexpr int64_t kColumns = kVectors* kLanes<T>;

// Blocks: a block of A (kM × kDepth) stays in L2, a panel of B (kDepth × kColumns) in L1 or beside it.
template <class T> constexpr int64_t kDepth = 1536 / static_cast<int64_t>(sizeof(T));
constexpr int64_t kM = 24 * kRows, kN = 1024;
template <class T> constexpr int64_t kPitch = kDepth<T> + 64 / static_cast<int64_t>(sizeof(T));  // rows in many L1 sets

// The first n lanes, fewer than all; the others are zero, and nothing is read or written there.
template <class T> HWY_INLINE Vector<T> load_first(const T* p, int64_t n) {
  const Tag<T> d;
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN T buffer[kLanes<T>] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  return hn::Load(d, buffer);
#endif
}
template <class T> HWY_INLINE void store_first(Vector<T> v, T* p, int64_t n) {
  const Tag<T> d;
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN T buffer[kLanes<T>];
  hn::Store(v, d, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
#endif
}

// ---- The register tile ----

template <class T> struct Tile {
  const T* a;
  int64_t a_step;  // from one row to the next, or from one depth to the next where kAcross
  const T* b;
  int64_t b_step, depth;
  T alpha, beta;
  T* c;
  int64_t pitch, columns;  // in the last of V vectors
};
template <class T> using Run = void (*)(const Tile<T>&);

// R rows by V vectors, the last of them kWhole or t.columns wide. A's elements of one depth lie side by side where
// kAcross, those of one row where not.
template <class T, int R, int V, bool kWhole, bool kAcross> HWY_NOINLINE void tile(const Tile<T>& t) {
  constexpr int64_t L = kLanes<T>;
  const Tag<T> d;
  Vector<T> sums[R][V];
  const T* HWY_RESTRICT x[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    x[i] = t.a + (kAcross ? 0 : i * t.a_step);
    if (kWhole && t.depth >= 64) {
      hwy::Prefetch(t.c + i * t.pitch);
      hwy::Prefetch(t.c + i * t.pitch + V * L - 1);
    }
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[i][v] = hn::Zero(d);
  }
  const T* HWY_RESTRICT b = t.b;
#if HWY_TARGET <= HWY_AVX2
  const auto mask = hn::FirstN(d, static_cast<size_t>(t.columns));
  const auto load_last = [&](const T* p) HWY_ATTR { return kWhole ? hn::LoadU(d, p) : hn::MaskedLoad(mask, d, p); };
  const auto store_last = [&](Vector<T> v, T* p)
                              HWY_ATTR { kWhole ? hn::StoreU(v, d, p) : hn::BlendedStore(v, mask, d, p); };
#else
  const auto load_last = [&](const T* p) HWY_ATTR { return kWhole ? hn::LoadU(d, p) : load_first(p, t.columns); };
  const auto store_last = [&](Vector<T> v, T* p)
                              HWY_ATTR { kWhole ? hn::StoreU(v, d, p) : store_first(v, p, t.columns); };
#endif
  const int64_t depth = t.depth, a_step = t.a_step, b_step = t.b_step;
  for (int64_t k = 0; k < depth; ++k, b += b_step) {
    Vector<T> w[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) w[v] = v + 1 < V || !kMasks ? hn::LoadU(d, b + v * L) : load_last(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vector<T> in = hn::Set(d, kAcross ? x[0][i] : x[i][k]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[i][v] = hn::MulAdd(in, w[v], sums[i][v]);
    }
    if constexpr (kAcross) x[0] += a_step;
  }
  const Vector<T> alpha = hn::Set(d, t.alpha), beta = hn::Set(d, t.beta);
  T* c = t.c;
  if (t.beta == T{0}) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i, c += t.pitch) {
#pragma GCC unroll 16
      for (int v = 0; v + 1 < V; ++v) hn::StoreU(hn::Mul(alpha, sums[i][v]), d, c + v * L);
      store_last(hn::Mul(alpha, sums[i][V - 1]), c + (V - 1) * L);
    }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i, c += t.pitch) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      T* const at = c + v * L;
      const Vector<T> sum = hn::Mul(alpha, sums[i][v]);
      if (v + 1 < V) {
        hn::StoreU(hn::MulAdd(beta, hn::LoadU(d, at), sum), d, at);
      } else {
        store_last(hn::MulAdd(beta, load_last(at), sum), at);
      }
    }
  }
}

template <class T, int V, bool kWhole, bool kAcross, int... R>
constexpr std::array<Run<T>, kRows> heights(std::integer_sequence<int, R...>) {
  return {tile<T, R + 1, V, kWhole, kAcross>...};
}
template <class T, bool kAcross, int... V>
constexpr std::array<std::array<Run<T>, kRows>, kVectors + 1> widths(std::integer_sequence<int, V...>) {
  constexpr std::make_integer_sequence<int, kRows> all;
  return {heights<T, V + 1, false, kAcross>(all)..., heights<T, kVectors, true, kAcross>(all)};
}

// All rows of one panel of B, `wide` columns of C, while the next panel is fetched.
template <class T, bool kAcross>
HWY_INLINE void column(Tile<T> t, int64_t rows, int64_t high, int64_t wide, int64_t next_rows, const T* next) {
  static constexpr auto kTiles = widths<T, kAcross>(std::make_integer_sequence<int, kVectors>());
  const int64_t vectors = (wide + kLanes<T> - 1) / kLanes<T>;
  t.columns = wide - (vectors - 1) * kLanes<T>;
  const auto& run = kTiles[static_cast<size_t>(wide == kColumns<T> ? kVectors : vectors - 1)];
  const int64_t share = t.depth * kColumns<T> * high / rows;
  for (; rows > 0; rows -= high) {
    if (next) {
      for (int64_t i = 0; i < share; i += 64 / static_cast<int64_t>(sizeof(T))) hwy::Prefetch(next + i);
      next += share;
    }
    run[static_cast<size_t>(std::min(high, rows) - 1)](t);
    t.a += next_rows;
    t.c += high * t.pitch;
  }
}

// ---- Panels of B ----

// `wide` columns that lie side by side in rows `step` apart, in whole vectors.
template <class T> void pack_rows(const T* from, int64_t step, int64_t depth, int64_t wide, T* to) {
  constexpr int64_t L = kLanes<T>;
  const Tag<T> d;
  if (wide == kColumns<T>) {
    for (; depth > 0; --depth, from += step, to += kColumns<T>)
#pragma GCC unroll 16
      for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(hn::LoadU(d, from + v * L), d, to + v * L);
    return;
  }
  for (; depth > 0; --depth, from += step) {
    int64_t j = 0;
    for (; j + L <= wide; j += L, to += L) hn::StoreU(hn::LoadU(d, from + j), d, to);
    if (j == wide) continue;
    hn::StoreU(load_first(from + j, wide - j), d, to);
    to += L;
  }
}

#if HWY_TARGET != HWY_SCALAR
// Blocks of 16 bytes, as many lines apart as a block has elements.
template <class D, class T> HWY_INLINE hn::Vec<D> load_blocks(D d, const T* const* lines, int64_t k) {
  if constexpr (hn::MaxLanes(D()) * sizeof(T) <= 16) {
    return hn::LoadU(d, lines[0] + k);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, lines + hn::MaxLanes(half), k), load_blocks(half, lines, k));
  }
}
HWY_INLINE void turn(const float* const* lines, int64_t k, float* to, int64_t pitch) {
  const Tag<float> d;
  const hn::Repartition<double, Tag<float> > pairs;
  const auto a = load_blocks(d, lines, k), b = load_blocks(d, lines + 1, k), c = load_blocks(d, lines + 2, k),
             e = load_blocks(d, lines + 3, k);
  const auto ab = hn::BitCast(pairs, hn::InterleaveLower(d, a, b)),
             ce = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
  const auto ab2 = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b)),
             ce2 = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce)), d, to + pitch);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab2, ce2)), d, to + 2 * pitch);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab2, ce2)), d, to + 3 * pitch);
}
HWY_INLINE void turn(const double* const* lines, int64_t k, double* to, int64_t pitch) {
  const Tag<double> d;
  const auto a = load_blocks(d, lines, k), b = load_blocks(d, lines + 1, k);
  hn::StoreU(hn::InterleaveLower(d, a, b), d, to);
  hn::StoreU(hn::InterleaveUpper(d, a, b), d, to + pitch);
}
#endif

// `wide` columns, each of which lies in one piece, `step` apart. The last vector is filled up with its last column.
template <class T> void pack_columns(const T* from, int64_t step, int64_t depth, int64_t wide, T* to) {
  constexpr int64_t L = kLanes<T>;
  const int64_t pitch = (wide + L - 1) / L * L;
  for (int64_t j = 0; j < wide; j += L, to += L) {
    const T* lines[L];
    for (int64_t i = 0; i < L; ++i) lines[i] = from + std::min(j + i, wide - 1) * step;
    int64_t k = 0;
#if HWY_TARGET != HWY_SCALAR
    constexpr auto kBlock = static_cast<int64_t>(16 / sizeof(T));
    for (; k + kBlock <= depth; k += kBlock) turn(lines, k, to + k * pitch, pitch);
#endif
    for (; k < depth; ++k)
      for (int64_t i = 0; i < L; ++i) to[k * pitch + i] = lines[i][k];
  }
}

// ---- The product ----

// A block of A: rows kPitch apart, or panels of kRows elements a depth where kAcross.
template <class T, bool kAcross>
void pack_a(const T* from, int64_t step, int64_t rows, int64_t high, int64_t depth, T* to) {
  if constexpr (kAcross) {
    for (; rows > 0; rows -= high, from += high, to += high * depth) {
      if (high == kRows && rows >= kRows) {
        for (int64_t k = 0; k < depth; ++k) std::memcpy(to + k * kRows, from + k * step, kRows * sizeof(T));
      } else {
        for (int64_t k = 0; k < depth; ++k) std::copy_n(from + k * step, std::min(high, rows), to + k * high);
      }
    }
  } else {
    for (; rows > 0; --rows, from += step, to += kPitch<T>)
      std::memcpy(to, from, static_cast<size_t>(depth) * sizeof(T));
  }
}

template <class T, bool kAcross> void blocks(const Product<T>& p) {
  constexpr int64_t kPanel = kColumns<T>;
  // What is read a few times alone is read where it lies.
  const bool packs_a = p.n > 4 * kPanel && p.m > kM;
  const bool packs_b = p.trans_b || (p.m > 8 * kRows && p.k * p.ldb * static_cast<int64_t>(sizeof(T)) > 1 << 18);
  const int64_t pieces = (p.k + kDepth<T> - 1) / kDepth<T>, deepest = (p.k + pieces - 1) / pieces;
  const int64_t across = packs_b ? std::min(kN, (p.n + kPanel - 1) / kPanel * kPanel) : kMasks ? 0 : kPanel;
  const int64_t room_a = packs_a ? kM * kPitch<T> : 0;  // whole lines of the cache
  const GemmScratch room(static_cast<size_t>(room_a + across * deepest) * sizeof(T));
  T *const packed_a = static_cast<T*>(room.get()), *const packed_b = packed_a + room_a;
  for (int64_t j = 0; j < p.n; j += kN) {
    const int64_t cols = std::min(kN, p.n - j);
    for (int64_t k = 0; k < p.k; k += deepest) {
      const int64_t depth = std::min(deepest, p.k - k);
      const T* const b_from = p.b + (p.trans_b ? j * p.ldb + k : k * p.ldb + j);
      // Packed from here on: all, nothing, or the panel that is not whole.
      const int64_t first = packs_b ? 0 : kMasks ? cols : cols / kPanel * kPanel;
      for (int64_t jj = first; jj < cols; jj += kPanel) {
        const int64_t wide = std::min(kPanel, cols - jj);
        p.trans_b ? pack_columns(b_from + jj * p.ldb, p.ldb, depth, wide, packed_b + (jj - first) * depth)
                  : pack_rows(b_from + jj, p.ldb, depth, wide, packed_b + (jj - first) * depth);
      }
      for (int64_t i = 0; i < p.m; i += kM) {
        const int64_t rows = std::min(kM, p.m - i), down = (rows + kRows - 1) / kRows, high = (rows + down - 1) / down;
        const T* a_from = p.a + (kAcross ? k * p.lda + i : i * p.lda + k);
        int64_t a_step = p.lda, next_rows = kAcross ? high : high * p.lda;
        if (packs_a) {
          pack_a<T, kAcross>(a_from, p.lda, rows, high, depth, packed_a);
          a_from = packed_a;
          a_step = kAcross ? high : kPitch<T>;
          next_rows = high * (kAcross ? depth : kPitch<T>);
        }
        for (int64_t jj = 0; jj < cols; jj += kPanel) {
          const int64_t wide = std::min(kPanel, cols - jj), wide_up = (wide + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
          const bool packed = jj >= first;
          const T beta = k == 0 ? p.beta : T{1};
          T* const c = p.c + i * p.ldc + j + jj;
          const T* const next = packed && jj + kPanel < cols ? packed_b + (jj + kPanel - first) * depth : nullptr;
          column<T, kAcross>({a_from, a_step, packed ? packed_b + (jj - first) * depth : b_from + jj,
                              packed ? wide_up : p.ldb, depth, p.alpha, beta, c, p.ldc, 0},
                             rows, high, wide, next_rows, next);
        }
      }
    }
  }
}

// ---- Vectors: the matrix is read once, where it lies ----

// y[r] = alpha · (row r of `matrix`) · x + beta · y[r] for R rows.
template <class T, int R>
HWY_INLINE void dots(const T* matrix, int64_t ld, int64_t k, const T* HWY_RESTRICT x, T alpha, T beta, T* y,
                     int64_t y_step) {
  constexpr int64_t L = kLanes<T>;
  constexpr int kChains = R == 1 ? 4 : 2;  // sums side by side hide the latency of each
  const Tag<T> d;
  Vector<T> sums[R][kChains];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int s = 0; s < kChains; ++s) sums[r][s] = hn::Zero(d);
  }
  int64_t i = 0;
  for (; i + kChains * L <= k; i += kChains * L) {
#pragma GCC unroll 16
    for (int s = 0; s < kChains; ++s) {
      const Vector<T> in = hn::LoadU(d, x + i + s * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r][s] = hn::MulAdd(hn::LoadU(d, matrix + r * ld + i + s * L), in, sums[r][s]);
    }
  }
  for (; i < k; i += L) {
    const int64_t left = std::min(L, k - i);
    const Vector<T> in = left == L ? hn::LoadU(d, x + i) : load_first(x + i, left);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T* const row = matrix + r * ld + i;
      sums[r][0] = hn::MulAdd(left == L ? hn::LoadU(d, row) : load_first(row, left), in, sums[r][0]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int s = 1; s < kChains; ++s) sums[r][0] = hn::Add(sums[r][0], sums[r][s]);
    const T sum = alpha * hn::GetLane(hn::SumOfLanes(d, sums[r][0]));
    y[r * y_step] = beta == T{0} ? sum : sum + beta * y[r * y_step];
  }
}

// y += the sum of x[r] · (row r of `matrix`) over R rows.
template <class T, int R>
HWY_INLINE void add_rows(const T* matrix, int64_t ld, int64_t n, const T* x, int64_t x_step, T alpha,
                         T* HWY_RESTRICT y) {
  constexpr int64_t L = kLanes<T>;
  const Tag<T> d;
  Vector<T> factor[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) factor[r] = hn::Set(d, alpha * x[r * x_step]);
  int64_t j = 0;
  for (; j + L <= n; j += L) {
    Vector<T> sum = hn::LoadU(d, y + j);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum = hn::MulAdd(factor[r], hn::LoadU(d, matrix + r * ld + j), sum);
    hn::StoreU(sum, d, y + j);
  }
  if (j == n) return;
  Vector<T> sum = load_first(y + j, n - j);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum = hn::MulAdd(factor[r], load_first(matrix + r * ld + j, n - j), sum);
  store_first(sum, y + j, n - j);
}

// y (of n) = alpha · `matrix` · x (of k) + beta · y, the matrix stored as n rows, or as k rows where `across`.
template <class T>
void matrix_vector(const T* matrix, int64_t ld, bool across, int64_t n, int64_t k, const T* x, int64_t x_step,
                   const Product<T>& p, int64_t y_step) {
  if (!across) {
    const GemmScratch room(x_step == 1 ? 0 : static_cast<size_t>(k) * sizeof(T));
    if (x_step != 1) {
      T* const side_by_side = static_cast<T*>(room.get());
      for (int64_t i = 0; i < k; ++i) side_by_side[i] = x[i * x_step];
      x = side_by_side;
    }
    int64_t r = 0;
    for (; r + 4 <= n; r += 4) dots<T, 4>(matrix + r * ld, ld, k, x, p.alpha, p.beta, p.c + r * y_step, y_step);
    for (; r < n; ++r) dots<T, 1>(matrix + r * ld, ld, k, x, p.alpha, p.beta, p.c + r * y_step, y_step);
    return;
  }
  constexpr auto kBlock = static_cast<int64_t>(16384 / sizeof(T));  // y's piece stays in L1
  p.scale();
  const GemmScratch sums(y_step == 1 ? 0 : static_cast<size_t>(std::min(kBlock, n)) * sizeof(T));
  for (int64_t j = 0; j < n; j += kBlock) {
    const int64_t cols = std::min(kBlock, n - j);
    T* const y = y_step == 1 ? p.c + j : static_cast<T*>(sums.get());
    if (y_step != 1) std::fill_n(y, cols, T{0});
    int64_t r = 0;
    for (; r + 8 <= k; r += 8) add_rows<T, 8>(matrix + r * ld + j, ld, cols, x + r * x_step, x_step, p.alpha, y);
    for (; r + 2 <= k; r += 2) add_rows<T, 2>(matrix + r * ld + j, ld, cols, x + r * x_step, x_step, p.alpha, y);
    if (r < k) add_rows<T, 1>(matrix + r * ld + j, ld, cols, x + r * x_step, x_step, p.alpha, y);
    if (y_step != 1)
      for (int64_t i = 0; i < cols; ++i) p.c[(j + i) * y_step] += y[i];
  }
}

template <class T> void product(const Product<T>& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0 || p.alpha == T{0}) return p.scale();
  if (p.n == 1 && (p.m > 1 || !p.trans_a))
    return matrix_vector(p.a, p.lda, p.trans_a, p.m, p.k, p.b, p.trans_b ? 1 : p.ldb, p, p.ldc);
  if (p.m == 1) return matrix_vector(p.b, p.ldb, !p.trans_b, p.n, p.k, p.a, p.trans_a ? p.lda : 1, p, 1);
  p.trans_a ? blocks<T, true>(p) : blocks<T, false>(p);
}

const GemmKernels* kernels() {
  static const GemmKernels table = {hwy::TargetName(HWY_TARGET), product<float>, product<double>};
  return &table;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
namespace {

/// Free blocks, all of one size: the largest that was asked for.
struct Blocks {
  static constexpr int kMost = 64;
  std::mutex mutex;
  size_t bytes = 0;
  int made = 0, count = 0;  // made: of this size, for the threads together
  void* free[kMost];
};
Blocks& all_blocks() {
  static Blocks& blocks = *new Blocks;  // outlives what runs at exit
  return blocks;
}

}  // namespace

GemmScratch::GemmScratch(size_t bytes) {
  if (bytes == 0) return;
  Blocks& b = all_blocks();
  const std::lock_guard lock(b.mutex);
  if (bytes > b.bytes) {
    while (b.count > 0) hone::detail::free_data(b.free[--b.count], b.bytes);
    b.bytes = bytes;
    b.made = 0;
  }
  for (; b.made < std::min(num_threads(), Blocks::kMost) && b.count < Blocks::kMost; ++b.made, ++b.count)
    b.free[b.count] = hone::detail::allocate_data(b.bytes);
  p_ = b.count > 0 ? b.free[--b.count] : hone::detail::allocate_data(b.bytes);
  bytes_ = b.bytes;
}

GemmScratch::~GemmScratch() {
  if (!p_) return;
  Blocks& b = all_blocks();
  const std::lock_guard lock(b.mutex);
  if (bytes_ == b.bytes && b.count < Blocks::kMost) {
    b.free[b.count++] = p_;
  } else {
    hone::detail::free_data(p_, bytes_);
  }
}

HWY_EXPORT(kernels);
const GemmKernels& gemm_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }
}  // namespace hone::simd
#endif
