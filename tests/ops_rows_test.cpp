// The checks that every row of op_rows.h goes through.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "hone/core/tensor_impl.h"
#include "op_rows.h"

namespace hone::test {

// ----------------------------------------------------------------------------------------------- Array and samples

int64_t Array::offset(const Shape& at) const {
  int64_t o = 0;
  for (int d = 0; d < shape.ndim(); ++d) o = o * shape[d] + at[d];
  return o;
}
Shape index_of(const Shape& shape, int64_t linear) {
  Shape index = Shape::filled(shape.ndim(), 0);
  for (int d = shape.ndim() - 1; d >= 0; --d) {
    index[d] = linear % shape[d];
    linear /= shape[d];
  }
  return index;
}
Array map(const Array& a, const std::function<double(double)>& f) {
  Array r = a;
  for (double& x : r.v) x = f(x);
  return r;
}
Array broadcast(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Shape shape;
  const int n = std::max(a.shape.ndim(), b.shape.ndim());
  const auto size = [&](const Array& x, int d) {
    const int own = d - (n - x.shape.ndim());
    return own < 0 ? int64_t{1} : x.shape[own];
  };
  for (int d = 0; d < n; ++d) shape.push_back(size(a, d) == 1 ? size(b, d) : size(a, d));
  const auto element = [&](const Array& x, const Shape& index) {
    Shape own;
    for (int d = n - x.shape.ndim(); d < n; ++d) own.push_back(size(x, d) == 1 ? 0 : index[d]);
    return x.at(own);
  };
  Array r(shape);
  for (int64_t i = 0; i < r.numel(); ++i) {
    const Shape index = index_of(shape, i);
    r[i] = f(element(a, index), element(b, index));
  }
  return r;
}

Tensor uniform(const Shape& shape, double low, double high, uint64_t seed) {
  Tensor t = empty(shape, DType::f64);
  const Philox random{seed, 77};
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto w = random(static_cast<uint64_t>(i));
    t.data<double>()[i] = low + (high - low) * uniform_f64(w[0], w[1]);
  }
  return t;
}
Tensor integers(const Shape& shape, int64_t low, int64_t high, uint64_t seed) {
  Tensor t = empty(shape, DType::i64);
  const Philox random{seed, 78};
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto w = random(static_cast<uint64_t>(i));
    t.data<int64_t>()[i] =
        low + static_cast<int64_t>(below(uint64_t{w[0]} << 32 | w[1], static_cast<uint64_t>(high - low)));
  }
  return t;
}
Tensor values(std::initializer_list<double> v) { return tensor(v); }
Tensor values(std::initializer_list<double> v, const Shape& shape) { return tensor(v, shape); }

const std::vector<OpRow>& all_rows() {
  static const std::vector<OpRow> rows = [] {
    std::vector<OpRow> all;
    for (auto topic : {basic_rows, weight_rows, arithmetic_rows, unary_rows, reduce_rows, shape_rows, indexing_rows,
                       matmul_rows, conv_rows, softmax_rows, loss_rows, norm_rows, dropout_rows, focal_rows, fused_rows,
                       int8_rows, packed_rows}) {
      for (OpRow& r : topic()) all.push_back(std::move(r));
    }
    return all;
  }();
  return rows;
}

