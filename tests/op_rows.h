#pragma once
// One row per op (and per variant of its attributes) drives every check that ops share: the forward pass against plain
// f64 loops for each dtype and layout, gradients against central differences, second derivatives, and gradients of the
// narrow dtypes against those of f64.
//
// To add an op: a row in the ops_<topic>_test.cpp of its topic. A reference knows nothing of the op: loops over Array.

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::test {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// A dense row-major array of f64: what references read and return.
struct Array {
  Shape shape;
  std::vector<double> v;

  Array() = default;
  explicit Array(const Shape& s, double value = 0) : shape(s), v(static_cast<size_t>(s.numel()), value) {}
  int64_t numel() const { return static_cast<int64_t>(v.size()); }
  double& operator[](int64_t i) { return v[static_cast<size_t>(i)]; }
  double operator[](int64_t i) const { return v[static_cast<size_t>(i)]; }
  int64_t offset(const Shape& at) const;
  double& at(const Shape& index) { return v[static_cast<size_t>(offset(index))]; }
  double at(const Shape& index) const { return v[static_cast<size_t>(offset(index))]; }
};
using Arrays = std::vector<Array>;
using Tensors = std::vector<Tensor>;

/// The index of element `linear` of a row-major array of that shape.
Shape index_of(const Shape& shape, int64_t linear);
/// f of each element.
Array map(const Array& a, const std::function<double(double)>& f);
/// f of two arrays under NumPy's broadcasting.
Array broadcast(const Array& a, const Array& b, const std::function<double(double, double)>& f);

/// Inputs and why they were chosen. Floating inputs are given in f64 and rounded to the dtype under test.
struct Sample {
  std::string reason;
  Tensors inputs;
  bool grad = true;     ///< false: not differentiable here, or central differences cannot tell (kinks, NaN, infinity)
  bool layouts = true;  ///< false: the same values in other strides only
};

struct OpRow {
  std::string op = {};       ///< the OpDef's name, which must be seen to run; the function's for composites
  std::string variant = {};  ///< tells rows of one op apart; may be empty
  std::function<Tensors(const Tensors&)> call = {};
  std::function<std::vector<Sample>()> samples = {};
  std::function<Arrays(const Arrays&)> reference = {};
  Tolerance f64 = {1e-12, 1e-13}, f32 = {2e-5, 2e-6}, bf16 = {1.6e-2, 1e-2};  ///< bf16 rounds to 2⁻⁸
  bool differentiable = true, second_order = true;
  std::vector<DType> dtypes = {DType::f64, DType::f32, DType::bf16};
  bool composite = false;          ///< a public function without an OpDef of its own
  std::vector<int> constant = {};  ///< floating inputs without a gradient
  std::string name() const { return variant.empty() ? op : op + "_" + variant; }
};

/// Uniform in [low, high), f64, a function of `seed` alone.
Tensor uniform(const Shape& shape, double low, double high, uint64_t seed);
/// Integers in [low, high).
Tensor integers(const Shape& shape, int64_t low, int64_t high, uint64_t seed);
/// f64 values, for adversarial samples.
Tensor values(std::initializer_list<double> v);
Tensor values(std::initializer_list<double> v, const Shape& shape);

/// The rows of each topic; all_rows() is their concatenation.
std::vector<OpRow> arithmetic_rows();
std::vector<OpRow> unary_rows();
std::vector<OpRow> reduce_rows();
std::vector<OpRow> shape_rows();
std::vector<OpRow> indexing_rows();
std::vector<OpRow> matmul_rows();
std::vector<OpRow> conv_rows();
std::vector<OpRow> softmax_rows();
std::vector<OpRow> loss_rows();
std::vector<OpRow> norm_rows();
std::vector<OpRow> dropout_rows();
std::vector<OpRow> focal_rows();
std::vector<OpRow> fused_rows();
std::vector<OpRow> int8_rows();
std::vector<OpRow> packed_rows();
std::vector<OpRow> basic_rows();
std::vector<OpRow> weight_rows();
const std::vector<OpRow>& all_rows();

}  // namespace hone::test
