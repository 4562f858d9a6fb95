#pragma once
// Runs a Network as it is, in eval mode: no autograd, no allocation, every result at its place in one arena.
//
//   const auto network = std::make_shared<const graph::Network>(graph::optimize(graph::trace(module, images)));
//   graph::Executor executor(network, {.batch = 1});     // one a thread; all share the network
//   const Tensor& logits = executor.run(image);          // valid until the next run

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hone/compress/graph/memory_plan.h"
#include "hone/compress/graph/network.h"

namespace hone::graph {

struct ExecutorOptions {
  int64_t batch = 1;  ///< the one batch size it runs
  /// What ops make of weights and shapes (integer weights in Winograd's form, offsets of sparse ones, tables) is made
  /// in the first run and kept: time for memory, kept_bytes() of it. The results have the same bits.
  bool keep = true;
};

struct NodeTime {
  std::string name;  ///< of the node
  std::string op;
  double microseconds = 0;
};

/// A plan made once: which kernels run, in which order, on which addresses. Each run calls the ops' own kernels on
/// them: the same bits as the Network in eval mode. What nothing reads is not run; views cost nothing. An Executor is
/// for one thread at a time; several may share one const Network.
class Executor {
 public:
  /// Masked and quantized parameters and uniform constants become plain arrays here, once; other parameters, buffers
  /// and constants are the network's own arrays: it must not change while Executors use it. ValueError for a batch
  /// below 1; GraphError naming the node for a network that does not fit the batch or reads in eval mode what only
  /// training mode makes; DeviceError unless all of it is on the CPU.
  explicit Executor(std::shared_ptr<const Network> network, ExecutorOptions options = {});
  explicit Executor(Network network, ExecutorOptions options = {});
  Executor(Executor&&) noexcept;
  Executor& operator=(Executor&&) noexcept;
  ~Executor();

  /// The network's one output for its one input (ValueError where there are others), valid until the next run, which
  /// writes to the same array: clone() what is to be kept. The input may have any strides and may be a former output.
  /// ShapeError naming the input for a shape that is not the network's at this batch size, DTypeError, DeviceError.
  const Tensor& run(const Tensor& x);
  /// All outputs for all inputs.
  const std::vector<Tensor>& run(const std::vector<Tensor>& inputs);

  int64_t batch() const { return batch_; }
  /// Of all results together; scratch memory of single kernels comes from the caching allocator, in the first run.
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t kept_bytes() const;
  const std::vector<Allocation>& allocations() const { return allocations_; }
  /// A row a result: name, shape, bytes, offset, the steps between which it lives; and totals.
  std::string plan() const;
  /// The time of each node that runs, median of `runs` runs; with runs 0, of runs until `seconds` have passed.
  /// ValueError for runs below 0, or 0 with seconds that are not finite and above 0.
  std::vector<NodeTime> profile(const std::vector<Tensor>& inputs, int64_t runs = 100, double seconds = 0);

 private:
  struct Step;
  struct Builder;
  /// A View into an input's array, whose address each run brings.
  struct InputView {
    View* view;
    size_t input;
    std::ptrdiff_t bytes;  ///< from the input's first element
  };
  struct Copy {
    View from, to;
  };
  const std::vector<Tensor>& run(const Tensor* inputs, size_t count);
  void bind(size_t i, const Tensor& x);
  template <class Before> void execute(Before&& before);

  std::shared_ptr<const Network> network_;
  int64_t batch_ = 1, arena_bytes_ = 0;
  bool keep_ = true;
  std::vector<Allocation> allocations_;
  Tensor arena_;
  std::vector<Tensor> fixed_;   // parameters and constants that are read, so that their arrays stay
  std::vector<Tensor> staged_;  // contiguous copies of inputs that are not so; made when first needed
  std::vector<Step> steps_;
  std::vector<InputView> input_views_;
  std::vector<Copy> copies_;  // of inputs that are outputs as well
  std::vector<Tensor> outputs_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace hone::graph
