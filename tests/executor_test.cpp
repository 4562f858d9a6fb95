// Executors: the bits of the network in eval mode, from one arena that never holds two live results at one place.

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "graph_support.h"
#include "simd_targets.h"

namespace hone::test {
namespace {

using graph::Allocation;
using graph::Executor;
using graph::Network;

/// Bytes that are a NaN in every floating dtype, in place of whatever the arena holds.
void poison(const Tensor& in_arena) { std::memset(in_arena.storage()->data, 0xff, in_arena.storage()->bytes); }

template <class M> void expect_module_bits(M& module, const Shape& row, std::initializer_list<int64_t> batches) {
  NoGrad no_grad;
  const nn::ModeScope eval(module, false);
  Shape shape = row;
  shape.insert(0, 1);
  const auto net = std::make_shared<const Network>(graph::trace(module, randn(shape)));
  for (const int64_t n : batches) {
    shape[0] = n;
    Executor executor(net, {.batch = n});
    const Tensor x = randn(shape), want = module(x);
    EXPECT_TRUE(equal(executor.run(x), want)) << module.type_name() << " batch " << n;
    poison(executor.run(x));
    EXPECT_TRUE(equal(executor.run(x), want)) << module.type_name() << " poisoned, batch " << n;
  }
}

TEST(Executor, HasTheBitsOfTheModule) {
  manual_seed(11);
  nn::LeNet lenet;
  expect_module_bits(lenet, {3, 32, 32}, {1, 2, 64});
  nn::LeNet5Caffe caffe;
  expect_module_bits(caffe, {1, 28, 28}, {1, 2});
  nn::LeNet300_100 mlp;
  expect_module_bits(mlp, {1, 28, 28}, {1, 2, 64});
  nn::ResNet resnet{{.depth = 8, .in = 1, .width = 8}};
  disturb_norms(resnet);
  expect_module_bits(resnet, {1, 32, 32}, {1, 2, 5});
  Branches branches;
  disturb_norms(branches);
  expect_module_bits(branches, {2, 6, 6}, {1, 2, 64});
}

TEST(Executor, RandomNetworksKeepTheirBitsInAPoisonedArena) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Network net = random_network(seed, 3 + static_cast<int>(seed) % 25);
    for (const int64_t batch : {1, 3}) {
      const Tensor x = randn({batch, 4, 6});
      NoGrad no_grad;
      const std::vector<Tensor> want = net.run({x});
      Executor executor(net, {.batch = batch});
      for (int run = 0; run < 2; ++run) {
        const std::vector<Tensor>& got = executor.run(std::vector<Tensor>{x});
        ASSERT_EQ(got.size(), want.size());
        for (size_t o = 0; o < want.size(); ++o)
          ASSERT_TRUE(equal(got[o], want[o])) << "seed " << seed << " run " << run << " output " << o << "\n"
                                              << net.table();
        for (const Tensor& t : got)
          if (executor.arena_bytes() > 0 && t.storage()->bytes == static_cast<size_t>(executor.arena_bytes()))
            poison(t);
      }
    }
  }
}

TEST(Workspace, FillsOnceWhatIsKept) {
  Workspace workspace;
  Workspace::Kept kept, others;
  int filled = 0;
  const auto run = [&](Workspace::Kept* of, bool bad = false) {
    workspace.reuse(of);
    workspace.get<float>(100);
    const int* const first = workspace.once<int>(2, [&](int* to) { to[0] = ++filled, to[1] = 7; });
    workspace.once([&] { HONE_CHECK(!bad, ValueError, "bad"); });
    const double* const last = workspace.once<double>(1, [&](double* to) { *to = 10 * ++filled; });
    return std::pair(*first, *last);
  };
  EXPECT_EQ(run(nullptr), std::pair(1, 20.0));  // nothing is kept
  EXPECT_EQ(run(nullptr), std::pair(3, 40.0));
  EXPECT_THROW(run(&kept, true), ValueError);
  EXPECT_THROW(run(&kept, true), ValueError);  // a check that failed has not passed; what came before it is kept
  EXPECT_EQ(run(&kept), std::pair(5, 60.0));
  EXPECT_EQ(run(&others), std::pair(7, 80.0));
  EXPECT_EQ(run(&kept, true), std::pair(5, 60.0));
  EXPECT_EQ(run(nullptr), std::pair(9, 100.0));
  EXPECT_EQ(run(&kept), std::pair(5, 60.0));
  EXPECT_GE(kept.bytes(), 2 * sizeof(int) + 1 + sizeof(double));
}

