// LeNet's training loop on batches in memory: forward, loss, backward, Adam step. scripts/bench runs it beside the same
// loop in PyTorch (scripts/bench_torch.py) and compares. Prints one line of JSON.
//   lenet_loop --batch 64 --threads 2 --seconds 2 --warmup 30

#include <hone/hone.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

using namespace hone;

namespace {

double option(int argc, char** argv, const char* name, double otherwise) {
  for (int i = 1; i + 1 < argc; i += 2)
    if (std::strcmp(argv[i], name) == 0) return std::atof(argv[i + 1]);
  return otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t batch = static_cast<int64_t>(option(argc, argv, "--batch", 64));
  const double wanted = option(argc, argv, "--seconds", 2);
  const int warmup = static_cast<int>(option(argc, argv, "--warmup", 30));
  set_num_threads(static_cast<int>(option(argc, argv, "--threads", 1)));
  manual_seed(0);

  nn::LeNet net;
  optim::Adam adam(net.parameters(), {.lr = 1e-3});
  std::vector<data::Batch> batches;
  for (int i = 0; i < 8; ++i) batches.push_back({randn({batch, 3, 32, 32}), randint(0, 10, {batch})});

  int64_t steps = 0;
  Tensor loss;
  const auto step = [&] {
    const data::Batch& b = batches[static_cast<size_t>(steps++) % batches.size()];
    loss = cross_entropy(net(b.inputs), b.targets);
    adam.zero_grad();
    loss.backward();
    adam.step();
  };
  for (int i = 0; i < warmup; ++i) step();
  steps = 0;
  double seconds = 0;
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 10; ++i) step();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  } while (seconds < wanted);
  const train::Machine machine = train::machine();
  const auto version = [&](const char* name) {
    for (const auto& [key, value] : machine.versions)
      if (key == name) return value;
    return std::string();
  };
  std::printf(
      "{\"samples_per_second\": %.1f, \"loss\": %.6f, \"version\": \"hone %s\", \"simd\": \"%s\", \"blas\": \"%s\"}\n",
      static_cast<double>(steps * batch) / seconds, loss.item(), version("hone").c_str(), machine.simd.c_str(),
      version("blas").c_str());
  return 0;
}
