// Writes the packed files that fuzzing begins with: packed_corpus FOLDER, which is tests/fuzz/packed. In hexadecimal,
// so that they are text; run again where the format has grown.

#include <zlib.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "hone/hone.h"

namespace {

using namespace hone;
using compress::Coder;
using Bytes = std::vector<uint8_t>;

struct Net : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 2, .kernel = 3}};
  nn::BatchNorm2d bn{{.features = 2}};
  nn::Dropout drop{{.p = 0.5}};
  nn::Linear fc{{.in = 8, .out = 24}};
  HONE_MODULE(Net, conv, bn, drop, fc)
  Tensor forward(const Tensor& x) {
    return fc(drop(reshape(relu(bn(conv(x))), {x.size(0), -1}))) + full({x.size(0), 24}, 0.5);
  }
};
graph::Network traced(Net& net) { return graph::trace(net, zeros({1, 1, 4, 4})); }

/// Two layers whose convolution and linear layer compute on integers.
struct Integers : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 3}};
  nn::Linear fc{{.in = 16, .out = 3}};
  HONE_MODULE(Integers, conv, fc)
  Tensor forward(const Tensor& x) { return fc(reshape(relu(conv(x)), {x.size(0), -1})); }
};

/// y = relu(x), beside buffers.
graph::Network beside(const std::vector<std::pair<std::string, Tensor>>& buffers) {
  graph::Network net;
  const graph::ValueId x = net.add_input("x", f32, {{0, 1}});
  for (const auto& [name, t] : buffers) net.add_buffer(name, Buffer(t));
  net.set_outputs({net.add_node({.name = "relu", .op = &kRelu, .inputs = {x}, .outputs = {}, .attributes = {}})});
  return net;
}

graph::Network every_dtype() {
  std::vector<std::pair<std::string, Tensor>> buffers;
  for (const DType d : {f64, f32, bf16, i64, i32, i8, u8, DType::boolean}) {
    const Tensor noise = randn({5, 8}) * 20.0;
    buffers.emplace_back(name(d), d == DType::boolean ? lt(noise, -10.0) : cast(d == u8 ? abs(noise) : noise, d));
  }
  buffers.emplace_back("none", zeros({0, 4}));
  return beside(buffers);
}

Bytes with_checksum(Bytes bytes) {
  const auto sum = static_cast<uint32_t>(crc32(0, bytes.data() + 8, static_cast<uInt>(bytes.size() - 8)));
  for (size_t i = 0; i < 4; ++i) bytes[4 + i] = static_cast<uint8_t>(sum >> 8 * i);
  return bytes;
}

void write(const std::string& path, const Bytes& bytes) {
  std::ofstream out(path + ".hex");
  for (size_t i = 0; i < bytes.size(); ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    out << digits << (i % 60 == 59 || i + 1 == bytes.size() ? "\n" : "");
  }
  if (!out.flush()) throw IoError("cannot write " + path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: packed_corpus FOLDER\n"), 2;
  const std::string folder = std::string(argv[1]) + "/";
  const NoGrad no_grad;
  manual_seed(1);
  Net net;
  Tensor(net.bn.running_mean.tensor()).copy_(randn({2}));
  write(folder + "range_floats", compress::pack(traced(net), {.mantissa_bits = 7}).bytes());
  const Tensor w = net.fc.weight.raw().detach();
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    const auto put = [&](const char* name, const graph::Network& network) {
      const char* const by = coder == Coder::range ? "range_" : "huffman_";
      write(folder + by + name, compress::pack(network, {.coder = coder, .mantissa_bits = 7}).bytes());
    };
    net.fc.weight = Parameter(clone(w));
    net.fc.weight.ref().set_mask(lt(rand({24, 8}), 0.2), MaskGradient::dense);
    put("masked", traced(net));
    net.fc.weight = Parameter(exp(round(w * 8.0)));
    put("codebook", traced(net));
    net.fc.weight = Parameter(round(w * 20.0) * 0.05);
    put("grid", traced(net));
    const auto channels =
        compress::quantize::Affine::of(w, {.bits = 6, .granularity = compress::quantize::Granularity::channel});
    put("rows", beside({{"rows", channels.values(channels.codes(w))}}));
    put("others", beside({{"others", where(lt(rand({24, 8}), 0.05), w, round(w * 6.0) / 7.0)},
                          {"whole", where(lt(rand({300}), 0.1), randn({300}), full({300}, 2.5))}}));
    put("dtypes", every_dtype());
    put("uniform", beside({{"far", eq(arange(0, 100000), 99999.0)}, {"same", full({40, 40}, 0.25)}}));
  }
  Integers module;
  const Tensor x = randn({4, 1, 4, 4});
  write(folder + "range_int8", compress::pack(compress::quantize::quantize_static(graph::trace(module, x),
                                                                                  compress::quantize::calibration({x})))
                                   .bytes());

  net.fc.weight = Parameter(round(w * 20.0) * 0.05);
  net.fc.weight.ref().set_mask(lt(rand({24, 8}), 0.4));
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    const std::string damaged = folder + (coder == Coder::range ? "damaged_range_" : "damaged_huffman_");
    const Bytes good = compress::pack(traced(net), {.coder = coder, .mantissa_bits = 4}).bytes();
    write(damaged + "short", with_checksum(Bytes(good.begin(), good.end() - 20)));
    Bytes bad = good;
    bad.insert(bad.end(), 20, 0xaa);
    write(damaged + "long", with_checksum(bad));
    bad = good;
    for (size_t i = 40; i < bad.size(); i += 9) bad[i] ^= 0x55;
    write(damaged + "stream", with_checksum(bad));
    bad = good;
    bad[8] ^= 1;  // of the decoded size
    write(damaged + "claim", with_checksum(bad));
    bad = good;
    bad[30] ^= 1;
    write(damaged + "checksum", bad);
  }
}
