#include "hone/compress/pack/relative_index.h"

#include "hone/core/error.h"

namespace hone::compress::coding {
namespace {

constexpr int64_t kMostEntries = int64_t{1} << 32;

/// Entries that the positions take at this width.
int64_t entries(std::span<const int64_t> positions, int bits) {
  int64_t n = 0, next = 0;
  for (const int64_t p : positions) {
    HONE_CHECK(p >= next && p < INT64_MAX, ValueError, "relative_index: position ", p, " where ", next,
               " is the least; they must ascend from 0 on");
    n += 1 + ((p - next) >> bits);
    next = p + 1;
  }
  return n;
}

}  // namespace

RelativeIndex relative_index(std::span<const int64_t> positions, int bits) {
  HONE_CHECK(bits >= 1 && bits <= kMostIndexBits, ValueError, "relative_index: bits must be in [1, 15], got ", bits);
  RelativeIndex index{.bits = bits, .gaps = {}, .filler = {}};
  const int64_t n = entries(positions, bits), full = int64_t{1} << bits;
  HONE_CHECK(n <= kMostEntries, ValueError, "relative_index: ", n, " entries at ", bits, " bits; at most 2^32");
  index.gaps.reserve(static_cast<size_t>(n));
  index.filler.reserve(static_cast<size_t>(n));
  const auto add = [&](int64_t gap, bool filler) {
    index.gaps.push_back(static_cast<uint16_t>(gap)), index.filler.push_back(filler);
  };
  int64_t next = 0;
  for (const int64_t p : positions) {
    for (; p - next >= full; next += full) add(full - 1, true);
    add(p - next, false);
    next = p + 1;
  }
  return index;
}

RelativeIndex best_relative_index(std::span<const int64_t> positions, int value_bits) {
  HONE_CHECK(value_bits >= 0 && value_bits <= 64, ValueError, "relative_index: a value of ", value_bits, " bits");
  int best = kMostIndexBits;
  int64_t least = INT64_MAX;
  for (int bits = 1; bits <= kMostIndexBits; ++bits) {
    const int64_t n = entries(positions, bits), cost = n > kMostEntries ? INT64_MAX : n * (bits + value_bits);
    if (cost < least) best = bits, least = cost;
  }
  return relative_index(positions, best);
}

std::vector<int64_t> positions_of(const RelativeIndex& index, int64_t n) {
  HONE_CHECK(index.bits >= 1 && index.bits <= kMostIndexBits, FormatError, "relative index: ", index.bits, " bits");
  HONE_CHECK(index.gaps.size() == index.filler.size(), FormatError, "relative index: ", index.gaps.size(), " gaps, ",
             index.filler.size(), " marks");
  HONE_CHECK(index.filler.empty() || index.filler.back() == 0, FormatError, "relative index: a filler at the end");
  const int64_t full = int64_t{1} << index.bits;
  std::vector<int64_t> positions;
  positions.reserve(index.gaps.size());
  int64_t at = -1;
  for (size_t i = 0; i < index.gaps.size(); ++i) {
    HONE_CHECK(index.gaps[i] < full, FormatError, "relative index: a gap of more than ", index.bits, " bits");
    at += index.gaps[i] + 1;
    HONE_CHECK(at < n, FormatError, "relative index: position ", at, " of ", n);
    if (index.filler[i] == 0)
      positions.push_back(at);
    else
      HONE_CHECK(index.gaps[i] == full - 1, FormatError, "relative index: a filler closer than ", full);
  }
  return positions;
}

}  // namespace hone::compress::coding