namespace {

// --------------------------------------------------------------------------------------------------------- layouts

enum class Layout { contiguous, transposed, sliced, expanded };
constexpr Layout kLayouts[] = {Layout::contiguous, Layout::transposed, Layout::sliced, Layout::expanded};
const char* name(Layout l) {
  constexpr const char* names[] = {"contiguous", "transposed", "sliced", "expanded"};
  return names[static_cast<int>(l)];
}

// The values of x, in other strides. Built from storage directly: no op under test takes part.
Tensor with_layout(const Tensor& x, Layout layout) {
  const Shape& s = x.shape();
  if (layout == Layout::contiguous || s.ndim() == 0) return x;
  Shape strides = Shape::filled(s.ndim(), 0);
  int64_t room = 1, offset = 0;
  if (layout == Layout::transposed) {
    for (int d = 0; d < s.ndim(); ++d) {
      strides[d] = room;
      room *= std::max<int64_t>(s[d], 1);
    }
  } else {  // every second element of a larger array, after a margin
    for (int d = s.ndim() - 1; d >= 0; --d) {
      strides[d] = 2 * room;
      offset += room;
      room *= 2 * s[d] + 1;
    }
  }
  Tensor base = full({room}, is_floating(x.dtype()) ? kNan : 1, x.dtype());  // what no op may read
  Tensor view = make_view(base.storage(), s, strides, offset, x.dtype());
  view.copy_(x);
  return view;
}

// Values that do not vary along the largest dim that is not 1, with stride 0 there.
Tensor expanded(const Tensor& x) {
  const Shape& s = x.shape();
  int dim = -1;
  for (int d = 0; d < s.ndim(); ++d) {
    if (s[d] > 1 && (dim < 0 || s[d] > s[dim])) dim = d;
  }
  if (dim < 0 || x.numel() == 0) return x;
  Shape one = s, strides = x.strides();
  one[dim] = 1;
  Tensor base = empty(one, x.dtype());
  base.copy_(make_view(x.storage(), one, x.strides(), x.offset(), x.dtype()));
  strides = base.strides();
  strides[dim] = 0;
  return make_view(base.storage(), s, strides, base.offset(), x.dtype());
}

Array array_of(const Tensor& t) {
  Array a;
  a.shape = t.shape();
  a.v = t.to_vector<double>();
  return a;
}

bool constant(const OpRow& row, size_t i) {
  return std::find(row.constant.begin(), row.constant.end(), static_cast<int>(i)) != row.constant.end();
}

// The sample's inputs in `dtype` and `layout`; with `grad`, floating ones are leaves that require it.
Tensors prepare(const OpRow& row, const Sample& sample, DType dtype, Layout layout, bool grad) {
  Tensors inputs;
  for (size_t i = 0; i < sample.inputs.size(); ++i) {
    Tensor x = sample.inputs[i];
    if (!x.defined()) {
      inputs.emplace_back();
      continue;
    }
    const bool floating = x.dtype() == DType::f64;
    if (floating && dtype != DType::f64) x = cast(x, dtype);
    if (sample.layouts || layout != Layout::expanded)
      x = layout == Layout::expanded ? expanded(x) : with_layout(x, layout);
    x = x.detach();  // a handle of its own: the sample's must not become a leaf
    if (grad && floating && !constant(row, i)) x.requires_grad_();
    inputs.push_back(x);
  }
  return inputs;
}

Tolerance tolerance(const OpRow& row, DType d) {
  return d == DType::f64 ? row.f64 : d == DType::f32 ? row.f32 : row.bf16;
}

void expect_close(const Array& got, const Array& want, Tolerance t, const std::string& what) {
  ASSERT_EQ(to_string(got.shape), to_string(want.shape)) << what;
  expect_close(got.v, want.v, t, what);
}

// Largest values of narrow dtypes: a reference beyond them is an infinity there.
double rounded(double v, DType d) { return d == DType::f64 ? v : static_cast<double>(static_cast<float>(v)); }

struct Seen : OpRecorder {
  std::set<std::string> names;
  void record(const OpDef& op, const Attrs&, std::span<const Tensor>, const Outputs&) override {
    names.insert(op.name);
  }
};

// ---------------------------------------------------------------------------------------------------------- checks

struct Case {
  const OpRow* row;
  DType dtype;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.row->name() << " " << hone::name(c.dtype); }

std::vector<Case> dtype_cases() {
  std::vector<Case> cases;
  for (const OpRow& r : all_rows()) {
    for (DType d : r.dtypes) cases.push_back({&r, d});
  }
  return cases;
}
std::vector<Case> narrow_cases() {
  std::vector<Case> cases;
  for (const Case& c : dtype_cases()) {
    if (c.row->differentiable && c.dtype != DType::f64) cases.push_back(c);
  }
  return cases;
}
std::vector<Case> grad_cases(bool second) {
  std::vector<Case> cases;
  for (const OpRow& r : all_rows()) {
    if (r.differentiable && (!second || r.second_order)) cases.push_back({&r, DType::f64});
  }
  return cases;
}
std::string case_name(const testing::TestParamInfo<Case>& c) {
  return c.param.row->name() + (c.param.dtype == DType::f64 ? "" : std::string("_") + hone::name(c.param.dtype));
}

class Forward : public testing::TestWithParam<Case> {};
TEST_P(Forward, MatchesReferenceInEveryLayout) {
  const OpRow* row = GetParam().row;  // not structured bindings: clang 14 refuses them in lambdas
  const DType dtype = GetParam().dtype;
  for (const Sample& sample : row->samples()) {
    for (Layout layout : kLayouts) {
      const std::string what = row->name() + ", " + sample.reason + ", " + name(layout);
      manual_seed(11);
      const Tensors inputs = prepare(*row, sample, dtype, layout, false);
      Arrays arrays;
      for (const Tensor& x : inputs) arrays.push_back(x.defined() ? array_of(x) : Array());
      Seen seen;
      Tensors outputs;
      {
        RecorderScope scope(&seen);
        outputs = row->call(inputs);
      }
      EXPECT_TRUE(row->composite || seen.names.count(row->op)) << what << ": the call never ran " << row->op;
      const Arrays want = row->reference(arrays);
      ASSERT_EQ(outputs.size(), want.size()) << what;
      for (size_t o = 0; o < outputs.size(); ++o) {
        const bool floating = is_floating(outputs[o].dtype());
        const DType d = outputs[o].dtype();
        EXPECT_TRUE(!floating || d == dtype || d == DType::f64) << what << ": output " << o << " is " << hone::name(d);
        expect_close(array_of(outputs[o]),
                     map(want[o], [&](double v) { return rounded(v, floating ? dtype : DType::f64); }),
                     floating ? tolerance(*row, dtype) : Tolerance{0, 0}, what + ", output " + std::to_string(o));
        if (HasFatalFailure()) return;
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i].defined()) expect_close(array_of(inputs[i]), arrays[i], {0, 0}, what + ": input changed");
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Op, Forward, testing::ValuesIn(dtype_cases()), case_name);

bool has_elements(const Sample& s) {
  return std::all_of(s.inputs.begin(), s.inputs.end(), [](const Tensor& t) { return !t.defined() || t.numel() > 0; });
}
Tensors seeded_call(const OpRow& row, const Tensors& x) {
  manual_seed(11);  // the same mask in each evaluation
  return row.call(x);
}

class SecondGradient : public testing::TestWithParam<Case> {};
TEST_P(SecondGradient, MatchesCentralDifferences) {
  const OpRow& row = *GetParam().row;
  for (const Sample& sample : row.samples()) {
    if (!sample.grad || !has_elements(sample)) continue;
    EXPECT_NO_THROW(gradgradcheck([&](const Tensors& x) { return seeded_call(row, x); },
                                  prepare(row, sample, DType::f64, Layout::contiguous, true)))
        << row.name() << ", " << sample.reason;
  }
}
INSTANTIATE_TEST_SUITE_P(Op, SecondGradient, testing::ValuesIn(grad_cases(true)), case_name);

// Gradients of the outputs against cotangents of ±{0.5 … 1.5}, exact in every dtype.
Tensors gradients(const OpRow& row, const Tensors& inputs) {
  const Tensors outputs = seeded_call(row, inputs);
  Tensors from, seeds, wanted;
  for (const Tensor& y : outputs) {
    if (!y.requires_grad()) continue;
    Tensor seed = empty(y.shape(), DType::f64);
    for (int64_t i = 0; i < y.numel(); ++i) {
      seed.data<double>()[i] = (i % 2 ? -1 : 1) * (0.5 + 0.25 * static_cast<double>(i * 7 % 5));
    }
    from.push_back(y);
    seeds.push_back(cast(seed, y.dtype()));
  }
  for (const Tensor& x : inputs) {
    if (x.defined() && x.requires_grad()) wanted.push_back(x);
  }
  if (from.empty()) return {};
  return grad(from, wanted, {.allow_unused = true}, seeds);
}

class Gradient : public testing::TestWithParam<Case> {};
TEST_P(Gradient, MatchesCentralDifferences) {
  const OpRow& row = *GetParam().row;
  int checked = 0;
  for (const Sample& sample : row.samples()) {
    if (!sample.grad) continue;
    ++checked;
    if (!has_elements(sample)) {  // nothing to compare, yet it must go through
      EXPECT_NO_THROW(gradients(row, prepare(row, sample, DType::f64, Layout::contiguous, true)))
          << row.name() << ", " << sample.reason;
      continue;
    }
    EXPECT_NO_THROW(gradcheck([&](const Tensors& x) { return seeded_call(row, x); },
                              prepare(row, sample, DType::f64, Layout::contiguous, true)))
        << row.name() << ", " << sample.reason;
  }
  EXPECT_GT(checked, 0) << "no sample fit for a gradient";
}
INSTANTIATE_TEST_SUITE_P(Op, Gradient, testing::ValuesIn(grad_cases(false)), case_name);

class NarrowGradient : public testing::TestWithParam<Case> {};
TEST_P(NarrowGradient, MatchesF64InEveryLayout) {
  const auto& [row, dtype] = GetParam();
  for (const Sample& sample : row->samples()) {
    if (!sample.grad) continue;
    for (Layout layout : kLayouts) {
      const std::string what = row->name() + ", " + sample.reason + ", " + name(layout);
      const Tensors inputs = prepare(*row, sample, dtype, layout, true);
      Sample rounded_sample = sample;
      for (size_t i = 0; i < inputs.size(); ++i) {
        NoGrad guard;
        if (inputs[i].defined() && is_floating(inputs[i].dtype()))
          rounded_sample.inputs[i] = cast(inputs[i].detach(), DType::f64);
        else
          rounded_sample.inputs[i] = inputs[i];
      }
      const Tensors got = gradients(*row, inputs);
      const Tensors want = gradients(*row, prepare(*row, rounded_sample, DType::f64, Layout::contiguous, true));
      ASSERT_EQ(got.size(), want.size()) << what;
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].defined(), want[i].defined()) << what;
        if (!got[i].defined()) continue;
        const Array w = array_of(want[i]);
        // Relative to the gradient's own scale: sums of rounded terms cancel.
        double scale = 0;
        for (double v : w.v) scale = std::max(scale, std::isfinite(v) ? std::abs(v) : 0.0);
        Tolerance t = tolerance(*row, dtype);
        t.rtol *= 4;
        t.atol = std::max(t.atol, t.rtol * scale);
        expect_close(array_of(got[i]), w, t, what + ", gradient " + std::to_string(i));
        if (HasFatalFailure()) return;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Op, NarrowGradient, testing::ValuesIn(narrow_cases()), case_name);

// --------------------------------------------------------------------------------------------------------- the table

TEST(OpTable, NamesAreUnique) {
  std::set<std::string> names;
  for (const OpDef* op : op_table()) EXPECT_TRUE(names.insert(op->name).second) << op->name << " is listed twice";
}
TEST(OpTable, FindsEveryOpAndNoOther) {
  for (const OpDef* op : op_table()) EXPECT_EQ(find_op(op->name), op);
  EXPECT_EQ(find_op("no_such_op"), nullptr);
  EXPECT_EQ(find_op(""), nullptr);
}
TEST(OpTable, EveryOpIsWhole) {
  for (const OpDef* op : op_table()) {
    EXPECT_NE(op->shapes, nullptr) << op->name;
    EXPECT_NE(op->run, nullptr) << op->name;
    EXPECT_NE(op->backward == nullptr, op->not_differentiable == nullptr)
        << op->name << " must have a backward or say why not";
  }
}
// Through forward, backward and second backward of the rows, measured and not claimed.
TEST(OpTable, EveryOpIsRunByARow) {
  Seen seen;
  {
    RecorderScope scope(&seen);
    for (const OpRow& row : all_rows()) {
      for (const Sample& sample : row.samples()) {
        if (!row.differentiable || !sample.grad) {
          NoGrad guard;
          seeded_call(row, prepare(row, sample, row.dtypes[0], Layout::contiguous, false));
          continue;
        }
        const Tensors inputs = prepare(row, sample, DType::f64, Layout::contiguous, true);
        for (const Tensor& y : seeded_call(row, inputs)) {
          if (!y.requires_grad()) continue;
          Tensors wanted;
          for (const Tensor& x : inputs) {
            if (x.defined() && x.requires_grad()) wanted.push_back(x);
          }
          Tensor seed = ones_like(y).requires_grad_();
          const Tensors first = grad({y}, wanted, {.create_graph = row.second_order, .allow_unused = true}, {seed});
          for (const Tensor& g : first) {
            if (!row.second_order || !g.defined() || !g.requires_grad()) continue;
            wanted.push_back(seed);
            grad({g}, wanted, {.retain_graph = true, .allow_unused = true}, {ones_like(g)});
            wanted.pop_back();
          }
        }
      }
    }
  }
  std::string missing;
  for (const OpDef* op : op_table()) {
    if (!seen.names.count(op->name)) missing += std::string(" ") + op->name;
  }
  EXPECT_EQ(missing, "") << "ops that no row runs";
}

}  // namespace
}  // namespace hone::test
