// An optimizer's state as named tensors: "group.0.lr", "parameter.3.exp_avg", "parameter.3.step".

#include <variant>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/optimizer.h"
#include "hone/optim/state_reader.h"

namespace hone::optim {
namespace {

using detail::scalar_tensor;
using detail::StateReader;

constexpr const char* kVersion = "1";

struct Writer : FieldVisitor {
  TensorFile& file;
  std::string prefix;
  Writer(TensorFile& f, std::string p) : file(f), prefix(std::move(p)) {}
  void add(const char* name, Tensor t) { file.tensors.emplace_back(prefix + name, std::move(t)); }
  void operator()(const char* name, int64_t& v) override { add(name, scalar_tensor(v)); }
  void operator()(const char* name, double& v) override { add(name, scalar_tensor(v)); }
  void operator()(const char* name, bool& v) override { add(name, scalar_tensor<int64_t>(v)); }
  void operator()(const char* name, Shape&) override { refuse(name); }
  void operator()(const char* name, DType&) override { refuse(name); }
  [[noreturn]] static void refuse(const char* name) {
    throw GraphError(str("optimizer option ", name, ": only numbers and switches can be saved"));
  }
};

struct FieldReader : FieldVisitor {
  StateReader& reader;
  std::string prefix;
  FieldReader(StateReader& r, std::string p) : reader(r), prefix(std::move(p)) {}
  void operator()(const char* name, int64_t& v) override { v = reader.number<int64_t>(prefix + name); }
  void operator()(const char* name, double& v) override { v = reader.number<double>(prefix + name); }
  void operator()(const char* name, bool& v) override { v = reader.number<int64_t>(prefix + name) != 0; }
  void operator()(const char* name, Shape&) override { Writer::refuse(name); }
  void operator()(const char* name, DType&) override { Writer::refuse(name); }
};

// The values of all fields, and back.
struct FieldCopy : FieldVisitor {
  std::vector<std::variant<int64_t, double, bool>> values;
  size_t next = 0;
  bool restore = false;
  template <class T> void one(T& v) {
    if (restore)
      v = std::get<T>(values[next++]);
    else
      values.emplace_back(v);
  }
  void operator()(const char*, int64_t& v) override { one(v); }
  void operator()(const char*, double& v) override { one(v); }
  void operator()(const char*, bool& v) override { one(v); }
  void operator()(const char* name, Shape&) override { Writer::refuse(name); }
  void operator()(const char* name, DType&) override { Writer::refuse(name); }
};

}  // namespace

TensorFile Optimizer::state_dict() const {
  NoGrad no_grad;
  TensorFile file;
  file.metadata["optimizer"] = name();
  file.metadata["version"] = kVersion;
  file.tensors.emplace_back("non_finite_steps", scalar_tensor(non_finite_steps_));
  for (int g = 0; g < groups(); ++g) {
    Writer writer(file, str("group.", g, "."));
    const_cast<Optimizer*>(this)->visit_options(g, writer);  // a writer changes nothing
  }
  const std::vector<std::string> names = state_names();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    const std::string prefix = str("parameter.", i, ".");
    file.tensors.emplace_back(prefix + "step", scalar_tensor(e.steps));
    if (scalars() > 0)
      file.tensors.emplace_back(prefix + "scalars",
                                tensor(std::vector<double>(e.scalars.begin(), e.scalars.begin() + scalars())));
    for (int k = 0; k < slots(e.group); ++k)
      if (const Tensor& s = e.state[static_cast<size_t>(k)]; s.defined())
        file.tensors.emplace_back(prefix + names[static_cast<size_t>(k)], clone(s));
  }
  return file;
}

void Optimizer::load_state_dict(const TensorFile& file) {
  NoGrad no_grad;
  StateReader reader(file, str(name(), ".load_state_dict"));
  reader.expect_kind("optimizer", name());
  reader.expect_version(kVersion);
  HONE_CHECK(!reader.has(str("parameter.", size(), ".step")), FormatError, name(),
             ".load_state_dict: the state has more parameters than the ", size(), " of this optimizer");

  const int64_t non_finite_steps = reader.count("non_finite_steps");
  std::vector<FieldCopy> former(static_cast<size_t>(groups()));
  for (int g = 0; g < groups(); ++g) visit_options(g, former[static_cast<size_t>(g)]);
  std::vector<Entry> next = entries_;
  try {
    for (int g = 0; g < groups(); ++g) {
      FieldReader fields(reader, str("group.", g, "."));
      visit_options(g, fields);
      check_options(g);
    }
    const std::vector<std::string> names = state_names();
    for (size_t i = 0; i < next.size(); ++i) {
      Entry& e = next[i];
      const std::string prefix = str("parameter.", i, ".");
      e.steps = reader.count(prefix + "step");
      if (scalars() > 0) {
        const Tensor t = reader.take(prefix + "scalars", {scalars()}, f64);
        std::copy_n(t.data<double>(), scalars(), e.scalars.begin());
      }
      for (int k = 0; k < slots(e.group); ++k) {
        Tensor& state = e.state[static_cast<size_t>(k)];
        const std::string entry = prefix + names[static_cast<size_t>(k)];
        if (e.steps == 0 && !reader.has(entry)) {
          state = {};
          continue;
        }
        const Tensor model = initial_state(e.group, k, e.parameter.raw().detach());
        state = clone(reader.take(entry, model.shape(), model.dtype()));
      }
    }
    reader.finish();
  } catch (...) {
    for (int g = 0; g < groups(); ++g) {
      FieldCopy& copy = former[static_cast<size_t>(g)];
      copy.restore = true;
      visit_options(g, copy);
    }
    throw;
  }
  entries_ = std::move(next);
  non_finite_steps_ = non_finite_steps;
}

}  // namespace hone::optim
