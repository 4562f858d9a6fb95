// A training step on integers (QatNetwork) beside one in f32 on the same traced network, in turns: forward, loss,
// backward, Adam, at a batch of 64. Prints medians and their ratio.
//   HONE_THREADS=1 qat_bench [seconds a row]

#include <hone/hone.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

using namespace hone;

namespace {

using Clock = std::chrono::steady_clock;

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

void row(const char* name, nn::Module& module, double seconds) {
  const Tensor x = randn({64, 3, 32, 32}), labels = randint(0, 10, {64});
  graph::Network real = graph::trace(module, x);
  compress::quantize::QatNetwork integers(real), four(real, {.bits = 4, .learned_steps = true});
  nn::Module* const nets[] = {&real, &integers, &four};
  std::deque<optim::Adam> adams;  // which do not move
  for (nn::Module* net : nets) {
    std::vector<ParameterRef> trained = net->parameters();
    if (net == &four)
      for (const ParameterRef& step : four.steps()) trained.push_back(step);
    adams.emplace_back(trained, optim::AdamOptions{.lr = 1e-3});
  }
  std::vector<double> times[3];
  for (const auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;)
    for (size_t k = 0; k < 3; ++k) {
      const auto start = Clock::now();
      const Tensor loss = cross_entropy(nets[k]->call(x), labels);
      adams[k].zero_grad();
      loss.backward();
      adams[k].step();
      times[k].push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
  const double f = median(times[0]), e = median(times[1]), q = median(times[2]);
  std::printf("%-16s f32 %8.2f ms   8 bits %8.2f ms (%.2f)   4 bits, learned steps %8.2f ms (%.2f)\n", name, f, e,
              e / f, q, q / f);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5;
  manual_seed(7);
  nn::LeNet lenet;
  row("LeNet", lenet, seconds);
  nn::ResNet resnet({.depth = 8, .width = 16});
  row("ResNet-8 of 16", resnet, seconds);
}
