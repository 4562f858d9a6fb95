#pragma once
// Module: parameters, buffers and submodules under their members' names. Modules are values: no child pointers are
// kept, so a copy is deep (new parameter identities) and a move keeps identities.
//
//   struct Net : nn::Module {
//     nn::Linear fc1{{.in = 4, .out = 8}}, fc2{{.in = 8, .out = 1}};
//     HONE_MODULE(Net, fc1, fc2)
//     Tensor forward(const Tensor& x) { return fc2(relu(fc1(x))); }
//   };

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hone/core/op.h"
#include "hone/core/parameter.h"
#include "hone/core/serialize.h"

namespace hone::nn {

class Module;
namespace detail {
struct Caller;
}

/// Sees each direct member of a module, in the order given to HONE_MODULE. Absent parameters and buffers are shown
/// too: ask defined().
struct MemberVisitor {
  virtual ~MemberVisitor() = default;
  virtual void member(const std::string& name, Parameter& p) = 0;
  virtual void member(const std::string& name, Buffer& b) = 0;
  virtual void member(const std::string& name, Module& m) = 0;
};

struct NamedParameter {
  std::string name;
  ParameterRef parameter;
};
struct NamedBuffer {
  std::string name;
  Buffer* buffer;
};  ///< valid until the module is moved or destroyed
struct NamedModule {
  std::string name;
  Module* module;
};  ///< likewise

struct LoadOptions {
  bool strict = true;  ///< every name of the module must be in the file, and no other
  std::function<std::string(const std::string&)> rename = {};  ///< file's name → module's name; "" drops an entry
};
struct LoadReport {
  std::vector<std::string> missing, unexpected;
};

class Module {
 public:
  Module() = default;
  virtual ~Module();

  // What HONE_MODULE writes.
  virtual const char* type_name() const = 0;
  virtual void visit(MemberVisitor& v) = 0;
  virtual std::unique_ptr<Module> clone() const = 0;  ///< a deep copy
  /// Single-tensor call by base reference (Sequential, tracing); hooks run. ValueError for modules whose forward takes
  /// another list.
  virtual Tensor call(const Tensor& x) = 0;
  Tensor operator()(const Tensor& x) { return call(x); }

  std::vector<ParameterRef> parameters();          ///< depth first, each identity once; no absent ones, no scales
  std::vector<NamedParameter> named_parameters();  ///< "conv1.weight", …; likewise
  std::vector<NamedBuffer> named_buffers();        ///< absent ones left out
  std::vector<NamedModule> named_modules();        ///< depth first, parents first; "" is the module itself
  int64_t parameter_count();

  Module& train(bool on = true);  ///< the mode of this module and all below
  Module& eval() { return train(false); }
  bool training() const { return training_; }
  void zero_grad();
  Module& requires_grad_(bool on = true);  ///< of every parameter: false freezes
  Module& to(DType dtype);                 ///< floating parameters (with gradients) and buffers; DTypeError
  Module& to(Device device);               ///< all of them; DeviceError, with nothing moved

  /// Copies of raw values, what else their parameters consist of ("conv1.weight.mask"; ".codes"; ".scale", ".points",
  /// ".levels") and buffers by name, in the order of the members: later training does not change them.
  TensorFile state_dict();
  /// Copies values in, converting nothing: FormatError naming every missing or unexpected entry (strict), ShapeError or
  /// DTypeError naming the entry; on error nothing has changed. Parameters keep their identity. A dense parameter whose
  /// mask, codes or grid are in the file takes that weight type.
  LoadReport load_state_dict(const TensorFile& file, const LoadOptions& options = {});
  void save(const std::string& path);
  LoadReport load(const std::string& path, const LoadOptions& options = {});

  // Hooks run in the order of their registration; they stay with the module when it is moved, and are not copied.
  // For a forward of several arguments `input` is the first tensor among them (undefined if there is none); for one
  // that returns something other than a Tensor, `output` is undefined and what a hook sets it to is ignored.
  using ForwardHook = std::function<void(Module& module, const Tensor& input, Tensor& output)>;
  using ForwardPreHook = std::function<void(Module& module, Tensor& input)>;
  using BackwardHook = std::function<Tensor(Module& module, const Tensor& grad_output)>;
  HookHandle register_forward_hook(ForwardHook hook);         ///< may change the output
  HookHandle register_forward_pre_hook(ForwardPreHook hook);  ///< may change the (first) input
  /// During backward, with the gradient of the output; a defined result replaces it.
  HookHandle register_backward_hook(BackwardHook hook);

  /// A table with one row per module: name, type, output shape, parameters of its own, multiply-adds of the ops it
  /// calls itself, for `sample`; and totals. Runs under no_grad in eval mode and restores the modes: nothing of the
  /// module changes.
  std::string summary(const Tensor& sample);

 protected:
  Module(const Module& o) : training_(o.training_) {}  // hooks stay with the original
  Module& operator=(const Module& o) {
    training_ = o.training_;
    return *this;
  }
  Module(Module&& o) noexcept;
  Module& operator=(Module&& o) noexcept;

 private:
  friend struct detail::Caller;
  struct Hooks;
  Hooks& hooks();
  bool training_ = true;
  std::shared_ptr<Hooks> hooks_;  // none until the first registration
};

/// While it lives, a module and all below are in the given mode; then each is in the mode it had again.
class ModeScope {
 public:
  ModeScope(Module& module, bool training);
  ~ModeScope();
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> former_;
};

/// Any module as a value: copies are deep. Never empty unless moved from.
class AnyModule {
 public:
  explicit AnyModule(std::unique_ptr<Module> m) : m_(std::move(m)) {}
  AnyModule(const AnyModule& o) : m_(o.m_ ? o.m_->clone() : nullptr) {}
  AnyModule(AnyModule&&) noexcept = default;
  AnyModule& operator=(AnyModule o) noexcept {
    m_.swap(o.m_);
    return *this;
  }
  Module& operator*() const { return *m_; }
  Module* operator->() const { return m_.get(); }
  Module* get() const { return m_.get(); }
  Tensor operator()(const Tensor& x) const { return m_->call(x); }

 private:
  std::unique_ptr<Module> m_;
};

}  // namespace hone::nn

#include "hone/ops/nn/module_macro.h"
