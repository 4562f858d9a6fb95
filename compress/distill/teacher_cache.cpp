#include "hone/compress/distill/teacher_cache.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
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

/// The probability of random_flip, −1 where there is none.
double checked(const data::Dataset& samples, const data::Transforms& transform) {
  HONE_CHECK(samples.size() > 0, ValueError, "TeacherCache: the dataset is empty");
  double flip = -1;
  for (const data::Transform& step : transform) {
    if (step.kind == Kind::random_flip) {
      HONE_CHECK(flip < 0, ValueError, "TeacherCache: the transforms hold random_flip twice; once is enough");
      HONE_CHECK(samples.input_shape().ndim() >= 2, ShapeError, "TeacherCache: random_flip mirrors [.., H, W], got ",
                 samples.input_shape());
      flip = step.probability;
      continue;
    }
    HONE_CHECK(gives_one_image(step), ValueError, "TeacherCache: the transforms hold ",
               step.kind == Kind::custom ? "custom, which may be random" : "random_crop",
               "; a cache has an answer an image, and one for its mirror: call the teacher on each batch instead");
  }
  return flip;
}

std::vector<int64_t> rows_of(const data::Dataset& samples) {
  std::vector<int64_t> rows(static_cast<size_t>(samples.size()));
  for (int64_t i = 0; i < samples.size(); ++i) rows[static_cast<size_t>(i)] = samples.row(i);
  return rows;
}

data::Sampler in_order(int64_t samples) {
  return data::Sampler(
      samples, [](std::span<int64_t> order, uint64_t, int64_t) { std::iota(order.begin(), order.end(), int64_t{0}); });
}

/// What a teacher may say.
const Tensor& finite(const Tensor& logits) {
  const Tensor plain = contiguous(cast(to(logits, cpu), DType::f64));
  const auto* const z = plain.data<double>();
  const auto bad = std::find_if(z, z + plain.numel(), [](double v) { return !std::isfinite(v); });
  HONE_CHECK(bad == z + plain.numel(), NumericError, "TeacherCache: the teacher's answer to sample ",
             (bad - z) / std::max<int64_t>(plain.size(-1), 1), " has NaN or infinity");
  return logits;
}

/// These rows of the inputs, and after them the same rows mirrored left and right.
Tensor with_mirrors(const Tensor& inputs, const std::vector<int64_t>& rows) {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t width = inputs.size(-1), lines = inputs.numel() / inputs.size(0) / std::max<int64_t>(width, 1);
  const auto bytes = static_cast<int64_t>(size_of(inputs.dtype())), row_bytes = lines * width * bytes;
  Shape shape = inputs.shape();
  shape[0] = 2 * count;
  const Tensor both = empty(shape, inputs.dtype());
  auto* to = static_cast<std::byte*>(both.raw_data());
  for (const int64_t row : rows) {
    const auto* from = static_cast<const std::byte*>(inputs.raw_data()) + row * row_bytes;
    std::copy_n(from, row_bytes, to);
    auto* const mirror = to + count * row_bytes;
    for (int64_t line = 0; line < lines; ++line)
      for (int64_t x = 0; x < width; ++x)
        std::copy_n(from + (line * width + width - 1 - x) * bytes, bytes, mirror + (line * width + x) * bytes);
    to += row_bytes;
  }
  return both;
}

/// The same inputs, with the number of each sample as its target, and those of mirrors after them. Samples of one row
/// have one number: they are one image.
data::Dataset numbered(const data::Dataset& samples, std::vector<int64_t> rows, bool mirrors) {
  Tensor inputs = samples.all_inputs();
  if (mirrors) {  // of these samples alone
    std::vector<int64_t> shown = rows;
    std::sort(shown.begin(), shown.end());
    shown.erase(std::unique(shown.begin(), shown.end()), shown.end());
    for (int64_t& row : rows) row = std::lower_bound(shown.begin(), shown.end(), row) - shown.begin();
    inputs = with_mirrors(inputs, shown);
  }
  const Tensor number = zeros({inputs.size(0)}, DType::i64);
  auto* const at = number.data<int64_t>();
  const size_t count = rows.size();
  for (size_t i = count; i-- > 0;) at[rows[i]] = static_cast<int64_t>(i);
  if (mirrors) {
    const int64_t n = inputs.size(0) / 2;
    for (int64_t row = 0; row < n; ++row) at[n + row] = static_cast<int64_t>(count) + at[row];
    for (size_t i = 0; i < count; ++i) rows.push_back(n + rows[i]);
  }
  return data::Dataset(inputs, number).subset(std::move(rows));
}

}  // namespace