void expect_kept(Network net, const Shape& shape, const std::string& what) {
  NoGrad no_grad;
  Executor keeps(net, {.batch = shape[0]}), makes(net, {.batch = shape[0], .keep = false});
  EXPECT_EQ(keeps.kept_bytes(), 0) << what;
  for (int run = 0; run < 3; ++run) {
    const Tensor x = randn(shape), want = net(x);
    EXPECT_TRUE(equal(keeps.run(x), want)) << what << " run " << run;
    EXPECT_TRUE(equal(makes.run(x), want)) << what << " run " << run;
  }
  EXPECT_GT(keeps.kept_bytes(), 0) << what;
  EXPECT_EQ(makes.kept_bytes(), 0) << what;
}

TEST(Executor, KeepsWhatIsMadeOfWeights) {
  manual_seed(15);
  nn::LeNet lenet;
  nn::ResNet resnet{{.depth = 8, .in = 3, .width = 16}};
  disturb_norms(resnet);
  const auto data = compress::quantize::calibration({randn({4, 3, 32, 32})});
  for (nn::Module* module : {static_cast<nn::Module*>(&lenet), static_cast<nn::Module*>(&resnet)}) {
    const nn::ModeScope eval(*module, false);
    const Network net = graph::trace(*module, randn({1, 3, 32, 32}));
    const Network panels = graph::optimize(net), eight = compress::quantize::quantize_static(net, data),
                  four = compress::quantize::quantize_static(net, data, {.bits = 4});
    on_every_int8_target([&](int64_t) {
      for (const int64_t batch : {1, 3}) {
        const Shape shape{batch, 3, 32, 32};
        expect_kept(panels, shape, "panels");
        expect_kept(eight, shape, "8 bits");
        expect_kept(four, shape, "4 bits");
      }
    });
  }
}

/// Convolutions and layers on weights of every sparse form, and codebooks.
struct Stored : nn::Module {
  CsrMatrix csr = CsrMatrix::pack(kept({6, 3 * 9})), csr_fc = CsrMatrix::pack(kept({20, 96}));
  BlockSparseMatrix blocks = BlockSparseMatrix::pack(kept({8, 6 * 9}), 4, 1),
                    blocks_fc = BlockSparseMatrix::pack(kept({24, 20}), 8, 1);
  NMMatrix n_m = NMMatrix::pack(two_of_four({6, 8 * 9}), 2, 4), n_m_fc = NMMatrix::pack(two_of_four({16, 24}), 2, 4);
  CodebookMatrix codes = CodebookMatrix::pack(round(randn({6, 6, 3, 3}))),
                 codes_fc = CodebookMatrix::pack(round(randn({5, 16})));
  static Tensor kept(const Shape& shape) { return where(lt(rand(shape), 0.3), randn(shape), zeros(shape)); }
  static Tensor two_of_four(const Shape& shape) {
    Tensor w = randn(shape);
    for (int64_t i = 0; i < w.numel(); ++i)
      if (i % 4 >= 2) w.data<float>()[i] = 0;
    return w;
  }
  Tensor forward(const Tensor& x) {
    Tensor h = csr_conv2d(x, csr, {3}, {}, {.conv = {.padding = {1}}, .activation = Activation::relu});
    h = block_sparse_conv2d(h, blocks, {3}, {}, {.conv = {.padding = {1}}, .pool = {2}});
    h = n_m_conv2d(h, n_m, {3}, {}, {.conv = {.padding = {1}}});
    h = flatten(codebook_conv2d(h, codes, {}, {.conv = {.padding = {1}}, .pool = {2}}), 1);
    return codebook_linear(n_m_linear(block_sparse_linear(csr_linear(h, csr_fc), blocks_fc), n_m_fc), codes_fc);
  }
  HONE_MODULE(Stored)
};
TEST(Executor, KeepsWhatIsMadeOfStoredWeights) {
  manual_seed(17);
  Stored module;
  NoGrad no_grad;
  const Network net = graph::trace(module, randn({1, 3, 16, 16}));
  on_every_target([&](int64_t) {
    for (const int64_t batch : {1, 2, 40}) expect_kept(net, {batch, 3, 16, 16}, str("batch ", batch));
  });
}

