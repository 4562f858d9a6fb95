#pragma once
// Canonical Huffman codes of limited length, with their table in the stream: the entropy coder of Deep Compression
// (Han, Mao and Dally, 2016). Within 1 bit a symbol of the entropy; the table costs a few bits a symbol of the
// alphabet.

#include <cstdint>
#include <span>
#include <vector>

#include "hone/compress/pack/bits.h"

namespace hone::compress::coding {

/// Lengths of the codes of an optimal prefix code with none above the limit: package-merge (Larmore and Hirschberg,
/// 1990). A symbol with count 0 has length 0: no code; so has the symbol that is alone. ValueError for a limit outside
/// [1, 32] or too small for the symbols that occur.
std::vector<uint8_t> huffman_lengths(std::span<const uint64_t> counts, int limit = 24);

/// A canonical code: of two codes the shorter, of equal ones the earlier symbol's, is the smaller.
class HuffmanCode {
 public:
  /// From lengths as huffman_lengths gives them. FormatError unless Σ 2^−length = 1 (or at most one symbol occurs).
  /// `alone`: the one symbol that occurs, where all lengths are 0; −1: none does.
  explicit HuffmanCode(std::vector<uint8_t> lengths, int alone = -1);
  /// The best code for these counts.
  static HuffmanCode of(std::span<const uint64_t> counts, int limit = 24);

  void encode(BitWriter& out, uint16_t symbol) const;  ///< ValueError for a symbol without code
  uint16_t decode(BitReader& in) const;                ///< FormatError past the end
  const std::vector<uint8_t>& lengths() const { return lengths_; }

  /// The table: gamma(symbols that occur + 1). One: gamma(it + 1). More: the lengths of symbols 0, 1, … until all that
  /// occur have theirs: gamma(1 + zigzag(length − the one before, 1 at first)); after a length 0, gamma(how many more
  /// zeros follow + 1). zigzag(d) = 2 d for d ≥ 0, else −2 d − 1.
  void write(BitWriter& out) const;
  /// FormatError unless it is the table of a code of `alphabet` symbols, of lengths up to 32.
  static HuffmanCode read(BitReader& in, size_t alphabet);

 private:
  static constexpr int kFast = 9;  // bits that the first table resolves at once
  struct Entry {
    uint16_t symbol;
    uint8_t length;  // 0: longer than kFast
  };
  std::vector<uint8_t> lengths_;
  std::vector<uint32_t> codes_;
  std::vector<uint16_t> order_;  // symbols by code
  std::vector<Entry> fast_;
  uint64_t first_[33] = {};                    // of each length: the first code,
  uint32_t offset_[33] = {}, count_[33] = {};  // its place in order_, and how many there are
  int alone_ = -1, longest_ = 0;
};

/// Symbols below `alphabet` (at most 65,536) as table and codes. Their number is not in the bytes. ValueError.
std::vector<uint8_t> huffman_encode(std::span<const uint16_t> symbols, size_t alphabet);
/// `count` of them back; FormatError for any other bytes than huffman_encode writes. What it allocates is theirs.
std::vector<uint16_t> huffman_decode(std::span<const uint8_t> bytes, size_t alphabet, size_t count);

}  // namespace hone::compress::coding
