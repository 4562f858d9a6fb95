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

/// Sees each direct member of a module, in the order given to HONE_MODULE.
struct MemberVisitor {
  virtual ~MemberVisitor() = default;
  virtual void member(const std::string& name, Parameter& p) = 0;
  virtual void member(const std::string& name, Buffer& b) = 0;
  virtual void member(const std::string& name, Module& m) = 0;
};

struct NamedParameter { std::string name; ParameterRef parameter; };
struct NamedBuffer { std::string name; Buffer* buffer; };
struct NamedModule { std::string name; Module* module; };

struct LoadOptions {
  bool strict = true;  ///< every name of the module must be in the file, and no other
  std::function<std::string(const std::string&)> rename = {};  ///< file's name → module's name; "" drops an entry
};
struct LoadReport { std::vector<std::string> missing, unexpected; };

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;

  // What HONE_MODULE writes.
  virtual const char* type_name() const = 0;
  virtual void visit(MemberVisitor& v) = 0;
  virtual std::unique_ptr<Module> clone() const = 0;  ///< a deep copy
  /// Single-tensor call by base reference (Sequential, tracing); hooks run. ValueError for modules that take another list.
  virtual Tensor call(const Tensor& x) = 0;

  std::vector<ParameterRef> parameters();              ///< depth first, each identity once; absent ones left out
  std::vector<NamedParameter> named_parameters();      ///< "conv1.weight", …
  std::vector<NamedBuffer> named_buffers();
  std::vector<NamedModule> named_modules();            ///< "" is the module itself
  int64_t parameter_count();

  Module& train(bool on = true);                       ///< the mode of this module and all below
  Module& eval() { return train(false); }
  bool training() const { return training_; }
  void zero_grad();
  Module& to(DType dtype);                             ///< floating parameters and buffers
  Module& to(Device device);

  /// Raw values and buffers by name, in order.
  TensorFile state_dict();
  /// Copies values in, converting nothing: FormatError naming every missing or unexpected entry (strict), ShapeError or
  /// DTypeError naming the entry; on error nothing has changed.
  LoadReport load_state_dict(const TensorFile& file, const LoadOptions& options = {});
  void save(const std::string& path);
  LoadReport load(const std::string& path, const LoadOptions& options = {});

  using ForwardHook = std::function<void(Module& module, const Tensor& input, Tensor& output)>;
  using ForwardPreHook = std::function<void(Module& module, Tensor& input)>;
  using BackwardHook = std::function<Tensor(Module& module, const Tensor& grad_output)>;
  HookHandle register_forward_hook(ForwardHook hook);          ///< may change the output
  HookHandle register_forward_pre_hook(ForwardPreHook hook);   ///< may change the (first) input
  HookHandle register_backward_hook(BackwardHook hook);        ///< gradient of the output; may replace it

  /// A table: name, type, output shape, parameters, multiply-adds for `sample`, and totals.
  std::string summary(const Tensor& sample);

 protected:
  Module(const Module& o) : training_(o.training_) {}  // hooks stay with the original
  Module& operator=(const Module& o) { training_ = o.training_; return *this; }
  Module(Module&&) noexcept = default;
  Module& operator=(Module&&) noexcept = default;
  struct Hooks;
  template <class Forward> Tensor run_hooked(const Tensor& x, Forward&& forward);

 private:
  bool training_ = true;
  std::shared_ptr<Hooks> hooks_;  // none until the first registration
};

}  // namespace hone::nn
