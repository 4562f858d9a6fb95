#include "hone/ops/simd/sparse_kernels.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/sparse_kernels.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::simd {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;
using DU = hn::RebindToUnsigned<D>;
using V = hn::Vec<D>;
constexpr int kLanes = HWY_LANES(float);

HWY_INLINE void store_first(V v, D d, float* p, int64_t n) {
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#else
  HWY_ALIGN float buffer[kLanes];
  hn::Store(v, d, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
#endif
}

// ---- transpose: blocks of 4×4 in registers
void transpose(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to, int64_t to_pitch) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> d2;
  for (; i + 4 <= rows; i += 4) {
    const float* p = from + i * from_pitch;
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
      const auto a = hn::LoadU(d, p + j), b = hn::LoadU(d, p + from_pitch + j),
                 c = hn::LoadU(d, p + 2 * from_pitch + j), e = hn::LoadU(d, p + 3 * from_pitch + j);
      const auto ab_low = hn::BitCast(d2, hn::InterleaveLower(d, a, b)),
                 ab_high = hn::BitCast(d2, hn::InterleaveUpper(d, a, b)),
                 ce_low = hn::BitCast(d2, hn::InterleaveLower(d, c, e)),
                 ce_high = hn::BitCast(d2, hn::InterleaveUpper(d, c, e));
      float* q = to + j * to_pitch + i;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, ab_low, ce_low)), d, q);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, ab_low, ce_low)), d, q + to_pitch);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, ab_high, ce_high)), d, q + 2 * to_pitch);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, ab_high, ce_high)), d, q + 3 * to_pitch);
    }
    for (; j < cols; ++j)
      for (int64_t l = 0; l < 4; ++l) to[j * to_pitch + i + l] = p[l * from_pitch + j];
  }
#endif
  for (; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) to[j * to_pitch + i] = from[i * from_pitch + j];
}

// ---- rows as they are
void copy_rows(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to, int64_t to_pitch) {
  if (from_pitch == cols && to_pitch == cols) cols *= rows, rows = std::min<int64_t>(rows, 1);
  const D d;
  for (int64_t i = 0; i < rows; ++i, from += from_pitch, to += to_pitch) {
    if (cols >= kLanes) {  // the last vector overlaps the one before
      for (int64_t j = 0; j + kLanes < cols; j += kLanes) hn::StoreU(hn::LoadU(d, from + j), d, to + j);
      hn::StoreU(hn::LoadU(d, from + cols - kLanes), d, to + cols - kLanes);
    } else {
      for (int64_t j = 0; j < cols; ++j) to[j] = from[j];
    }
  }
}

bool all_below(const int32_t* v, int64_t n, int64_t limit) {
  const DU du;
  auto largest = hn::Zero(du);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = hn::Max(largest, hn::BitCast(du, hn::LoadU(DI(), v + i)));
  auto most = static_cast<uint32_t>(hn::GetLane(hn::MaxOfLanes(du, largest)));
  for (; i < n; ++i) most = std::max(most, static_cast<uint32_t>(v[i]));
  return n == 0 || static_cast<int64_t>(most) < limit;
}

// ---- panel: register tiles of R outputs by VB vectors
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kMostRows = 8;
constexpr int vectors_for(int rows) { return rows <= 2 ? 8 : rows == 4 ? 6 : 3; }
#else
constexpr int kMostRows = 4;
constexpr int vectors_for(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 3; }
#endif
// Sums kept side by side, so that an addition need not wait for the one before.
constexpr int sums_for(int accumulators) { return accumulators >= 5 ? 1 : accumulators >= 3 ? 2 : 4; }

using Taps = SparseRows::Taps;

template <int R, int VB>
HWY_INLINE void panel_tile(const Taps& t, const float* HWY_RESTRICT x, const float* bias, bool accumulate, float* y,
                           int64_t pitch, int64_t last) {
  constexpr int kSums = sums_for(R * VB);
  const D d;
  V acc[kSums][R][VB];
#pragma GCC unroll 8
  for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V start = s == 0 && bias && !accumulate ? hn::Set(d, bias[r]) : hn::Zero(d);
#pragma GCC unroll 8
      for (int v = 0; v < VB; ++v)
        acc[s][r][v] = s == 0 && accumulate ? hn::LoadU(d, y + r * pitch + v * kLanes) : start;
    }
  }
  const int32_t* HWY_RESTRICT offset = t.offsets;
  const float* HWY_RESTRICT w = t.values;
  const auto add = [&](V(&sum)[R][VB]) HWY_ATTR {
    const float* HWY_RESTRICT from = x + *offset;
    V in[VB];
#pragma GCC unroll 8
    for (int v = 0; v < VB; ++v) in[v] = hn::LoadU(d, from + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V weight = hn::Set(d, w[r]);
#pragma GCC unroll 8
      for (int v = 0; v < VB; ++v) sum[r][v] = hn::MulAdd(weight, in[v], sum[r][v]);
    }
    offset += t.offset_step, w += t.value_step;
  };
  int64_t k = 0;
  for (; k + kSums <= t.count; k += kSums) {
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) add(acc[s]);
  }
  for (; k < t.count; ++k) add(acc[0]);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < VB; ++v) {
      V sum = acc[0][r][v];
#pragma GCC unroll 8
      for (int s = 1; s < kSums; ++s) sum = hn::Add(sum, acc[s][r][v]);
      float* to = y + r * pitch + v * kLanes;
      if (v + 1 == VB && last < kLanes) {
        store_first(sum, d, to, last);
      } else {
        hn::StoreU(sum, d, to);
      }
    }
  }
}