/// Layers on packed weights that depend on the input: nothing may be kept of them.
struct Moving : nn::Module {
  PanelMatrix panels = PanelMatrix::pack(randn({20, 12}));
  CsrMatrix sparse = CsrMatrix::pack(randn({9, 20}));
  Tensor bias = randn({20});
  Tensor forward(const Tensor& x) {
    const Tensor scale = mean(x);
    PanelMatrix w = panels;
    w.values = panels.values * scale;
    const Tensor h = panel_linear(x, w, bias * scale, Activation::relu);
    CsrMatrix s = sparse;
    s.values = sparse.values + scale;
    return csr_linear(h, s);
  }
  HONE_MODULE(Moving)
};
TEST(Executor, KeepsNothingOfWeightsThatMove) {
  manual_seed(16);
  Moving module;
  NoGrad no_grad;
  for (const int64_t batch : {1, 40}) {
    Executor executor(graph::trace(module, randn({batch, 12})), {.batch = batch});
    for (int run = 0; run < 3; ++run) {
      const Tensor x = randn({batch, 12});
      EXPECT_TRUE(equal(executor.run(x), module(x))) << batch << " run " << run;
    }
    EXPECT_EQ(executor.kept_bytes(), 0);
  }
}

bool overlap(int64_t a, int64_t a_end, int64_t b, int64_t b_end) { return a < b_end && b < a_end; }
void expect_apart(const std::vector<Allocation>& arrays, int64_t total, const std::string& what) {
  for (size_t i = 0; i < arrays.size(); ++i) {
    const Allocation& a = arrays[i];
    ASSERT_EQ(a.offset % 64, 0) << what;
    ASSERT_TRUE(a.offset >= 0 && a.offset + a.bytes <= total) << what;
    for (size_t k = 0; k < i; ++k) {
      const Allocation& b = arrays[k];
      ASSERT_FALSE(overlap(a.first, a.last + 1, b.first, b.last + 1) &&
                   overlap(a.offset, a.offset + a.bytes, b.offset, b.offset + b.bytes))
          << what << ": " << i << " and " << k;
    }
  }
}

TEST(MemoryPlan, NoTwoLiveArraysOverlap) {
  std::mt19937_64 rng(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<Allocation> arrays(rng() % 40);
    int64_t sum = 0, most = 0;
    for (Allocation& a : arrays) {
      a.bytes = static_cast<int64_t>(rng() % 3 == 0 ? rng() % 4096 : 64 * (rng() % 8));
      a.first = static_cast<int32_t>(rng() % 20);
      a.last = a.first + static_cast<int32_t>(rng() % 6);
      sum += (a.bytes + 63) / 64 * 64;
    }
    for (int32_t step = 0; step < 30; ++step) {
      int64_t live = 0;
      for (const Allocation& a : arrays)
        if (a.first <= step && step <= a.last) live += (a.bytes + 63) / 64 * 64;
      most = std::max(most, live);
    }
    const int64_t total = graph::plan_memory(arrays);
    expect_apart(arrays, total, str("round ", round));
    EXPECT_LE(total, sum);
    EXPECT_GE(total, most);
  }
}

TEST(MemoryPlan, AChainNeedsTheTwoLargestNeighbours) {
  std::vector<Allocation> arrays;
  const int64_t sizes[] = {640, 128, 1280, 64, 320};
  for (int32_t i = 0; i < 5; ++i) arrays.push_back({i, sizes[i], i, i + 1});
  EXPECT_EQ(graph::plan_memory(arrays), 128 + 1280);
  std::vector<Allocation> none;
  EXPECT_EQ(graph::plan_memory(none), 0);
}

