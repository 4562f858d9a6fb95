// Any bytes as a saved network: loaded, or refused with a FormatError. What loads, runs or refuses its input.

#include <cstdlib>
#include <string>

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

/// HONE_FUZZ_SEED=FILE: writes a network there to begin with, and no more.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (const char* path = std::getenv("HONE_FUZZ_SEED")) {
    Net net;
    net.fc.weight.ref().set_mask(lt(hone::rand({2, 8}), 0.4));
    net.fc.weight.ref().set_codebook(hone::full({2, 8}, 1, hone::u8), hone::ones({3}));
    net.fc.bias.ref().set_grid(
        {hone::ones({1}), hone::tensor({0.0, -8.0, 7.0, 0.0}, {1, 4}), hone::zeros({2}, hone::u8)});
    hone::graph::save(hone::graph::trace(net, hone::zeros({1, 1, 4, 4})), path);
    std::_Exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    hone::graph::Network net = hone::graph::from_tensor_file(hone::parse_safetensors(data, size, "fuzz"));
    hone::NoGrad no_grad;
    net.eval();
    hone::graph::to_tensor_file(net);
    net.table();
    // A file may ask for large results: that is the caller's choice of input, not the loader's.
    int64_t elements = 0;
    for (const auto& v : net.values()) {
      int64_t n = 1;
      for (const auto& d : v.shape)
        if (__builtin_mul_overflow(n, d.at(1), &n) || n < 0 || n > 1 << 20) return 0;
      if ((elements += n) > 1 << 20) return 0;
    }
    std::vector<hone::Tensor> inputs;
    for (const auto v : net.inputs())
      inputs.push_back(hone::zeros(hone::graph::at(net.value(v).shape, 1), net.value(v).dtype));
    try {
      net.run(inputs);
    } catch (const hone::Error&) {}
  } catch (const hone::FormatError&) {
  } catch (const hone::MemoryError&) {}
  return 0;
}
