#pragma once
// Stochastic gradient descent with the pieces of a mini-batch, or several mini-batches, worked on in parallel.

#include <atomic>
#include <memory>
#include <vector>

#include "hone/core/autograd.h"
#include "hone/core/parallel.h"
#include "hone/core/random.h"
#include "hone/optim/sgd.h"

namespace hone::optim {

enum class ParallelMode : uint8_t {
  /// Every mini-batch is cut into `shards` pieces, whose gradients are summed in their order and applied once: the step
  /// of SGD on the whole mini-batch, with the same bits for any number of workers.
  synchronous,
  /// Each worker steps on its own part of every mini-batch with weights and momentum of its own; after every `period`
  /// steps the weights are averaged (Stich, "Local SGD converges fast and communicates little", 2019). The number of
  /// workers is a part of the method; threads do not change bits.
  local_sgd,
  /// Workers take `shards` pieces as they become free and apply each gradient to the shared weights at once, without
  /// locks (Niu et al., "Hogwild!", 2011). Not reproducible. No momentum.
  hogwild,
};

struct ParallelSGDOptions {
  SGDOptions sgd = {};
  int64_t workers = 2;  ///< ≥ 1; they run on at most num_threads() threads
  ParallelMode mode = ParallelMode::synchronous;
  int64_t shards = 4;  ///< ≥ 1: pieces of a mini-batch (synchronous, hogwild)
  int64_t period = 8;  ///< ≥ 1: steps between averages (local_sgd)
};

namespace detail {

using ParameterLists = std::vector<std::vector<ParameterRef>>;

/// First rows of `pieces` nearly equal pieces, and the end. ShapeError unless both have as many rows, at least one
/// each.
std::vector<int64_t> cut(const Tensor& inputs, const Tensor& targets, int64_t pieces);
Tensor rows(const Tensor& t, int64_t begin, int64_t end);
/// The draws of one shard in the step that took this stream.
GeneratorState shard_generator(const Philox& step, int64_t shard);

/// What ParallelSGD does with parameters, whatever the network's type. `replicas` are lists like `master`.
class ParallelState {
 public:
  ParallelState(std::vector<ParameterRef> master, ParameterLists replicas, std::vector<std::vector<Tensor*>> buffers,
                const ParallelSGDOptions& options);
  SGD& optimizer() { return optimizer_; }
  const ParallelSGDOptions& options() const { return options_; }
  int64_t non_finite_steps() const;
  TensorFile state_dict() const;
  void load_state_dict(const TensorFile& file);

  /// Masks, grids, rates, running statistics and (local_sgd, after an average) weights go to the workers. GradError for
  /// a parameter of another shape than it had.
  void begin_step();
  void begin_shard(int64_t replica);                 ///< before its forward: weights, no gradients
  void end_shard(int64_t replica);                   ///< after its backward: local_sgd and hogwild update here
  void end_step(const std::vector<double>& shares);  ///< shares: part of the mini-batch in each shard
  void average();                                    ///< local_sgd: of all workers' weights, into the master

 private:
  /// What a parameter computes with beside its raw value. What is set is a new tensor, and one that is kept here is no
  /// other's storage.
  struct Marks {
    WeightType type;
    Tensor mask, points, levels;
    explicit Marks(const ParameterRef& p);
  };
  void follow_marks();
  bool settle_non_finite(std::vector<Tensor>& gradients);
  void merge_buffers();
  void take_state(const TensorFile& file);
  std::vector<std::pair<std::string, Tensor>> worker_values() const;

