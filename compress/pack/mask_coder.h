#pragma once
// Masks and codebook indices through the range coder: the models that know what pruned weights look like.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "hone/compress/pack/range_coder.h"

namespace hone::compress::coding {

/// How a mask's elements lie, row after row: a row is what one output reads, a group the taps of one input channel.
struct MaskShape {
  int64_t rows = 1, cols = 1, group = 1;  ///< cols a multiple of group
};

/// Codes masks one after another. A kept weight is likelier where its row, its column and its input channel keep many,
/// and where the mask before, if it made the channels that this one reads, kept many for that channel: their
/// densities so far, and the elements next to it, are mixed. Or all elements alike, where that takes fewer bytes.
class MaskModel {
 public:
  /// mask: rows · cols elements, fewer than 2^32, 1 for kept; a decoder writes them. Memory: four bytes a row, of this
  /// mask and the one before, and at most six a column. ValueError, FormatError.
  void code(BinaryCoder& coder, const MaskShape& shape, std::span<uint8_t> mask);

 private:
  void code_elements(BinaryCoder& coder, const MaskShape& shape, std::span<uint8_t> mask, uint32_t prior, bool alike);
  Mixer mixer_{16384, 16384, 16384, 16384, 16384};
  std::vector<uint32_t> made_;  // kept weights of each row of the mask before
};

/// Codes sequences of symbols, one after another; those of alphabets of the same number of bits learn from one another.
/// Within 64 bytes of the empirical entropy for up to 32 symbols, and half of log2 n bits more for each further one,
/// which is what any code pays that has to learn their frequencies (Rissanen, 1984); 2 % from 10⁵ of them on.
class SymbolModel {
 public:
  /// symbols: below `alphabet`, which is at most 65,536; a decoder writes them. ValueError, FormatError.
  void code(BinaryCoder& coder, uint32_t alphabet, std::span<uint16_t> symbols);

 private:
  void code_sequence(BinaryCoder& coder, uint32_t alphabet, std::span<uint16_t> symbols, bool by_previous);
  std::map<int, std::vector<Counter>> shared_;  // by the alphabet's bits; a counter a node of the tree of bits
  Mixer alone_{39322, 26214}, with_previous_{26214, 26214, 26214};
};

// One mask, one sequence, by themselves.
std::vector<uint8_t> encode_mask(const MaskShape& shape, std::span<const uint8_t> mask);
/// FormatError for bytes that are no mask of this shape. Allocates what the shape says.
std::vector<uint8_t> decode_mask(const MaskShape& shape, std::span<const uint8_t> bytes);
std::vector<uint8_t> encode_symbols(std::span<const uint16_t> symbols, uint32_t alphabet);
std::vector<uint16_t> decode_symbols(std::span<const uint8_t> bytes, uint32_t alphabet, size_t count);

}  // namespace hone::compress::coding
