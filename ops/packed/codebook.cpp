#include "hone/ops/packed/codebook.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <vector>

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/packed/panel_ops.h"

namespace hone {
namespace {

using simd::kMostCodes;

enum { kX, kCodes, kCentroids, kBias };  // inputs of both ops

void check_centroids(const ShapeContext& c) {
  HONE_CHECK(c.dtype(kCentroids) == f32, DTypeError, c.op, ": centroids must be f32, not ", c.dtype(kCentroids));
  check_ndim(c, kCentroids, 1, "centroids");
  const int64_t count = c.shape(kCentroids)[0];
  HONE_CHECK(count >= 1 && count <= kMostCodes, ShapeError, c.op, ": ", count, " centroids; there must be 1 to ",
             kMostCodes);
}
void linear_shapes(ShapeContext& c) {
  detail::panel_linear_shapes(c, "codes", u8, kBias);
  check_centroids(c);
}
void conv2d_shapes(ShapeContext& c) {
  detail::panel_conv2d_shapes(c, "codes", u8, kBias);
  check_centroids(c);
}

// Files may be hostile, so runs check the codes.
detail::Panels panels_of(RunContext& c) {
  const uint8_t* const codes = detail::contiguous_input<uint8_t>(c.in[kCodes], c.workspace);
  const int64_t count = c.in[kCentroids].numel();
  const float* const centroids = detail::contiguous_input<float>(c.in[kCentroids], c.workspace);
  const float* const table = c.workspace.once<float>(kMostCodes, [&](float* to) {
    if (count < kMostCodes) {
      const int64_t most = simd::largest_code(codes, c.in[kCodes].numel());
      HONE_CHECK(most < count, ValueError, c.op, ": a code is ", most, " with ", count, " centroids");
    }
    std::fill_n(to, kMostCodes, 0.0f);
    std::copy_n(centroids, count, to);
  });
  return {.codes = codes, .table = table, .used = count};
}
void linear_run(RunContext& c) {
  if (c.out[0].numel() > 0) detail::panel_linear_run(c, panels_of(c), kBias);
}
void conv2d_run(RunContext& c) {
  if (c.out[0].numel() > 0) detail::panel_conv2d_run(c, panels_of(c), kBias);
}

uint8_t largest(const Tensor& codes) {
  const Tensor c = contiguous(codes);
  return simd::largest_code(c.data<uint8_t>(), c.numel());
}

}  // namespace

const OpDef kCodebookLinear = {.name = "codebook_linear",
                               .attributes = attributes<PanelLinearAttrs>(),
                               .shapes = linear_shapes,
                               .run = linear_run,
                               .not_differentiable = detail::kPanelsAreForInference,
                               .macs = detail::panel_linear_macs};
const OpDef kCodebookConv2d = {.name = "codebook_conv2d",
                               .attributes = attributes<PanelConvAttrs>(),
                               .shapes = conv2d_shapes,
                               .run = conv2d_run,
                               .not_differentiable = detail::kPanelsAreForInference,
                               .macs = detail::panel_conv2d_macs};

CodebookMatrix CodebookMatrix::pack(const Tensor& codes, const Tensor& centroids, int64_t groups) {
  constexpr const char* what = "CodebookMatrix::pack";
  HONE_CHECK(codes.defined() && centroids.defined(), ValueError, what, ": codes and centroids must be defined");
  HONE_CHECK(codes.dtype() == u8, DTypeError, what, ": codes must be u8, not ", codes.dtype());
  HONE_CHECK(centroids.dtype() == f32, DTypeError, what, ": centroids must be f32, not ", centroids.dtype());
  detail::check_panel_weight(what, codes.shape(), groups);
  const int64_t count = centroids.numel(), most = largest(codes);
  HONE_CHECK(centroids.ndim() == 1 && count >= 1 && count <= kMostCodes, ShapeError, what, ": centroids ",
             centroids.shape(), " must have shape [1] to [", kMostCodes, "]");
  HONE_CHECK(most < count, ValueError, what, ": a code is ", most, " with ", count, " centroids");
  return {detail::to_panels<uint8_t>(codes, groups), clone(centroids.detach()), codes.shape(), groups};
}

CodebookMatrix CodebookMatrix::pack(const Tensor& weight, int64_t groups) {
  constexpr const char* what = "CodebookMatrix::pack";
  HONE_CHECK(weight.defined(), ValueError, what, ": the weight is an undefined tensor");
  HONE_CHECK(weight.dtype() == f32, DTypeError, what, ": the weight must be f32, not ", weight.dtype());
  const std::vector<float> w = weight.to_vector<float>();
  const Tensor codes = empty(weight.shape(), u8);
  std::unordered_map<uint32_t, uint8_t> code_of;
  std::vector<float> centroids;
  for (size_t i = 0; i < w.size(); ++i) {
    const auto [it, fresh] = code_of.try_emplace(std::bit_cast<uint32_t>(w[i]), static_cast<uint8_t>(centroids.size()));
    HONE_CHECK(!fresh || centroids.size() < kMostCodes, ValueError, what, ": weight ", weight.shape(),
               " has more than ", kMostCodes, " distinct values");
    if (fresh) centroids.push_back(w[i]);
    codes.data<uint8_t>()[i] = it->second;
  }
  if (centroids.empty()) centroids.push_back(0);
  return pack(codes, tensor(centroids), groups);
}

Tensor CodebookMatrix::dense() const {
  check();
  const Tensor code = detail::from_panels<uint8_t>(codes, shape, groups), dense = empty(shape);
  const std::vector<float> value = centroids.to_vector<float>();
  for (int64_t i = 0; i < code.numel(); ++i) dense.data<float>()[i] = value[code.data<uint8_t>()[i]];
  return dense;
}

void CodebookMatrix::check() const {
  constexpr const char* what = "CodebookMatrix";
  detail::check_panels(what, "codes", codes, u8, shape, groups);
  HONE_CHECK(centroids.defined() && centroids.dtype() == f32 && centroids.ndim() == 1 && centroids.numel() >= 1 &&
                 centroids.numel() <= kMostCodes,
             FormatError, what, ": centroids must be f32 of shape [1] to [", kMostCodes, "]");
  const int64_t most = largest(codes);
  HONE_CHECK(most < centroids.numel(), FormatError, what, ": a code is ", most, " with ", centroids.numel(),
             " centroids");
}

Tensor codebook_linear(const Tensor& x, const CodebookMatrix& w, const Tensor& bias, ActivationAttrs activation) {
  detail::check_linear_weight("codebook_linear", w.shape);
  return apply(kCodebookLinear, PanelLinearAttrs{w.shape[0], activation}, {x, w.codes, w.centroids, bias});
}
Tensor codebook_conv2d(const Tensor& x, const CodebookMatrix& w, const Tensor& bias,
                       const FusedConv2dOptions& options) {
  return apply(kCodebookConv2d, detail::panel_conv_attrs("codebook_conv2d", w.shape, w.groups, options),
               {x, w.codes, w.centroids, bias});
}

}  // namespace hone
