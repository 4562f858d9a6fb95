#include "hone/ops/elementwise.h"

#include <algorithm>
#include <cstring>

#include "hone/core/error.h"
#include "hone/core/parallel.h"

namespace hone {
namespace {

constexpr int64_t kChunk = 2048;     // elements per kernel call where a buffer is between: 16 KiB at most, stays in L1
constexpr int64_t kGrain = 1 << 15;  // elements per parallel piece: fixed, so that the split depends on size alone
constexpr int64_t kLongRow = 256;    // rows at least this long are walked one by one, without copying unit-stride ones

/// out's dims, with those merged that every operand walks as one; innermost last.
struct Grid {
  int ndim = 0;
  int64_t sizes[View::kDims];
};

/// Writes elements [begin, begin + n) of the row-major walk over the grid to `to`, contiguous and converted.
using Gather = void (*)(const void* from, const int64_t* strides, const Grid& grid, int64_t begin, int64_t n, void* to);

struct Operand {
  const std::byte* data = nullptr;
  int64_t strides[View::kDims] = {};
  int64_t size = 0;     ///< bytes per element
  int64_t to_size = 0;  ///< and as the kernel reads it
  bool converts = false, dense = false, uniform = false;
  Gather gather = nullptr;

  const std::byte* at(const Grid& grid, int64_t linear) const {
    int64_t offset = 0;
    for (int d = grid.ndim - 1; d >= 0; --d) {
      offset += linear % grid.sizes[d] * strides[d];
      linear /= grid.sizes[d];
    }
    return data + offset * size;
  }
};

template <class From, class To> void convert_row(const From* from, int64_t stride, int64_t n, To* to) {
  if (stride == 0) {
    std::fill_n(to, n, static_cast<To>(*from));
  } else if (stride == 1) {
    if constexpr (std::is_same_v<From, To>) {
      // Short rows are common (small inner dims); a call to memcpy costs more than the loop there.
      if (n >= 16) {
        std::memcpy(to, from, static_cast<size_t>(n) * sizeof(To));
        return;
      }
    }
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i * stride]);
  }
}

template <class From, class To>
void gather(const void* data, const int64_t* strides, const Grid& grid, int64_t begin, int64_t n, void* out) {
  const From* from = static_cast<const From*>(data);
  To* to = static_cast<To*>(out);
  const int last = grid.ndim - 1;
  int64_t index[View::kDims], rest = begin;
  for (int d = last; d >= 0; --d) {
    index[d] = rest % grid.sizes[d];
    rest /= grid.sizes[d];
    from += index[d] * strides[d];
  }
  while (true) {
    const int64_t run = std::min(n, grid.sizes[last] - index[last]);
    convert_row(from, strides[last], run, to);
    n -= run;
    if (n == 0) return;
    to += run;
    from -= index[last] * strides[last];
    index[last] = 0;
    for (int d = last - 1; d >= 0; --d) {  // n > 0: the walk does not end here
      from += strides[d];
      if (++index[d] < grid.sizes[d]) break;
      from -= grid.sizes[d] * strides[d];
      index[d] = 0;
    }
  }
}

Gather gather_of(DType from, DType to) {
  return visit_dtype(from, [to]<class From>() -> Gather {
    return visit_dtype(to, []<class To>() -> Gather { return gather<From, To>; });
  });
}

/// Fills `grid` and the operands' strides; dims of size 1 vanish, neighbours that all operands walk as one merge.
void plan(std::span<const View> in, const View& out, Grid& grid, Operand* operands) {
  for (int d = 0; d < out.ndim; ++d) {
    if (out.sizes[d] == 1) continue;
    int64_t strides[kMaxElementwiseInputs];
    bool merges = grid.ndim > 0;
    for (size_t k = 0; k < in.size(); ++k) {
      const int at = d - (out.ndim - in[k].ndim);
      strides[k] = at < 0 || in[k].sizes[at] == 1 ? 0 : in[k].strides[at];
      merges = merges && operands[k].strides[grid.ndim - 1] == strides[k] * out.sizes[d];
    }
    if (!merges) grid.sizes[grid.ndim++] = 1;
    grid.sizes[grid.ndim - 1] *= out.sizes[d];
    for (size_t k = 0; k < in.size(); ++k) operands[k].strides[grid.ndim - 1] = strides[k];
  }
  if (grid.ndim == 0) grid.sizes[grid.ndim++] = 1;
}

}  // namespace

