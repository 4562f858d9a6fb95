// Layers by sparse weights beside the same layers by dense ones: from what density on does sparse win? HONE_THREADS
// sets the threads; options are Google Benchmark's:
//   HONE_THREADS=1 sparse_bench --benchmark_filter=fc_120x400/b1/ --benchmark_repetitions=5
// A name is layer/batch/format; panels is the dense layer as graph::pack leaves it, codebook_16 the same in 16 values,
// csr_5 keeps 5 % of the weights, block4x4_20 a fifth of the blocks.

#include <benchmark/benchmark.h>
#include <hone/hone.h>

#include <functional>
#include <string>

using namespace hone;

namespace {

struct Layer {
  std::string name;
  Shape weight;      // [out, in] or [O, C, KH, KW]
  int64_t side = 0;  // of a convolution's input
};
const Layer kLayers[] = {{"conv_6x3x5x5", {6, 3, 5, 5}, 32},
                         {"conv_16x6x5x5", {16, 6, 5, 5}, 14},
                         {"conv_64x64x3x3", {64, 64, 3, 3}, 16},
                         {"fc_120x400", {120, 400}},
                         {"fc_84x120", {84, 120}},
                         {"fc_512x512", {512, 512}},
                         {"fc_1024x1024", {1024, 1024}}};

// Normal weights, of which whole blocks of height × width (in the matrix [out, rest]) are kept with that probability.
Tensor weight(const Layer& layer, double density, int64_t height, int64_t width) {
  const int64_t rows = layer.weight[0], cols = layer.weight.numel() / rows;
  const Tensor w = randn(layer.weight), keep = rand({(rows + height - 1) / height, (cols + width - 1) / width});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      if (keep.data<float>()[r / height * keep.size(1) + c / width] >= density) w.data<float>()[r * cols + c] = 0;
  return w;
}
// The first n of every m neighbours.
Tensor n_of_m(const Layer& layer, int64_t n, int64_t m) {
  const Tensor w = randn(layer.weight);
  const int64_t cols = w.numel() / layer.weight[0];
  for (int64_t i = 0; i < w.numel(); ++i)
    if (i % cols % m >= n) w.data<float>()[i] = 0;
  return w;
}

void add(const std::string& name, const std::function<Tensor()>& f) {
  benchmark::RegisterBenchmark(name.c_str(), [f](benchmark::State& state) {
    const NoGrad no_grad;
    for (auto _ : state) {
      Tensor y = f();
      benchmark::DoNotOptimize(y.raw_data());
    }
  });
}

void add_layer(const Layer& layer, int64_t batch) {
  const bool conv = layer.side > 0;
  const Shape kernel = conv ? Shape{layer.weight[2], layer.weight[3]} : Shape{};
  const Tensor x = conv ? randn({batch, layer.weight[1], layer.side, layer.side}) : randn({batch, layer.weight[1]});
  const Tensor bias = randn({layer.weight[0]});
  const std::string name = layer.name + "/b" + std::to_string(batch) + "/";
  const Tensor dense = randn(layer.weight);
  add(name + "dense", [=] { return conv ? conv2d(x, dense, bias) : linear(x, dense, bias); });
  const PanelMatrix panels = PanelMatrix::pack(dense);
  add(name + "panels", [=] { return conv ? panel_conv2d(x, panels, bias) : panel_linear(x, panels, bias); });
  for (const int64_t count : {16, 256}) {
    const CodebookMatrix w = CodebookMatrix::pack(cast(randint(0, count, layer.weight), u8), randn({count}));
    add(name + "codebook_" + std::to_string(count),
        [=] { return conv ? codebook_conv2d(x, w, bias) : codebook_linear(x, w, bias); });
  }
  for (const int percent : {1, 2, 5, 10, 20, 30, 50}) {
    const std::string suffix = "_" + std::to_string(percent);
    const CsrMatrix csr = CsrMatrix::pack(weight(layer, percent / 100.0, 1, 1));
    add(name + "csr" + suffix, [=] { return conv ? csr_conv2d(x, csr, kernel, bias) : csr_linear(x, csr, bias); });
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{4, 4}, {8, 1}, {1, 8}, {16, 1}}) {
      const BlockSparseMatrix w = BlockSparseMatrix::pack(weight(layer, percent / 100.0, height, width), height, width);
      add(name + "block" + std::to_string(height) + "x" + std::to_string(width) + suffix,
          [=] { return conv ? block_sparse_conv2d(x, w, kernel, bias) : block_sparse_linear(x, w, bias); });
    }
  }
  for (const auto& [n, m] : {std::pair<int64_t, int64_t>{1, 4}, {2, 4}, {4, 8}}) {
    const NMMatrix w = NMMatrix::pack(n_of_m(layer, n, m), n, m);
    add(name + std::to_string(n) + "of" + std::to_string(m),
        [=] { return conv ? n_m_conv2d(x, w, kernel, bias) : n_m_linear(x, w, bias); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const Layer& layer : kLayers)
    for (const int64_t batch : {1, 64}) add_layer(layer, batch);
  benchmark::RunSpecifiedBenchmarks();
}
