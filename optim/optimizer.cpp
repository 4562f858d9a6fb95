#include "hone/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/indexing.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

// Elements in one piece of work: long enough that a piece outweighs its dispatch, short enough to share between cores.
constexpr int64_t kGrain = 1 << 14;
constexpr int64_t kBf16Block = 256;

DType compute_dtype(DType d) { return d == bf16 ? f32 : d; }

// Calls body(p, g, state, n) on f32 copies of blocks of bf16 arrays.
template <class Body>
void in_f32_blocks(BFloat16* p, const BFloat16* g, void* const* state, int64_t n, bool write, const Body& body) {
  float pf[kBf16Block], gf[kBf16Block];
  for (int64_t i = 0; i < n; i += kBf16Block) {
    const int64_t m = std::min(kBf16Block, n - i);
    std::copy(p + i, p + i + m, pf);
    std::copy(g + i, g + i + m, gf);
    void* at[detail::kMaxSlots];
    for (int s = 0; s < detail::kMaxSlots; ++s) at[s] = state[s] ? static_cast<float*>(state[s]) + i : nullptr;
    body(pf, gf, at, m);
    if (write) std::copy(pf, pf + m, p + i);
  }
}

// Calls body(segment, p, g, state, n) for the parts of the segments that lie in [begin, end) of their concatenation.
template <class Segment, class Body>
void for_parts(std::span<Segment> segments, int64_t begin, int64_t end, const Body& body) {
  auto s = std::upper_bound(segments.begin(), segments.end(), begin,
                            [](int64_t at, const auto& segment) { return at < segment.begin; }) -
           1;
  for (; begin < end; ++s) {
    const int64_t at = begin - s->begin, n = std::min(end - begin, s->n - at);
    if (n == 0) continue;
    std::byte* p = static_cast<std::byte*>(s->p) + at * s->size;
    const std::byte* g = static_cast<const std::byte*>(s->g) + at * s->size;
    void* state[detail::kMaxSlots];
    for (int k = 0; k < detail::kMaxSlots; ++k)
      state[k] = s->state[k] ? static_cast<std::byte*>(s->state[k]) + at * s->state_size : nullptr;
    body(*s, p, g, state, n);
    begin += n;
  }
}

}  // namespace

void Optimizer::add_parameters(const char* name, const std::vector<ParameterRef>& parameters) {
  first_.push_back(entries_.size());
  const int group = static_cast<int>(first_.size()) - 1;
  HONE_CHECK(!parameters.empty(), ValueError, name, ": parameter group ", group, " is empty");
  for (const ParameterRef& p : parameters) {
    HONE_CHECK(p.defined(), ValueError, name, ": parameter ", entries_.size(), " is undefined");
    HONE_CHECK(p.raw().device().type == DeviceType::cpu, DeviceError, name, ": parameter ", entries_.size(), " is on ",
               p.raw().device(), "; this optimizer updates parameters on the cpu");
    entries_.push_back({p, group, p.generation(), p.raw().shape(), 0, {}, {}});
  }
}

void Optimizer::finish_groups(const char* name) {
  HONE_CHECK(!entries_.empty(), ValueError, name, ": the list of parameters is empty");
  first_.push_back(entries_.size());
  std::unordered_set<const ParameterState*> seen;
  for (size_t i = 0; i < entries_.size(); ++i)
    HONE_CHECK(seen.insert(entries_[i].parameter.id()).second, ValueError, name, ": parameter ", i, " of shape ",
               entries_[i].parameter.raw().shape(), " is listed twice; each parameter may stand in one group, once");
  segments_.reserve(entries_.size());
  items_.reserve(entries_.size());
}

void Optimizer::check_group(int group) const {
  HONE_CHECK(group >= 0 && group < groups(), ValueError, name(), ": group ", group, " of ", groups());
}

void Optimizer::set_lr(double lr) {
  for (int g = 0; g < groups(); ++g) set_lr(lr, g);
}

double Optimizer::momentum(int) const { throw ValueError(str(name(), ": this optimizer has no momentum")); }
void Optimizer::set_momentum(double, int) { throw ValueError(str(name(), ": this optimizer has no momentum")); }

const Optimizer::Entry& Optimizer::entry(const ParameterRef& p) const {
  for (const Entry& e : entries_)
    if (e.parameter == p) return e;
  throw ValueError(str(name(), ": the parameter is not in this optimizer"));
}

Tensor Optimizer::state(const ParameterRef& p, int slot) const {
  const Entry& e = entry(p);
  HONE_CHECK(slot >= 0 && slot < slots(e.group), ValueError, name(), ": state slot ", slot, " of ", slots(e.group));
  return e.state[static_cast<size_t>(slot)];
}

