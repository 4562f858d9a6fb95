#pragma once
// What no code that knows symbols by their frequency alone can go below.

#include <cstdint>
#include <span>

namespace hone::compress::coding {

/// Empirical entropy of all symbols together, in bits: Σ_s c_s log2(n / c_s), c_s the count of symbol s among n
/// (Shannon, 1948). 0 for no symbol or only one.
double entropy_bits(std::span<const uint16_t> symbols);
/// The same from counts.
double entropy_bits_of_counts(std::span<const uint64_t> counts);

}  // namespace hone::compress::coding
