// Any bytes as a packed file, its checksum mended: a network, or a FormatError. What loads is packed again, to the same
// network.

#include <zlib.h>

#include <cstdlib>
#include <vector>

#include "hone/hone.h"

namespace {

struct Net : hone::nn::Module {
  hone::nn::Conv2d conv{{.in = 1, .out = 2, .kernel = 3}};
  hone::nn::BatchNorm2d bn{{.features = 2}};
  hone::nn::Dropout drop{{.p = 0.5}};
  hone::nn::Linear fc{{.in = 8, .out = 2}};
  HONE_MODULE(Net, conv, bn, drop, fc)
  hone::Tensor forward(const hone::Tensor& x) {
    return fc(drop(reshape(relu(bn(conv(x))), {x.size(0), -1}))) + hone::full({x.size(0), 2}, 0.5);
  }
};

}  // namespace

/// HONE_FUZZ_SEED=FILE: writes packed networks there to begin with (FILE, FILE.huffman), and no more.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (const char* path = std::getenv("HONE_FUZZ_SEED")) {
    Net net;
    net.fc.weight.ref().set_mask(lt(hone::rand({2, 8}), 0.4));
    const auto network = hone::graph::trace(net, hone::zeros({1, 1, 4, 4}));
    hone::compress::pack(network, {.mantissa_bits = 1}).save(path);
    hone::compress::pack(network, {.coder = hone::compress::Coder::huffman}).save(std::string(path) + ".huffman");
    std::_Exit(0);
  }
  return 0;
}

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
