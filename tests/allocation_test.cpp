// Nothing asked of the system in steps 10 to 20 of the demo's training loop, by whichever thread, and no more for a
// packed file than it says: global operator new is replaced and counted, and the caching allocator's own requests are
// read.

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "hone/hone.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> calls{0};
std::atomic<int64_t> live{0}, peak{0}, most{INT64_MAX};  // bytes now, the largest of them, and what there is

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (counting.load(std::memory_order_relaxed)) calls.fetch_add(1, std::memory_order_relaxed);
  if (bytes == 0) bytes = 1;
  if (live + static_cast<int64_t>(bytes) > most) throw std::bad_alloc();
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!p) throw std::bad_alloc();
  const int64_t now = live += static_cast<int64_t>(malloc_usable_size(p));
  for (int64_t before = peak; now > before && !peak.compare_exchange_weak(before, now);) {}
  return p;
}
// Not inlined: where operator delete is inlined and operator new is not, g++ 12 sees a mismatch that is not there.
[[gnu::noinline]] void release(void* p) noexcept {
  live -= static_cast<int64_t>(malloc_usable_size(p));
  std::free(p);
}
}  // namespace

void* operator new(std::size_t n) { return allocate(n, 1); }
void* operator new[](std::size_t n) { return allocate(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {  // of std::stable_sort
  try {
    return allocate(n, 1);
  } catch (const std::bad_alloc&) { return nullptr; }
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }

namespace hone {
namespace {

// The counter counts: otherwise the test below could not fail.
TEST(Allocation, CounterCounts) {
  calls = 0;
  counting = true;
  std::vector<int>* v = new std::vector<int>(100);
  counting = false;
  EXPECT_EQ(calls.load(), 2);
  delete v;
}

template <class MakeOptimizer> void expect_steady(int threads, MakeOptimizer&& make) {
  const int before = num_threads();
  set_num_threads(threads);
  manual_seed(3);
  const data::Dataset images(randint(0, 256, {1600, 1, 28, 28}, u8), randint(0, 10, {1600}));
  data::Loader batches(images, {.batch = 64,
                                .shuffle = true,
                                .transform = {data::random_flip(), data::pad_to(32),
                                              data::normalize(data::FashionMNIST::kMean, data::FashionMNIST::kStd),
                                              data::repeat_channels(3)}});
  nn::LeNet net;
  auto optimizer = make(net.parameters());
  optim::OneCycle schedule(optimizer, {.max_lr = 1e-3, .steps = 100});
  int step = 0;
  int64_t system_calls = 0;
  double loss_sum = 0, right = 0;
  for (auto& [x, labels] : batches) {
    ++step;
    if (step == 10) {
      calls = 0;
      system_calls = memory_stats().system_calls;
      counting = true;
    }
    Tensor logits = net(x);
    Tensor loss = cross_entropy(logits, labels, {.label_smoothing = 0.05});
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    schedule.step();
    loss_sum += loss.item();
    right += train::accuracy(logits, labels);
    if (step == 20) {
      counting = false;
      break;
    }
  }
  counting = false;
  set_num_threads(before);
  ASSERT_EQ(step, 20);
  EXPECT_GT(loss_sum, 0);
  EXPECT_GT(right, 0);
  EXPECT_EQ(calls.load(), 0) << "calls of operator new in steps 10 to 20";
  EXPECT_EQ(memory_stats().system_calls - system_calls, 0) << "blocks asked of the system";
}

TEST(Allocation, AdamSteps) {
  for (int threads : {1, 2})
    expect_steady(threads, [](const std::vector<ParameterRef>& p) { return optim::Adam(p, {.lr = 1e-3}); });
}
TEST(Allocation, SGDSteps) {
  for (int threads : {1, 2})
    expect_steady(threads,
                  [](const std::vector<ParameterRef>& p) { return optim::SGD(p, {.lr = 1e-2, .momentum = 0.9}); });
}

/// y = tanh(scale·x); modules within modules, lists and options take part in a call.
struct Scale : nn::Module {
  Parameter scale{rand({3})};
  HONE_MODULE(Scale, scale)
  Tensor forward(const Tensor& x) { return tanh(x * scale.value()); }
};
struct Nested : nn::Module {
  Scale first;
  std::vector<Scale> blocks = std::vector<Scale>(2);
  std::optional<Scale> last;
  HONE_MODULE(Nested, first, blocks, last)
  Nested() { last.emplace(); }
  Tensor forward(const Tensor& x) {
    Tensor h = first(x);
    for (auto& b : blocks) h = b(h);
    return (*last)(h);
  }
};

TEST(Allocation, CallsOfModules) {
  Nested net;
  nn::Sequential sequence{Scale(), nn::ReLU(), Scale()};
  const Tensor x = rand({4, 3});
  nn::LeNet lenet;
  const Tensor images = rand({2, 3, 32, 32});
  const auto step = [&] {
    sequence(net(x)).backward(x);
    lenet(images).backward(zeros({2, 10}));
  };
  for (int i = 0; i < 5; ++i) step();
  calls = 0;
  counting = true;
  for (int i = 0; i < 5; ++i) step();
  counting = false;
  EXPECT_EQ(calls.load(), 0);
}

TEST(Allocation, ExecutorsRun) {
  nn::ResNet resnet{{.depth = 8, .in = 1, .width = 4}};
  nn::LeNet lenet;
  const Tensor small = rand({1, 1, 32, 32}), images = rand({2, 3, 32, 32}), turned = transpose(rand({2, 3, 32, 32}));
  compress::prune(lenet, {.density = 0.1});
  const int before = num_threads();
  std::vector<graph::Network> sparse;  // by each format; then by codebooks
  for (const graph::WeightForm& form : {graph::WeightForm::csr(), graph::WeightForm::blocks(4, 2)}) {
    sparse.push_back(graph::optimize(graph::trace(lenet, images)));
    graph::sparsify(sparse.back(), images, {.runs = 1, .margin = -1e12, .forms = {form}});
  }
  compress::quantize::share_weights(lenet);
  sparse.push_back(graph::optimize(graph::trace(lenet, images)));
  graph::sparsify(sparse.back(), images, {.runs = 1, .margin = -1e12, .forms = {graph::WeightForm::codebook()}});
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    graph::Executor csr(sparse[0], {.batch = 2}), blocks(sparse[1], {.batch = 2}), codes(sparse[2], {.batch = 2});
    graph::Executor one(graph::trace(resnet, small)), two(graph::trace(lenet, images), {.batch = 2});
    graph::Executor fast(graph::optimize(graph::trace(resnet, small))),  // these kernels ask for scratch memory
        faster(graph::optimize(graph::trace(lenet, images)), {.batch = 2});
    const auto step = [&] {
      one.run(small), two.run(images), two.run(turned);
      fast.run(small), faster.run(images), faster.run(turned);
      csr.run(images), blocks.run(images), codes.run(images);
    };
    for (int i = 0; i < 3; ++i) step();
    const MemoryStats stats = memory_stats();
    calls = 0;
    counting = true;
    for (int i = 0; i < 10; ++i) step();
    counting = false;
    EXPECT_EQ(calls.load(), 0) << threads << " threads";
    EXPECT_EQ(memory_stats().system_calls - stats.system_calls, 0);
    EXPECT_EQ(memory_stats().live_bytes, stats.live_bytes);
  }
  set_num_threads(before);
}

// ---- packed files

graph::Network identity_beside(const std::function<void(graph::Network&)>& add) {
  graph::Network net;
  const graph::ValueId x = net.add_input("x", f32, {{0, 1}});
  add(net);
  net.set_outputs({net.add_node({.name = "y", .op = &kRelu, .inputs = {x}, .outputs = {}, .attributes = {}})});
  return net;
}

constexpr int64_t kElements = 1 << 19;  // a size of the caching allocator's blocks

/// `n` elements of which every `period`-th is true; 0: none.
Tensor dotted(const Shape& shape, int64_t period) {
  Tensor mask = zeros(shape, DType::boolean);
  for (int64_t i = 0; period > 0 && i < mask.numel(); i += period) mask.data<bool>()[i] = true;
  return mask;
}

/// However few bytes the file has: as pack.h states it. Masks are on the heap while tensors decode, and tensors after.
TEST(Allocation, PackedFilesTakeWhatTheySay) {
  for (const compress::Coder coder : {compress::Coder::range, compress::Coder::huffman})
    for (const Shape& shape : {Shape{1, kElements}, {kElements, 1}, {1, kElements / 4, 2, 2}})
      for (const int64_t period : {1, 8})
        for (const std::string kind : {"bool", "masked", "zeros left out", "grids by runs", "others"}) {
          const bool of_values = kind == "grids by runs" || kind == "others";  // whatever lies where: once
          if (of_values && (shape[1] != kElements || period == 1)) continue;
          const Tensor mask = dotted(shape, period);
          const Tensor few = cast(mask, f32) + 1.0;
          const graph::Network net = identity_beside([&](graph::Network& n) {
            for (const char* name : {"a", "b"}) {
              if (kind == "bool") {
                n.add_buffer(name, Buffer(clone(mask)));
              } else if (kind == "grids by runs") {  // as many scales as there can be
                Tensor w = reshape(few, {kElements / 8, 8});
                w = w * (reshape(cast(arange(0, kElements / 8), f32), {kElements / 8, 1}) + 1.0);
                n.add_buffer(name, Buffer(clone(reshape(w, shape))));
              } else if (kind == "others") {
                const Tensor odd = reshape(cast(arange(0, kElements), f32), shape) * 1e-3 + 5.0;
                n.add_buffer(name, Buffer(where(dotted(shape, 5), odd, few)));
              } else {
                Parameter p(cast(mask, bf16));
                if (kind == "masked") p.ref().set_mask(mask);
                n.add_parameter(name, std::move(p));
              }
            }
          });
          const compress::Packed packed = compress::pack(net, {.coder = coder});
          const int64_t tensors = memory_stats().live_bytes, heap = live;
          reset_peak_memory();
          peak = heap;
          const graph::Network back = packed.network();
          const int64_t masks = kind == "masked" ? 2 * kElements : 0;
          const std::string what = str(kind, " ", shape, " of period ", period, ", coder ", static_cast<int>(coder));
          const int64_t copy = masks / 2;  // of the mask that a parameter takes
          EXPECT_LE(memory_stats().peak_bytes - tensors, packed.decoded_bytes() + copy + 4096) << what;
          EXPECT_LE(peak - heap, masks + 12 * kElements + (1 << 20)) << what;
        }
}

TEST(Allocation, PackedFilesWithoutMemoryAreAMemoryError) {
  const graph::Network net = identity_beside([](graph::Network& n) {
    Parameter p(zeros({kElements}));
    p.ref().set_mask(dotted({kElements}, 8));
    n.add_parameter("w", std::move(p));
  });
  const std::vector<uint8_t> bytes = compress::pack(net).bytes();
  const compress::Packed packed = compress::Packed::parse(bytes, "'few.hone'");
  std::string what;
  most = live + kElements;
  try {
    packed.network();
  } catch (const MemoryError& e) { what = e.what(); } catch (const std::exception&) {
  }
  most = INT64_MAX;
  EXPECT_NE(what.find("'few.hone'"), std::string::npos) << what;
  EXPECT_NE(what.find(std::to_string(packed.decoded_bytes())), std::string::npos) << what;
  EXPECT_EQ(compress::pack(packed.network()).bytes(), bytes);
}

}  // namespace
}  // namespace hone
