#include "hone/ops/packed/n_m.h"

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/packed/packing.h"
#include "hone/ops/packed/sparse_run.h"

namespace hone {
namespace {

using detail::SparseAttrs;
using detail::SparseConvAttrs;
using detail::SparseLinearAttrs;
using simd::kInterleave;

// Inputs of both ops.
enum { kX, kValues, kPositions, kBias };

bool is_group(int64_t m) { return m == 2 || m == 4 || m == 8; }
int64_t words_of(int64_t m) { return m <= 4 ? 1 : 2; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of the tensor of values.
Shape values_shape(int64_t rows, int64_t cols, int64_t n, int64_t m) {
  return {ceil_div(rows, kInterleave), ceil_div(cols, m), n, kInterleave};
}
Shape positions_shape(Shape values, int64_t m) {
  values[3] = words_of(m);
  return values;
}

void check_weight(const ShapeContext& c, const SparseAttrs& a) {
  check_inputs(c, 3, 4);
  detail::check_sparse_size(c.op, a);
  HONE_CHECK(is_group(a.m), ValueError, c.op, ": groups of ", a.m, "; m must be 2, 4 or 8");
  detail::check_sparse_input(c, kValues, f32, 4, "values");
  detail::check_sparse_input(c, kPositions, i32, 4, "positions");
  const Shape values = c.shape(kValues), wanted = values_shape(a.rows, a.cols, values[2], a.m);
  HONE_CHECK(values == wanted && values[2] >= 1 && values[2] <= a.m, ShapeError, c.op, ": values ", values,
             " must have shape ", wanted, " with n from 1 to ", a.m);
  HONE_CHECK(c.shape(kPositions) == positions_shape(values, a.m), ShapeError, c.op, ": positions ", c.shape(kPositions),
             " must have shape ", positions_shape(values, a.m));
}
void linear_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<SparseLinearAttrs>();
  check_weight(c, a.weight);
  detail::sparse_linear_shapes(c, a, kBias);
}
void conv2d_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<SparseConvAttrs>();
  check_weight(c, a.weight);
  detail::sparse_conv2d_shapes(c, a, kBias);
}

struct NM final : detail::SparseWeight {
  simd::NMRows weights;

  NM(RunContext& c, const SparseAttrs& a) {
    const View& v = c.in[kValues];
    op = c.op;
    weights = {.values = detail::contiguous_input<float>(v, c.workspace),
               .positions = detail::contiguous_input<int32_t>(c.in[kPositions], c.workspace),
               .groups = v.sizes[1],
               .n = v.sizes[2],
               .m = a.m,
               .outs = a.rows};
    rows = {.values = weights.values,
            .offsets = nullptr,
            .starts = nullptr,
            .count = weights.groups * weights.n,
            .stride = weights.groups * weights.n,
            .outs = a.rows,
            .height = 1};
    taps = v.numel(), cols = weights.groups * a.m, unit = kInterleave, panel_batch = 16;
  }
  void fill(const detail::TapMap& map, int32_t* offsets) const override {
    simd::sparse_kernels().n_m_columns(weights, map.table ? 1 : map.scale, offsets);
    for (int64_t t = 0; map.table && t < taps; ++t) offsets[t] = map[offsets[t]];
  }
  void one(int64_t begin, int64_t end, const float* x, const float* bias, float* y) const override {
    simd::sparse_kernels().n_m_dot(weights, begin, end, x, bias, y);
  }
};

void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseLinearAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_linear_run(c, NM(c, a.weight), a.activation, kBias);
}
void conv2d_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseConvAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_conv2d_run(c, NM(c, a.weight), a, kBias);
}

}  // namespace

const OpDef kNMLinear = {.name = "n_m_linear",
                         .attributes = attributes<SparseLinearAttrs>(),
                         .shapes = linear_shapes,
                         .run = linear_run,
                         .not_differentiable = detail::kInferenceOnly,
                         .macs = detail::sparse_linear_macs};
