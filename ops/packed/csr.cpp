#include "hone/ops/packed/csr.h"

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/packed/packing.h"
#include "hone/ops/packed/sparse_run.h"

namespace hone {
namespace {

using detail::SparseAttrs;
using detail::SparseConvAttrs;
using detail::SparseLinearAttrs;

// Inputs of both ops.
enum { kX, kValues, kColumns, kStarts, kBias };

void check_weight(const ShapeContext& c, const SparseAttrs& a) {
  check_inputs(c, 4, 5);
  detail::check_sparse_size(c.op, a);
  detail::check_sparse_input(c, kValues, f32, 1, "values");
  detail::check_sparse_input(c, kColumns, i32, 1, "columns");
  detail::check_sparse_input(c, kStarts, i32, 1, "row_starts");
  HONE_CHECK(c.shape(kColumns) == c.shape(kValues), ShapeError, c.op, ": ", c.shape(kValues), " values have ",
             c.shape(kColumns), " columns");
  HONE_CHECK(c.shape(kStarts)[0] == a.rows + 1, ShapeError, c.op, ": row_starts ", c.shape(kStarts), " of ", a.rows,
             " rows must have shape [", a.rows + 1, "]");
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

struct Csr final : detail::SparseWeight {
  const int32_t* columns;

  Csr(RunContext& c, const SparseAttrs& a) {
    op = c.op;
    taps = c.in[kValues].numel(), cols = a.cols, unit = 1, panel_batch = 3;
    columns = detail::contiguous_input<int32_t>(c.in[kColumns], c.workspace);
    const int32_t* starts = detail::contiguous_input<int32_t>(c.in[kStarts], c.workspace);
    c.workspace.once([&] {
      detail::check_starts(op, starts, a.rows, taps);
      detail::check_columns(op, columns, taps, cols);
    });
    rows = {.values = detail::contiguous_input<float>(c.in[kValues], c.workspace),
            .offsets = nullptr,
            .starts = starts,
            .count = 0,
            .stride = 0,
            .outs = a.rows,
            .height = 1};
  }
  void fill(const detail::TapMap& map, int32_t* offsets) const override {
    for (int64_t k = 0; k < taps; ++k) offsets[k] = map[columns[k]];
  }
  void one(int64_t begin, int64_t end, const float* x, const float* bias, float* y) const override {
    simd::sparse_kernels().csr_dot(rows.starts, columns, rows.values, begin, end, x, bias, y);
  }
};

void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseLinearAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_linear_run(c, Csr(c, a.weight), a.activation, kBias);
}
void conv2d_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseConvAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_conv2d_run(c, Csr(c, a.weight), a, kBias);
}

}  // namespace

const OpDef kCsrLinear = {.name = "csr_linear",
                          .attributes = attributes<SparseLinearAttrs>(),
                          .shapes = linear_shapes,
                          .run = linear_run,
                          .not_differentiable = detail::kInferenceOnly,
                          .macs = detail::sparse_linear_macs};
const OpDef kCsrConv2d = {.name = "csr_conv2d",
                          .attributes = attributes<SparseConvAttrs>(),
                          .shapes = conv2d_shapes,
                          .run = conv2d_run,
                          .not_differentiable = detail::kInferenceOnly,
                          .macs = detail::sparse_conv2d_macs};

CsrMatrix CsrMatrix::pack(const Tensor& weight, const Tensor& mask) {
  const detail::DenseSource w("CsrMatrix::pack", weight, mask);
  std::vector<float> values;
  std::vector<int32_t> columns, starts = {0};
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t j = 0; j < w.cols; ++j) {
      if (w.at(r, j) == 0) continue;
      values.push_back(w.at(r, j));
      columns.push_back(static_cast<int32_t>(j));
    }
    starts.push_back(static_cast<int32_t>(values.size()));
  }
  return {tensor(values), tensor(columns), tensor(starts), w.rows, w.cols};
}

Tensor CsrMatrix::dense() const { return detail::dense_of(*this); }

void CsrMatrix::check() const {
  constexpr const char* what = "CsrMatrix";
  detail::check_size(what, rows, cols);
  detail::check_stored(what, "values", values, f32, {stored()});
  detail::check_stored(what, "columns", columns, i32, {stored()});
  detail::check_stored(what, "row_starts", row_starts, i32, {rows + 1});
  detail::check_lists(what, row_starts, columns, cols);
}

Tensor csr_linear(const Tensor& x, const CsrMatrix& w, const Tensor& bias, ActivationAttrs activation) {
  return apply(kCsrLinear, SparseLinearAttrs{{w.rows, w.cols}, activation},
               {x, w.values, w.columns, w.row_starts, bias});
}
Tensor csr_conv2d(const Tensor& x, const CsrMatrix& w, const Shape& kernel, const Tensor& bias,
                  const FusedConv2dOptions& options) {
  const SparseConvAttrs a = detail::sparse_conv_attrs("csr_conv2d", kernel, options, {w.rows, w.cols});
  return apply(kCsrConv2d, a, {x, w.values, w.columns, w.row_starts, bias});
}

}  // namespace hone
