#include "hone/optim/parallel_sgd.h"

#include <algorithm>
#include <cmath>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/shape_ops.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/state_reader.h"

namespace hone::optim::detail {
namespace {

constexpr int64_t kGrain = 1 << 14;
constexpr const char *kKind = "parallel_sgd", *kNetwork = "network.";

const char* mode_name(ParallelMode m) {
  return m == ParallelMode::synchronous ? "synchronous" : m == ParallelMode::local_sgd ? "local_sgd" : "hogwild";
}
std::string worker_prefix(size_t worker) { return str("worker.", worker, "."); }

void copy_values(const ParameterRef& from, const ParameterRef& to) {
  Tensor target = to.raw().detach();
  target.copy_(from.raw().detach());
}

// to = Σ shares_i from_i, in the order of i.
template <class T>
void weighted_sum(const std::vector<const T*>& from, const std::vector<double>& shares, int64_t n, T* to) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      double sum = 0;
      for (size_t i = 0; i < from.size(); ++i) sum += shares[i] * static_cast<double>(from[i][j]);
      to[j] = static_cast<T>(sum);
    }
  });
}

Tensor weighted_sum(const std::vector<Tensor>& from, const std::vector<double>& shares) {
  Tensor out = empty(from[0].shape(), from[0].dtype());
  visit_elements(out, [&]<class T>(T* to) {
    std::vector<const T*> pointers;
    for (const Tensor& t : from) pointers.push_back(t.data<T>());
    weighted_sum<T>(pointers, shares, out.numel(), to);
  });
  return out;
}

// Hogwild: other workers read and write w meanwhile. Relaxed atomics make that defined; updates may still be lost, as
// the method allows.
template <class T> void load_shared(T* w, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = std::atomic_ref(w[i]).load(std::memory_order_relaxed);
}
template <class T> void update_shared(T* w, const T* g, int64_t n, const SGDOptions& o) {
  const T lr = static_cast<T>(o.lr), decay = static_cast<T>(o.weight_decay), sign = static_cast<T>(o.maximize ? -1 : 1);
  for (int64_t i = 0; i < n; ++i) {
    const std::atomic_ref shared(w[i]);
    const T v = shared.load(std::memory_order_relaxed);
    shared.store(v - lr * (sign * g[i] + decay * v), std::memory_order_relaxed);
  }
}
bool all_finite(const Tensor& g) {
  return visit_elements(g, [&]<class T>(const T* x) {
    return std::all_of(x, x + g.numel(), [](T v) { return std::isfinite(static_cast<double>(v)); });
  });
}
template <class F> void with_type(DType d, F&& f) {
  d == f64 ? f.template operator()<double>() : f.template operator()<float>();
}

void check(const ParallelSGDOptions& o, const std::vector<ParameterRef>& master) {
  HONE_CHECK(o.workers >= 1 && o.workers <= 1024, ValueError, "ParallelSGD: workers must be in [1, 1024], got ",
             o.workers);
  HONE_CHECK(o.shards >= 1, ValueError, "ParallelSGD: shards must be at least 1, got ", o.shards);
  HONE_CHECK(o.period >= 1, ValueError, "ParallelSGD: period must be at least 1, got ", o.period);
  if (o.mode != ParallelMode::hogwild) return;
  HONE_CHECK(o.sgd.momentum == 0 && !o.sgd.decoupled_decay, ValueError,
             "ParallelSGD: hogwild takes neither momentum nor decoupled decay, got momentum ", o.sgd.momentum);
  for (const ParameterRef& p : master)
    HONE_CHECK(p.raw().dtype() != bf16, DTypeError, "ParallelSGD: hogwild updates f32 and f64 parameters, not bf16");
}

}  // namespace

