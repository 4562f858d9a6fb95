#pragma once
// Positions of what is kept as differences in few bits: the sparse index of Deep Compression (Han, Mao and Dally,
// 2016).

#include <cstdint>
#include <span>
#include <vector>

namespace hone::compress::coding {

/// Of a gap: with the filler there are 2^15 + 1 symbols, which 16 bits hold.
inline constexpr int kMostIndexBits = 15;

/// Entry i stands gaps[i] + 1 elements after entry i − 1 (the first: after position −1), gaps[i] < 2^bits. Where two
/// kept elements are further apart than 2^bits, fillers stand between, each at the full distance: stored zeros.
struct RelativeIndex {
  int bits = 1;
  std::vector<uint16_t> gaps;
  std::vector<uint8_t> filler;  ///< of each entry: 1 if it is a filler. The last entry never is.
};

/// Positions ascending, at least 0. ValueError; for bits outside [1, 15]; for more than 2^32 entries.
RelativeIndex relative_index(std::span<const int64_t> positions, int bits);
/// The width in [1, 15] for which entries · (bits + value_bits) is least; value_bits: what an entry's value takes, a
/// filler's too. Of equal widths the smaller.
RelativeIndex best_relative_index(std::span<const int64_t> positions, int value_bits);
/// The positions back. FormatError: lists of different lengths, a gap of too many bits, a filler with a smaller gap or
/// at the end, a position at or beyond n.
std::vector<int64_t> positions_of(const RelativeIndex& index, int64_t n);

}  // namespace hone::compress::coding
