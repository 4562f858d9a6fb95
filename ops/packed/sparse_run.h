#pragma once
// What the ops on sparse weights share: checks of shapes, and the way from a format's weights to its kernels.

#include <cstdint>

#include "hone/core/op.h"
#include "hone/ops/fused.h"
#include "hone/ops/packed/packing.h"
#include "hone/ops/simd/sparse_kernels.h"

namespace hone::detail {

inline constexpr const char* kInferenceOnly = "packed weights are for inference; train the dense weight with its mask";

/// The dense matrix that a sparse weight stands for; `m`: the group size of N:M weights.
struct SparseAttrs {
  int64_t rows = 0, cols = 0, m = 0;
  void fields(FieldVisitor& v) { v("rows", rows), v("cols", cols), v("m", m); }
};
struct SparseLinearAttrs {
  SparseAttrs weight;
  ActivationAttrs activation;
  void fields(FieldVisitor& v) { weight.fields(v), activation.fields(v); }
};
/// A convolution by it: size_h and size_w of `fused.conv` are the kernel's, cols = C/groups·KH·KW.
struct SparseConvAttrs {
  FusedConvAttrs fused;
  SparseAttrs weight;
  void fields(FieldVisitor& v) { fused.fields(v), weight.fields(v); }
};

SparseConvAttrs sparse_conv_attrs(const char* op, const Shape& kernel, const FusedConv2dOptions& options,
                                  const SparseAttrs& weight);

/// Describes y of the linear op: x is input 0, the bias input `bias` (may be absent). The format has checked the rest.
void sparse_linear_shapes(ShapeContext& c, const SparseLinearAttrs& a, int bias);
/// The same for the convolution.
void sparse_conv2d_shapes(ShapeContext& c, const SparseConvAttrs& a, int bias);
/// Multiply-adds by stored values, which are input 1.
int64_t sparse_linear_macs(std::span<const View> in, std::span<const View> out, const Attrs&);
int64_t sparse_conv2d_macs(std::span<const View> in, std::span<const View> out, const Attrs&);
/// ValueError for rows or cols out of range.
void check_sparse_size(const char* op, const SparseAttrs& a);
/// Input i: that dtype, that many dims, fewer than 2^31 elements.
void check_sparse_input(const ShapeContext& c, int i, DType dtype, int ndim, const char* what);

/// Places in what a panel kernel reads, by column of the weight: table[column], or column · scale.
struct TapMap {
  const int32_t* table;
  int32_t scale;
  int32_t operator[](int64_t column) const { return table ? table[column] : static_cast<int32_t>(column) * scale; }
};

/// A format's weights for one run: views of its tensors, which it has checked.
struct SparseWeight {
  const char* op;
  simd::SparseRows rows;  ///< without offsets
  int64_t taps;           ///< stored taps, for which fill() gives offsets
  int64_t cols;           ///< columns that taps may name: the weight's, or more where the format pads them
  int64_t unit;           ///< outputs that one() computes together
  int64_t panel_batch;    ///< from here on a panel is faster than one() for each x, as measured

  virtual ~SparseWeight() = default;
  /// offsets[t] = map[column of tap t].
  virtual void fill(const TapMap& map, int32_t* offsets) const = 0;
  /// y = W x + bias for one x, units [begin, end) of the outputs. x is readable for kSparseSlack past cols.
  virtual void one(int64_t begin, int64_t end, const float* x, const float* bias, float* y) const = 0;
};

/// y is not empty.
void sparse_linear_run(RunContext& c, const SparseWeight& w, const ActivationAttrs& activation, int bias);
void sparse_conv2d_run(RunContext& c, const SparseWeight& w, const SparseConvAttrs& a, int bias);

/// 0 = starts[0] <= starts[1] <= … = starts[lists] = taps and every column in [0, cols), else ValueError: what kernels
/// rely on. Files may be hostile, so runs check it.
void check_starts(const char* op, const int32_t* starts, int64_t lists, int64_t taps);
void check_columns(const char* op, const int32_t* columns, int64_t n, int64_t cols);

}  // namespace hone::detail
