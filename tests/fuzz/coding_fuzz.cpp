// Any bytes as what a coder wrote, the first four choosing coder and sizes: symbols, a mask or positions, or a
// FormatError. What decodes is encoded, and decodes the same.

#include <algorithm>
#include <cstdlib>
#include <span>

#include "hone/compress/pack/huffman.h"
#include "hone/compress/pack/mask_coder.h"
#include "hone/compress/pack/relative_index.h"
#include "hone/hone.h"

namespace {

using namespace hone::compress::coding;

void require(bool holds) {
  if (!holds) std::abort();
}

void decode(int coder, size_t alphabet, size_t count, std::span<const uint8_t> bytes) {
  if (coder == 0) {
    const auto symbols = huffman_decode(bytes, alphabet, count);
    require(huffman_decode(huffman_encode(symbols, alphabet), alphabet, count) == symbols);
  } else if (coder == 1) {
    const auto symbols = decode_symbols(bytes, static_cast<uint32_t>(alphabet), count);
    for (const uint16_t s : symbols) require(s < alphabet);
    require(decode_symbols(encode_symbols(symbols, static_cast<uint32_t>(alphabet)), static_cast<uint32_t>(alphabet),
                           count) == symbols);
  } else if (coder == 2) {
    const auto cols = static_cast<int64_t>(alphabet);
    const MaskShape shape{static_cast<int64_t>(count) % 64, cols, cols % 4 == 0 ? 4 : 1};
    const auto mask = decode_mask(shape, bytes);
    require(decode_mask(shape, encode_mask(shape, mask)) == mask);
  } else {
    RelativeIndex index{.bits = static_cast<int>(alphabet % 18), .gaps = {}, .filler = {}};
    const int largest = (1 << std::clamp(index.bits, 1, kMostIndexBits)) - 1;  // other bits are refused
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
      index.gaps.push_back(static_cast<uint16_t>(bytes[i] % 16 == 0 ? largest : bytes[i]));
      index.filler.push_back(bytes[i] % 16 == 0 && bytes[i + 1] % 2 == 0);
    }
    const auto positions = positions_of(index, static_cast<int64_t>(count) * 100);
    require(relative_index(positions, index.bits).gaps.size() <= index.gaps.size());
    require(positions_of(best_relative_index(positions, 4), static_cast<int64_t>(count) * 100) == positions);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  try {
    decode(data[0] % 4, size_t{1} + data[1], data[2] + size_t{256} * (data[3] % 16), {data + 4, size - 4});
  } catch (const hone::FormatError&) {}
  return 0;
}
