#pragma once
// A teacher's answers to a whole dataset, computed once.

#include "hone/compress/distill/teacher.h"
#include "hone/core/data/loader.h"

namespace hone::compress {

struct TeacherCacheOptions {
  data::Transforms transform = {};  ///< normalize, pad_to, repeat_channels; random_flip once
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
/// With random_flip the N images are kept mirrored as well, before the other steps: number N + i is the mirror of
/// sample i, and the loader delivers one or the other, a function of (seed, epoch, place in the pass). Transforms of
/// more answers an image (random_crop), or of who knows how many (custom), are refused (ValueError): with those, call
/// teacher.logits(images) in the loop, so that the teacher sees what the student sees.
class TeacherCache {
 public:
  /// ValueError for an empty dataset, ShapeError unless the answers are [n, C]; with random_flip, of samples of fewer
  /// than two dims. NumericError for an answer that is not finite.
  TeacherCache(const Teacher& teacher, const data::Dataset& samples, const TeacherCacheOptions& options = {});
  /// From logits [N, C] that were computed before, in the order of the samples; with random_flip [2 N, C] (ShapeError).
  TeacherCache(Tensor logits, const data::Dataset& samples, const TeacherCacheOptions& options = {});

  /// Batches of (inputs, sample numbers, i64). options.transform must be empty (ValueError): it is the cache's.
  data::Loader loader(data::LoaderOptions options = {}) const;
  const Tensor& all_logits() const { return logits_; }  ///< [N, C], with mirrors [2 N, C]: what to save
  /// [n, C] for sample numbers [n], i64. ValueError for a number of no sample, ShapeError, DTypeError.
  Tensor logits(const Tensor& samples) const;
  Tensor targets(const Tensor& samples) const;  ///< the dataset's own, likewise

 private:
  TeacherCache(const data::Dataset& samples, const TeacherCacheOptions& options);
  Tensor rows(const char* what, const Tensor& of, const Tensor& samples) const;

  data::Dataset numbered_;      // and its mirrors
  data::Transforms transform_;  // without the flip
  double flip_ = -1;            // its probability; −1: no mirrors
  Tensor logits_, targets_;
};

}  // namespace hone::compress
