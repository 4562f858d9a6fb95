#pragma once
// The elements of tensors through the range coder: masks, codebooks, plain values. Internal; docs/format.md.

#include <map>
#include <span>
#include <vector>

#include "hone/compress/pack/mask_coder.h"
#include "hone/compress/pack/pack.h"
#include "hone/compress/pack/row_grid.h"
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

/// Passes on, and adds up what it costs.
struct Metered : coding::BinaryCoder {
  explicit Metered(coding::BinaryCoder& c) : inner(c) {}
  bool code(bool bit, uint32_t p1) override;
  bool decodes() const override { return inner.decodes(); }
  double take();  ///< bytes since the last time
  coding::BinaryCoder& inner;
  coding::CostMeter cost;
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
    double scale = 0;                   // not 0: each is a multiple() of it
  };
  /// How values are coded: an encoder's choice.
  struct Way {
    enum class Kind : uint8_t { values, codebook, row_grid, others } kind = Kind::values;
    bool again = false;               // the codebook of `codebook` and `others` is the last one
    Codebook book = {};               // or this
    uint64_t any = 0;                 // the disjunction of all patterns
    RowGrid grid = {};                // of `row_grid`
    std::vector<uint8_t> other = {};  // of `others`, a kept element each; 1: its value itself is coded
  };
  void code_elements(coding::BinaryCoder&, DType, const Shape&, void* data, std::span<uint8_t> mask);
  std::vector<Way> possible_ways(DType dtype, int64_t cols, const Kept& kept) const;
  Way cheapest_way(DType dtype, int64_t cols, const Kept& kept) const;
  void code_way(Metered&, DType dtype, int64_t cols, const Kept& kept, Way& way);
  void code_values(coding::BinaryCoder&, DType dtype, const Kept& kept, int mantissa);
  void code_by_codebook(Metered&, DType dtype, const Kept& kept, Way& way);
  void code_row_grid(Metered&, int64_t cols, const Kept& kept, RowGrid& grid);
  void code_others(Metered&, DType dtype, const Kept& kept, Way& way);
  /// And what their counts say of their entropy.
  void code_codes(Metered&, uint32_t alphabet, std::span<uint16_t> codes);
  void code_mask(coding::BinaryCoder&, const Shape& shape, std::span<uint8_t> mask);
  void code_symbols(coding::BinaryCoder&, uint32_t alphabet, std::span<uint16_t> symbols);
  void code_codebook(coding::BinaryCoder&, Codebook& book);
  uint64_t code_value(coding::BinaryCoder&, DType dtype, uint64_t pattern, int mantissa);
  /// The mantissa bits that are coded of floating values whose patterns' disjunction is `any`; 0 of integers.
  int code_mantissa(coding::BinaryCoder&, DType dtype, uint64_t any);
  double code_scale(coding::BinaryCoder&, double scale, int mantissa);
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
