// Learns y = 3x − 1 from points: reaches BLAS, autograd, an optimizer and a file through the installed library.
#include <hone/hone.h>

#include <cmath>
#include <cstdio>

using namespace hone;

int main() {
  manual_seed(3);
  const Tensor x = linspace(-1, 1, 64);
  const Tensor inputs = reshape(x, {64, 1}), targets = reshape(x * 3.0 - 1.0, {64, 1});
  nn::Linear line{{.in = 1, .out = 1}};
  optim::SGD sgd(line.parameters(), {.lr = 0.5});
  for (int step = 0; step < 100; ++step) {
    sgd.zero_grad();
    mse_loss(line(inputs), targets).backward();
    sgd.step();
  }
  line.save("line.safetensors");
  nn::Linear again{{.in = 1, .out = 1}};
  again.load("line.safetensors");
  const double weight = again.weight.value().item(), bias = again.bias.value().item();
  std::printf("weight %.4f bias %.4f\n", weight, bias);
  return std::fabs(weight - 3) < 1e-3 && std::fabs(bias + 1) < 1e-3 ? 0 : 1;
}
