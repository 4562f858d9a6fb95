#pragma once
// The ops that the engine itself needs; all others live in hone/ops/.

#include "hone/core/op.h"
#include "hone/core/parameter.h"

namespace hone {

extern const OpDef kAlias;       // same storage, a graph node of its own
extern const OpDef kCast;        // attributes: dtype; always a new contiguous tensor
extern const OpDef kAccumulate;  // a + b, same shape and dtype: sums gradients
extern const OpDef kMasked;      // x, mask (bool, x's shape) → x where mask, else 0: what masked Parameters are

/// The same values in `dtype`, as a new contiguous tensor; differentiable between floating dtypes.
/// Floating to integer truncates towards zero; to bool, non-zero is true.
Tensor cast(const Tensor& x, DType dtype);
/// A contiguous copy, differentiable.
Tensor clone(const Tensor& x);
/// x itself where it is contiguous, else a contiguous copy.
Tensor contiguous(const Tensor& x);
/// On `device`; x itself where it is there already. DeviceError where the device is not usable.
Tensor to(const Tensor& x, Device device);

/// x ⊙ mask, with 0 (never NaN) where the mask is false. mask: bool, x's shape. Its gradient is as `gradient` says; any
/// order of derivative. ShapeError, DTypeError.
Tensor masked(const Tensor& x, const Tensor& mask, MaskGradient gradient = MaskGradient::masked);

namespace detail {
/// Copies between strided arrays of one shape on one device, converting dtype. No broadcast except by stride 0 in
/// `from`. On CUDA `to` must be contiguous (DeviceError).
void copy_strided(const View& from, const View& to);
/// `value` is one that `dtype` can hold: any for floating ones; an integer in range for integer ones and bool, else
/// DTypeError (not integral) or ValueError (out of range) naming `op`.
void check_scalar(const char* op, double value, DType dtype);
/// The widest range around 0 in which `dtype` holds every integer.
struct IntegerRange {
  int64_t low, high;  ///< both included
};
IntegerRange exact_integers(DType dtype);
/// into += from, elementwise: contiguous, one shape and dtype, CPU.
void accumulate_into(const View& from, const View& into);
/// Contiguous, one shape and dtype; at least one side on CUDA.
void copy_between_devices(const Tensor& from, const Tensor& to);
}  // namespace detail

}  // namespace hone
