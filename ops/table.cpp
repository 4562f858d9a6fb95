#include "hone/ops/table.h"

#include "hone/core/basic_ops.h"
#include "hone/core/weight_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/conv.h"
#include "hone/ops/dropout.h"
#include "hone/ops/fake_quantize.h"
#include "hone/ops/fused.h"
#include "hone/ops/indexing.h"
#include "hone/ops/loss.h"
#include "hone/ops/matmul.h"
#include "hone/ops/norm.h"
#include "hone/ops/packed/block_sparse.h"
#include "hone/ops/packed/codebook.h"
#include "hone/ops/packed/codes.h"
#include "hone/ops/packed/csr.h"
#include "hone/ops/packed/int8.h"
#include "hone/ops/packed/n_m.h"
#include "hone/ops/packed/panels.h"
#include "hone/ops/pool.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

// clang-format off
constexpr const OpDef* kTable[] = {
    // core/basic_ops.h
    &kAlias, &kCast, &kAccumulate, &kMasked,
    // core/weight_ops.h
    &kCodebook, &kCodebookGrad, &kFakeQuantize, &kFakeQuantizeGrad,
    // ops/arithmetic.h
    &kAdd, &kSub, &kMul, &kDiv, &kPow, &kMaximum, &kMinimum, &kNeg, &kEq, &kNe, &kLt, &kLe, &kGt, &kGe, &kWhere,
    &kLogicalAnd, &kLogicalOr, &kLogicalNot,
    // ops/conv.h
    &kConv2d, &kConv2dInputGrad, &kConv2dWeightGrad,
    // ops/dropout.h
    &kDropout,
    // ops/fake_quantize.h
    &kStraightThrough,
    // ops/fused.h
    &kConv2dFused, &kLinearFused,
    // ops/indexing.h
    &kIndexSelect, &kIndexAdd, &kGather, &kScatterAdd, &kOneHot, &kTopk, &kSort,
    // ops/loss.h
    &kCrossEntropy, &kCrossEntropyGrad,
    // ops/matmul.h
    &kMatmul, &kLinear,
    // ops/norm.h
    &kLayerNorm, &kLayerNormGrad, &kBatchNorm, &kBatchNormGrad,
    // ops/packed/block_sparse.h, codebook.h, codes.h, csr.h, int8.h, n_m.h, panels.h
    &kInt8Quantize, &kInt8QuantizeRows, &kInt8Dequantize, &kInt8Add, &kInt8MaxPool2d, &kInt8AvgPool2d, &kInt8Lookup,
    &kInt8Linear, &kInt8Conv2d,
    &kPanelLinear, &kPanelConv2d, &kCodebookLinear, &kCodebookConv2d,
    &kBlockSparseLinear, &kBlockSparseConv2d, &kCsrLinear, &kCsrConv2d, &kNMLinear, &kNMConv2d,
    // ops/pool.h
    &kMaxPool2d, &kAdaptiveMaxPool2d, &kMaxPool2dGrad, &kMaxPool2dGather, &kAvgPool2d, &kAdaptiveAvgPool2d, &kAvgPool2dGrad,
    // ops/reduce.h
    &kSum, &kMean, &kVar, &kLogsumexp, &kMax, &kMin, &kArgmax, &kArgmin,
    // ops/shape_ops.h
    &kReshape, &kFlatten, &kPermute, &kSlice, &kSliceGrad, &kSelect, &kSqueeze, &kUnsqueeze, &kExpand, &kFlip,
    &kConcat, &kPad,
    // ops/softmax.h
    &kSoftmax, &kLogSoftmax, &kSoftmaxGrad, &kLogSoftmaxGrad,
    // ops/unary.h
    &kAbs, &kSign, &kExp, &kLog, &kSqrt, &kRsqrt, &kSquare, &kTanh, &kSigmoid, &kErf, &kRelu, &kLeakyRelu, &kGelu,
    &kGeluTanh, &kSilu, &kClamp, &kRound, &kFloor, &kCeil,
    &kAbsGrad, &kExpGrad, &kLogGrad, &kSqrtGrad, &kRsqrtGrad, &kSquareGrad, &kTanhGrad, &kSigmoidGrad, &kErfGrad,
    &kReluGrad, &kLeakyReluGrad, &kGeluGrad, &kGeluTanhGrad, &kSiluGrad, &kClampGrad,
    &kExpGradGrad, &kLogGradGrad, &kSqrtGradGrad, &kRsqrtGradGrad, &kSquareGradGrad, &kTanhGradGrad,
    &kSigmoidGradGrad, &kErfGradGrad, &kGeluGradGrad, &kGeluTanhGradGrad, &kSiluGradGrad,
};
// clang-format on

}  // namespace

std::span<const OpDef* const> op_table() { return kTable; }

const OpDef* find_op(std::string_view name) {
  for (const OpDef* op : kTable) {
    if (name == op->name) return op;
  }
  return nullptr;
}

}  // namespace hone