std::vector<int64_t> cut(const Tensor& inputs, const Tensor& targets, int64_t pieces) {
  HONE_CHECK(inputs.ndim() >= 1 && targets.ndim() >= 1 && inputs.size(0) == targets.size(0), ShapeError,
             "ParallelSGD.step: inputs ", inputs.shape(), " and targets ", targets.shape(), " must have as many rows");
  const int64_t n = inputs.size(0);
  HONE_CHECK(n >= pieces, ShapeError, "ParallelSGD.step: ", n, " samples cannot be cut into ", pieces, " pieces");
  std::vector<int64_t> cuts;
  for (int64_t i = 0; i <= pieces; ++i) cuts.push_back(n * i / pieces);
  return cuts;
}
Tensor rows(const Tensor& t, int64_t begin, int64_t end) { return slice(t, 0, begin, end); }

GeneratorState shard_generator(const Philox& step, int64_t shard) {
  // Streams above 2^63 belong to shards: 2^16 draws each, 2^12 shards, 2^35 steps.
  return {step.seed, uint64_t{1} << 63 | step.stream << 28 | static_cast<uint64_t>(shard) << 16};
}

ParallelState::ParallelState(std::vector<ParameterRef> master, ParameterLists replicas,
                             std::vector<std::vector<Tensor*>> buffers, const ParallelSGDOptions& options)
    : options_((check(options, master), options)),
      master_(std::move(master)),
      replicas_(std::move(replicas)),
      buffers_(std::move(buffers)),
      optimizer_(master_, options.sgd) {
  for (const ParameterRef& p : master_) {
    marks_.emplace_back(p);
    generations_.push_back(p.generation());
  }
  if (options_.mode != ParallelMode::local_sgd) return;
  for (const auto& list : replicas_) local_.push_back(std::make_unique<SGD>(list, options.sgd));
}

ParallelState::Marks::Marks(const ParameterRef& p) : type(p.type()), mask(p.mask()) {
  if (type != WeightType::fake_quantized) return;
  const WeightGrid grid = p.grid();
  points = grid.points, levels = grid.levels;
}

void ParallelState::follow_marks() {
  const auto same = [](const Tensor& a, const Tensor& b) {
    return a.defined() ? b.defined() && a.shares_storage_with(b) : !b.defined();
  };
  for (size_t i = 0; i < master_.size(); ++i) {
    const ParameterRef& p = master_[i];
    HONE_CHECK(p.generation() == generations_[i], GradError, "ParallelSGD.step: parameter ", i,
               " changed its shape (now ", p.raw().shape(), ") after ParallelSGD was made; its replicas are stale");
    const Marks now(p);
    const bool grids = now.type == WeightType::fake_quantized, had_grid = marks_[i].type == WeightType::fake_quantized;
    for (const auto& list : replicas_) {
      if (had_grid && !grids) list[i].assign(p);  // baked: the raw value is another
      if (!same(now.mask, marks_[i].mask))
        now.mask.defined() ? list[i].set_mask(now.mask, p.mask_gradient()) : list[i].bake_mask();
      if (grids && !(had_grid && same(now.points, marks_[i].points) && same(now.levels, marks_[i].levels)))
        list[i].set_grid(p.grid());
    }
    marks_[i] = now;
  }
}

void ParallelState::begin_step() {
  follow_marks();
  for (const auto& sgd : local_) {
    sgd->set_lr(optimizer_.lr());
    if (optimizer_.has_momentum()) sgd->set_momentum(optimizer_.momentum(), 0);
    sgd->set_non_finite(optimizer_.non_finite());
  }
  if (!together_) return;
  const NoGrad no_grad;
  for (size_t r = 1; r < buffers_.size(); ++r)
    for (size_t i = 0; i < buffers_[r].size(); ++i) buffers_[r][i]->copy_(*buffers_[0][i]);
  if (options_.mode != ParallelMode::local_sgd) return;
  for (const auto& list : replicas_)
    for (size_t i = 0; i < list.size(); ++i) copy_values(master_[i], list[i]);
}

void ParallelState::begin_shard(int64_t replica) {
  const NoGrad no_grad;
  const auto& list = replicas_[static_cast<size_t>(replica)];
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].zero_grad();
    if (options_.mode == ParallelMode::synchronous) copy_values(master_[i], list[i]);
    if (options_.mode == ParallelMode::hogwild)
      with_type(list[i].raw().dtype(), [&]<class T>() {
        load_shared(static_cast<T*>(master_[i].raw().raw_data()), list[i].raw().numel(),
                    static_cast<T*>(list[i].raw().raw_data()));
        list[i].raw().bump_version();
      });
  }
}

