// Adam's step beside memcpy, in turn: bytes a second that each moves. Adam needs 28 bytes a parameter in f32 (reads p,
// g, m, v; writes p, m, v); memcpy moves as many in all (half read, half written), one long piece a thread: long copies
// go past the cache, which is memcpy at its best. Adam's time includes the check that the gradient is finite, which
// reads g once more (4 bytes that are not counted). Prints a row a thread count: medians, the median of the rounds'
// ratios, and the ratio of the least times, which other load on the machine disturbs least.
//   optim_bench --parameters 16000000 --rounds 15

#include <hone/hone.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using namespace hone;

namespace {

int64_t option(int argc, char** argv, const char* name, int64_t otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (std::strcmp(argv[i], name) == 0) return std::atoll(argv[i + 1]);
  return otherwise;
}
template <class F> double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size()) / 2, v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t n = option(argc, argv, "--parameters", 16'000'000), rounds = option(argc, argv, "--rounds", 15);
  const int64_t copied = 14 * n;  // read once, written once: 28 n bytes moved
  manual_seed(0);
  const Parameter parameter(randn({n}));
  parameter.raw().set_grad(randn({n}));
  optim::Adam adam({parameter.ref()}, {.lr = 1e-3});
  Tensor from = zeros({copied}, u8), to = zeros({copied}, u8);

  std::printf("%-8s %12s %12s %8s %12s\n", "threads", "adam_gb_s", "memcpy_gb_s", "ratio", "ratio_least");
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    std::vector<double> adam_times, copy_times, ratios;
    for (int64_t r = -2; r < rounds; ++r) {  // two to warm up
      const double a = seconds([&] { adam.step(); });
      const double c = seconds([&] {
        parallel_for(copied, (copied + threads - 1) / threads, [&](int64_t begin, int64_t end) {
          std::memcpy(to.data<uint8_t>() + begin, from.data<uint8_t>() + begin, static_cast<size_t>(end - begin));
        });
      });
      if (r < 0) continue;
      adam_times.push_back(a);
      copy_times.push_back(c);
      ratios.push_back(c / a);
    }
    const double bytes = 28e-9 * static_cast<double>(n);
    std::printf("%-8d %12.2f %12.2f %8.3f %12.3f\n", threads, bytes / median(adam_times), bytes / median(copy_times),
                median(ratios),
                *std::min_element(copy_times.begin(), copy_times.end()) /
                    *std::min_element(adam_times.begin(), adam_times.end()));
  }
  return 0;
}