struct PanelArgs {
  const SparseRows& rows;
  int64_t begin, end;
  const float* x;
  const float* bias;
  bool accumulate;
  float* y;
  int64_t pitch;
  int64_t last;  // elements of the last vector that are stored
};

// `outs` outputs that share the taps, in pieces of R, R/2, …
template <int R, int VB>
HWY_INLINE void panel_list(Taps t, int64_t outs, const PanelArgs& a, const float* bias, float* y) {
  for (; outs >= R; outs -= R) {
    panel_tile<R, VB>(t, a.x, bias, a.accumulate, y, a.pitch, a.last);
    if (t.values) t.values += R;  // null where nothing is stored
    y += R * a.pitch;
    if (bias) bias += R;
  }
  if constexpr (R > 1) {
    if (outs > 0) panel_list<R / 2, VB>(t, outs, a, bias, y);
  }
}

template <int R, int VB> HWY_NOINLINE void panel_vectors(const PanelArgs& a) {
  const SparseRows& rows = a.rows;
  for (int64_t i = a.begin; i < a.end; ++i) {
    const int64_t o = i * rows.height, outs = std::min(rows.height, rows.outs - o);
    panel_list<R, VB>(rows.taps(i), outs, a, a.bias ? a.bias + o : nullptr,
                      a.y + (o - a.begin * rows.height) * a.pitch);
  }
}

template <int R, int VB = vectors_for(R)> HWY_INLINE void panel_dispatch(int64_t vectors, const PanelArgs& a) {
  if constexpr (VB >= 1) {
    if (vectors == VB) return panel_vectors<R, VB>(a);
    panel_dispatch<R, VB - 1>(vectors, a);
  }
}
template <int R = kMostRows> HWY_INLINE void panel_rows(int64_t height, int64_t length, PanelArgs a) {
  if constexpr (R > 1) {
    if (height < R) return panel_rows<R / 2>(height, length, a);
  }
  const int64_t total = (length + kLanes - 1) / kLanes, tiles = (total + vectors_for(R) - 1) / vectors_for(R);
  for (int64_t t = 0, v = 0; t < tiles; ++t) {
    const int64_t vectors = (total - v) / (tiles - t);
    a.last = std::min<int64_t>(kLanes, length - (v + vectors - 1) * kLanes);
    panel_dispatch<R>(vectors, a);
    a.x += vectors * kLanes, a.y += vectors * kLanes, v += vectors;
  }
}

void panel(const SparseRows& rows, int64_t begin, int64_t end, const float* x, int64_t length, const float* bias,
           bool accumulate, float* y, int64_t pitch) {
  panel_rows(rows.height, length, {rows, begin, end, x, bias, accumulate, y, pitch, 0});
}