void ParallelState::end_shard(int64_t replica) {
  if (options_.mode == ParallelMode::local_sgd) local_[static_cast<size_t>(replica)]->step();
  if (options_.mode != ParallelMode::hogwild) return;
  const NoGrad no_grad;
  std::vector<Tensor> gradients;
  for (const ParameterRef& p : replicas_[static_cast<size_t>(replica)])
    gradients.push_back(p.grad().defined() ? contiguous(p.grad().detach()) : Tensor());
  if (!settle_non_finite(gradients)) return;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& g = gradients[i];
    if (!g.defined()) continue;
    with_type(g.dtype(), [&]<class T>() {
      update_shared(static_cast<T*>(master_[i].raw().raw_data()), static_cast<const T*>(g.raw_data()), g.numel(),
                    optimizer_.options());
    });
  }
}

// Hogwild: whether this piece's gradients are to be applied, clipped where the policy says so.
bool ParallelState::settle_non_finite(std::vector<Tensor>& gradients) {
  bool found = false;
  for (size_t i = 0; i < gradients.size(); ++i) {
    Tensor& g = gradients[i];
    if (!g.defined() || all_finite(g)) continue;
    HONE_CHECK(optimizer_.non_finite() != NonFinite::error, NumericError,
               "ParallelSGD.step: the gradient of parameter ", i, " of shape ", g.shape(), " has NaN or infinity");
    found = true;
    if (optimizer_.non_finite() == NonFinite::clip) g = finite(g);
  }
  if (found) ++non_finite_shards_;
  return !found || optimizer_.non_finite() == NonFinite::clip;
}

int64_t ParallelState::non_finite_steps() const {
  int64_t n = optimizer_.non_finite_steps() + non_finite_shards_;
  for (const auto& sgd : local_) n += sgd->non_finite_steps();
  return n;
}

void ParallelState::end_step(const std::vector<double>& shares) {
  const NoGrad no_grad;
  ++steps_;
  switch (options_.mode) {
    case ParallelMode::synchronous: {
      for (size_t i = 0; i < master_.size(); ++i) {
        std::vector<Tensor> gradients;
        std::vector<double> parts;
        for (size_t r = 0; r < replicas_.size(); ++r) {
          const Tensor g = replicas_[r][i].grad();
          if (!g.defined()) continue;
          gradients.push_back(contiguous(g.detach()));
          parts.push_back(shares[r]);
        }
        master_[i].raw().set_grad(gradients.empty() ? Tensor() : weighted_sum(gradients, parts));
      }
      optimizer_.step();
      break;
    }
    case ParallelMode::local_sgd:
      together_ = false;
      if (steps_ % options_.period == 0) average();
      return;
    case ParallelMode::hogwild:
      for (const ParameterRef& p : master_) p.raw().bump_version();
      break;
  }
  merge_buffers();
}

void ParallelState::average() {
  if (together_) return;
  together_ = true;
  const NoGrad no_grad;
  const std::vector<double> parts(replicas_.size(), 1 / static_cast<double>(replicas_.size()));
  for (size_t i = 0; i < master_.size(); ++i) {
    std::vector<Tensor> weights;
    for (const auto& list : replicas_) weights.push_back(list[i].raw().detach());
    Tensor w = master_[i].raw().detach();
    w.copy_(weighted_sum(weights, parts));
  }
  merge_buffers();
}

// Running statistics: the mean of the replicas'. Counters are the same in all.
void ParallelState::merge_buffers() {
  for (size_t i = 0; i < buffers_[0].size(); ++i) {
    std::vector<Tensor> all;
    for (size_t r = 1; r < buffers_.size(); ++r) all.push_back(*buffers_[r][i]);
    Tensor& own = *buffers_[0][i];
    if (is_floating(own.dtype()))
      own.copy_(weighted_sum(all, std::vector<double>(all.size(), 1 / static_cast<double>(all.size()))));
    else
      own.copy_(all[0]);
  }
}

