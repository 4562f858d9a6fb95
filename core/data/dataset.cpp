#include "hone/core/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hone/core/basic_ops.h"
#include "hone/core/data/assemble.h"
#include "hone/core/error.h"

namespace hone::data {

Dataset::Dataset(Tensor x, Tensor y) {
  HONE_CHECK(x.defined() && y.defined(), ValueError, "data: a dataset needs both inputs and targets");
  HONE_CHECK(x.ndim() >= 1 && y.ndim() >= 1 && x.size(0) == y.size(0), ShapeError, "data: inputs ",
             to_string(x.shape()), " and targets ", to_string(y.shape()), " must have the same number of rows");
  HONE_CHECK(x.device() == cpu && y.device() == cpu, DeviceError,
             "data: a dataset's tensors must be on the cpu, not on ",
             to_string(x.device() == cpu ? y.device() : x.device()));
  x_ = contiguous(x.detach());
  y_ = contiguous(y.detach());
  rows_ = x_.size(0);
}

Shape Dataset::input_shape() const {
  Shape s = x_.shape();
  s.erase(0);
  return s;
}

Shape Dataset::target_shape() const {
  Shape s = y_.shape();
  s.erase(0);
  return s;
}

Dataset Dataset::subset(std::vector<int64_t> indices) const {
  for (int64_t& i : indices) {
    HONE_CHECK(i >= 0 && i < size(), ValueError, "data: index ", i, " is outside [0, ", size(), ")");
    i = row(i);
  }
  Dataset d = *this;
  d.indices_ = std::make_shared<const std::vector<int64_t>>(std::move(indices));
  return d;
}

Dataset Dataset::first(int64_t n) const {
  HONE_CHECK(n >= 0, ValueError, "data: first(", n, ") asks for a negative number of samples");
  std::vector<int64_t> indices(static_cast<size_t>(std::min(n, size())));
  std::iota(indices.begin(), indices.end(), 0);
  return subset(std::move(indices));
}

Batch Dataset::get(int64_t begin, int64_t end, const Transforms& transform, uint64_t seed) const {
  HONE_CHECK(begin >= 0 && begin <= end && end <= size(), ValueError, "data: samples [", begin, ", ", end,
             ") are not within [0, ", size(), ")");
  detail::Assembler assembler(*this, transform, seed);
  std::vector<int64_t> positions(static_cast<size_t>(end - begin));
  std::iota(positions.begin(), positions.end(), begin);
  Batch b{empty(assembler.input_shape(end - begin), assembler.input_dtype()),
          empty(assembler.target_shape(end - begin), assembler.target_dtype())};
  assembler.fill(positions, 0, b.inputs.raw_data(), b.targets.raw_data());
  return b;
}

namespace detail {

std::vector<Dataset> split(const Dataset& d, std::span<const double> fractions, uint64_t seed) {
  double sum = 0;
  for (const double f : fractions) {
    HONE_CHECK(f > 0, ValueError, "random_split: fraction ", f, " is not positive");
    sum += f;
  }
  HONE_CHECK(sum <= 1 + 1e-9, ValueError, "random_split: the fractions sum to ", sum, ", above 1");
  std::vector<int64_t> order(static_cast<size_t>(d.size()));
  permutation(order, seed, stream_of(kSplit, 0));
  std::vector<Dataset> parts;
  int64_t begin = 0;
  sum = 0;
  for (const double f : fractions) {
    sum += f;
    const int64_t end = std::min(d.size(), static_cast<int64_t>(std::round(sum * static_cast<double>(d.size()))));
    parts.push_back(d.subset({order.begin() + begin, order.begin() + end}));
    begin = end;
  }
  return parts;
}

}  // namespace detail
}  // namespace hone::data
