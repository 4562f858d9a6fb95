#include "hone/compress/graph/executor.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "hone/compress/graph/attributes.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/tensor_impl.h"
#include "hone/core/text_table.h"
#include "hone/ops/contiguous_view.h"

namespace hone::graph {

struct Executor::Step {
  const Node* node;
  Attrs attrs;
  std::vector<View> in, out;
  bool keeps;  ///< inputs but the first are the same in every run
  Workspace::Kept kept;
};

namespace {

Shape sizes_of(const View& v) { return Shape(std::span<const int64_t>(v.sizes, static_cast<size_t>(v.ndim))); }
Shape strides_of(const View& v) { return Shape(std::span<const int64_t>(v.strides, static_cast<size_t>(v.ndim))); }

/// While the plan is made, results and inputs have addresses from here on; views of them stay relative to it.
std::byte* const kBase = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);

}  // namespace

/// Goes through the network once, node by node, in eval mode.
struct Executor::Builder {
  enum class Array : uint8_t { none, arena, input, fixed };
  struct Known {
    View view;
    Array array = Array::none;
    size_t id = 0;  ///< of the allocation or the input that it is or views
  };

  explicit Builder(Executor& executor) : e(executor), net(*executor.network_), known(net.values().size()) {}

  void build() {
    mark_needed();
    for (size_t i = 0; i < net.inputs().size(); ++i) {
      const ValueId v = net.inputs()[i];
      known_at(v) = {hone::detail::dense_view(net.value(v).dtype, shape_of(v), kBase), Array::input, i};
    }
    for (size_t i = 0; i < net.nodes().size(); ++i)
      if (needed[i]) add(net.nodes()[i]);
    add_outputs();
    place();
  }

 private:
  Known& known_at(ValueId v) { return known[static_cast<size_t>(v)]; }
  int32_t now() const { return static_cast<int32_t>(e.steps_.size()); }

  Shape shape_of(ValueId v) const {
    const Shape shape = at(net.value(v).shape, e.batch_);
    for (const int64_t n : shape)
      HONE_CHECK(n >= 0, GraphError, "executor: '", net.value(v).name, "' has shape ", to_string(net.value(v).shape),
                 ", which batch ", e.batch_, " does not give");
    return shape;
  }