TensorFile ParallelState::state_dict() const {
  TensorFile file;
  const auto put_sgd = [&](const std::string& prefix, const SGD& sgd) {
    const TensorFile own = sgd.state_dict();
    file.metadata = own.metadata;
    for (const auto& [name, t] : own.tensors) file.tensors.emplace_back(prefix + name, t);
  };
  put_sgd(kNetwork, optimizer_);
  for (size_t w = 0; w < local_.size(); ++w) put_sgd(worker_prefix(w), *local_[w]);
  file.metadata[kKind] = mode_name(options_.mode);
  file.tensors.emplace_back("steps", scalar_tensor(steps_));
  file.tensors.emplace_back("workers", scalar_tensor(static_cast<int64_t>(local_.size())));
  file.tensors.emplace_back("together", scalar_tensor<int64_t>(together_));
  file.tensors.emplace_back("non_finite_shards", scalar_tensor<int64_t>(non_finite_shards_));
  if (together_) return file;
  for (const auto& [name, t] : worker_values()) file.tensors.emplace_back(name, clone(t));
  return file;
}

// What workers hold between averages: weights, then running statistics.
std::vector<std::pair<std::string, Tensor>> ParallelState::worker_values() const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (size_t w = 0; w < replicas_.size(); ++w) {
    for (size_t i = 0; i < master_.size(); ++i)
      out.emplace_back(str("weight.", w, ".", i), replicas_[w][i].raw().detach());
    for (size_t i = 0; i < buffers_[w + 1].size(); ++i)
      out.emplace_back(str("buffer.", w, ".", i), *buffers_[w + 1][i]);
  }
  return out;
}

void ParallelState::load_state_dict(const TensorFile& file) {
  const TensorFile former = state_dict();
  try {
    take_state(file);
  } catch (...) {
    take_state(former);
    throw;
  }
}

void ParallelState::take_state(const TensorFile& file) {
  std::vector<std::string> prefixes{kNetwork};
  for (size_t w = 0; w < local_.size(); ++w) prefixes.push_back(worker_prefix(w));
  std::vector<TensorFile> optimizers(prefixes.size(), TensorFile{{}, file.metadata});
  TensorFile rest{{}, file.metadata};
  for (const auto& [name, t] : file.tensors) {
    const auto at =
        std::find_if(prefixes.begin(), prefixes.end(), [&entry = name](const auto& p) { return entry.starts_with(p); });
    if (at == prefixes.end())
      rest.tensors.emplace_back(name, t);
    else
      optimizers[static_cast<size_t>(at - prefixes.begin())].tensors.emplace_back(name.substr(at->size()), t);
  }
  StateReader reader(rest, "ParallelSGD.load_state_dict");
  reader.expect_kind(kKind, mode_name(options_.mode));
  const int64_t workers = reader.count("workers"), here = static_cast<int64_t>(local_.size());
  HONE_CHECK(workers == here, FormatError, "ParallelSGD.load_state_dict: the state is of ", workers,
             " workers, here there are ", here);
  const int64_t steps = reader.count("steps"), non_finite = reader.count("non_finite_shards");
  const bool together = reader.count("together") != 0;
  HONE_CHECK(together || here > 0, FormatError, "ParallelSGD.load_state_dict: only local_sgd has workers apart");
  std::vector<std::pair<Tensor, Tensor>> copies;  // to, from
  if (!together) {
    for (const auto& [name, t] : worker_values()) copies.emplace_back(t, reader.take(name, t.shape(), t.dtype()));
  }
  reader.finish();
  optimizer_.load_state_dict(optimizers[0]);
  for (size_t w = 0; w < local_.size(); ++w) local_[w]->load_state_dict(optimizers[w + 1]);
  const NoGrad no_grad;
  for (auto& [to, from] : copies) to.copy_(from);
  steps_ = steps;
  together_ = together;
  non_finite_shards_ = non_finite;
}

}  // namespace hone::optim::detail
