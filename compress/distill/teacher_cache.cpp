#include "hone/compress/distill/teacher_cache.h"

#include <utility>
#include <vector>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/indexing.h"
#include "hone/ops/shape_ops.h"

namespace hone::compress {
namespace {

using Kind = data::Transform::Kind;

bool gives_one_image(const data::Transform& step) {
  return step.kind == Kind::normalize || step.kind == Kind::pad_to || step.kind == Kind::repeat_channels;
}

void check(const data::Dataset& samples, const TeacherCacheOptions& o) {
  HONE_CHECK(samples.size() > 0, ValueError, "TeacherCache: the dataset is empty");
  for (const data::Transform& step : o.transform)
    HONE_CHECK(gives_one_image(step), ValueError, "TeacherCache: the transforms hold ",
               step.kind == Kind::custom        ? "custom, which may be random"
               : step.kind == Kind::random_flip ? "random_flip"
                                                : "random_crop",
               "; a cache has one answer an image: call the teacher on each batch instead");
}

std::vector<int64_t> rows_of(const data::Dataset& samples) {
  std::vector<int64_t> rows(static_cast<size_t>(samples.size()));
  for (int64_t i = 0; i < samples.size(); ++i) rows[static_cast<size_t>(i)] = samples.row(i);
  return rows;
}

/// The same inputs, with the number of each sample as its target. Samples of one row have one number: they are one
/// image.
data::Dataset numbered(const data::Dataset& samples, const std::vector<int64_t>& rows) {
  const Tensor number = zeros({samples.all_inputs().size(0)}, DType::i64);
  for (size_t i = rows.size(); i-- > 0;) number.data<int64_t>()[rows[i]] = static_cast<int64_t>(i);
  return data::Dataset(samples.all_inputs(), number).subset(rows);
}

Tensor answers(const Teacher& teacher, const data::Dataset& samples, const TeacherCacheOptions& o) {
  check(samples, o);
  data::Loader batches(samples, {.batch = o.batch, .transform = o.transform});
  std::vector<Tensor> all;
  for (const auto& [inputs, targets] : batches) {
    const Tensor z = teacher.logits(inputs);
    HONE_CHECK(z.ndim() == 2 && z.size(0) == inputs.size(0), ShapeError, "TeacherCache: the teacher answers ",
               z.shape(), " to a batch of ", inputs.size(0), "; expected [n, C]");
    all.push_back(clone(z));
  }
  return concat(all);
}

}  // namespace

TeacherCache::TeacherCache(const Teacher& teacher, const data::Dataset& samples, const TeacherCacheOptions& options)
    : TeacherCache(answers(teacher, samples, options), samples, options) {}

TeacherCache::TeacherCache(Tensor logits, const data::Dataset& samples, const TeacherCacheOptions& options)
    : transform_(options.transform), logits_(logits.detach()) {
  check(samples, options);
  HONE_CHECK(logits_.ndim() == 2 && logits_.size(0) == samples.size(), ShapeError, "TeacherCache: logits of shape ",
             logits_.shape(), " for ", samples.size(), " samples; expected [", samples.size(), ", C]");
  const std::vector<int64_t> rows = rows_of(samples);
  numbered_ = numbered(samples, rows);
  targets_ = index_select(samples.all_targets(), 0, tensor(rows));
}

data::Loader TeacherCache::loader(data::LoaderOptions options) const {
  HONE_CHECK(options.transform.empty(), ValueError,
             "TeacherCache.loader: transforms are given when the cache is made, once for teacher and student");
  options.transform = transform_;
  return data::Loader(numbered_, std::move(options));
}

Tensor TeacherCache::logits(const Tensor& samples) const { return index_select(logits_, 0, samples); }
Tensor TeacherCache::targets(const Tensor& samples) const { return index_select(targets_, 0, samples); }

}  // namespace hone::compress