  /// Nodes that an output depends on in eval mode.
  void mark_needed() {
    std::vector<bool> live(net.values().size(), false);
    needed.assign(net.nodes().size(), false);
    for (const ValueId v : net.outputs()) live[static_cast<size_t>(v)] = true;
    for (size_t i = net.nodes().size(); i-- > 0;) {
      const Node& n = net.nodes()[i];
      needed[i] =
          std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return live[static_cast<size_t>(v)]; });
      if (!needed[i]) continue;
      const size_t reads = n.train_only ? 1 : n.inputs.size();
      for (size_t k = 0; k < reads; ++k)
        if (n.inputs[k] != kNone) live[static_cast<size_t>(n.inputs[k])] = true;
    }
  }

  /// Where v's elements are; a parameter, buffer or constant is brought in at its first use.
  const Known& get(ValueId v) {
    Known& k = known_at(v);
    const Value& value = net.value(v);
    if (k.array == Array::none) {
      HONE_CHECK(value.kind != ValueKind::result, GraphError, "executor: '", value.name,
                 "' is made in training mode alone and read in eval mode");
      Tensor t = value.kind == ValueKind::parameter ? net.parameter(v).value()
                 : value.kind == ValueKind::buffer  ? net.buffer(v)
                 : !net.constant(v).uniform         ? net.constant(v).value
                                                    : detail::materialize(net.constant(v).value, shape_of(v));
      HONE_CHECK(t.device() == cpu, DeviceError, "executor: '", value.name, "' is on ", t.device(),
                 "; executors run on the CPU");
      k = {t.view(), Array::fixed, 0};
      e.fixed_.push_back(std::move(t));
    }
    return k;
  }

  Known allocate(ValueId v, DType dtype, const Shape& shape) {
    e.allocations_.push_back({v, shape.numel() * size_of(dtype), now(), now()});
    return {hone::detail::dense_view(dtype, shape, kBase), Array::arena, e.allocations_.size() - 1};
  }
  void use(const Known& k) {
    if (k.array == Array::arena) e.allocations_[k.id].last = now();
  }

  void add(const Node& n) {
    if (n.train_only) {
      known_at(n.outputs[0]) = get(n.inputs[0]);
      return;
    }
    Step step{&n, n.attributes.at(e.batch_), {}, {}, true, {}};
    std::vector<Known> read;
    for (const ValueId v : n.inputs) {
      read.push_back(v == kNone ? Known() : get(v));
      step.in.push_back(read.back().view);
      const Array from = read.back().array;
      if (read.size() > 1) step.keeps = step.keeps && (from == Array::fixed || from == Array::none);
    }
    ShapeContext shapes{n.op->name, step.in, step.attrs};
    try {
      n.op->shapes(shapes);
    } catch (const Error& error) {
      throw GraphError(str("executor: node '", n.name, "' at batch ", e.batch_, ": ", error.what()));
    }
    View alias;
    if (n.op->alias && n.op->alias(step.in[0], step.attrs, alias)) {
      known_at(n.outputs[0]) = {alias, read[0].array, read[0].id};
      return;
    }
    for (const Known& k : read) use(k);
    std::vector<Known> made;
    for (size_t o = 0; o < n.outputs.size(); ++o) {
      made.push_back(allocate(n.outputs[o], shapes.out[o].dtype, shapes.out[o].shape));
      known_at(n.outputs[o]) = made.back();
      step.out.push_back(made.back().view);
    }
    e.steps_.push_back(std::move(step));
    arrays.push_back({std::move(read), std::move(made)});
  }

  void add_outputs() {
    for (const ValueId v : net.outputs()) {
      Known k = get(v);
      if (k.array == Array::input) {  // a result is the executor's own array
        const Known own = allocate(v, k.view.dtype, sizes_of(k.view));
        e.copies_.push_back({k.view, own.view});
        copied.push_back({k, own});
        k = own;
      }
      use(k);
      results.push_back(k);
    }
  }

  /// Real addresses in place of those from kBase on.
  void place() {
    e.arena_bytes_ = plan_memory(e.allocations_);
    e.arena_ = empty({e.arena_bytes_}, DType::u8);
    auto* const arena = static_cast<std::byte*>(e.arena_.raw_data());
    const auto relative = [](const View& v) { return static_cast<std::byte*>(v.data) - kBase; };
    const auto settle = [&](View& v, const Known& k) {
      if (k.array == Array::arena)
        v.data = v.numel() == 0 ? nullptr : arena + e.allocations_[k.id].offset + relative(k.view);
      if (k.array == Array::input) e.input_views_.push_back({&v, k.id, relative(k.view)});
    };
    for (size_t s = 0; s < e.steps_.size(); ++s) {
      for (size_t i = 0; i < e.steps_[s].in.size(); ++i) settle(e.steps_[s].in[i], arrays[s].first[i]);
      for (size_t o = 0; o < e.steps_[s].out.size(); ++o) settle(e.steps_[s].out[o], arrays[s].second[o]);
    }
    for (size_t i = 0; i < e.copies_.size(); ++i) {
      settle(e.copies_[i].from, copied[i].first);
      settle(e.copies_[i].to, copied[i].second);
    }
    NoGrad no_grad;
    for (size_t i = 0; i < results.size(); ++i) {
      const Known& k = results[i];
      if (k.array == Array::fixed) {
        Tensor own = empty(sizes_of(k.view), k.view.dtype);
        hone::detail::copy_strided(k.view, own.view());
        e.outputs_.push_back(std::move(own));
      } else {
        e.outputs_.push_back(make_view(e.arena_.storage(), sizes_of(k.view), strides_of(k.view),
                                       (e.allocations_[k.id].offset + relative(k.view)) / size_of(k.view.dtype),
                                       k.view.dtype));
      }
    }
  }

  Executor& e;
  const Network& net;
  std::vector<bool> needed;
  std::vector<Known> known;
  std::vector<std::pair<std::vector<Known>, std::vector<Known>>> arrays;  // what each step reads and makes
  std::vector<std::pair<Known, Known>> copied;
  std::vector<Known> results;
};

Executor::Executor(std::shared_ptr<const Network> network, ExecutorOptions options)
    : network_(std::move(network)),
      batch_(options.batch),
      keep_(options.keep),
      workspace_(std::make_unique<Workspace>()) {
  HONE_CHECK(network_ != nullptr, ValueError, "executor: there is no network");
  HONE_CHECK(batch_ >= 1, ValueError, "executor: batch ", batch_, " must be at least 1");
  NoGrad no_grad;
  RecorderScope unseen(nullptr);
  staged_.resize(network_->inputs().size());
  Builder(*this).build();
}
Executor::Executor(Network network, ExecutorOptions options)
    : Executor(std::make_shared<const Network>(std::move(network)), options) {}
Executor::Executor(Executor&&) noexcept = default;
Executor& Executor::operator=(Executor&&) noexcept = default;
Executor::~Executor() = default;

