// Any bytes as a packed file, its checksum mended: a network, or a FormatError. What loads is packed again, to the same
// network.

#include <zlib.h>

#include <cstdlib>
#include <vector>

#include "hone/hone.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> bytes(data, data + size);
  if (size > 8) {
    const auto sum = static_cast<uint32_t>(crc32(0, bytes.data() + 8, static_cast<uInt>(size - 8)));
    for (size_t i = 0; i < 4; ++i) bytes[4 + i] = static_cast<uint8_t>(sum >> 8 * i);
  }
  try {
    const auto packed = hone::compress::Packed::parse(std::move(bytes), "fuzz");
    if (packed.decoded_bytes() > 1 << 22) return 0;  // a file may ask for that much; it takes long
    const hone::graph::Network net = packed.network();
    packed.table();
    const hone::graph::Network again = hone::compress::pack(net).network();
    if (hone::compress::pack(again).bytes() != hone::compress::pack(net).bytes()) std::abort();
  } catch (const hone::FormatError&) {
  } catch (const hone::MemoryError&) {}
  return 0;
}
