#pragma once
// Pruner: pruning while training, by a schedule; and what pruning recipes of several rounds need.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "hone/compress/prune/prune.h"
#include "hone/core/serialize.h"

namespace hone::compress {

/// Decides the masks of a module's parameters at the steps that its schedule names.
///
///   compress::Pruner pruner(net, {.criterion = compress::magnitude(), .density = 0.05,
///                                 .schedule = compress::CubicRamp{.end = 4000, .every = 100}});
///   for (auto& [images, labels] : batches) {
///     adam.zero_grad();
///     cross_entropy(net(images), labels).backward();
///     pruner.observe();   // for movement() and other criteria that learn from training's own gradients
///     adam.step();
///     pruner.step();      // after the optimizer, before gradients are cleared
///   }
///
/// It keeps the parameters' identities and the buffers' tensors, not the module: the module may move, and every
/// parameter chosen is masked from the beginning, if by a mask of ones. Without Surgery or RigL what is masked stays
/// masked, whoever masked it. Scoring by .losses leaves the buffers that the module had at the beginning as they were,
/// running statistics in training mode too.
class Pruner {
 public:
  /// Does what the schedule says for t = 0: OneShot prunes here, and so does every schedule that begins at 0 with an
  /// N:M pattern, whose density no ramp changes; a criterion that is observed needs .losses there. ValueError as
  /// prune(), and for a schedule's fields; then nothing has changed.
  Pruner(nn::Module& module, PruneOptions options);

  /// Adds the gradients that the parameters hold, the mean over `samples`, to the scores: between backward() and the
  /// optimizer's step(). A first-order criterion then needs no losses. ValueError for a criterion of another order or
  /// of the output's gradients and for a parameter that is a codebook by now, ShapeError for one that was shrunk
  /// without apply(), NumericError naming the parameter for gradients that are not finite (a step that a scaler skips,
  /// say); then nothing was added.
  void observe(int64_t samples = 1);
  /// t + 1; true where masks were decided anew. What scores() throws, ValueError for a criterion that has neither
  /// losses nor anything observed and for masks to decide of a parameter that is a codebook by now, GradError for RigL
  /// without gradients, NumericError for its weights or gradients that are not finite; on an error t and the masks are
  /// as they were.
  bool step();

  int64_t t() const { return t_; }
  /// Of the parameters that it prunes.
  PruneReport report() const;
  /// Slices what was observed of a parameter that was shrunk. Others are ignored.
  void apply(const Shrink& shrink);

  /// t and what was observed. Masks are in the module's state: with both in a train::Checkpoint a resumed run goes on
  /// to the same bytes.
  TensorFile state_dict() const;
  /// FormatError naming what differs: a schedule, density, scope, pattern or criterion of another name or setting,
  /// other parameters, entries missing, unexpected or of another shape; on error nothing has changed.
  void load_state_dict(const TensorFile& file);

 private:
  bool decide(int64_t t);
  void swap_weights(int64_t t, const RigL& schedule);
  std::vector<Tensor> current_scores() const;
  std::vector<std::pair<std::string, std::string>> settings() const;
  MaskGradient gradient_for_next(int64_t t) const;
  void set_masks(const std::vector<Tensor>& masks, MaskGradient gradient);

  PruneOptions options_;
  std::vector<nn::NamedParameter> parameters_;
  std::vector<Tensor> buffers_;  // of the module
  detail::ScoreSum observed_;
  int64_t t_ = 0;
};

/// Values, masks with their gradient rules, and buffers of a module at one moment, by name: to go back. Gradients are
/// no part.
///
///   train(net, 500);
///   const compress::Snapshot early(net);
///   train(net, 20000);
///   compress::prune(net, {.density = 0.2});
///   early.rewind(net);                        // the lottery ticket: early values under the late mask
class Snapshot {
 public:
  explicit Snapshot(nn::Module& module);
  /// Values and buffers as they were; masks stay. Frankle and Carbin, "The lottery ticket hypothesis", 2019; from step
  /// k > 0: Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020.
  void rewind(nn::Module& module) const;
  /// All as it was: a parameter that was dense is dense again. FormatError for a codebook that got a mask since.
  void restore(nn::Module& module) const;
  // Both: FormatError or ShapeError for a module of other names or shapes, which is left as it was. Gradients may be
  // dropped. Optimizers keep their state: make a new one.

  TensorFile state_dict() const;
  void load_state_dict(const TensorFile& file);

 private:
  void check(const char* what, nn::Module& module) const;
  TensorFile state_;
};

struct IterateOptions {
  double factor = 0.8;   ///< in (0, 1): part of the density that a round keeps
  int64_t rounds = 100;  ///< at most; ≥ 1
  std::function<void()> retrain = {};
  std::function<bool()> satisfactory = {};
};

/// The survey's four steps: score the weights on data, mask those that score lowest, retrain, and do so again while
/// performance is satisfactory. Round k prunes to max(density, factor^k) by prune(), retrains and asks; the first
/// round that is not satisfactory is undone (Snapshot::restore) and ends it, as does reaching the density. Returns what
/// is kept at the end. Make optimizers inside retrain(). ValueError for a field out of its range or no retrain or
/// satisfactory, and as prune(); what retrain or satisfactory throws goes on, with its round undone.
PruneReport prune_while(nn::Module& module, PruneOptions options, const IterateOptions& iterate);

}  // namespace hone::compress