  ParallelSGDOptions options_;
  std::vector<ParameterRef> master_;
  ParameterLists replicas_;
  std::vector<Marks> marks_;                   // of the master, as the replicas have them
  std::vector<uint64_t> generations_;          // of the master
  std::vector<std::vector<Tensor*>> buffers_;  // of the master, then of each replica
  SGD optimizer_;
  std::vector<std::unique_ptr<SGD>> local_;
  int64_t steps_ = 0;
  bool together_ = true;                       // local_sgd: no worker has stepped since the last average
  std::atomic<int64_t> non_finite_shards_{0};  // hogwild
};

}  // namespace detail

/// Trains a copyable network (a Module) by SGD on several threads:
///
///   optim::ParallelSGD parallel(net, {.sgd = {.lr = 0.05, .momentum = 0.9}, .workers = 2});
///   for (auto& [images, labels] : batches)
///     double loss = parallel.step(images, labels, [](Net& n, const Tensor& x, const Tensor& y) {
///       return cross_entropy(n(x), y);
///     });
///
/// The loss is called on replicas of the network, several at a time, and must be a mean over its samples; it must not
/// touch anything else that another call changes. Running statistics of replicas are averaged into the network's. Draws
/// (dropout) belong to the shard, not to the worker. A mask or grid that the network's parameters get or lose is
/// followed from the next step on; of a codebook, made before, the centroids are trained. A step on a parameter that
/// changed its shape, as one that became a codebook did, is a GradError. Gradients that are not finite:
/// optimizer().set_non_finite() holds for all workers; with hogwild an error leaves what other pieces have done.
template <class Net> class ParallelSGD {
 public:
  /// `net` must outlive it, unmoved. ValueError for options out of range, or momentum with hogwild.
  ParallelSGD(Net& net, ParallelSGDOptions options) : net_(net) {
    const int64_t count = options.mode == ParallelMode::synchronous ? options.shards : options.workers;
    detail::ParameterLists lists;
    std::vector<std::vector<Tensor*>> buffers{buffers_of(net)};
    for (int64_t i = 0; i < count; ++i) {
      replicas_.push_back(std::make_unique<Net>(net));
      lists.push_back(replicas_.back()->parameters());
      buffers.push_back(buffers_of(*replicas_.back()));
    }
    state_ = std::make_unique<detail::ParallelState>(net.parameters(), std::move(lists), std::move(buffers), options);
  }

  /// The optimizer of the network's own parameters, for schedules: its rate and momentum hold for all workers.
  SGD& optimizer() { return state_->optimizer(); }
  int64_t non_finite_steps() const { return state_->non_finite_steps(); }  ///< skipped or clipped, of all workers

  const char* name() const { return "ParallelSGD"; }
  /// What a checkpoint needs beside the network: the optimizer, and of local_sgd each worker's, with its weights where
  /// they are not yet averaged. The same bits go on from there, except with hogwild.
  TensorFile state_dict() const { return state_->state_dict(); }
  /// FormatError naming what differs (mode, workers, shapes, …); on error nothing has changed.
  void load_state_dict(const TensorFile& file) { state_->load_state_dict(file); }

  /// One mini-batch; its mean loss. inputs and targets [N, …] with N ≥ the number of pieces, else ShapeError. What a
  /// loss throws is thrown here; in the synchronous mode the network is then as it was.
  template <class Loss> double step(const Tensor& inputs, const Tensor& targets, Loss&& loss) {
    const ParallelSGDOptions& o = state_->options();
    const int64_t shards = o.mode == ParallelMode::local_sgd ? o.workers : o.shards;
    const std::vector<int64_t> cuts = detail::cut(inputs, targets, shards);
    for (auto& r : replicas_) r->train(net_.training());
    state_->begin_step();
    const Philox draws = next_stream();
    std::vector<double> losses(static_cast<size_t>(shards)), shares(losses.size());
    std::atomic<int64_t> free_shard{0};
    parallel_for(o.workers, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker) {
        for (int64_t shard; (shard = free_shard.fetch_add(1)) < shards;) {
          const int64_t replica = o.mode == ParallelMode::hogwild ? worker : shard;
          Net& net = *replicas_[static_cast<size_t>(replica)];
          const EnableGrad enable;
          const GeneratorScope scope(detail::shard_generator(draws, shard));
          state_->begin_shard(replica);
          const int64_t from = cuts[static_cast<size_t>(shard)], to = cuts[static_cast<size_t>(shard) + 1];
          const Tensor value = loss(net, detail::rows(inputs, from, to), detail::rows(targets, from, to));
          value.backward();
          losses[static_cast<size_t>(shard)] = value.item();
          shares[static_cast<size_t>(shard)] = static_cast<double>(to - from) / static_cast<double>(cuts.back());
          state_->end_shard(replica);
        }
      }
    });
    state_->end_step(shares);
    double total = 0;
    for (size_t i = 0; i < losses.size(); ++i) total += shares[i] * losses[i];
    return total;
  }

  /// local_sgd: averages the workers' weights into the network now, as every `period` steps do, and they go on from
  /// there; else nothing.
  void synchronize() { state_->average(); }

 private:
  static std::vector<Tensor*> buffers_of(Net& net) {
    std::vector<Tensor*> out;
    for (auto& b : net.named_buffers()) out.push_back(&b.buffer->tensor());
    return out;
  }

  Net& net_;
  std::vector<std::unique_ptr<Net>> replicas_;
  std::unique_ptr<detail::ParallelState> state_;
};

}  // namespace hone::optim
