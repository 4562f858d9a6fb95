// The same bits at any number of threads: losses and parameters of 20 LeNet steps.

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "hone/hone.h"

namespace hone {
namespace {

struct Trace {
  std::vector<uint32_t> losses;  // their bits
  std::vector<float> parameters;
};

Trace train(int threads, uint64_t seed, int64_t batch) {
  set_num_threads(threads);
  manual_seed(seed);
  const Tensor images = randn({4 * batch, 3, 32, 32}), labels = randint(0, 10, {4 * batch});
  nn::LeNet net;
  optim::Adam adam(net.parameters(), {.lr = 2e-3});
  optim::OneCycle schedule(adam, {.max_lr = 2e-3, .steps = 20});
  Trace trace;
  for (int64_t step = 0; step < 20; ++step) {
    const int64_t at = step % 4 * batch;
    Tensor loss = cross_entropy(net(slice(images, 0, at, at + batch)), slice(labels, 0, at, at + batch));
    adam.zero_grad();
    loss.backward();
    adam.step();
    schedule.step();
    trace.losses.push_back(std::bit_cast<uint32_t>(loss.item<float>()));
  }
  for (const ParameterRef& p : net.parameters())
    for (float v : p.raw().to_vector<float>()) trace.parameters.push_back(v);
  return trace;
}

struct Threads : testing::TestWithParam<int64_t> {};

TEST_P(Threads, SameBits) {
  const int before = num_threads();
  const Trace one = train(1, 11, GetParam()), two = train(2, 11, GetParam()), three = train(3, 11, GetParam());
  const Trace other = train(2, 12, GetParam());
  set_num_threads(before);
  EXPECT_EQ(one.losses, two.losses);
  EXPECT_EQ(one.losses, three.losses);
  EXPECT_EQ(one.parameters, two.parameters);
  EXPECT_EQ(one.parameters, three.parameters);
  EXPECT_NE(one.losses, other.losses);  // another seed is another run
  EXPECT_LT(std::bit_cast<float>(one.losses.back()), std::bit_cast<float>(one.losses.front()));
}

INSTANTIATE_TEST_SUITE_P(Batches, Threads, testing::Values<int64_t>(7, 64),
                         [](const auto& info) { return "Batch" + std::to_string(info.param); });

}  // namespace
}  // namespace hone
