#pragma once
// Bits in bytes, the most significant first: the first bit written is the highest of the first byte.

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "hone/core/error.h"

namespace hone::compress::coding {

class BitWriter {
 public:
  /// The lowest `bits` of `value`, their highest first; bits in [0, 64].
  void put(uint64_t value, int bits) {
    for (int i = bits - 1; i >= 0; --i) {
      if (size_ % 8 == 0) bytes_.push_back(0);
      bytes_.back() = static_cast<uint8_t>(bytes_.back() | (value >> i & 1) << (7 - size_ % 8));
      ++size_;
    }
  }
  /// Elias' gamma code of v ≥ 1 (1975): the count of bits below the leading one in zeros, then v. 2 ⌊log2 v⌋ + 1 bits.
  void put_gamma(uint64_t v) {
    HONE_CHECK(v >= 1, ValueError, "put_gamma: codes numbers from 1 on");
    int below = 0;
    while (v >> below > 1) ++below;
    put(0, below), put(v, below + 1);
  }
  size_t size() const { return size_; }                         ///< in bits
  const std::vector<uint8_t>& bytes() const { return bytes_; }  ///< the last one filled up with zeros
  std::vector<uint8_t> take() { return size_ = 0, std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
  size_t size_ = 0;
};

/// Reads what a BitWriter wrote. FormatError past the end. The bytes must outlive it.
class BitReader {
 public:
  explicit BitReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  uint64_t get(int bits) {
    HONE_CHECK(static_cast<size_t>(bits) <= left(), FormatError, "bits: wants ", bits, " bits, ", left(), " are left");
    uint64_t v = 0;
    for (int i = 0; i < bits; ++i, ++at_) v = v << 1 | (bytes_[at_ / 8] >> (7 - at_ % 8) & 1);
    return v;
  }
  uint64_t get_gamma() {
    int below = 0;
    while (get(1) == 0) HONE_CHECK(++below < 64, FormatError, "bits: a number of more than 64 bits");
    return uint64_t{1} << below | get(below);
  }
  /// The next `bits` (at most 32), with zeros for those past the end; nothing is consumed.
  uint32_t peek(int bits) const {
    uint64_t v = 0;  // 40 bits from the byte that holds the next bit
    for (size_t i = 0; i < 5; ++i) v = v << 8 | (at_ / 8 + i < bytes_.size() ? bytes_[at_ / 8 + i] : 0u);
    return static_cast<uint32_t>(v >> (40 - at_ % 8 - static_cast<size_t>(bits)) & ((uint64_t{1} << bits) - 1));
  }
  void skip(int bits) {
    HONE_CHECK(static_cast<size_t>(bits) <= left(), FormatError, "bits: wants ", bits, " bits, ", left(), " are left");
    at_ += static_cast<size_t>(bits);
  }
  size_t left() const { return bytes_.size() * 8 - at_; }  ///< in bits

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

}  // namespace hone::compress::coding