TEST(Executor, LivesAreThoseOfTheNetwork) {
  // relu → tanh → add(relu, tanh) → softmax: relu lives on until the add.
  Network net;
  const graph::ValueId x = net.add_input("x", f32, {{0, 1}, {8, 0}});
  const auto add = [&](const OpDef& op, std::vector<graph::ValueId> in, const Attrs& a = {}) {
    return net.add_node({.name = op.name, .op = &op, .inputs = std::move(in), .outputs = {}, .attributes = {a, {}}});
  };
  const graph::ValueId r = add(kRelu, {x}), t = add(kTanh, {r}), s = add(kAdd, {r, t}), e = add(kExp, {s});
  add(kSigmoid, {x});  // nothing reads it
  net.set_outputs({e});
  Executor executor(net, {.batch = 4});
  std::vector<std::pair<int32_t, int32_t>> lives;
  for (const Allocation& a : executor.allocations()) {
    lives.emplace_back(a.first, a.last);
    EXPECT_EQ(a.bytes, 4 * 8 * 4);
  }
  EXPECT_EQ(lives, (std::vector<std::pair<int32_t, int32_t>>{{0, 2}, {1, 2}, {2, 3}, {3, 4}}));
  EXPECT_EQ(executor.arena_bytes(), 3 * 128);
  EXPECT_EQ(executor.profile({randn({4, 8})}, 3).size(), 4u);
  EXPECT_EQ(executor.profile({randn({4, 8})}, 0, 1e-9).size(), 4u);
  expect_error<ValueError>([&] { executor.profile({randn({4, 8})}, -1, 1); }, "-1 runs");
  expect_error<ValueError>([&] { executor.profile({randn({4, 8})}, 0); }, "0 seconds");
  EXPECT_NE(executor.plan().find("relu"), std::string::npos) << executor.plan();
  expect_apart(executor.allocations(), executor.arena_bytes(), "diamond");
}

TEST(Executor, LeNetsArenaIsSmallerThanItsResults) {
  nn::LeNet module;
  Executor executor(graph::trace(module, randn({1, 3, 32, 32})));
  int64_t apart = 0;
  for (const Allocation& a : executor.allocations()) apart += a.bytes;
  expect_apart(executor.allocations(), executor.arena_bytes(), "lenet");
  EXPECT_EQ(executor.arena_bytes(), 2 * 6 * 28 * 28 * 4) << executor.plan();  // conv1 and its relu
  EXPECT_LT(executor.arena_bytes(), apart);
  EXPECT_EQ(executor.batch(), 1);
}

TEST(Executor, TakesInputsOfAnyStridesAndItsOwnResults) {
  manual_seed(3);
  nn::Linear module{{.in = 6, .out = 6}};
  Network net = graph::trace(module, randn({1, 6}));
  Executor executor(net, {.batch = 6});
  NoGrad no_grad;
  const Tensor x = randn({6, 6});
  EXPECT_TRUE(equal(executor.run(transpose(x)), module(contiguous(transpose(x)))));
  EXPECT_TRUE(equal(executor.run(x), module(x)));
  const Tensor want = module(module(module(x)));
  executor.run(x);
  executor.run(executor.run(executor.run(x)));
  EXPECT_TRUE(equal(executor.run(executor.run(executor.run(x))), want));
  // The result is one array, written anew by each run.
  const Tensor first = executor.run(x), kept = clone(first);
  const uint64_t version = first.version();
  executor.run(x * 2.0);
  EXPECT_FALSE(equal(first, kept));
  EXPECT_GT(first.version(), version);
  EXPECT_FALSE(first.requires_grad());
}

TEST(Executor, MasksAreAppliedAndTheModeDoesNotMatter) {
  manual_seed(4);
  Branches module;
  disturb_norms(module);
  module.fc1.weight.ref().set_mask(cast(randint(0, 2, module.fc1.weight.shape()), DType::boolean));
  Network net = graph::trace(module, branches_input(1));
  net.train();  // an executor runs eval mode all the same
  Executor executor(net, {.batch = 2});
  NoGrad no_grad;
  module.eval();
  const Tensor x = branches_input(2);
  EXPECT_TRUE(equal(executor.run(x), module(x)));
  Executor moved = std::move(executor);
  EXPECT_TRUE(equal(moved.run(x), module(x)));
}

TEST(Executor, RefusesWhatDoesNotFit) {
  nn::LeNet module;
  const auto net = std::make_shared<const Network>(graph::trace(module, randn({1, 3, 32, 32})));
  Executor executor(net, {.batch = 2});
  expect_error<ShapeError>([&] { executor.run(zeros({1, 3, 32, 32})); }, {"'x'", "[1, 3, 32, 32]", "[2, 3, 32, 32]"});
  expect_error<ShapeError>([&] { executor.run(zeros({2, 3, 32})); }, {"'x'", "[2, 3, 32]"});
  expect_error<DTypeError>([&] { executor.run(zeros({2, 3, 32, 32}, f64)); }, {"'x'", "f64", "f32"});
  expect_error<ValueError>([&] { executor.run(Tensor()); }, "undefined");
  expect_error<ValueError>([&] { executor.run(std::vector<Tensor>{}); }, {"1 inputs", "got 0"});
  expect_error<ValueError>([&] { Executor(net, {.batch = 0}); }, "batch 0");
  expect_error<ValueError>([&] { Executor(std::shared_ptr<const Network>()); }, "no network");
  Network two = *net;
  two.set_outputs({two.find("fc3"), two.find("fc1")});
  Executor both(two);
  expect_error<ValueError>([&] { both.run(zeros({1, 3, 32, 32})); }, "2 outputs");
  EXPECT_EQ(both.run(std::vector<Tensor>{zeros({1, 3, 32, 32})})[1].shape(), (Shape{1, 120}));
}