TeacherCache::TeacherCache(const data::Dataset& samples, const TeacherCacheOptions& options)
    : transform_(options.transform), flip_(checked(samples, options.transform)) {
  std::erase_if(transform_, [](const data::Transform& step) { return step.kind == Kind::random_flip; });
  const std::vector<int64_t> rows = rows_of(samples);
  targets_ = index_select(samples.all_targets(), 0, tensor(rows));
  if (flip_ >= 0) targets_ = concat({targets_, targets_});
  numbered_ = numbered(samples, rows, flip_ >= 0);
}

TeacherCache::TeacherCache(const Teacher& teacher, const data::Dataset& samples, const TeacherCacheOptions& options)
    : TeacherCache(samples, options) {
  data::Loader batches(numbered_, {.batch = options.batch, .transform = transform_});
  std::vector<Tensor> all;
  for (const auto& [inputs, numbers] : batches) {
    const Tensor z = teacher.logits(inputs);
    HONE_CHECK(z.ndim() == 2 && z.size(0) == inputs.size(0), ShapeError, "TeacherCache: the teacher answers ",
               z.shape(), " to a batch of ", inputs.size(0), "; expected [n, C]");
    all.push_back(clone(z));
  }
  logits_ = finite(concat(all));
}

TeacherCache::TeacherCache(Tensor logits, const data::Dataset& samples, const TeacherCacheOptions& options)
    : TeacherCache(samples, options) {
  logits_ = logits.detach();
  HONE_CHECK(logits_.ndim() == 2 && logits_.size(0) == numbered_.size(), ShapeError, "TeacherCache: logits of shape ",
             logits_.shape(), " for ", samples.size(), " samples; expected [", numbered_.size(), ", C]",
             flip_ >= 0 ? ", mirrors too" : "");
  finite(logits_);
}

data::Loader TeacherCache::loader(data::LoaderOptions options) const {
  HONE_CHECK(options.transform.empty(), ValueError,
             "TeacherCache.loader: transforms are given when the cache is made, once for teacher and student");
  options.transform = transform_;
  if (flip_ >= 0) {
    const int64_t samples = numbered_.size() / 2;
    HONE_CHECK(!options.shuffle || !options.sampler, ValueError,
               "TeacherCache.loader: shuffle and a sampler; the sampler decides the order, leave .shuffle out");
    if (!options.sampler) options.sampler = options.shuffle ? data::shuffled_sampler(samples) : in_order(samples);
    options.shuffle = false;
    options.sampler = data::two_view_sampler(samples, flip_, options.sampler);
  }
  return data::Loader(numbered_, std::move(options));
}

Tensor TeacherCache::logits(const Tensor& samples) const { return rows("TeacherCache.logits", logits_, samples); }
Tensor TeacherCache::targets(const Tensor& samples) const { return rows("TeacherCache.targets", targets_, samples); }

Tensor TeacherCache::rows(const char* what, const Tensor& of, const Tensor& samples) const {
  HONE_CHECK(samples.defined(), ValueError, what, ": the sample numbers are an undefined tensor");
  HONE_CHECK(samples.dtype() == DType::i64, DTypeError, what, ": sample numbers must be i64, not ", samples.dtype());
  HONE_CHECK(samples.ndim() == 1, ShapeError, what, ": sample numbers must be [n], not ", samples.shape());
  const Tensor plain = contiguous(to(samples, cpu));
  const auto* const number = plain.data<int64_t>();
  const int64_t count = of.size(0);
  const auto* const bad =
      std::find_if(number, number + plain.numel(), [count](int64_t i) { return i < 0 || i >= count; });
  HONE_CHECK(bad == number + plain.numel(), ValueError, what, ": sample number ", *bad, " at position ", bad - number,
             " is outside [0, ", count, ") of the cache's samples", flip_ >= 0 ? " and their mirrors" : "");
  return index_select(of, 0, samples);
}

}  // namespace hone::compress
