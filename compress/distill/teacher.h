#pragma once
// Whoever teaches: a frozen copy of any module, or the average of the student's own weights.

#include <cstdint>
#include <vector>

#include "hone/ops/nn/module.h"
#include "hone/optim/average.h"

namespace hone::compress {

/// A copy of a module, in eval mode and frozen, so that the module itself may go on training. Any module that maps one
/// tensor to logits is a teacher: a network, one of another file, an Ensemble.
///
///   compress::Teacher teacher(wide);
///   for (auto& [images, labels] : batches) {
///     Tensor loss = compress::kd_loss(student(images), teacher.logits(images), labels, {.temperature = 4});
///     adam.zero_grad();  loss.backward();  adam.step();
///   }
class Teacher {
 public:
  explicit Teacher(const nn::Module& network);
  /// Its answers, without a graph.
  Tensor logits(const Tensor& inputs) const;
  nn::Module& network() const { return *network_; }  ///< the copy: for Taps, or to save it

 private:
  nn::AnyModule network_;
};

/// A teacher that is the moving average of the student's own raw weights (optim::EMA). What else there is, buffers such
/// as running means, masks with their gradient rules, codes and grids, is the student's at the last update: a student
/// that is pruned has a teacher with the same zeros. Tarvainen, Valpola, "Mean teachers are better role models", 2017.
///
///   compress::SelfTeacher teacher(student, {.decay = 0.99});
///   for (auto& [images, labels] : batches) {
///     Tensor loss = compress::kd_loss(student(images), teacher.logits(images), labels);
///     adam.zero_grad();  loss.backward();  adam.step();
///     teacher.update();                                        // after each step
///   }
///
/// Before the first update it answers as the student did when it was made. The student must stay where it is.
class SelfTeacher {
 public:
  explicit SelfTeacher(nn::Module& student, optim::EMAOptions options = {});
  /// GradError naming a parameter whose shape or dtype has changed, as by a shrink or a new codebook, ShapeError naming
  /// a buffer: make a new SelfTeacher after such a change. On an error nothing has changed.
  void update();
  Tensor logits(const Tensor& inputs) const { return average_.logits(inputs); }
  nn::Module& network() const { return average_.network(); }  ///< often better than the student: save this one

 private:
  nn::Module& student_;
  std::vector<nn::NamedParameter> parameters_;  // the student's
  std::vector<uint64_t> generations_;           // theirs when it was made
  optim::EMA ema_;
  Teacher average_;
};

}  // namespace hone::compress