void Executor::bind(size_t i, const Tensor& x) {
  const Value& v = network_->value(network_->inputs()[i]);
  HONE_CHECK(x.defined(), ValueError, "executor: input '", v.name, "' is an undefined tensor");
  bool fits = x.shape().ndim() == static_cast<int>(v.shape.size());
  for (int d = 0; fits && d < x.shape().ndim(); ++d) fits = x.shape()[d] == v.shape[static_cast<size_t>(d)].at(batch_);
  HONE_CHECK(fits, ShapeError, "executor: input '", v.name, "' has shape ", x.shape(), ", batch ", batch_, " takes ",
             at(v.shape, batch_));
  HONE_CHECK(x.dtype() == v.dtype, DTypeError, "executor: input '", v.name, "' has dtype ", x.dtype(),
             ", the network takes ", v.dtype);
  HONE_CHECK(x.device() == cpu, DeviceError, "executor: input '", v.name, "' is on ", x.device(),
             "; executors run on the CPU");
  const Tensor* from = &x;
  if (!x.is_contiguous() || x.storage() == arena_.storage()) {  // a former result would be overwritten while it is read
    Tensor& copy = staged_[i];
    if (!copy.defined()) copy = empty(x.shape(), x.dtype());
    hone::detail::copy_strided(x.view(), copy.view());
    from = &copy;
  }
  auto* const data = static_cast<std::byte*>(from->raw_data());
  for (const InputView& b : input_views_)
    if (b.input == i) b.view->data = data ? data + b.bytes : nullptr;
}

template <class Before> void Executor::execute(Before&& before) {
  for (size_t i = 0; i < steps_.size(); ++i) {
    before(i);
    Step& s = steps_[i];
    workspace_->reuse(keep_ && s.keeps ? &s.kept : nullptr);
    RunContext context{s.node->op->name, s.in, s.out, s.attrs, *workspace_};
    s.node->op->run(context);
  }
  for (const Copy& c : copies_) hone::detail::copy_strided(c.from, c.to);
  arena_.bump_version();
}

const std::vector<Tensor>& Executor::run(const Tensor* inputs, size_t count) {
  HONE_CHECK(count == network_->inputs().size(), ValueError, "executor: the network takes ", network_->inputs().size(),
             " inputs, got ", count);
  for (size_t i = 0; i < count; ++i) bind(i, inputs[i]);
  execute([](size_t) {});
  return outputs_;
}
const std::vector<Tensor>& Executor::run(const std::vector<Tensor>& inputs) {
  return run(inputs.data(), inputs.size());
}
const Tensor& Executor::run(const Tensor& x) {
  HONE_CHECK(outputs_.size() == 1, ValueError, "executor: the network has ", outputs_.size(),
             " outputs; give its inputs as a list");
  return run(&x, 1)[0];
}

std::vector<NodeTime> Executor::profile(const std::vector<Tensor>& inputs, int64_t runs, double seconds) {
  using Clock = std::chrono::steady_clock;
  HONE_CHECK(runs >= 0, ValueError, "executor: profile of ", runs, " runs");
  HONE_CHECK(runs > 0 || (seconds > 0 && std::isfinite(seconds)), ValueError, "executor: profile of ", seconds,
             " seconds");
  run(inputs);
  std::vector<std::vector<double>> times(steps_.size());
  const auto begin = Clock::now();
  const auto more = [&](int64_t done) {
    return runs > 0 ? done < runs : done == 0 || std::chrono::duration<double>(Clock::now() - begin).count() < seconds;
  };
  for (int64_t r = 0; more(r); ++r) {
    Clock::time_point last;
    const auto stop = [&](size_t step) {
      times[step].push_back(std::chrono::duration<double, std::micro>(Clock::now() - last).count());
    };
    execute([&](size_t step) {
      if (step > 0) stop(step - 1);
      last = Clock::now();
    });
    if (!steps_.empty()) stop(steps_.size() - 1);
  }
  std::vector<NodeTime> nodes;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const auto middle = times[i].begin() + static_cast<std::ptrdiff_t>(times[i].size() / 2);
    std::nth_element(times[i].begin(), middle, times[i].end());
    nodes.push_back({steps_[i].node->name, steps_[i].node->op->name, *middle});
  }
  return nodes;
}

int64_t Executor::kept_bytes() const {
  size_t bytes = 0;
  for (const Step& s : steps_) bytes += s.kept.bytes();
  return static_cast<int64_t>(bytes);
}

std::string Executor::plan() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"result", "shape", "bytes", "offset", "steps"}};
  int64_t apart = 0;
  for (const Allocation& a : allocations_) {
    const Value& v = network_->value(a.value);
    apart += a.bytes;
    lines.push_back({v.name, hone::to_string(at(v.shape, batch_)), grouped(a.bytes), grouped(a.offset),
                     a.first == a.last ? str(a.first) : str(a.first, "-", a.last)});
  }
  return hone::detail::text_table(lines, 2) + str("arena ", grouped(arena_bytes_), " bytes, one array a result ",
                                                  grouped(apart), "; ", steps_.size(), " steps\n");
}

}  // namespace hone::graph
