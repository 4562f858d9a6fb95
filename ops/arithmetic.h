#pragma once
// Arithmetic and comparison of tensors, with broadcasting (trailing dims equal or 1: ShapeError) and one dtype
// (DTypeError). Results are new contiguous tensors. Integers wrap on overflow.
//
// A scalar beside a tensor takes the tensor's dtype: a 0-d constant. DTypeError where an integer tensor meets a
// scalar that is not integral, ValueError where it is out of the dtype's range.

#include "hone/core/op.h"

namespace hone {

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
/// a / b; integers truncate towards zero, ValueError for an integer zero divisor.
Tensor div(const Tensor& a, const Tensor& b);
/// a^b. d/da = b·a^(b-1), 0 where b = 0 and a is 0 or NaN; d/db = a^b·ln a, 0 where a = 0 and b >= 0, NaN for a < 0.
/// Integers: ValueError for a negative power.
Tensor pow(const Tensor& a, const Tensor& b);
/// NaN where either is; equal values share the gradient, half each.
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor neg(const Tensor& x);

Tensor add(const Tensor& a, double b);
Tensor add(double a, const Tensor& b);
Tensor sub(const Tensor& a, double b);
Tensor sub(double a, const Tensor& b);
Tensor mul(const Tensor& a, double b);
Tensor mul(double a, const Tensor& b);
Tensor div(const Tensor& a, double b);
Tensor div(double a, const Tensor& b);
Tensor pow(const Tensor& a, double b);
Tensor pow(double a, const Tensor& b);
Tensor maximum(const Tensor& a, double b);
Tensor minimum(const Tensor& a, double b);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& a, double b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, double b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, double b) { return div(a, b); }
inline Tensor operator+(double a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(double a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(double a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(double a, const Tensor& b) { return div(a, b); }
inline Tensor operator-(const Tensor& x) { return neg(x); }

// Comparisons: bool; any dtype; NaN compares as IEEE has it.
Tensor eq(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, const Tensor& b);
Tensor eq(const Tensor& a, double b);
Tensor ne(const Tensor& a, double b);
Tensor lt(const Tensor& a, double b);
Tensor le(const Tensor& a, double b);
Tensor gt(const Tensor& a, double b);
Tensor ge(const Tensor& a, double b);

/// condition ? a : b, element by element; condition is bool; all three broadcast.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// x with `value` where the bool `mask`, which broadcasts to x's shape, is true.
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);
// Of bool tensors.
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& x);

namespace detail {
/// `value` as a 0-d tensor of x's dtype and device. DTypeError, ValueError as said above; `op` is named.
Tensor scalar_like(const char* op, double value, const Tensor& x);
}  // namespace detail

extern const OpDef kAdd, kSub, kMul, kDiv, kPow, kMaximum, kMinimum, kNeg, kEq, kNe, kLt, kLe, kGt, kGe, kWhere,
    kLogicalAnd, kLogicalOr, kLogicalNot;

}  // namespace hone
