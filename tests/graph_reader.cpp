// Computes with a saved network in a process of its own, for graph_file_test.cpp: graph_reader NETWORK INPUT OUTPUT.
// NETWORK is of graph::save, or packed (.hone); INPUT holds x; OUTPUT will hold what comes of it.

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "hone/hone.h"

int main(int argc, char** argv) {
  using namespace hone;
  if (argc != 4) return std::fprintf(stderr, "usage: graph_reader NETWORK INPUT OUTPUT\n"), 2;
  try {
    const std::string path = argv[1];
    const bool packed = std::string_view(path).ends_with(".hone");
    graph::Network net = packed ? compress::Packed::load(path).network() : graph::load(path);
    const Tensor x = load_safetensors(argv[2]).at("x");
    const NoGrad no_grad;
    TensorFile out;
    net.eval();
    out.tensors.emplace_back("eval", net(x));
    out.tensors.emplace_back("executor", clone(graph::Executor(net, {.batch = x.size(0)}).run(x)));
    net.train();
    manual_seed(9);
    out.tensors.emplace_back("train", net(x));
    save_safetensors(argv[3], out);
  } catch (const std::exception& e) { return std::fprintf(stderr, "graph_reader: %s\n", e.what()), 1; }
  return 0;
}