int64_t Optimizer::steps(const ParameterRef& p) const { return entry(p).steps; }

int64_t Optimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Entry& e : entries_)
    for (const Tensor& t : e.state)
      if (t.defined()) bytes += t.numel() * size_of(t.dtype());
  return bytes;
}

void Optimizer::zero_grad() {
  for (const Entry& e : entries_) e.parameter.zero_grad();
}

Tensor Optimizer::initial_state(int, int, const Tensor& value) const {
  return zeros(value.shape(), compute_dtype(value.dtype()));
}

Tensor Optimizer::slice_state(int, const Tensor& state, const Shape& before, int64_t dim, const Tensor& kept) const {
  HONE_CHECK(state.shape() == before, ValueError, name(), ".apply: the state has shape ", state.shape(),
             ", the parameter had ", before);
  return index_select(state, dim, kept);
}

void Optimizer::apply(const Shrink& shrink) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.parameter == shrink.parameter; });
  if (found == entries_.end()) return;
  NoGrad no_grad;
  HONE_CHECK(shrink.dim >= 0 && shrink.dim < found->shape.ndim(), ValueError, name(), ".apply: dimension ", shrink.dim,
             " of a parameter of shape ", found->shape);
  std::array<Tensor, detail::kMaxSlots> sliced = found->state;
  const Tensor kept = tensor(shrink.kept);
  for (int k = 0; k < detail::kMaxSlots; ++k) {
    Tensor& state = sliced[static_cast<size_t>(k)];
    if (state.defined()) state = slice_state(k, state, found->shape, shrink.dim, kept);
  }
  Shape shape = found->shape;
  shape[static_cast<int>(shrink.dim)] = static_cast<int64_t>(shrink.kept.size());
  found->state = std::move(sliced);
  found->shape = shape;
  // Where several dimensions shrink, there is a call for each: the last one brings the shape that the parameter has.
  if (shape == shrink.parameter.raw().shape()) found->generation = shrink.parameter.generation();
}

void Optimizer::add_item(size_t i) {
  Entry& e = entries_[i];
  const Tensor& raw = e.parameter.raw();
  HONE_CHECK(e.parameter.generation() == e.generation, GradError, name(), ".step: parameter ", i,
             " changed its shape (now ", raw.shape(), ") after the optimizer was made; its state is stale");
  const Tensor g = e.parameter.grad();
  if (!g.defined()) return;
  HONE_CHECK(g.shape() == raw.shape(), GradError, name(), ".step: the gradient of parameter ", i, " has shape ",
             g.shape(), ", the parameter ", raw.shape());
  HONE_CHECK(g.dtype() == raw.dtype(), GradError, name(), ".step: the gradient of parameter ", i, " is ", g.dtype(),
             ", the parameter ", raw.dtype());
  const Tensor& s = e.state[0];
  HONE_CHECK(!s.defined() || s.dtype() == compute_dtype(raw.dtype()), GradError, name(), ".step: parameter ", i,
             " is now ", raw.dtype(), ", its state ", s.dtype());
  HONE_ASSERT(raw.is_contiguous());  // parameters own their storage: it is updated where it lies
  items_.push_back({e, raw.detach(), contiguous(g.detach())});
}

// Items and segments of everything that has a gradient; nothing changes.
void Optimizer::collect() {
  items_.clear();
  segments_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) add_item(i);
  HONE_CHECK(!items_.empty(), GradError, name(), ".step: no parameter has a gradient; call backward() before step()");
  int64_t begin = 0;
  for (Item& item : items_) {
    Segment& s = segments_.emplace_back();
    s.entry = &item.entry;
    s.p = item.value.raw_data();
    s.g = item.grad.raw_data();
    s.begin = begin;
    s.n = item.value.numel();
    s.size = size_of(item.value.dtype());
    s.state_size = size_of(compute_dtype(item.value.dtype()));
    begin += s.n;
  }
}

// Whether the step goes on.
bool Optimizer::settle_non_finite() {
  sum_segments(detail::update_rules().non_finite);
  bool found = false;
  for (size_t i = 0; i < items_.size(); ++i) {
    if (segments_[i].sums[0] == 0) continue;
    HONE_CHECK(non_finite_ != NonFinite::error, NumericError, name(), ".step: the gradient of parameter ",
               &items_[i].entry - entries_.data(), " of shape ", items_[i].value.shape(), " has ", segments_[i].sums[0],
               " elements that are NaN or infinite; nothing was changed (set_non_finite chooses to skip or clip)");
    found = true;
    if (non_finite_ == NonFinite::skip) break;
    items_[i].grad = detail::finite(items_[i].grad);  // the user's gradient stays as it is
    segments_[i].g = items_[i].grad.raw_data();
  }
  if (found) count_non_finite();
  return !found || non_finite_ == NonFinite::clip;
}

