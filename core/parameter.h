#pragma once
// A Parameter is what training changes and compression marks: raw value, gradient, generation and weight type under
// one identity. Modules own Parameters (copying a module copies the value under a new identity); optimizers hold
// ParameterRefs to the same identity.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hone/core/tensor.h"

namespace hone {

/// How value() is made of the raw value. dense: the raw value itself; masked: raw ⊙ mask. The others are reserved:
/// value() throws ValueError.
enum class WeightType : uint8_t { dense, masked, fake_quantized, codebook };
const char* name(WeightType t);

/// The gradient that a masked parameter's raw value gets for the gradient g of raw ⊙ mask.
enum class MaskGradient : uint8_t {
  masked,  ///< g ⊙ mask: what is pruned stays as it is
  dense,   ///< g: pruned weights learn on behind their mask, so that they can come back (movement, splicing, RigL)
};

/// A parameter that kept only the indices `kept` of dimension `dim` (its other values are gone, its generation has
/// advanced): what owns state of the parameter's old shape slices it alike.
struct Shrink;

/// What identifies a Parameter.
struct ParameterState {
  Tensor raw;               ///< the leaf that optimizers change
  uint64_t generation = 0;  ///< advanced when shape, dtype or device change: stale optimizer state is noticed
  WeightType type = WeightType::dense;
  Tensor mask;  ///< of a masked parameter: bool, the raw value's shape
  MaskGradient mask_gradient = MaskGradient::masked;
};

/// Shared handle to a Parameter's identity: what module.parameters() returns and optimizers keep.
class ParameterRef {
 public:
  ParameterRef() = default;
  explicit ParameterRef(std::shared_ptr<ParameterState> s) : s_(std::move(s)) {}
  bool defined() const { return s_ != nullptr; }
  Tensor value() const;  ///< what layers compute with: the weight type applied to the raw value
  const Tensor& raw() const { return s_->raw; }
  Tensor grad() const { return s_->raw.grad(); }  ///< of the raw value
  void zero_grad() const { s_->raw.set_grad({}); }
  WeightType type() const { return s_->type; }
  uint64_t generation() const { return s_->generation; }
  /// A new raw value under the same identity, copied as Parameter(raw) says; it requires grad as the old one did and
  /// has no gradient. A new shape, dtype or device advances the generation; a mask stays (ShapeError for a new shape:
  /// shrink() slices both). DTypeError unless floating.
  void replace(Tensor raw) const;

  /// The mask of a masked parameter; undefined for a dense one.
  const Tensor& mask() const { return s_->mask; }
  MaskGradient mask_gradient() const { return s_->mask_gradient; }
  /// Makes the parameter masked: value() is raw where `mask` is true, else 0. The mask is copied; the raw value keeps
  /// what is masked. Neither identity nor generation changes: optimizer state stays. ShapeError, DTypeError (not bool),
  /// ValueError for a weight type other than dense and masked.
  void set_mask(const Tensor& mask, MaskGradient gradient = MaskGradient::masked) const;
  /// Makes a masked parameter dense again, with value() as its raw value; a dense one stays as it is.
  void bake_mask() const;
  /// Keeps the indices `kept` (ascending, at least one) of dimension `dim`, of the raw value, its gradient and its
  /// mask, and advances the generation. Hand the result to optimizer.apply(). ShapeError, ValueError.
  Shrink shrink(int64_t dim, const std::vector<int64_t>& kept) const;
  const ParameterState* id() const { return s_.get(); }
  friend bool operator==(const ParameterRef&, const ParameterRef&) = default;

 private:
  std::shared_ptr<ParameterState> s_;
};

struct Shrink {
  ParameterRef parameter;
  int64_t dim = 0;
  std::vector<int64_t> kept;
};

/// Owner of a Parameter inside a module. Copy: a new identity with copies of raw value and mask (no gradient). Move:
/// keeps it.
class Parameter {
 public:
  Parameter() = default;  ///< absent (a layer without bias)
  /// A leaf that requires grad and owns its storage: copied unless `raw` is moved in and nobody else holds it or its
  /// storage. It has no gradient. DTypeError unless floating.
  explicit Parameter(Tensor raw);
  Parameter(const Parameter& o);
  Parameter& operator=(const Parameter& o);
  /// A new identity with copies of raw value and mask, as copying the owner makes; absent where `p` is.
  static Parameter copy_of(const ParameterRef& p);
  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;
  bool defined() const { return ref_.defined(); }
  const ParameterRef& ref() const { return ref_; }
  operator const ParameterRef&() const { return ref_; }
  Tensor value() const { return ref_.value(); }  ///< undefined where absent
  const Tensor& raw() const { return ref_.raw(); }
  Tensor grad() const { return ref_.grad(); }
  const Shape& shape() const { return ref_.raw().shape(); }

 private:
  ParameterRef ref_;
};

/// State that is saved with a module but not trained (running means). Copies are deep.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Tensor t) : tensor_(std::move(t)) {}
  Buffer(const Buffer& o);
  Buffer& operator=(const Buffer& o);
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;
  bool defined() const { return tensor_.defined(); }
  Tensor& tensor() { return tensor_; }
  const Tensor& tensor() const { return tensor_; }

 private:
  Tensor tensor_;
};

}  // namespace hone
