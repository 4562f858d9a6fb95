#pragma once
// A teacher's answers to a whole dataset, computed once.

#include "hone/compress/distill/teacher.h"
#include "hone/core/data/loader.h"

namespace hone::compress {

struct TeacherCacheOptions {
  data::Transforms transform = {};  ///< normalize, pad_to, repeat_channels
  int64_t batch = 256;              ///< samples shown to the teacher at once
};

/// Row i is the teacher's logits for sample i. Its loader delivers sample numbers where others deliver targets, so that
/// any order, subset or sampler finds the answers of the images that it shows:
///
///   compress::TeacherCache cache(teacher, fashion.train, {.transform = steps});
///   data::Loader batches = cache.loader({.batch = 64, .shuffle = true});
///   for (auto& [images, samples] : batches) {
///     Tensor loss = compress::kd_loss(student(images), cache.logits(samples), cache.targets(samples));
///     …
///   }
///
/// One answer an image: transforms that draw random numbers, or might (custom), are refused (ValueError). With those,
/// call teacher.logits(images) in the loop, so that the teacher sees what the student sees.
class TeacherCache {
 public:
  /// ValueError for an empty dataset, ShapeError unless the answers are [n, C].
  TeacherCache(const Teacher& teacher, const data::Dataset& samples, const TeacherCacheOptions& options = {});
  /// From logits [N, C] that were computed before, in the order of the samples (ShapeError).
  TeacherCache(Tensor logits, const data::Dataset& samples, const TeacherCacheOptions& options = {});

  /// Batches of (inputs, sample numbers, i64). options.transform must be empty (ValueError): it is the cache's.
  data::Loader loader(data::LoaderOptions options = {}) const;
  const Tensor& all_logits() const { return logits_; }  ///< [N, C]: what to save
  Tensor logits(const Tensor& samples) const;           ///< [n, C]; ValueError for a number outside [0, N)
  Tensor targets(const Tensor& samples) const;          ///< the dataset's own, likewise

 private:
  data::Dataset numbered_;
  data::Transforms transform_;
  Tensor logits_, targets_;
};

}  // namespace hone::compress
