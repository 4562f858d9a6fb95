#pragma once
// Products with what follows them as one op: convolution, activation and max pooling; linear layer and activation.
// graph::fuse puts them in place of the ops they stand for. They train: their backward is that of those ops.

#include <optional>

#include "hone/ops/conv.h"
#include "hone/ops/elementwise.h"
#include "hone/ops/pool.h"

namespace hone {

/// The functions of ops/unary.h that fused ops know. The numbers stand in files.
enum class Activation : int64_t { none, relu, leaky_relu, clamp, tanh, sigmoid, gelu, gelu_tanh, silu };

/// As attributes. a and b: leaky_relu's slope; clamp's low and high; else unused.
struct ActivationAttrs {
  int64_t kind = 0;
  double a = 0, b = 0;
  ActivationAttrs() = default;
  ActivationAttrs(Activation k, double first = 0, double second = 0)
      : kind(static_cast<int64_t>(k)), a(first), b(second) {}
  Activation activation() const { return static_cast<Activation>(kind); }
  void fields(FieldVisitor& v) { v("activation", kind), v("activation_a", a), v("activation_b", b); }
};

/// Max pooling after a convolution; kernel 0: none.
struct FusedPoolAttrs {
  int64_t kernel_h = 0, kernel_w = 0, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  bool present() const { return kernel_h != 0 || kernel_w != 0; }
  void fields(FieldVisitor& v) {
    v("pool_kernel_h", kernel_h), v("pool_kernel_w", kernel_w), v("pool_stride_h", stride_h);
    v("pool_stride_w", stride_w), v("pool_pad_h", pad_h), v("pool_pad_w", pad_w);
  }
};

struct FusedConvAttrs {
  ConvAttrs conv;
  ActivationAttrs activation;
  FusedPoolAttrs pool;
  void fields(FieldVisitor& v) { conv.fields(v), activation.fields(v), pool.fields(v); }
};

struct FusedConv2dOptions {
  Conv2dOptions conv = {};
  ActivationAttrs activation = {};
  Shape pool = {};  ///< kernel of max pooling; empty: none
  MaxPool2dOptions pool_options = {};
};

extern const OpDef kConv2dFused, kLinearFused;

/// max_pool2d(activation(conv2d(x, weight, bias)), pool): the same bits as the three ops, in every dtype. Twice
/// differentiable. Throws what they throw; ValueError for a dilated pool or an activation that is none of the above.
Tensor conv2d_fused(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                    const FusedConv2dOptions& options = {});

/// activation(linear(x, weight, bias)): the same bits as the two ops. Twice differentiable. Throws what they throw.
Tensor linear_fused(const Tensor& x, const Tensor& weight, const Tensor& bias, ActivationAttrs activation = {});

namespace detail {

/// The activation that an op with these attributes is; nullopt where it is none of them.
std::optional<ActivationAttrs> activation_of(const OpDef& op, const Attrs& attrs);
/// Its kernel; nullptr for none.
ElementwiseKernel activation_kernel(const ActivationAttrs& a, DType compute);
/// ValueError for one that is not there, DTypeError and ValueError as its op.
void check_activation(const ShapeContext& c, const ActivationAttrs& a);

FusedConvAttrs fused_conv_attrs(const char* op, const FusedConv2dOptions& options);
PoolAttrs pool_attrs(const FusedPoolAttrs& a);
/// Checks what follows a convolution whose output has shape y, and adds the fused op's output.
void add_fused_output(ShapeContext& c, const FusedConvAttrs& a, const Shape& y);
/// Checks conv2d's inputs `in` and what follows; returns conv2d's output shape and adds the fused op's output.
Shape fused_conv_shapes(ShapeContext& c, const FusedConvAttrs& a, std::span<const View> in);

}  // namespace detail
}  // namespace hone
