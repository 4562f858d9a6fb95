#pragma once
// The elements of tensors through the range coder: masks, codebooks, plain values. Internal; docs/format.md.

#include <cstring>
#include <map>
#include <span>
#include <vector>

#include "hone/compress/pack/mask_coder.h"
#include "hone/compress/pack/pack.h"
#include "hone/core/tensor.h"

namespace hone::compress::detail {

/// Rounds n elements of a floating dtype to so many mantissa bits, ties to even, beyond the largest finite value of so
/// many bits to that; infinities and NaN stay.
void round_mantissa(DType dtype, void* data, int64_t n, int bits);

/// An integer of 64 bits: whether it is negative, then its size.
class IntegerModel {
 public:
  int64_t code(coding::BinaryCoder& coder, int64_t v);

 private:
  coding::Counter negative_;
  coding::NumberModel size_;
};

/// Floating values of one dtype by their bits: sign and exponent by counters, then the mantissa's highest bits as they
/// are.
class FloatModel {
 public:
  explicit FloatModel(DType dtype);
  /// v: the pattern; `mantissa` of its mantissa bits are coded, the others 0.
  uint64_t code(coding::BinaryCoder& coder, uint64_t v, int mantissa);
  int mantissa_bits() const { return mantissa_; }

 private:
  int exponent_, mantissa_;  // bits
  coding::Counter sign_;
  std::vector<coding::Counter> exponents_;  // a counter a node of the tree of bits
};

/// An array of any dtype as patterns.
class Elements {
 public:
  Elements(void* data, DType dtype, int64_t n)
      : data_(static_cast<std::byte*>(data)), width_(static_cast<size_t>(size_of(dtype))), n_(static_cast<size_t>(n)) {}
  size_t size() const { return n_; }
  uint64_t operator[](size_t i) const {
    uint64_t v = 0;
    std::memcpy(&v, data_ + i * width_, width_);  // little-endian
    return v;
  }
  void set(size_t i, uint64_t v) const { std::memcpy(data_ + i * width_, &v, width_); }

 private:
  std::byte* data_;
  size_t width_, n_;
};

/// Codes tensors one after another: later ones profit from earlier ones.
class TensorModel {
 public:
  explicit TensorModel(Coder coder) : coder_(coder) {}
  /// data: contiguous elements of `dtype`, zeros where mask (one an element, empty: no mask) is 0. A decoder finds both
  /// filled with zeros, and writes them. FormatError.
  void code(coding::BinaryCoder& coder, DType dtype, const Shape& shape, void* data, std::span<uint8_t> mask);
  /// What the last tensor was made of.
  const PackedPart& part() const { return part_; }

 private:
  struct Codebook {
    DType dtype = DType::f32;
    std::vector<uint64_t> values = {};  // patterns, ascending by value
    float scale = 0;                    // not 0: each is a whole multiple of it, rounded to f32
  };
  /// How values are coded: an encoder's choice.
  struct Way {
    bool few = false, again = false;  // by a codebook; the last one
    Codebook book = {};
    uint64_t any = 0;  // the disjunction of all patterns
  };
  /// The elements that a mask keeps; all where it is empty.
  struct Kept {
    Elements data;
    std::span<const uint8_t> mask;
    size_t n;
    bool at(size_t i) const { return mask.empty() || mask[i] != 0; }
  };
  void code_elements(coding::BinaryCoder&, DType, const Shape&, void* data, std::span<uint8_t> mask);
  Way cheapest_way(DType dtype, const Kept& kept) const;
  /// Whether codes follow, and of which codebook: last_. False: values do.
  bool code_way(coding::BinaryCoder&, DType dtype, Way& way);
  void code_values(coding::BinaryCoder&, DType dtype, const Kept& kept, const Way& way);
  void code_codes(coding::BinaryCoder&, const Kept& kept);
  void code_mask(coding::BinaryCoder&, const Shape& shape, std::span<uint8_t> mask);
  void code_symbols(coding::BinaryCoder&, uint32_t alphabet, std::span<uint16_t> symbols);
  void code_codebook(coding::BinaryCoder&, Codebook& book);
  uint64_t code_value(coding::BinaryCoder&, DType dtype, uint64_t pattern, int mantissa);
  /// The mantissa bits that are coded of values whose patterns' disjunction is `any`.
  int code_mantissa(coding::BinaryCoder&, DType dtype, uint64_t any);
  FloatModel& floats(DType dtype);

  Coder coder_;
  PackedPart part_;
  coding::MaskModel masks_;
  coding::SymbolModel symbols_;
  std::map<DType, FloatModel> floats_;
  std::map<DType, IntegerModel> integers_;
  coding::Counter split_, book_, again_, grid_;
  coding::NumberModel counts_, lengths_, steps_;
  IntegerModel first_multiple_;
  Codebook last_;
};

}  // namespace hone::compress::detail