// ---- CSR, one position: x is read one by one, for a gather is no faster than its loads
void csr_dot(const int32_t* starts, const int32_t* columns, const float* values, int64_t begin, int64_t end,
             const float* x, const float* bias, float* y) {
  constexpr int kSums = 4;
  const hn::CappedTag<float, 1> d;
  using Vec = hn::Vec<decltype(d)>;
  for (int64_t r = begin; r < end; ++r) {
    int64_t k = starts[r];
    const int64_t stop = starts[r + 1];
    Vec sum[kSums] = {hn::Set(d, bias ? bias[r] : 0.0f), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    const auto add = [&](int64_t at, Vec& to)
                         HWY_ATTR { to = hn::MulAdd(hn::LoadU(d, values + at), hn::LoadU(d, x + columns[at]), to); };
    for (; k + kSums <= stop; k += kSums) {
#pragma GCC unroll 4
      for (int s = 0; s < kSums; ++s) add(k + s, sum[s]);
    }
    for (; k < stop; ++k) add(k, sum[0]);
    y[r] = hn::GetLane(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
  }
}

// ---- blocks, one position. Vectors of W lanes hold W / R columns of R outputs, or W of a column's R outputs.
template <int W, int R>
HWY_NOINLINE void block_rows(const int32_t* starts, const int32_t* columns, const float* values, int64_t width,
                             int64_t outs, int64_t begin, int64_t end, const float* x, const float* bias, float* y) {
  const hn::CappedTag<float, W> d;
  using Vec = hn::Vec<decltype(d)>;
  constexpr int kColumns = R < W ? W / R : 1, kVectors = R < W ? 1 : R / W, kSums = sums_for(kVectors);
  HWY_ALIGN int32_t pattern[W];
  for (int l = 0; l < W; ++l) pattern[l] = l / R;
  const auto shift = static_cast<int>(hwy::Num0BitsBelowLS1Bit_Nonzero64(static_cast<uint64_t>(width)));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = starts[i] << shift, stop = static_cast<int64_t>(starts[i + 1]) << shift;
    Vec acc[kSums][kVectors];
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[s][v] = hn::Zero(d);
    }
    const auto add = [&](int64_t k, Vec(&sum)[kVectors]) HWY_ATTR {  // column k of the block row
      const float* from = x + (static_cast<int64_t>(columns[k >> shift]) << shift) + (k & (width - 1));
      Vec in;
      if constexpr (R == 1) {
        in = hn::LoadU(d, from);
      } else if constexpr (R < W) {
        in = hn::TableLookupLanes(hn::LoadU(d, from), hn::SetTableIndices(d, pattern));
      } else {
        in = hn::Set(d, *from);
      }
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[v] = hn::MulAdd(hn::LoadU(d, values + k * R + v * W), in, sum[v]);
    };
    int64_t k = first;
    for (; k + kSums * kColumns <= stop; k += kSums * kColumns) {
#pragma GCC unroll 8
      for (int s = 0; s < kSums; ++s) add(k + s * kColumns, acc[s]);
    }
    for (; k < stop; k += kColumns) add(k, acc[0]);
    HWY_ALIGN float sums[R < W ? W : R];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      Vec sum = acc[0][v];
#pragma GCC unroll 8
      for (int s = 1; s < kSums; ++s) sum = hn::Add(sum, acc[s][v]);
      hn::StoreU(sum, d, sums + v * W);
    }
    const int64_t o = i * R, n = std::min<int64_t>(R, outs - o);
    for (int64_t r = 0; r < n; ++r) {
      float sum = bias ? bias[o + r] : 0.0f;
      for (int c = 0; c < kColumns; ++c) sum += sums[c * R + r];
      y[o + r] = sum;
    }
  }
}

template <int R = 16, int W = kLanes, class... Args>
HWY_INLINE void block_dispatch(int64_t height, int64_t width, Args... args) {
  if constexpr (R > 1) {
    if (height < R) return block_dispatch<R / 2, W>(height, width, args...);
  }
  if constexpr (W > R) {
    if (width * R < W) return block_dispatch<R, W / 2>(height, width, args...);
  }
  block_rows<W, R>(args...);
}
void block_dot(const int32_t* starts, const int32_t* columns, const float* values, int64_t height, int64_t width,
               int64_t outs, int64_t begin, int64_t end, const float* x, const float* bias, float* y) {
  block_dispatch(height, width, starts, columns, values, width, outs, begin, end, x, bias, y);
}

// ---- N:M, one position. Each lane is an output: it picks its x among the M of a group by its position.
// The x of one vector of lanes; `word` has the positions of lanes from `lane` on.
constexpr int kBlockVectors = kInterleave / kLanes;

template <int M> struct Positions {
  static constexpr int kBits = M <= 4 ? 2 : 4, kPerWord = 32 / kBits, kWords = static_cast<int>(kInterleave) / kPerWord;
  static_assert(kWords == (M <= 4 ? 1 : 2));

  // Of lanes [v·kLanes, (v + 1)·kLanes) of a block, from its words.
  static HWY_INLINE hn::Vec<DI> get(const int32_t* words, int v) {
    const DI di;
    const DU du;
    const auto mask = hn::Set(di, M - 1);
    const int lane = v * kLanes;
    hn::Vec<DU> word = hn::Set(du, static_cast<uint32_t>(words[lane / kPerWord]));
#if HWY_TARGET != HWY_SCALAR
    if constexpr (kLanes > kPerWord)
      word = hn::ConcatLowerLower(du, hn::Set(du, static_cast<uint32_t>(words[1])), word);
#endif
    const auto iota = hn::And(hn::Iota(du, static_cast<uint32_t>(lane)), hn::Set(du, kPerWord - 1));
    const auto shift = hn::ShiftLeft < kBits == 2 ? 1 : 2 > (iota);
    return hn::And(hn::BitCast(di, hn::Shr(word, shift)), mask);
  }
};

