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

/// How value() is made of the raw value. dense: the raw value itself; masked: raw ⊙ mask; fake_quantized:
/// fake_quantize(raw, …), whose gradient goes straight through; codebook: the raw value is a list of centroids and
/// value() centroids[codes], so that a centroid learns from the sum of its elements' gradients. The last two may have a
/// mask too: what it hides is 0, and no centroid.
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

/// The grid of a fake-quantized parameter, as fake_quantize() (weight_ops.h) takes it.
struct WeightGrid {
  Tensor scale;          ///< [L], floating: Δ of each level
  Tensor points;         ///< [L, 4], f64: shift, least code, largest code, truncate
  Tensor levels = {};    ///< the level of each element: u8, value()'s shape; undefined: one for all, or one per row
  bool learned = false;  ///< the scale is trained: give scale() of the parameter to an optimizer. Esser et al., 2020
};

/// What identifies a Parameter.
struct ParameterState {
  Tensor raw;               ///< the leaf that optimizers change; of a codebook the centroids
  uint64_t generation = 0;  ///< advanced when shape, dtype or device change: stale optimizer state is noticed
  WeightType type = WeightType::dense;
  Tensor mask;  ///< bool, value()'s shape; undefined where nothing is masked
  MaskGradient mask_gradient = MaskGradient::masked;
  Tensor codes;                           ///< of a codebook: u8, value()'s shape
  std::shared_ptr<ParameterState> scale;  ///< of a fake-quantized parameter, with the rest of its WeightGrid
  Tensor points, levels;
};

/// Shared handle to a Parameter's identity: what module.parameters() returns and optimizers keep.
class ParameterRef {
 public:
  ParameterRef() = default;
  explicit ParameterRef(std::shared_ptr<ParameterState> s) : s_(std::move(s)) {}
  bool defined() const { return s_ != nullptr; }
  Tensor value() const;  ///< what layers compute with: the weight type applied to the raw value
  const Shape& shape() const { return s_->codes.defined() ? s_->codes.shape() : s_->raw.shape(); }  ///< of value()
  const Tensor& raw() const { return s_->raw; }
  Tensor grad() const { return s_->raw.grad(); }  ///< of the raw value
  void zero_grad() const { s_->raw.set_grad({}); }
  WeightType type() const { return s_->type; }
  uint64_t generation() const { return s_->generation; }
  /// A new raw value under the same identity, copied as Parameter(raw) says; it requires grad as the old one did and
  /// has no gradient. A new shape, dtype or device advances the generation; mask, codes and grid stay (ShapeError for a
  /// new shape: shrink() slices them all). DTypeError unless floating.
  void replace(Tensor raw) const;
  /// Copies of everything that makes `from` what it is, under this identity; a new shape, dtype or device of the raw
  /// value advances the generation. It requires grad as before and has no gradient.
  void assign(const ParameterRef& from) const;
  /// Makes the parameter dense, with value() as its raw value.
  void bake() const;

  /// The mask; undefined where nothing is masked.
  const Tensor& mask() const { return s_->mask; }
  MaskGradient mask_gradient() const { return s_->mask_gradient; }
  /// Masks the parameter: value() is 0 where `mask` is false. A dense one becomes masked; the other types keep theirs.
  /// The mask is copied; the raw value keeps what is masked. Neither identity nor generation changes: optimizer state
  /// stays. ShapeError, DTypeError (not bool).
  void set_mask(const Tensor& mask, MaskGradient gradient = MaskGradient::masked) const;
  /// Takes the mask away; what it hid is 0 in the raw value. Without one nothing changes. ValueError for a codebook,
  /// whose centroids may have no 0: bake().
  void bake_mask() const;

  /// Makes the parameter a codebook: value() is centroids[codes], by the mask it may have (whose gradient rule is then
  /// `masked`). The raw value becomes the centroids, so the generation advances: make optimizers afterwards. codes: u8,
  /// value()'s shape, each below k; centroids: [k], 1 <= k <= 256, the raw value's dtype. Both are copied.
  /// ShapeError, DTypeError, ValueError (a code of k or above; a fake-quantized parameter).
  void set_codebook(const Tensor& codes, const Tensor& centroids) const;
  const Tensor& codes() const { return s_->codes; }  ///< undefined unless a codebook
  /// Makes the parameter fake-quantized, by the mask it may have; one that is so already gets a new grid, with its
  /// scale under the same identity where its shape is. The raw value, identity and generation stay. All is copied.
  /// ValueError for a codebook, and what fake_quantize() throws.
  void set_grid(const WeightGrid& grid) const;
  /// The grid of a fake-quantized parameter (scale and points are shared, not copied); ValueError for another.
  WeightGrid grid() const;
  /// The scale of a fake-quantized parameter, a parameter of its own; absent for another.
  ParameterRef scale() const { return ParameterRef(s_->scale); }

  /// Keeps the indices `kept` (ascending, at least one) of dimension `dim`, of value() and all that has its shape: the
  /// raw value (unless a codebook) and its gradient, mask, codes, levels, scales per row. Advances the generation where
  /// the raw value changes. Hand the result to optimizer.apply(); of a codebook, whose raw value stays, it names no
  /// parameter. ShapeError, ValueError.
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

/// Owner of a Parameter inside a module. Copy: a new identity with copies of all that makes the value (no gradient).
/// Move: keeps it.
class Parameter {
 public:
  Parameter() = default;  ///< absent (a layer without bias)
  /// A leaf that requires grad and owns its storage: copied unless `raw` is moved in and nobody else holds it or its
  /// storage. It has no gradient. DTypeError unless floating.
  explicit Parameter(Tensor raw);
  Parameter(const Parameter& o);
  Parameter& operator=(const Parameter& o);
  /// A new identity with copies, as copying the owner makes; absent where `p` is.
  static Parameter copy_of(const ParameterRef& p);
  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;
  bool defined() const { return ref_.defined(); }
  const ParameterRef& ref() const { return ref_; }
  operator const ParameterRef&() const { return ref_; }
  Tensor value() const { return ref_.value(); }  ///< undefined where absent
  const Tensor& raw() const { return ref_.raw(); }
  Tensor grad() const { return ref_.grad(); }
  const Shape& shape() const { return ref_.shape(); }  ///< of value()

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
