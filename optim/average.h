#pragma once
// Averages of weights over training steps: what is averaged often tests better than the last step's weights.

#include <cstdint>
#include <vector>

#include "hone/core/parameter.h"
#include "hone/core/serialize.h"

namespace hone::optim {

/// Base: a second set of values for some parameters. Averages are kept in f32 for bf16 parameters. Construction throws
/// ValueError for an empty list, an undefined parameter or one listed twice; DeviceError unless all are on the cpu.
///
///   optim::EMA ema(net.parameters(), {.decay = 0.999});
///   for (…) { …; adam.step(); ema.update(); }
///   {
///     const auto averaged = ema.use();    // the parameters hold the averages until `averaged` goes
///     evaluate(net);
///   }
class WeightAverage {
 public:
  virtual ~WeightAverage() = default;
  WeightAverage(const WeightAverage&) = delete;
  WeightAverage& operator=(const WeightAverage&) = delete;

  /// Takes the parameters' present values into the average. GradError for a parameter whose shape has changed and of
  /// whose shrink apply() was not told.
  void update();
  int64_t updates() const { return updates_; }

  /// Exchanges the parameters' values with the averages, and back when it is destroyed. ValueError before the first
  /// update, or while another one lives; update() meanwhile is one too.
  class Guard {
   public:
    explicit Guard(WeightAverage& a);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    WeightAverage& average_;
  };
  [[nodiscard]] Guard use() { return Guard(*this); }
  /// Writes the averages into the parameters for good.
  void copy_to_parameters();
  Tensor average(int64_t i) const;  ///< of parameter i of the list; undefined before the first update

  TensorFile state_dict() const;
  void load_state_dict(const TensorFile& file);  ///< FormatError naming what differs; then nothing has changed
  /// Slices the average of a parameter that has kept only some indices of a dimension; other parameters are ignored.
  /// ValueError while use() holds.
  void apply(const Shrink& shrink);

 protected:
  WeightAverage(const char* name, std::vector<ParameterRef> parameters);
  /// The weight of the present values in update number n, from 1: average ← average + weight (value − average). Update
  /// 1 takes the values themselves.
  virtual double weight(int64_t n) const = 0;

 private:
  void check_shapes(const char* what) const;

  const char* name_;
  std::vector<ParameterRef> parameters_;
  std::vector<uint64_t> generations_;
  std::vector<Tensor> averages_;
  int64_t updates_ = 0;
  std::vector<Tensor> held_;  // the parameters' own values while a Guard lives
};

struct EMAOptions {
  double decay = 0.999;  ///< β in [0, 1)
  bool warmup = true;    ///< β_n = min(β, n/(n + 9)): early weights are forgotten sooner (update n, from 1)
};

/// Exponential moving average (Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, in
/// the form of Tarvainen and Valpola, "Mean teachers", 2017): a ← β_n a + (1−β_n) w.
class EMA : public WeightAverage {
 public:
  explicit EMA(const std::vector<ParameterRef>& parameters, EMAOptions options = {});

 protected:
  double weight(int64_t n) const override;

 private:
  EMAOptions options_;
};

/// Stochastic weight averaging (Izmailov et al., "Averaging weights leads to wider optima and better generalization",
/// 2018): the plain mean of all updates. Running statistics of batch norm do not follow: show the
/// network some batches in training mode while use() holds.
class SWA : public WeightAverage {
 public:
  explicit SWA(const std::vector<ParameterRef>& parameters) : WeightAverage("SWA", parameters) {}

 protected:
  double weight(int64_t n) const override { return 1 / static_cast<double>(n); }
};

}  // namespace hone::optim
