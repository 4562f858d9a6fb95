#include "hone/optim/adafactor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/core/parallel.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/indexing.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of a piece of work
constexpr int64_t kMaxBlocks = 32;   // of rows in a matrix: as many partial sums of each column
void* const kNoState[detail::kMaxSlots] = {};

template <class T, class Kernels> auto pick(const Kernels& k) {
  if constexpr (std::is_same_v<T, double>)
    return k.f64;
  else
    return k.f32;
}

// What the options make of update t.
struct Step {
  double moment;  // weight of the new squares, t^b
  double rate;    // ρ_t
  double eps1, eps2, clip;
  double sign, keep;  // of the gradient; 1 − lr λ
};

// A tensor as `batch` matrices of rows × columns, whose rows are cut in `blocks` blocks: units of work, by size alone.
struct Units {
  int64_t batch, rows, columns, block_rows, blocks;
  Units(int64_t b, int64_t r, int64_t c) : batch(b), rows(r), columns(c) {
    const int64_t wanted = std::clamp<int64_t>(r * c / kGrain, 1, kMaxBlocks);
    block_rows = (r + wanted - 1) / wanted;
    blocks = (r + block_rows - 1) / block_rows;
  }
  int64_t count() const { return batch * blocks; }
  // Calls body(unit, matrix, first row, rows).
  template <class F> void each(const F& body) const {
    parallel_for(count(), std::max<int64_t>(1, kGrain / (block_rows * columns)), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t first = u % blocks * block_rows;
        body(u, u / blocks, u / blocks * rows + first, std::min(block_rows, rows - first));
      }
    });
  }
};

double total(const Tensor& t) {
  double s = 0;
  for (const double *p = t.data<double>(), *end = p + t.numel(); p != end; ++p) s += *p;
  return s;
}

template <class T> double smallest_square(double eps1) {
  return std::max(eps1 * eps1, static_cast<double>(std::numeric_limits<T>::min()));
}

double step_length(const Step& step, double weight_squares, double update_squares, int64_t n) {
  const double count = static_cast<double>(n);
  const double scale = std::max(step.eps2, std::sqrt(weight_squares / count)) * step.rate;
  return scale / std::max(1.0, std::sqrt(update_squares / count) / step.clip);
}

template <class T> void update_matrix(const Step& step, const Units& units, T* p, const T* g, T* row_var, T* col_var) {
  const detail::UpdateRules& rules = detail::update_rules();
  const int64_t columns = units.columns;
  const double row_count = static_cast<double>(units.rows), column_count = static_cast<double>(columns);
  Tensor partial = empty({units.count(), columns}, std::is_same_v<T, double> ? f64 : f32);
  Tensor weight_squares = empty({units.count()}, f64), update_squares = empty({units.count()}, f64);
  Tensor scale = empty({units.batch}, f64);  // 1/mean of the row moments, of each matrix

  units.each([&](int64_t unit, int64_t, int64_t first, int64_t count) {
    T* columns_of = partial.data<T>() + unit * columns;
    std::fill_n(columns_of, columns, T(0));
    const double add[detail::kMaxCoefficients] = {1, 0, 1, 1};
    double weights = 0;
    for (int64_t r = first; r < first + count; ++r) {
      double sums[2] = {};
      pick<T>(rules.squares)(p + r * columns, g + r * columns, kNoState, columns, add, sums);
      pick<T>(rules.add_squares)(columns_of, g + r * columns, kNoState, columns, add);
      weights += sums[0];
      const double old = static_cast<double>(row_var[r]);
      row_var[r] = static_cast<T>(old + step.moment * (sums[1] / column_count - old));
    }
    weight_squares.data<double>()[unit] = weights;
  });
  parallel_for(units.batch, std::max<int64_t>(1, kGrain / (units.rows + units.blocks * columns)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t b = begin; b < end; ++b) {
                   for (int64_t c = 0; c < columns; ++c) {
                     double squares = 0;
                     for (int64_t k = 0; k < units.blocks; ++k)
                       squares += static_cast<double>(partial.data<T>()[(b * units.blocks + k) * columns + c]);
                     const double old = static_cast<double>(col_var[b * columns + c]);
                     col_var[b * columns + c] = static_cast<T>(old + step.moment * (squares / row_count - old));
                   }
                   double rows = 0;
                   for (int64_t r = 0; r < units.rows; ++r) rows += static_cast<double>(row_var[b * units.rows + r]);
                   scale.data<double>()[b] = 1 / std::max(rows / row_count, step.eps1);
                 }
               });
  const double floor = smallest_square<T>(step.eps1);
  const auto row = [&](int64_t matrix, int64_t r) {
    return static_cast<double>(row_var[r]) * scale.data<double>()[matrix];
  };
  units.each([&](int64_t unit, int64_t matrix, int64_t first, int64_t count) {
    double c[detail::kMaxCoefficients] = {step.sign, 0, step.keep, 0, floor}, sums[2] = {};
    void* const state[detail::kMaxSlots] = {col_var + matrix * columns};
    for (int64_t r = first; r < first + count; ++r) {
      c[3] = row(matrix, r);
      pick<T>(rules.adafactor_norm)(p + r * columns, g + r * columns, state, columns, c, sums);
    }
    update_squares.data<double>()[unit] = sums[0];
  });
  const double length =
      step_length(step, total(weight_squares), total(update_squares), units.batch * units.rows * columns);
  units.each([&](int64_t, int64_t matrix, int64_t first, int64_t count) {
    double c[detail::kMaxCoefficients] = {step.sign, 0, step.keep, 0, floor, length};
    void* const state[detail::kMaxSlots] = {col_var + matrix * columns};
    for (int64_t r = first; r < first + count; ++r) {
      c[3] = row(matrix, r);
      pick<T>(rules.adafactor)(p + r * columns, g + r * columns, state, columns, c);
    }
  });
}