template <int M> HWY_INLINE V pick(const float* x, hn::Vec<DI> position) {
  const D d;
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, x[hn::GetLane(position)]);
#else
  if constexpr (M > kLanes) {
    static_assert(M <= 2 * kLanes);
    const DI di;
    const auto low = hn::And(position, hn::Set(di, kLanes - 1));
    const auto upper = hn::RebindMask(d, hn::Ne(low, position));
    const auto index = hn::IndicesFromVec(d, low);
    return hn::IfThenElse(upper, hn::TableLookupLanes(hn::LoadU(d, x + kLanes), index),
                          hn::TableLookupLanes(hn::LoadU(d, x), index));
  } else {
    return hn::TableLookupLanes(hn::LoadU(d, x), hn::IndicesFromVec(d, position));
  }
#endif
}

// `Blocks` blocks of kInterleave outputs at once.
template <int M, int Blocks>
HWY_NOINLINE void n_m_blocks(const NMRows& rows, int64_t block, const float* x, const float* bias, float* y) {
  using P = Positions<M>;
  const D d;
  V acc[Blocks][kBlockVectors];
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kBlockVectors; ++v) acc[b][v] = hn::Zero(d);
  }
  const int64_t per_block = rows.groups * rows.n;
  const float* w = rows.values + block * per_block * kInterleave;
  const int32_t* words = rows.positions + block * per_block * P::kWords;
  for (int64_t g = 0; g < rows.groups; ++g) {
    for (int64_t n = 0; n < rows.n; ++n, w += kInterleave, words += P::kWords) {
#pragma GCC unroll 8
      for (int b = 0; b < Blocks; ++b) {
#pragma GCC unroll 16
        for (int v = 0; v < kBlockVectors; ++v) {
          const V in = pick<M>(x + g * M, P::get(words + b * per_block * P::kWords, v));
          acc[b][v] = hn::MulAdd(hn::LoadU(d, w + b * per_block * kInterleave + v * kLanes), in, acc[b][v]);
        }
      }
    }
  }
  for (int b = 0; b < Blocks; ++b) {
    HWY_ALIGN float sums[kInterleave];
    for (int v = 0; v < kBlockVectors; ++v) hn::Store(acc[b][v], d, sums + v * kLanes);
    const int64_t o = (block + b) * kInterleave, outs = std::min(kInterleave, rows.outs - o);
    for (int64_t l = 0; l < outs; ++l) y[o + l] = (bias ? bias[o + l] : 0.0f) + sums[l];
  }
}

template <int M> void n_m_columns_of(const NMRows& rows, int32_t scale, int32_t* columns) {
  using P = Positions<M>;
  const DI di;
  const auto scales = hn::Set(di, scale);
  const int32_t* words = rows.positions;
  const int64_t blocks = (rows.outs + kInterleave - 1) / kInterleave;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t g = 0; g < rows.groups; ++g) {
      const auto first = hn::Set(di, static_cast<int32_t>(g * M));
      for (int64_t i = 0; i < rows.n; ++i, words += P::kWords, columns += kInterleave)
        for (int v = 0; v < kBlockVectors; ++v)
          hn::StoreU(hn::Mul(hn::Add(P::get(words, v), first), scales), di, columns + v * kLanes);
    }
}
void n_m_columns(const NMRows& rows, int32_t scale, int32_t* columns) {
  if (rows.m == 2) return n_m_columns_of<2>(rows, scale, columns);
  if (rows.m == 4) return n_m_columns_of<4>(rows, scale, columns);
  n_m_columns_of<8>(rows, scale, columns);
}

template <int M>
void n_m_all(const NMRows& rows, int64_t begin, int64_t end, const float* x, const float* bias, float* y) {
  constexpr int kBlocks = kBlockVectors == 1 ? 4 : 2;
  for (; begin + kBlocks <= end; begin += kBlocks) n_m_blocks<M, kBlocks>(rows, begin, x, bias, y);
  for (; begin < end; ++begin) n_m_blocks<M, 1>(rows, begin, x, bias, y);
}
void n_m_dot(const NMRows& rows, int64_t begin, int64_t end, const float* x, const float* bias, float* y) {
  if (rows.m == 2) return n_m_all<2>(rows, begin, end, x, bias, y);
  if (rows.m == 4) return n_m_all<4>(rows, begin, end, x, bias, y);
  n_m_all<8>(rows, begin, end, x, bias, y);
}

}  // namespace

const SparseKernels* sparse_table() {
  static constexpr SparseKernels table = {kLanes,  transpose, copy_rows,   all_below, panel,
                                          csr_dot, block_dot, n_m_columns, n_m_dot};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::simd {
HWY_EXPORT(sparse_table);
const SparseKernels& sparse_kernels() { return *HWY_DYNAMIC_DISPATCH(sparse_table)(); }
}  // namespace hone::simd
#endif
