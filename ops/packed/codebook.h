#pragma once
// Weights in few values, as codes: a byte a weight at run time, in the order of panels.h.
//
//   CodebookMatrix w = CodebookMatrix::pack(fc1.weight.value());      // after share_weights, or quantized
//   Tensor y = codebook_linear(x, w, bias, Activation::relu);         // = panel_linear by the same weight, to the bit
//
// Kernels look some codes up where they multiply: what is read from memory is a quarter of the floats.

#include "hone/ops/fused.h"

namespace hone {

struct CodebookMatrix {
  Tensor codes;      ///< u8, one dim: panels as of PanelMatrix, with codes in the values' places
  Tensor centroids;  ///< f32, [1 to 256]; any values, NaN too
  Shape shape;       ///< of the dense weight
  int64_t groups = 1;

  /// The weight centroids[codes]. codes: u8, 2 or 4 dims, groups dividing the outputs, each below the count of
  /// centroids. ShapeError, DTypeError, ValueError.
  static CodebookMatrix pack(const Tensor& codes, const Tensor& centroids, int64_t groups = 1);
  /// A weight of at most 256 distinct values, told apart by their bits: f32, shapes as above. Centroids lie in the
  /// order in which the weight names them. ShapeError, DTypeError, ValueError.
  static CodebookMatrix pack(const Tensor& weight, int64_t groups = 1);
  Tensor dense() const;  ///< f32; throws what check() throws
  /// FormatError unless all of that holds. The ops check what they need to stay within their tensors.
  void check() const;
};

extern const OpDef kCodebookLinear, kCodebookConv2d;

/// panel_linear() by the weight that the codes stand for: the same bits. x [..., in] f32. For inference: not
/// differentiable. ShapeError, DTypeError; ValueError, also for a code beyond the centroids.
Tensor codebook_linear(const Tensor& x, const CodebookMatrix& weight, const Tensor& bias = {},
                       ActivationAttrs activation = {});

/// panel_conv2d() by it, groups included: the same bits. x [N, C, H, W] f32. Throws as codebook_linear.
Tensor codebook_conv2d(const Tensor& x, const CodebookMatrix& weight, const Tensor& bias = {},
                       const FusedConv2dOptions& options = {});

}  // namespace hone
