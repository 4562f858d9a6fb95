#include "hone/ops/packed/packing.h"

#include <algorithm>
#include <limits>

#include "hone/core/error.h"

namespace hone::detail {

DenseSource::DenseSource(const char* what, const Tensor& weight, const Tensor& mask) {
  HONE_CHECK(weight.defined(), ValueError, what, ": the weight is an undefined tensor");
  HONE_CHECK(weight.dtype() == f32, DTypeError, what, ": the weight must be f32, not ", weight.dtype());
  const Shape& s = weight.shape();
  HONE_CHECK(s.ndim() >= 2, ShapeError, what, ": the weight must have at least 2 dims, not shape ", s);
  HONE_CHECK(!mask.defined() || mask.shape() == s, ShapeError, what, ": mask ", mask.defined() ? mask.shape() : Shape(),
             " does not fit weight ", s);
  rows = s[0], cols = 1;
  for (int d = 1; d < s.ndim(); ++d) cols *= s[d];
  HONE_CHECK(rows <= kMostSparse && cols <= kMostSparse && weight.numel() <= std::numeric_limits<int32_t>::max(),
             ValueError, what, ": weight ", s, " is beyond ", kMostSparse, " rows or columns or 2^31 - 1 elements");
  values = weight.to_vector<float>();
  if (!mask.defined()) return;
  const std::vector<double> keep = mask.to_vector<double>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = keep[i] == 0 ? 0.0f : values[i];
}

void check_size(const char* what, int64_t rows, int64_t cols) {
  HONE_CHECK(rows >= 0 && rows <= kMostSparse && cols >= 0 && cols <= kMostSparse, FormatError, what, ": ", rows,
             " rows and ", cols, " columns; each must be in [0, ", kMostSparse, "]");
}
void check_stored(const char* what, const char* name, const Tensor& t, DType dtype, const Shape& shape) {
  HONE_CHECK(t.defined() && t.dtype() == dtype && t.shape() == shape, FormatError, what, ": ", name, " must be ", dtype,
             " of shape ", shape, ", not ", t.defined() ? str(t.dtype(), " ", t.shape()) : "undefined");
}
void check_lists(const char* what, const Tensor& starts, const Tensor& columns, int64_t cols) {
  const std::vector<int32_t> s = starts.to_vector<int32_t>(), c = columns.to_vector<int32_t>();
  const auto count = static_cast<int64_t>(c.size());
  int64_t at = 0;
  HONE_CHECK(!s.empty() && s[0] == 0, FormatError, what, ": row_starts must begin with 0");
  for (size_t i = 1; i < s.size(); ++i) {
    HONE_CHECK(s[i] >= at && s[i] <= count, FormatError, what, ": row_starts[", i, "] is ", s[i], ", outside [", at,
               ", ", count, "]");
    for (int64_t k = at, least = 0; k < s[i]; ++k) {
      const int64_t column = c[static_cast<size_t>(k)];
      HONE_CHECK(column >= least && column < cols, FormatError, what, ": columns[", k, "] is ", column, ", outside [",
                 least, ", ", cols, ")");
      least = column + 1;
    }
    at = s[i];
  }
  HONE_CHECK(at == count, FormatError, what, ": row_starts end at ", at, ", not at the ", count, " stored");
}
void check_padding(const char* what, const Tensor& values, int64_t used) {
  const std::vector<float> v = values.to_vector<float>();
  HONE_CHECK(std::count(v.begin(), v.end(), 0.0f) + used == values.numel(), FormatError, what,
             ": values outside the matrix must be 0");
}

}  // namespace hone::detail
