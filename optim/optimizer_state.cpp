// An optimizer's state as named tensors: "group.0.lr", "parameter.3.exp_avg", "parameter.3.step".

#include <set>
#include <variant>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/optimizer.h"

namespace hone::optim {
namespace {

constexpr const char* kVersion = "1";

template <class T> Tensor scalar_tensor(T v) { return tensor(std::vector<T>{v}, Shape{}); }

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

// Reads named tensors, each once, checking what it finds.
class Reader {
 public:
  Reader(const TensorFile& file, std::string what) : what_(std::move(what)) {
    for (const auto& [name, t] : file.tensors) entries_.emplace(name, t);
  }
  bool has(const std::string& name) const { return entries_.contains(name); }
  Tensor take(const std::string& name, const Shape& shape, DType dtype) {
    const auto found = entries_.find(name);
    HONE_CHECK(found != entries_.end(), FormatError, what_, ": the state has no entry '", name, "'");
    const Tensor t = found->second;
    HONE_CHECK(t.shape() == shape && t.dtype() == dtype, FormatError, what_, ": entry '", name, "' is ", t.dtype(), " ",
               t.shape(), ", expected ", dtype, " ", shape);
    entries_.erase(found);
    return t;
  }
  void finish() const {
    HONE_CHECK(entries_.empty(), FormatError, what_, ": the state has an entry that this optimizer does not know: '",
               entries_.begin()->first, "'", entries_.size() > 1 ? str(" and ", entries_.size() - 1, " more") : "");
  }

 private:
  std::string what_;
  std::map<std::string, Tensor> entries_;
};

struct FieldReader : FieldVisitor {
  Reader& reader;
  std::string prefix;
  FieldReader(Reader& r, std::string p) : reader(r), prefix(std::move(p)) {}
  void operator()(const char* name, int64_t& v) override { v = reader.take(prefix + name, {}, i64).item<int64_t>(); }
  void operator()(const char* name, double& v) override { v = reader.take(prefix + name, {}, f64).item<double>(); }
  void operator()(const char* name, bool& v) override { v = reader.take(prefix + name, {}, i64).item<int64_t>() != 0; }
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
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  HONE_CHECK(text("optimizer") == name(), FormatError, name(), ".load_state_dict: the state is of '", text("optimizer"),
             "'");
  HONE_CHECK(text("version") == kVersion, FormatError, name(), ".load_state_dict: the state has version '",
             text("version"), "', this program reads version ", kVersion);
  Reader reader(file, str(name(), ".load_state_dict"));
  HONE_CHECK(!reader.has(str("parameter.", size(), ".step")), FormatError, name(),
             ".load_state_dict: the state has more parameters than the ", size(), " of this optimizer");

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
      e.steps = reader.take(prefix + "step", {}, i64).item<int64_t>();
      HONE_CHECK(e.steps >= 0, FormatError, name(), ".load_state_dict: ", prefix, "step is ", e.steps);
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
}

}  // namespace hone::optim