struct FirstOfPairs : nn::Module {
  HONE_MODULE(FirstOfPairs)
  Tensor forward(const Tensor& x) { return relu(slice(x, 0, 0, x.size(0) - 1)) + slice(x, 0, 1); }
};

TEST(Executor, ABatchThatGivesNoShapeIsNamed) {
  FirstOfPairs module;
  Network net = graph::trace(module, randn({3, 2}));
  const Tensor x = randn({4, 2});
  EXPECT_TRUE(equal(Executor(net, {.batch = 4}).run(x), module(x)));
  Network masks;  // reads in eval mode what dropout makes in training mode
  nn::Dropout drop{{.p = 0.5}};
  Network traced = graph::trace(drop, randn({2, 3}));
  ASSERT_EQ(traced.nodes().size(), 1u);
  if (traced.nodes()[0].outputs.size() > 1) {
    traced.set_outputs({traced.nodes()[0].outputs[1]});
    expect_error<GraphError>([&] { Executor e(traced); }, "training mode");
  }
}

TEST(Executor, ThreadsShareANetwork) {
  manual_seed(6);
  nn::LeNet module;
  const auto net = std::make_shared<const Network>(graph::trace(module, randn({1, 3, 32, 32})));
  NoGrad no_grad;
  module.eval();
  std::vector<Tensor> inputs, want, got(4);
  for (int i = 0; i < 4; ++i) {
    inputs.push_back(randn({2, 3, 32, 32}));
    want.push_back(module(inputs.back()));
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      Executor executor(net, {.batch = 2});
      for (int run = 0; run < 20; ++run) executor.run(inputs[i]);
      got[i] = clone(executor.run(inputs[i]));
    });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(equal(got[i], want[i])) << i;
}

TEST(Measure, ReportsWhatItRan) {
  nn::LeNet300_100 module;
  const Network net = graph::trace(module, randn({1, 784}));
  const int threads = num_threads();
  const graph::Latency l = graph::measure(net, randn({3, 784}), {.threads = threads + 1, .runs = 41});
  EXPECT_EQ(num_threads(), threads);
  EXPECT_EQ(l.runs, 41);
  EXPECT_EQ(l.batch, 3);
  EXPECT_EQ(l.threads, threads + 1);
  EXPECT_TRUE(l.p50_us > 0 && l.p50_us <= l.p95_us && l.mean_us > 0);
  const graph::Latency timed = graph::measure(net, randn({1, 784}), {.seconds = 0.02, .warmup = 0});
  EXPECT_GE(timed.runs, 1);
  EXPECT_LT(static_cast<double>(timed.runs) * timed.p50_us, 1e6);
  std::vector<std::string> names;
  for (const auto& n : graph::profile(net, randn({1, 784}), {.runs = 5})) names.push_back(n.name + ":" + n.op);
  EXPECT_EQ(names, (std::vector<std::string>{"fc1:linear", "relu:relu", "fc2:linear", "relu_1:relu", "fc3:linear"}));
  // As long as it is told, where it is not told how often.
  const auto seconds_of = [&](graph::MeasureOptions o) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(graph::profile(net, randn({1, 784}), o).size(), 5u);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  EXPECT_GE(seconds_of({.seconds = 0.3}), 0.3);
  EXPECT_LT(seconds_of({.seconds = 60, .runs = 5}), 30);
  expect_error<ValueError>([&] { graph::profile(net, randn({1, 784}), {.seconds = 0}); }, "seconds 0");
  expect_error<ValueError>([&] { graph::measure(net, randn({1, 784}), {.seconds = 0}); }, "seconds 0");
  expect_error<ValueError>([&] { graph::measure(net, randn({1, 784}), {.runs = -1}); }, "runs -1");
  expect_error<ValueError>([&] { graph::measure(net, Tensor()); }, "undefined");
  expect_error<ShapeError>([&] { graph::measure(net, randn({1, 783})); }, "[1, 783]");
}

}  // namespace
}  // namespace hone::test