const OpDef kNMConv2d = {.name = "n_m_conv2d",
                         .attributes = attributes<SparseConvAttrs>(),
                         .shapes = conv2d_shapes,
                         .run = conv2d_run,
                         .not_differentiable = detail::kInferenceOnly,
                         .macs = detail::sparse_conv2d_macs};

NMMatrix NMMatrix::pack(const Tensor& weight, int64_t n, int64_t m, const Tensor& mask) {
  constexpr const char* what = "NMMatrix::pack";
  HONE_CHECK(is_group(m) && n >= 1 && n <= m, ValueError, what, ": ", n, ":", m,
             "; m must be 2, 4 or 8, n from 1 to m");
  const detail::DenseSource w(what, weight, mask);
  const Shape shape = values_shape(w.rows, w.cols, n, m);
  const int64_t words = words_of(m), per_word = kInterleave / words, bits = 32 / per_word;
  Tensor values = zeros(shape), positions = zeros(positions_shape(shape, m), i32);
  float* const v = values.data<float>();
  int32_t* const p = positions.data<int32_t>();
  for (int64_t row = 0; row < w.rows; ++row) {
    const int64_t lane = row % kInterleave;
    for (int64_t g = 0; g < shape[1]; ++g) {
      int64_t place = (row / kInterleave * shape[1] + g) * n, used = 0;
      for (int64_t j = 0; j < m; ++j) {
        const float value = w.at(row, g * m + j);
        if (value == 0) continue;
        HONE_CHECK(++used <= n, ValueError, what, ": row ", row, " has more than ", n, " nonzeros in columns [", g * m,
                   ", ", (g + 1) * m, ")");
        v[place * kInterleave + lane] = value;
        int32_t* const at = p + place * words + lane / per_word;
        *at = static_cast<int32_t>(static_cast<uint32_t>(*at) | static_cast<uint32_t>(j) << (lane % per_word * bits));
        ++place;
      }
    }
  }
  return {values, positions, w.rows, w.cols, m};
}

Tensor NMMatrix::dense() const { return detail::dense_of(*this); }

void NMMatrix::check() const {
  constexpr const char* what = "NMMatrix";
  detail::check_size(what, rows, cols);
  HONE_CHECK(is_group(m), FormatError, what, ": groups of ", m, "; m must be 2, 4 or 8");
  HONE_CHECK(values.defined() && values.ndim() == 4 && n() >= 1 && n() <= m, FormatError, what,
             ": values must have shape [blocks, groups, n, 16] with n from 1 to ", m);
  const Shape shape = values_shape(rows, cols, n(), m);
  detail::check_stored(what, "values", values, f32, shape);
  detail::check_stored(what, "positions", positions, i32, positions_shape(shape, m));
  int64_t used = 0, row = -1, least = 0;
  each([&](int64_t r, int64_t column, float) {
    if (r != row) row = r, least = 0;
    HONE_CHECK(column >= least && column < cols, FormatError, what, ": column ", column, " of row ", r, " is outside [",
               least, ", ", cols, ")");
    least = column + 1;
    ++used;
  });
  detail::check_padding(what, values, used);
}

Tensor n_m_linear(const Tensor& x, const NMMatrix& w, const Tensor& bias, ActivationAttrs activation) {
  return apply(kNMLinear, SparseLinearAttrs{{w.rows, w.cols, w.m}, activation}, {x, w.values, w.positions, bias});
}
Tensor n_m_conv2d(const Tensor& x, const NMMatrix& w, const Shape& kernel, const Tensor& bias,
                  const FusedConv2dOptions& options) {
  const SparseConvAttrs a = detail::sparse_conv_attrs("n_m_conv2d", kernel, options, {w.rows, w.cols, w.m});
  return apply(kNMConv2d, a, {x, w.values, w.positions, bias});
}

}  // namespace hone