void Optimizer::step() {
  NoGrad no_grad;
  const struct Clear {
    std::vector<Item>& items;
    ~Clear() { items.clear(); }  // holds no tensor until the next step
  } clear{items_};
  collect();
  if (!settle_non_finite()) return;
  for (size_t i = 0; i < items_.size(); ++i) {
    Entry& e = items_[i].entry;
    for (int k = 0; k < slots(e.group); ++k) {
      Tensor& state = e.state[static_cast<size_t>(k)];
      if (!state.defined()) state = initial_state(e.group, k, items_[i].value);
      segments_[i].state[k] = state.raw_data();
    }
  }
  for (Segment& s : segments_) {
    ++s.entry->steps;
    s.kernels = kernels(s.entry->group);
    coefficients(*s.entry, s.c);
  }
  update(items_);
  for (const Item& item : items_) item.value.bump_version();
}

double Optimizer::step(const Closure& closure) {
  const Tensor loss = closure();
  HONE_CHECK(loss.defined() && loss.numel() == 1, ValueError, name(),
             ".step: the closure must return its loss, one number");
  const double value = loss.item();
  step();
  return value;
}

detail::UpdateKernels Optimizer::kernels(int) const { return {}; }
void Optimizer::coefficients(Entry&, double*) const {}
void Optimizer::update(std::span<Item>) { run_segments(); }

void Optimizer::run_segments() const {
  const std::span<const Segment> all = segments_;
  parallel_for(all.back().begin + all.back().n, kGrain, [&](int64_t begin, int64_t end) {
    for_parts(all, begin, end, [](const Segment& s, void* p, const void* g, void* const* state, int64_t n) {
      if (s.size != 2) return (s.size == 8 ? s.kernels.f64 : s.kernels.f32)(p, g, state, n, s.c);
      in_f32_blocks(static_cast<BFloat16*>(p), static_cast<const BFloat16*>(g), state, n, true,
                    [&](float* pf, const float* gf, void* const* at, int64_t m) { s.kernels.f32(pf, gf, at, m, s.c); });
    });
  });
}

void Optimizer::sum_segments(const detail::SumKernels& kernels) {
  const std::span<const Segment> all = segments_;
  // Piece i and segment s meet at most once, and along the walk one of the two advances: i + s names their sum.
  const int64_t total = all.back().begin + all.back().n, pieces = (total + kGrain - 1) / kGrain;
  partial_.assign(2 * (static_cast<size_t>(pieces) + all.size()), 0.0);
  parallel_for(total, kGrain, [&](int64_t begin, int64_t end) {
    for_parts(all, begin, end, [&](const Segment& s, void* p, const void* g, void* const* state, int64_t n) {
      double* sums = partial_.data() + 2 * (begin / kGrain + (&s - all.data()));
      if (s.size != 2) return (s.size == 8 ? kernels.f64 : kernels.f32)(p, g, state, n, s.c, sums);
      in_f32_blocks(
          static_cast<BFloat16*>(p), static_cast<const BFloat16*>(g), state, n, false,
          [&](float* pf, const float* gf, void* const* at, int64_t m) { kernels.f32(pf, gf, at, m, s.c, sums); });
    });
  });
  for (size_t i = 0; i < segments_.size(); ++i) {
    Segment& s = segments_[i];
    s.sums[0] = s.sums[1] = 0;
    if (s.n == 0) continue;
    for (int64_t piece = s.begin / kGrain; piece <= (s.begin + s.n - 1) / kGrain; ++piece) {
      const double* sums = partial_.data() + 2 * (piece + static_cast<int64_t>(i));
      s.sums[0] += sums[0];
      s.sums[1] += sums[1];
    }
  }
}

namespace detail {

void check_finite(const char* optimizer, const char* field, double v) {
  HONE_CHECK(std::isfinite(v), ValueError, optimizer, ": ", field, " must be finite, got ", v);
}
void check_at_least_zero(const char* optimizer, const char* field, double v) {
  HONE_CHECK(std::isfinite(v) && v >= 0, ValueError, optimizer, ": ", field, " must be finite and at least 0, got ", v);
}
void check_above_zero(const char* optimizer, const char* field, double v) {
  HONE_CHECK(std::isfinite(v) && v > 0, ValueError, optimizer, ": ", field, " must be finite and above 0, got ", v);
}
void check_unit_interval(const char* optimizer, const char* field, double v) {
  HONE_CHECK(v >= 0 && v < 1, ValueError, optimizer, ": ", field, " must be in [0, 1), got ", v);
}

}  // namespace detail
}  // namespace hone::optim
