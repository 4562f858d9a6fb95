#include "hone/compress/pack/entropy.h"

#include <cmath>
#include <vector>

namespace hone::compress::coding {

double entropy_bits_of_counts(std::span<const uint64_t> counts) {
  double n = 0, bits = 0;
  for (const uint64_t c : counts) n += static_cast<double>(c);
  for (const uint64_t c : counts)
    if (c > 0) bits += static_cast<double>(c) * std::log2(n / static_cast<double>(c));
  return bits;
}

double entropy_bits(std::span<const uint16_t> symbols) {
  std::vector<uint64_t> counts(65536);
  for (const uint16_t s : symbols) ++counts[s];
  return entropy_bits_of_counts(counts);
}

}  // namespace hone::compress::coding
