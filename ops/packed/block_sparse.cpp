#include "hone/ops/packed/block_sparse.h"

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

bool is_side(int64_t n) { return n >= 1 && n <= 16 && (n & (n - 1)) == 0; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_weight(const ShapeContext& c, const SparseAttrs& a) {
  check_inputs(c, 4, 5);
  detail::check_sparse_size(c.op, a);
  detail::check_sparse_input(c, kValues, f32, 3, "values");
  detail::check_sparse_input(c, kColumns, i32, 1, "columns");
  detail::check_sparse_input(c, kStarts, i32, 1, "row_starts");
  const Shape values = c.shape(kValues);
  HONE_CHECK(is_side(values[1]) && is_side(values[2]), ShapeError, c.op, ": values ", values,
             ": blocks must have 1, 2, 4, 8 or 16 rows and columns");
  HONE_CHECK(c.shape(kColumns)[0] == values[0], ShapeError, c.op, ": ", values[0], " blocks have ",
             c.shape(kColumns)[0], " columns");
  const int64_t lists = ceil_div(a.rows, values[2]);
  HONE_CHECK(c.shape(kStarts)[0] == lists + 1, ShapeError, c.op, ": row_starts ", c.shape(kStarts), " of ", lists,
             " block rows must have shape [", lists + 1, "]");
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
  const int64_t height = c.shape(kValues)[2], groups = a.fused.conv.groups, group = a.weight.rows / groups;
  HONE_CHECK(groups == 1 || group % height == 0, ShapeError, c.op, ": blocks of ", height, " rows straddle groups of ",
             group, " output channels");
}

struct Blocks final : detail::SparseWeight {
  const int32_t* starts;
  const int32_t* columns;
  int64_t blocks, width;

  Blocks(RunContext& c, const SparseAttrs& a)
      : starts(detail::contiguous_input<int32_t>(c.in[kStarts], c.workspace)),
        columns(detail::contiguous_input<int32_t>(c.in[kColumns], c.workspace)),
        blocks(c.in[kValues].sizes[0]),
        width(c.in[kValues].sizes[1]) {
    op = c.op;
    const int64_t height = c.in[kValues].sizes[2], lists = ceil_div(a.rows, height), across = ceil_div(a.cols, width);
    const int32_t* const taps_starts = c.workspace.once<int32_t>(lists + 1, [&](int32_t* to) {
      detail::check_starts(op, starts, lists, blocks);
      detail::check_columns(op, columns, blocks, across);
      for (int64_t i = 0; i <= lists; ++i) to[i] = starts[i] * static_cast<int32_t>(width);
    });
    rows = {.values = detail::contiguous_input<float>(c.in[kValues], c.workspace),
            .offsets = nullptr,
            .starts = taps_starts,
            .count = 0,
            .stride = 0,
            .outs = a.rows,
            .height = height};
    taps = blocks * width, cols = across * width, unit = height, panel_batch = height >= 8 ? 12 : 5;
  }
  void fill(const detail::TapMap& map, int32_t* offsets) const override {
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t j = 0; j < width; ++j) *offsets++ = map[columns[b] * width + j];
  }
  void one(int64_t begin, int64_t end, const float* x, const float* bias, float* y) const override {
    simd::sparse_kernels().block_dot(starts, columns, rows.values, rows.height, width, rows.outs, begin, end, x, bias,
                                     y);
  }
};

void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseLinearAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_linear_run(c, Blocks(c, a.weight), a.activation, kBias);
}
void conv2d_run(RunContext& c) {
  const auto& a = c.attrs.as<SparseConvAttrs>();
  if (c.out[0].numel() > 0) detail::sparse_conv2d_run(c, Blocks(c, a.weight), a, kBias);
}

}  // namespace

const OpDef kBlockSparseLinear = {.name = "block_sparse_linear",
                                  .attributes = attributes<SparseLinearAttrs>(),
                                  .shapes = linear_shapes,
                                  .run = linear_run,
                                  .not_differentiable = detail::kInferenceOnly,
                                  .macs = detail::sparse_linear_macs};
const OpDef kBlockSparseConv2d = {.name = "block_sparse_conv2d",
                                  .attributes = attributes<SparseConvAttrs>(),
                                  .shapes = conv2d_shapes,
                                  .run = conv2d_run,
                                  .not_differentiable = detail::kInferenceOnly,
                                  .macs = detail::sparse_conv2d_macs};

BlockSparseMatrix BlockSparseMatrix::pack(const Tensor& weight, int64_t height, int64_t width, const Tensor& mask) {
  constexpr const char* what = "BlockSparseMatrix::pack";
  HONE_CHECK(is_side(height) && is_side(width), ValueError, what, ": a block of ", height, "x", width,
             "; each side must be 1, 2, 4, 8 or 16");
  const detail::DenseSource w(what, weight, mask);
  std::vector<float> values, block(static_cast<size_t>(height * width));
  std::vector<int32_t> columns, starts = {0};
  for (int64_t i = 0; i < w.rows; i += height) {
    for (int64_t j = 0; j < w.cols; j += width) {
      bool any = false;
      for (int64_t c = 0; c < width; ++c)
        for (int64_t r = 0; r < height; ++r) {
          const float v = w.at(i + r, j + c);
          block[static_cast<size_t>(c * height + r)] = v;
          any |= v != 0;
        }
      if (!any) continue;
      values.insert(values.end(), block.begin(), block.end());
      columns.push_back(static_cast<int32_t>(j / width));
    }
    starts.push_back(static_cast<int32_t>(columns.size()));
  }
  HONE_CHECK(values.size() < size_t{1} << 31, ValueError, what, ": blocks with padding pass 2^31 values");
  return {tensor(values, {static_cast<int64_t>(columns.size()), width, height}), tensor(columns), tensor(starts),
          w.rows, w.cols};
}

Tensor BlockSparseMatrix::dense() const { return detail::dense_of(*this); }

void BlockSparseMatrix::check() const {
  constexpr const char* what = "BlockSparseMatrix";
  detail::check_size(what, rows, cols);
  HONE_CHECK(values.defined() && values.ndim() == 3 && is_side(height()) && is_side(width()), FormatError, what,
             ": values must have shape [blocks, width, height], with sides of 1, 2, 4, 8 or 16");
  detail::check_stored(what, "values", values, f32, values.shape());
  detail::check_stored(what, "columns", columns, i32, {blocks()});
  detail::check_stored(what, "row_starts", row_starts, i32, {ceil_div(rows, height()) + 1});
  detail::check_lists(what, row_starts, columns, ceil_div(cols, width()));
  int64_t used = 0;
  each([&](int64_t, int64_t, float v) { used += v != 0; });
  detail::check_padding(what, values, used);
}

Tensor block_sparse_linear(const Tensor& x, const BlockSparseMatrix& w, const Tensor& bias,
                           ActivationAttrs activation) {
  return apply(kBlockSparseLinear, SparseLinearAttrs{{w.rows, w.cols}, activation},
               {x, w.values, w.columns, w.row_starts, bias});
}
Tensor block_sparse_conv2d(const Tensor& x, const BlockSparseMatrix& w, const Shape& kernel, const Tensor& bias,
                           const FusedConv2dOptions& options) {
  const SparseConvAttrs a = detail::sparse_conv_attrs("block_sparse_conv2d", kernel, options, {w.rows, w.cols});
  return apply(kBlockSparseConv2d, a, {x, w.values, w.columns, w.row_starts, bias});
}

}  // namespace hone
