#include "hone/ops/nn/module.h"

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"

namespace hone::nn {

// ---- hooks ----

namespace {

/// Callbacks in the order of registration. Callers walk a copy, so that a hook may add and remove hooks.
template <class F> struct HookList {
  std::vector<std::pair<uint64_t, F>> items;
  void remove(uint64_t id) {
    std::erase_if(items, [id](const auto& item) { return item.first == id; });
  }
};

}  // namespace

struct Module::Hooks {
  Module* owner = nullptr;  // follows moves; null once the module is gone
  uint64_t next_id = 0;
  HookList<ForwardPreHook> before;
  HookList<ForwardHook> after;
  HookList<BackwardHook> backward;

  template <class F> static HookHandle add(const std::shared_ptr<Hooks>& hooks, HookList<F> Hooks::*list, F hook) {
    const uint64_t id = hooks->next_id++;
    ((*hooks).*list).items.emplace_back(id, std::move(hook));
    return HookHandle([weak = std::weak_ptr<Hooks>(hooks), list, id] {
      if (auto alive = weak.lock()) ((*alive).*list).remove(id);
    });
  }
};

Module::~Module() {
  if (hooks_) hooks_->owner = nullptr;
}

Module::Module(Module&& o) noexcept : training_(o.training_), hooks_(std::move(o.hooks_)) {
  if (hooks_) hooks_->owner = this;
}

Module& Module::operator=(Module&& o) noexcept {
  if (this == &o) return *this;
  if (hooks_) hooks_->owner = nullptr;
  training_ = o.training_;
  hooks_ = std::move(o.hooks_);
  if (hooks_) hooks_->owner = this;
  return *this;
}

Module::Hooks& Module::hooks() {
  if (!hooks_) {
    hooks_ = std::make_shared<Hooks>();
    hooks_->owner = this;
  }
  return *hooks_;
}

HookHandle Module::register_forward_hook(ForwardHook hook) {
  hooks();
  return Hooks::add(hooks_, &Hooks::after, std::move(hook));
}
HookHandle Module::register_forward_pre_hook(ForwardPreHook hook) {
  hooks();
  return Hooks::add(hooks_, &Hooks::before, std::move(hook));
}
HookHandle Module::register_backward_hook(BackwardHook hook) {
  hooks();
  return Hooks::add(hooks_, &Hooks::backward, std::move(hook));
}

void detail::Caller::before(Module& m, Tensor& input) {
  const auto hooks = m.hooks_;
  const auto list = hooks->before.items;
  for (const auto& [id, hook] : list) hook(m, input);
}

void detail::Caller::after(Module& m, const Tensor& input, Tensor& output) {
  const auto hooks = m.hooks_;
  const auto list = hooks->after.items;
  for (const auto& [id, hook] : list) hook(m, input, output);
  if (hooks->backward.items.empty() || !output.defined() || !output.requires_grad()) return;
  // A module that returns its input, or a leaf, needs a node of its own: the hook is about this call only.
  if (output.is_leaf() || output.is_same(input)) output = apply(kAlias, {}, {output});
  output.register_hook([hooks](const Tensor& grad) {
    Tensor g = grad, replaced;
    const auto list = hooks->backward.items;
    for (const auto& [id, hook] : list) {
      if (!hooks->owner) break;
      if (Tensor r = hook(*hooks->owner, g); r.defined()) g = replaced = r;
    }
    return replaced;
  });
}

// ---- walks over members ----

namespace {

/// Calls f(name, member) for each member of every module below, depth first, with its full name.
template <class F> struct Walk : MemberVisitor {
  explicit Walk(F& f) : f(f) {}
  void member(const std::string& name, Parameter& p) override { f(prefix + name, p); }
  void member(const std::string& name, Buffer& b) override { f(prefix + name, b); }
  void member(const std::string& name, Module& m) override {
    f(prefix + name, m);
    const size_t length = prefix.size();
    prefix += name + '.';
    m.visit(*this);
    prefix.resize(length);
  }
  F& f;
  std::string prefix;
};

template <class... Fs> struct Overloaded : Fs... { using Fs::operator()...; };
struct Ignore {
  void operator()(const std::string&, const Parameter&) const {}
  void operator()(const std::string&, const Buffer&) const {}
  void operator()(const std::string&, const Module&) const {}
};

template <class... Fs> void walk(Module& m, Fs... fs) {
  Overloaded<Ignore, Fs...> f{Ignore(), fs...};
  Walk<decltype(f)> visitor(f);
  m.visit(visitor);
}

/// The new raw value of a parameter, and its gradient, converted by `convert`.
template <class Convert> void convert_parameter(const ParameterRef& p, Convert convert) {
  const Tensor raw = p.raw(), grad = p.grad();
  Tensor next = convert(raw.detach());
  if (next.is_same(raw) || next.shares_storage_with(raw)) return;
  p.replace(std::move(next));
  if (grad.defined()) p.raw().set_grad(convert(grad.detach()));
}

}  // namespace

std::vector<NamedParameter> Module::named_parameters() {
  std::vector<NamedParameter> found;
  walk(*this, [&](const std::string& name, Parameter& p) {
    if (!p.defined()) return;
    const bool known = std::any_of(found.begin(), found.end(), [&](const auto& n) { return n.parameter == p.ref(); });
    if (!known) found.push_back({name, p.ref()});
  });
  return found;
}

std::vector<ParameterRef> Module::parameters() {
  std::vector<ParameterRef> refs;
  for (auto& named : named_parameters()) refs.push_back(std::move(named.parameter));
  return refs;
}

std::vector<NamedBuffer> Module::named_buffers() {
  std::vector<NamedBuffer> found;
  walk(*this, [&](const std::string& name, Buffer& b) {
    if (b.defined()) found.push_back({name, &b});
  });
  return found;
}

std::vector<NamedModule> Module::named_modules() {
  std::vector<NamedModule> found{{"", this}};
  walk(*this, [&](const std::string& name, Module& m) { found.push_back({name, &m}); });
  return found;
}

int64_t Module::parameter_count() {
  int64_t n = 0;
  for (const auto& p : parameters()) n += p.shape().numel();
  return n;
}

Module& Module::train(bool on) {
  training_ = on;
  walk(*this, [on](const std::string&, Module& m) { m.training_ = on; });
  return *this;
}

ModeScope::ModeScope(Module& module, bool training) {
  for (const auto& [name, m] : module.named_modules()) former_.emplace_back(m, m->training());
  module.train(training);
}
ModeScope::~ModeScope() {
  for (const auto& [m, on] : former_) detail::Caller::set_mode(*m, on);
}

void Module::zero_grad() {
  for (const auto& p : parameters()) p.zero_grad();
}

Module& Module::requires_grad_(bool on) {
  for (const auto& p : parameters()) Tensor(p.raw()).requires_grad_(on);
  return *this;
}

Module& Module::to(DType dtype) {
  HONE_CHECK(is_floating(dtype), DTypeError, type_name(), ": to(", dtype, "): parameters have floating dtypes only");
  NoGrad no_grad;
  auto convert = [dtype](const Tensor& t) { return t.dtype() == dtype ? t : cast(t, dtype); };
  for (const auto& p : parameters()) convert_parameter(p, convert);
  for (auto& b : named_buffers()) {
    if (is_floating(b.buffer->tensor().dtype())) b.buffer->tensor() = convert(b.buffer->tensor());
  }
  return *this;
}

Module& Module::to(Device device) {
  check_usable(device);
  NoGrad no_grad;
  auto convert = [device](const Tensor& t) { return hone::to(t, device); };
  for (const auto& p : parameters()) convert_parameter(p, convert);
  for (auto& b : named_buffers()) b.buffer->tensor() = convert(b.buffer->tensor());
  return *this;
}

// ---- state ----

namespace {

/// What a parameter's state consists of; its raw value first.
enum class Part : uint8_t { raw, mask, codes, scale, points, levels };
constexpr const char* kSuffixes[] = {"", ".mask", ".codes", ".scale", ".points", ".levels"};
constexpr size_t kParts = std::size(kSuffixes);

struct Entry {
  std::string name;
  Tensor tensor;          // sharing the module's storage; undefined where the parameter has no such part
  ParameterRef of{};      // absent for buffers
  Part part = Part::raw;  // all of one parameter follow each other
};

/// The parts of every parameter, and buffers, under their names.
std::vector<Entry> state_of(Module& m) {
  std::vector<Entry> state;
  walk(
      m,
      [&](const std::string& name, Parameter& p) {
        if (!p.defined()) return;
        const WeightGrid grid = p.ref().scale().defined() ? p.ref().grid() : WeightGrid();
        const Tensor parts[kParts] = {p.raw().detach(), p.ref().mask(), p.ref().codes(),
                                      grid.scale,       grid.points,    grid.levels};
        for (size_t k = 0; k < kParts; ++k)
          state.push_back({name + kSuffixes[k], parts[k], p.ref(), static_cast<Part>(k)});
      },
      [&](const std::string& name, Buffer& b) {
        if (b.defined()) state.push_back({name, b.tensor().detach()});
      });
  return state;
}

/// f(), whose errors say `where` first.
template <class F> void with_place(const std::string& where, F f) {
  try {
    f();
  } catch (const ShapeError& e) { throw ShapeError(where + e.what()); } catch (const DTypeError& e) {
    throw DTypeError(where + e.what());
  } catch (const ValueError& e) { throw ValueError(where + e.what()); }
}

/// Parameter p with the parts that a file gives, one of which is of a codebook or a grid.
Parameter with_parts(const std::string& where, const ParameterRef& p, const Tensor* const* from) {
  const auto given = [&](Part part) {
    const Tensor* t = from[static_cast<size_t>(part)];
    return t ? t->detach() : Tensor();
  };
  const auto need = [&](Part part) {
    const Tensor t = given(part);
    HONE_CHECK(t.defined(), FormatError, where, "its entry '", kSuffixes[static_cast<size_t>(part)], "' is missing");
    return t;
  };
  Parameter next;
  with_place(where, [&] {
    if (given(Part::codes).defined()) {
      next = Parameter(zeros(p.shape(), {p.raw().dtype(), p.raw().device()}));
      next.ref().set_codebook(need(Part::codes), need(Part::raw));
    } else {
      next = Parameter(need(Part::raw));
      HONE_CHECK(next.shape() == p.shape(), ShapeError, "shape ", next.shape(), ", the module's is ", p.shape());
      HONE_CHECK(next.raw().dtype() == p.raw().dtype(), DTypeError, "dtype ", next.raw().dtype(), ", the module's is ",
                 p.raw().dtype());
      const bool learned = p.scale().defined() && p.scale().raw().requires_grad();
      next.ref().set_grid({need(Part::scale), need(Part::points), given(Part::levels), learned});
    }
    const Tensor mask = given(Part::mask).defined() ? given(Part::mask) : p.mask();
    if (mask.defined()) next.ref().set_mask(mask, p.mask_gradient());
  });
  return next;
}

std::string joined(const std::vector<std::string>& names) {
  std::string s;
  for (const auto& n : names) s += (s.empty() ? "" : ", ") + n;
  return s;
}

LoadReport load_state(Module& m, const std::string& what, const TensorFile& file, const LoadOptions& options) {
  auto state = state_of(m);
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < state.size(); ++i) index.emplace(state[i].name, i);
  std::vector<const Tensor*> from(state.size(), nullptr);
  LoadReport report;
  for (const auto& [file_name, tensor] : file.tensors) {
    const std::string name = options.rename ? options.rename(file_name) : file_name;
    if (options.rename && name.empty()) continue;
    const auto it = index.find(name);
    if (it == index.end()) {
      report.unexpected.push_back(file_name);
      continue;
    }
    HONE_CHECK(!from[it->second], FormatError, what, ": two entries for ", name, ", the second is ", file_name);
    HONE_CHECK(tensor.defined(), FormatError, what, ": ", file_name, " is an undefined tensor");
    from[it->second] = &tensor;
  }
  for (size_t i = 0; i < state.size(); ++i) {
    if (!from[i] && state[i].tensor.defined()) report.missing.push_back(state[i].name);
  }
  if (options.strict && !(report.missing.empty() && report.unexpected.empty())) {
    std::string message = str(what, ": does not match ", m.type_name());
    if (!report.missing.empty()) message += "; missing: " + joined(report.missing);
    if (!report.unexpected.empty()) message += "; unexpected: " + joined(report.unexpected);
    throw FormatError(message);
  }
  // Everything is checked, and made where it is more than a copy, before anything changes.
  std::map<size_t, Parameter> made;  // by place of the raw value
  NoGrad no_grad;
  for (size_t i = 0; i < state.size(); ++i) {
    const Entry& e = state[i];
    if (e.of.defined() && e.part == Part::raw) {
      const auto first = from.begin() + static_cast<std::ptrdiff_t>(i);
      if (std::any_of(first + static_cast<int>(Part::codes), first + kParts, [](const Tensor* t) { return t; })) {
        made.emplace(i, with_parts(str(what, ": ", e.name, ": "), e.of, &from[i]));
        i += kParts - 1;
        continue;
      }
    }
    if (!from[i]) continue;
    const bool mask = e.part == Part::mask;
    const Shape shape = mask ? e.of.shape() : e.tensor.shape();
    const DType dtype = mask ? DType::boolean : e.tensor.dtype();
    HONE_CHECK(from[i]->shape() == shape, ShapeError, what, ": ", e.name, " has shape ", from[i]->shape(),
               ", the module's is ", shape);
    HONE_CHECK(from[i]->dtype() == dtype, DTypeError, what, ": ", e.name, " has dtype ", from[i]->dtype(),
               ", the module's is ", dtype);
  }
  for (size_t i = 0; i < state.size(); ++i) {
    if (const auto it = made.find(i); it != made.end()) {
      state[i].of.assign(it->second);
      i += kParts - 1;
    } else if (from[i] && state[i].part == Part::mask) {
      state[i].of.set_mask(*from[i], state[i].of.mask_gradient());
    } else if (from[i]) {
      state[i].tensor.copy_(from[i]->detach());
    }
  }
  return report;
}

}  // namespace

TensorFile Module::state_dict() {
  NoGrad no_grad;
  TensorFile file;
  for (auto& e : state_of(*this)) {
    if (e.tensor.defined()) file.tensors.emplace_back(e.name, hone::clone(e.tensor));
  }
  return file;
}

LoadReport Module::load_state_dict(const TensorFile& file, const LoadOptions& options) {
  return load_state(*this, "load_state_dict", file, options);
}

void Module::save(const std::string& path) {
  NoGrad no_grad;
  TensorFile file;
  for (auto& e : state_of(*this)) {
    if (e.tensor.defined()) file.tensors.emplace_back(e.name, hone::to(e.tensor, cpu));
  }
  save_safetensors(path, file);
}

LoadReport Module::load(const std::string& path, const LoadOptions& options) {
  return load_state(*this, path, load_safetensors(path), options);
}

}  // namespace hone::nn
