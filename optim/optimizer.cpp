#include "hone/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"

namespace hone::optim {
namespace {

// Elements in one piece of work: long enough that a piece outweighs its dispatch, short enough to share between cores.
constexpr int64_t kGrain = 1 << 14;
constexpr int64_t kBf16Block = 256;

void update_bf16(detail::UpdateKernel kernel, BFloat16* p, const BFloat16* g, void* const* state, int64_t n,
                 const double* c) {
  float pf[kBf16Block], gf[kBf16Block];
  for (int64_t i = 0; i < n; i += kBf16Block) {
    const int64_t m = std::min(kBf16Block, n - i);
    std::copy(p + i, p + i + m, pf);
    std::copy(g + i, g + i + m, gf);
    void* at[detail::kMaxSlots];
    for (int s = 0; s < detail::kMaxSlots; ++s) at[s] = state[s] ? static_cast<float*>(state[s]) + i : nullptr;
    kernel(pf, gf, at, m, c);
    std::copy(pf, pf + m, p + i);
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
    entries_.push_back({p, group, p.generation(), 0, {}});
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
  pending_.reserve(entries_.size());
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

void Optimizer::zero_grad() {
  for (const Entry& e : entries_) e.parameter.zero_grad();
}

Optimizer::Pending Optimizer::check_entry(size_t i) const {
  const Entry& e = entries_[i];
  const Tensor& raw = e.parameter.raw();
  HONE_CHECK(e.parameter.generation() == e.generation, GradError, name(), ".step: parameter ", i,
             " changed its shape (now ", raw.shape(), ") after the optimizer was made; its state is stale");
  Tensor g = e.parameter.grad();
  if (!g.defined()) return {i, {}, {}, {}};
  HONE_CHECK(g.shape() == raw.shape(), GradError, name(), ".step: the gradient of parameter ", i, " has shape ",
             g.shape(), ", the parameter ", raw.shape());
  HONE_CHECK(g.dtype() == raw.dtype(), GradError, name(), ".step: the gradient of parameter ", i, " is ", g.dtype(),
             ", the parameter ", raw.dtype());
  const Tensor& s = e.state[0];
  const DType compute = raw.dtype() == bf16 ? f32 : raw.dtype();
  HONE_CHECK(!s.defined() || s.dtype() == compute, GradError, name(), ".step: parameter ", i, " is now ", raw.dtype(),
             ", its state ", s.dtype());
  return {i, raw, contiguous(raw.detach()), contiguous(g.detach())};
}

void Optimizer::add_segment(Pending& pending, int64_t begin) {
  Entry& e = entries_[pending.entry];
  Segment& s = segments_.emplace_back();
  s.p = pending.work.raw_data();
  s.g = pending.grad.raw_data();
  s.begin = begin;
  const DType dtype = pending.work.dtype(), compute = dtype == bf16 ? f32 : dtype;
  s.size = size_of(dtype);
  s.state_size = size_of(compute);
  const int count = slots(e.group);
  for (int k = 0; k < detail::kMaxSlots; ++k) {
    Tensor& state = e.state[static_cast<size_t>(k)];
    if (k < count && !state.defined()) state = zeros(pending.work.shape(), compute);
    s.state[k] = k < count ? state.raw_data() : nullptr;
  }
  const detail::UpdateKernels kernel = kernels(e.group);
  s.kernel = compute == f64 ? kernel.f64 : kernel.f32;
  coefficients(e.group, ++e.steps, s.c);
}

void Optimizer::run_segments(int64_t begin, int64_t end) const {
  auto s = std::upper_bound(segments_.begin(), segments_.end(), begin,
                            [](int64_t at, const Segment& segment) { return at < segment.begin; }) -
           1;
  for (; begin < end; ++s) {
    const int64_t stop = s + 1 == segments_.end() ? end : std::min(end, (s + 1)->begin);
    const int64_t at = begin - s->begin, n = stop - begin;
    if (n == 0) continue;
    std::byte* p = static_cast<std::byte*>(s->p) + at * s->size;
    const std::byte* g = static_cast<const std::byte*>(s->g) + at * s->size;
    void* state[detail::kMaxSlots];
    for (int k = 0; k < detail::kMaxSlots; ++k)
      state[k] = s->state[k] ? static_cast<std::byte*>(s->state[k]) + at * s->state_size : nullptr;
    if (s->size == 2)
      update_bf16(s->kernel, reinterpret_cast<BFloat16*>(p), reinterpret_cast<const BFloat16*>(g), state, n, s->c);
    else
      s->kernel(p, g, state, n, s->c);
    begin = stop;
  }
}

void Optimizer::step() {
  NoGrad no_grad;
  pending_.clear();
  segments_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    Pending p = check_entry(i);
    if (p.raw.defined()) pending_.push_back(std::move(p));
  }
  HONE_CHECK(!pending_.empty(), GradError, name(), ".step: no parameter has a gradient; call backward() before step()");
  int64_t total = 0;
  for (Pending& p : pending_) {
    add_segment(p, total);
    total += p.work.numel();
  }
  parallel_for(total, kGrain, [this](int64_t begin, int64_t end) { run_segments(begin, end); });
  for (Pending& p : pending_) {
    if (p.work.shares_storage_with(p.raw))
      p.raw.bump_version();
    else
      Tensor(p.raw).copy_(p.work);
  }
  pending_.clear();
}

namespace detail {

void check_at_least_zero(const char* optimizer, const char* field, double v) {
  HONE_CHECK(std::isfinite(v) && v >= 0, ValueError, optimizer, ": ", field, " must be finite and at least 0, got ", v);
}
void check_unit_interval(const char* optimizer, const char* field, double v) {
  HONE_CHECK(v >= 0 && v < 1, ValueError, optimizer, ": ", field, " must be in [0, 1), got ", v);
}

}  // namespace detail
}  // namespace hone::optim