template <class T> void update_vector(const Step& step, int64_t n, T* p, const T* g, T* variance) {
  const detail::UpdateRules& rules = detail::update_rules();
  const double c[detail::kMaxCoefficients] = {step.sign, 0, step.keep, 1, smallest_square<T>(step.eps1)};
  const double blend[detail::kMaxCoefficients] = {1, 0, 1 - step.moment, step.moment};
  const int64_t pieces = (n + kGrain - 1) / kGrain;
  Tensor weight_squares = empty({pieces}, f64), update_squares = empty({pieces}, f64);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    void* const state[detail::kMaxSlots] = {variance + begin};
    double weights[2] = {}, updates[2] = {};
    pick<T>(rules.add_squares)(variance + begin, g + begin, kNoState, end - begin, blend);
    pick<T>(rules.squares)(p + begin, g + begin, kNoState, end - begin, c, weights);
    pick<T>(rules.adafactor_norm)(p + begin, g + begin, state, end - begin, c, updates);
    weight_squares.data<double>()[begin / kGrain] = weights[0];
    update_squares.data<double>()[begin / kGrain] = updates[0];
  });
  const double length = step_length(step, total(weight_squares), total(update_squares), n);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    double with_length[detail::kMaxCoefficients];
    std::copy_n(c, detail::kMaxCoefficients, with_length);
    with_length[5] = length;
    void* const state[detail::kMaxSlots] = {variance + begin};
    pick<T>(rules.adafactor)(p + begin, g + begin, state, end - begin, with_length);
  });
}

template <class T>
void update_tensor(const Step& step, const Tensor& value, const Tensor& grad, const std::array<Tensor, 4>& state) {
  T* const p = value.data<T>();
  const T* const g = grad.data<T>();
  const int ndim = static_cast<int>(value.shape().ndim());
  if (ndim < 2) return update_vector(step, value.numel(), p, g, state[2].data<T>());
  const int64_t rows = value.shape()[ndim - 2], columns = value.shape()[ndim - 1];
  update_matrix(step, Units(value.numel() / (rows * columns), rows, columns), p, g, state[0].data<T>(),
                state[1].data<T>());
}

double machine_epsilon(DType d) {
  return d == f64    ? std::numeric_limits<double>::epsilon()
         : d == bf16 ? 1.0 / 128
                     : static_cast<double>(std::numeric_limits<float>::epsilon());
}

}  // namespace

void AdafactorOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta2_decay", beta2_decay);
  v("eps1", eps1);
  v("eps2", eps2);
  v("clip_threshold", clip_threshold);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
}

void Adafactor::check(const AdafactorOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  HONE_CHECK(std::isfinite(o.beta2_decay) && o.beta2_decay <= 0, ValueError,
             "Adafactor: beta2_decay must be finite and at most 0, got ", o.beta2_decay);
  detail::check_at_least_zero(kName, "eps1", o.eps1);
  detail::check_at_least_zero(kName, "eps2", o.eps2);
  HONE_CHECK(std::isfinite(o.clip_threshold) && o.clip_threshold >= 1, ValueError,
             "Adafactor: clip_threshold must be finite and at least 1, got ", o.clip_threshold);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
}

Tensor Adafactor::initial_state(int, int slot, const Tensor& value) const {
  const DType dtype = value.dtype() == bf16 ? f32 : value.dtype();
  const int ndim = static_cast<int>(value.shape().ndim());
  if ((slot == 2) != (ndim < 2)) return zeros({0}, dtype);
  Shape shape = value.shape();
  if (slot < 2) shape[ndim - 1 - slot] = 1;
  return zeros(shape, dtype);
}

Tensor Adafactor::slice_state(int slot, const Tensor& state, const Shape& before, int64_t dim,
                              const Tensor& kept) const {
  const int ndim = static_cast<int>(before.ndim());
  if ((slot == 2) != (ndim < 2)) return state;
  Shape shape = before;
  if (slot < 2) shape[ndim - 1 - slot] = 1;
  HONE_CHECK(state.shape() == shape, ValueError, name(), ".apply: the state has shape ", state.shape(), ", expected ",
             shape, " for a parameter of shape ", before);
  if (slot < 2 && dim == ndim - 1 - slot) return state;  // a mean over that dimension
  return index_select(state, dim, kept);
}

void Adafactor::update(std::span<Item> items) {
  for (Item& item : items) {
    if (item.value.numel() == 0) continue;
    const AdafactorOptions& o = of(item.entry);
    const double t = static_cast<double>(item.entry.steps);
    const Step step = {.moment = std::pow(t, o.beta2_decay),
                       .rate = std::min(o.lr, 1 / std::sqrt(t)),
                       .eps1 = o.eps1 > 0 ? o.eps1 : machine_epsilon(item.value.dtype()),
                       .eps2 = o.eps2,
                       .clip = o.clip_threshold,
                       .sign = o.maximize ? -1.0 : 1.0,
                       .keep = o.decoupled_decay ? 1 - o.lr * o.weight_decay : 1};
    const bool half = item.value.dtype() == bf16;
    const Tensor value = half ? cast(item.value, f32) : item.value;
    Tensor grad = half ? cast(item.grad, f32) : item.grad;
    if (!o.decoupled_decay && o.weight_decay > 0) grad = grad + value * (step.sign * o.weight_decay);
    if (value.dtype() == f64)
      update_tensor<double>(step, value, grad, item.entry.state);
    else
      update_tensor<float>(step, value, grad, item.entry.state);
    if (half) item.value.copy_(cast(value, bf16));
  }
}

}  // namespace hone::optim