void elementwise(std::span<const View> in, const View& out, DType compute, DType out_compute, ElementwiseKernel kernel,
                 const double* scalars) {
  HONE_ASSERT(in.size() <= kMaxElementwiseInputs && out.is_contiguous());
  const int64_t n = out.numel();
  if (n == 0) return;

  Grid grid;
  Operand operands[kMaxElementwiseInputs];
  plan(in, out, grid, operands);
  const int inputs = static_cast<int>(in.size());
  const int64_t row = grid.sizes[grid.ndim - 1];
  bool all_direct = out.dtype == out_compute, by_rows = false;
  for (int k = 0; k < inputs; ++k) {
    Operand& o = operands[k];
    const DType to = in[k].dtype == DType::boolean ? DType::boolean : compute;
    o.data = static_cast<const std::byte*>(in[k].data);
    o.size = size_of(in[k].dtype);
    o.to_size = size_of(to);
    o.converts = to != in[k].dtype;
    o.gather = gather_of(in[k].dtype, to);
    o.dense = o.uniform = true;
    int64_t expect = 1;
    for (int d = grid.ndim - 1; d >= 0; --d) {
      o.uniform = o.uniform && (o.strides[d] == 0 || grid.sizes[d] == 1);
      o.dense = o.dense && (o.strides[d] == expect || grid.sizes[d] == 1);
      expect *= grid.sizes[d];
    }
    const bool direct = o.dense && !o.converts;
    all_direct = all_direct && direct;
    if (!direct && !o.uniform && !o.converts && row >= kLongRow) by_rows = true;
  }
  const int64_t out_size = size_of(out_compute);
  const bool out_converts = out.dtype != out_compute;
  const Gather convert_out = gather_of(out_compute, out.dtype);
  std::byte* const out_data = static_cast<std::byte*>(out.data);
  const int64_t out_element = size_of(out.dtype);

  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    const void* pointers[kMaxElementwiseInputs] = {};
    if (all_direct) {
      for (int k = 0; k < inputs; ++k) pointers[k] = operands[k].data + begin * operands[k].size;
      kernel(pointers, out_data + begin * out_size, end - begin, scalars);
      return;
    }
    alignas(64) std::byte buffers[kMaxElementwiseInputs + 1][kChunk * 8];
    for (int k = 0; k < inputs; ++k)
      if (const Operand& o = operands[k]; o.uniform && !(o.dense && !o.converts))
        o.gather(o.data, o.strides, grid, begin, std::min(kChunk, end - begin), buffers[k]);
    for (int64_t at = begin; at < end;) {
      int64_t count = std::min(kChunk, end - at);
      if (by_rows) count = std::min(count, row - at % row);
      for (int k = 0; k < inputs; ++k) {
        const Operand& o = operands[k];
        if (o.dense && !o.converts) {
          pointers[k] = o.data + at * o.size;
        } else if (o.uniform) {
          pointers[k] = buffers[k];
        } else if (by_rows && !o.converts && o.strides[grid.ndim - 1] == 1) {
          pointers[k] = o.at(grid, at);
        } else {
          o.gather(o.data, o.strides, grid, at, count, buffers[k]);
          pointers[k] = buffers[k];
        }
      }
      if (out_converts) {
        void* const scratch = buffers[kMaxElementwiseInputs];
        kernel(pointers, scratch, count, scalars);
        const Grid line{1, {count}};
        const int64_t unit = 1;
        convert_out(scratch, &unit, line, 0, count, out_data + at * out_element);
      } else {
        kernel(pointers, out_data + at * out_size, count, scalars);
      }
      at += count;
    }
  });
}

}  // namespace hone
