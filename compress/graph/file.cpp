#include "hone/compress/graph/file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "hone/compress/graph/attributes.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/table.h"

namespace hone::graph {
namespace {

using nlohmann::json;

constexpr const char* kMetadata = "hone.graph";
constexpr int64_t kVersion = 1;
constexpr int64_t kMostElements = int64_t{1} << 40;  // of a size or attribute in a file: no arithmetic on it overflows

// ---- masked parameters: what is kept, and where ----

/// A bit an element, the lowest first.
Tensor bits_of(const bool* mask, int64_t n) {
  Tensor bits = zeros({(n + 7) / 8}, DType::u8);
  auto* b = bits.data<uint8_t>();
  for (int64_t i = 0; i < n; ++i) b[i / 8] = static_cast<uint8_t>(b[i / 8] | (mask[i] ? 1 << (i % 8) : 0));
  return bits;
}

/// For each kept element the number of masked ones before it (since the last one); 255: that many are masked and
/// no element follows. The masked ones at the end are written the same way, in 255s and a last number without element.
Tensor gaps_of(const bool* mask, int64_t n) {
  std::vector<uint8_t> gaps;
  int64_t gap = 0;
  const auto flush = [&] {
    for (; gap >= 255; gap -= 255) gaps.push_back(255);
    gaps.push_back(static_cast<uint8_t>(gap));
    gap = 0;
  };
  for (int64_t i = 0; i < n; ++i) mask[i] ? flush() : static_cast<void>(++gap);
  flush();
  return tensor(gaps);
}

struct Files {
  const std::string& source;
  [[noreturn]] void bad(const std::string& why) const {
    throw FormatError(str(source.empty() ? "the file" : source, ": ", why));
  }
};

/// The mask that bits or gaps stand for; FormatError unless they stand for exactly n elements, `kept` of them true.
Tensor mask_of_bits(const Files& file, const std::string& name, const Tensor& bits, int64_t n) {
  if (bits.dtype() != DType::u8 || bits.ndim() != 1 || bits.numel() != (n + 7) / 8)
    file.bad(str("'", name, ".bits' must be ", (n + 7) / 8, " bytes"));
  Tensor mask = empty({n}, DType::boolean);
  auto* m = mask.data<bool>();
  const auto* b = bits.data<uint8_t>();
  for (int64_t i = 0; i < n; ++i) m[i] = (b[i / 8] >> (i % 8) & 1) != 0;
  if (n % 8 != 0 && (b[n / 8] >> (n % 8)) != 0) file.bad(str("'", name, ".bits' has bits beyond its last element"));
  return mask;
}

Tensor mask_of_gaps(const Files& file, const std::string& name, const Tensor& gaps, int64_t n) {
  const std::string what = "'" + name + ".gaps'";
  if (gaps.dtype() != DType::u8 || gaps.ndim() != 1 || gaps.numel() == 0) file.bad(what + " must be bytes");
  const auto* g = gaps.data<uint8_t>();
  const int64_t count = gaps.numel();
  // Each byte stands for at most 255 elements: what is allocated is bounded by the file.
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += g[i] == 255 || i + 1 == count ? g[i] : g[i] + 1;
  if (g[count - 1] == 255 || total != n) file.bad(str(what, " stands for ", total, " elements, the parameter has ", n));
  Tensor mask = zeros({n}, DType::boolean);
  auto* m = mask.data<bool>();
  int64_t at = 0;
  for (int64_t i = 0; i + 1 < count; ++i) {
    at += g[i];
    if (g[i] != 255) m[at++] = true;
  }
  return mask;
}

// ---- JSON of attributes and shapes ----

json number(double v) {
  if (std::isfinite(v)) return v;
  return std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf";
}

struct ToJson : FieldVisitor {
  void operator()(const char* name, int64_t& v) override { fields[name] = v; }
  void operator()(const char* name, double& v) override { fields[name] = number(v); }
  void operator()(const char* name, bool& v) override { fields[name] = v; }
  void operator()(const char* name, Shape& v) override {
    fields[name] = json::array();
    for (const int64_t n : v) fields[name].push_back(n);
  }
  void operator()(const char* name, DType& v) override { fields[name] = hone::name(v); }
  json fields = json::object();
};

struct Reader {
  const Files& file;

  const json& member(const json& object, const char* key) const {
    if (!object.is_object() || !object.contains(key)) file.bad(str("the graph lacks '", key, "'"));
    return object.at(key);
  }
  const json& list(const json& object, const char* key) const {
    const json& v = member(object, key);
    if (!v.is_array()) file.bad(str("the graph's '", key, "' must be a list"));
    return v;
  }
  std::string text(const json& v, const char* what) const {
    if (!v.is_string()) file.bad(str("the graph's ", what, " must be text"));
    return v.get<std::string>();
  }
  int64_t integer(const json& v, const char* what) const {
    if (!v.is_number_integer()) file.bad(str("the graph's ", what, " must be a whole number"));
    if (v.is_number_unsigned() && v.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
      file.bad(str("the graph's ", what, " is beyond 63 bits"));
    return v.get<int64_t>();
  }
  int64_t size(const json& v, const char* what) const {
    const int64_t n = integer(v, what);
    if (n > kMostElements || n < -kMostElements) file.bad(str("the graph's ", what, " ", n, " is beyond any use"));
    return n;
  }
  DType dtype(const json& v) const {
    const std::string wanted = text(v, "dtype");
    for (const DType d : {f64, f32, bf16, i64, i32, i8, u8, boolean}) {
      if (wanted == hone::name(d)) return d;
    }
    file.bad("the graph names dtype '" + wanted + "', which is none");
  }
  Shape shape(const json& v) const {
    if (!v.is_array() || v.size() > kMaxDims) file.bad("a shape of the graph must be a list of at most 8 sizes");
    Shape s;
    for (const json& n : v) s.push_back(size(n, "size"));
    return s;
  }
  Dims dims(const json& v) const {
    if (!v.is_array() || v.size() > kMaxDims) file.bad("a shape of the graph must be a list of at most 8 sizes");
    Dims d;
    for (const json& n : v) {
      if (!n.is_array() || n.size() != 2) file.bad("a size of the graph must be [fixed, per batch]");
      d.push_back({size(n[0], "size"), size(n[1], "size")});
    }
    return d;
  }
};

struct FromJson : FieldVisitor {
  FromJson(const Reader& r, const json& f) : read(r), fields(f) {}
  void operator()(const char* name, int64_t& v) override { v = read.integer(next(name), name); }
  void operator()(const char* name, double& v) override {
    const json& x = next(name);
    if (x.is_number()) {
      v = x.get<double>();
      return;
    }
    const std::string t = read.text(x, name);
    if (t != "inf" && t != "-inf" && t != "nan") read.file.bad(str("attribute '", name, "' must be a number"));
    v = t == "nan" ? std::nan("") : t == "inf" ? INFINITY : -INFINITY;
  }
  void operator()(const char* name, bool& v) override {
    const json& x = next(name);
    if (!x.is_boolean()) read.file.bad(str("attribute '", name, "' must be true or false"));
    v = x.get<bool>();
  }
  void operator()(const char* name, Shape& v) override { v = read.shape(next(name)); }
  void operator()(const char* name, DType& v) override { v = read.dtype(next(name)); }
  const json& next(const char* name) {
    ++seen;
    return read.member(fields, name);
  }
  const Reader& read;
  const json& fields;
  size_t seen = 0;
};

json to_json(const Attributes& a) {
  ToJson v;
  Attrs copy = a.fixed;
  copy.visit(v);
  json j{{"fields", v.fields}};
  if (!a.per_batch.empty()) j["per_batch"] = a.per_batch;
  return j;
}

Attributes attributes_of(const Reader& read, const OpDef& op, const json& j) {
  Attributes a{.fixed = Attrs(op.attributes), .per_batch = {}};
  const json& fields = read.member(j, "fields");
  FromJson v(read, fields);
  a.fixed.visit(v);
  if (!fields.is_object() || fields.size() != v.seen)
    read.file.bad(str("op ", op.name, " has ", v.seen, " attributes, the graph gives ", fields.size()));
  if (j.contains("per_batch")) {
    for (const json& n : read.list(j, "per_batch")) a.per_batch.push_back(read.size(n, "batch factor"));
  }
  return a;
}

json to_json(const Dims& dims) {
  json j = json::array();
  for (const Dim& d : dims) j.push_back({d.fixed, d.per_batch});
  return j;
}

}  // namespace

TensorFile to_tensor_file(const Network& network) {
  NoGrad no_grad;
  TensorFile file;
  json graph{{"version", kVersion},      {"inputs", json::array()},    {"parameters", json::array()},
             {"buffers", json::array()}, {"constants", json::array()}, {"nodes", json::array()},
             {"outputs", json::array()}};
  const auto store = [&](const std::string& name, const Tensor& t) {
    file.tensors.emplace_back(name, contiguous(to(t.detach(), cpu)));
  };
  for (size_t i = 0; i < network.values().size(); ++i) {
    const auto v = static_cast<ValueId>(i);
    const Value& value = network.value(v);
    if (value.kind == ValueKind::input)
      graph["inputs"].push_back(
          {{"name", value.name}, {"dtype", hone::name(value.dtype)}, {"shape", to_json(value.shape)}});
    if (value.kind == ValueKind::parameter) {
      const ParameterRef& p = network.parameter(v).ref();
      json entry{{"name", value.name}};
      if (!p.raw().requires_grad()) entry["frozen"] = true;
      const bool shared = p.type() == WeightType::codebook;
      if (shared || p.scale().defined()) entry["type"] = hone::name(p.type());
      const Tensor elements = contiguous(to(shared ? p.codes() : p.raw().detach(), cpu));
      if (shared) store(value.name + ".centroids", p.raw());
      if (p.scale().defined()) {
        const WeightGrid grid = p.grid();
        store(value.name + ".scale", grid.scale);
        store(value.name + ".points", grid.points);
        if (grid.levels.defined()) store(value.name + ".levels", grid.levels);
        if (grid.learned) entry["learned_scale"] = true;
      }
      if (p.mask().defined()) {
        const int64_t n = elements.numel();
        const Tensor mask = contiguous(to(p.mask(), cpu));
        const bool* m = mask.data<bool>();
        entry["shape"] = json::array();
        for (const int64_t size : p.shape()) entry["shape"].push_back(size);
        if (p.mask_gradient() == MaskGradient::dense) entry["dense_gradient"] = true;
        visit_dtype(elements.dtype(), [&]<class T>() {
          Tensor kept = empty({std::count(m, m + n, true)}, elements.dtype());
          T* k = kept.data<T>();
          const T* e = elements.data<T>();
          for (int64_t at = 0; at < n; ++at)
            if (m[at]) *k++ = e[at];
          store(value.name + ".kept", kept);
        });
        const Tensor bits = bits_of(m, n), gaps = gaps_of(m, n);
        gaps.numel() < bits.numel() ? store(value.name + ".gaps", gaps) : store(value.name + ".bits", bits);
      } else {
        store(value.name, elements);
      }
      graph["parameters"].push_back(entry);
    }
    if (value.kind == ValueKind::buffer) {
      graph["buffers"].push_back(value.name);
      store(value.name, network.buffer(v));
    }
    if (value.kind == ValueKind::constant) {
      const Constant& c = network.constant(v);
      json entry{{"name", value.name}};
      if (c.uniform) entry["shape"] = to_json(value.shape);
      graph["constants"].push_back(entry);
      store(value.name, c.value);
    }
  }
  const auto names = [&](const std::vector<ValueId>& list) {
    json j = json::array();
    for (const ValueId v : list) v == kNone ? j.push_back(nullptr) : j.push_back(network.value(v).name);
    return j;
  };
  for (const Node& n : network.nodes()) {
    json j{{"name", n.name},
           {"op", n.op->name},
           {"inputs", names(n.inputs)},
           {"outputs", names(n.outputs)},
           {"attributes", to_json(n.attributes)}};
    if (n.train) j["train"] = to_json(*n.train);
    if (n.train_only) j["train_only"] = true;
    graph["nodes"].push_back(std::move(j));
  }
  graph["outputs"] = names(network.outputs());
  file.metadata[kMetadata] = graph.dump();
  return file;
}

void save(const Network& network, const std::string& path) { save_safetensors(path, to_tensor_file(network)); }

namespace {

/// The tensors of the file by name; each is taken once.
class Store {
 public:
  Store(const TensorFile& f, const Files& file) : file_(file) {
    for (const auto& [name, t] : f.tensors) {
      if (!t.defined() || !tensors_.emplace(name, t).second) file.bad("tensor '" + name + "' is undefined or repeated");
    }
  }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  Tensor take(const std::string& name) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) file_.bad("the graph names tensor '" + name + "', which is not there");
    Tensor t = std::move(it->second);
    tensors_.erase(it);
    return t;
  }
  void check_all_taken() const {
    if (!tensors_.empty()) file_.bad("tensor '" + tensors_.begin()->first + "' is in no part of the graph");
  }

 private:
  const Files& file_;
  std::map<std::string, Tensor> tensors_;
};

/// A parameter's elements as the file has them: raw values, or a codebook's codes.
struct Elements {
  Tensor values, mask;  // of the parameter's shape; without a mask undefined
};
Elements read_elements(const Reader& read, Store& store, const json& j, const std::string& name, bool codes) {
  const auto check_dtype = [&](const Tensor& t) {
    if (codes ? t.dtype() != DType::u8 : !is_floating(t.dtype()))
      read.file.bad("parameter '" + name + "' must be " + (codes ? "u8 codes" : "floating"));
  };
  if (!j.contains("shape")) {
    const Tensor values = store.take(name);
    check_dtype(values);
    return {clone(values), {}};
  }
  const Shape shape = read.shape(j.at("shape"));
  for (const int64_t n : shape)
    if (n < 0) read.file.bad("parameter '" + name + "' has a negative size");
  const int64_t n = shape.numel();
  const Tensor kept = store.take(name + ".kept");
  check_dtype(kept);
  if (kept.ndim() != 1) read.file.bad("'" + name + ".kept' must be a vector");
  const Tensor flat = store.has(name + ".gaps") ? mask_of_gaps(read.file, name, store.take(name + ".gaps"), n)
                                                : mask_of_bits(read.file, name, store.take(name + ".bits"), n);
  const bool* m = flat.data<bool>();
  const auto count = static_cast<int64_t>(std::count(m, m + n, true));
  if (count != kept.numel())
    read.file.bad(str("'", name, ".kept' holds ", kept.numel(), " values, the mask keeps ", count));
  Elements e{zeros(shape, kept.dtype()), empty(shape, DType::boolean)};
  std::copy_n(m, n, e.mask.data<bool>());
  visit_dtype(kept.dtype(), [&]<class T>() {
    T* r = e.values.data<T>();
    const T* k = kept.data<T>();
    for (int64_t i = 0; i < n; ++i)
      if (m[i]) r[i] = *k++;
  });
  return e;
}

Parameter read_parameter(const Reader& read, Store& store, const json& j, const std::string& name) {
  const std::string type = j.contains("type") ? read.text(j.at("type"), "weight type") : "";
  const bool shared = type == hone::name(WeightType::codebook), grid = type == hone::name(WeightType::fake_quantized);
  if (!type.empty() && !shared && !grid)
    read.file.bad("parameter '" + name + "' has weight type '" + type + "', which is none");
  Elements e = read_elements(read, store, j, name, shared);
  Parameter p;
  if (shared) {
    const Tensor centroids = store.take(name + ".centroids");
    if (!is_floating(centroids.dtype())) read.file.bad("'" + name + ".centroids' must be floating");
    p = Parameter(zeros(e.values.shape(), centroids.dtype()));
    p.ref().set_codebook(e.values, centroids);
  } else {
    p = Parameter(std::move(e.values));
  }
  if (grid) {
    const Tensor levels = store.has(name + ".levels") ? store.take(name + ".levels") : Tensor();
    p.ref().set_grid(
        {store.take(name + ".scale"), store.take(name + ".points"), levels, j.value("learned_scale", false)});
  }
  if (e.mask.defined())
    p.ref().set_mask(e.mask, j.value("dense_gradient", false) ? MaskGradient::dense : MaskGradient::masked);
  if (j.value("frozen", false)) Tensor(p.raw()).requires_grad_(false);
  return p;
}

Network read_network(const TensorFile& f, std::span<const OpDef* const> ops) {
  const Files file{f.source};
  const Reader read{file};
  const auto text = f.metadata.find(kMetadata);
  if (text == f.metadata.end()) file.bad(str("is no graph: it has no metadata '", kMetadata, "'"));
  const json graph = json::parse(text->second, nullptr, false);
  if (graph.is_discarded()) file.bad("the graph is not valid JSON");
  const int64_t version = read.integer(read.member(graph, "version"), "version");
  if (version != kVersion) file.bad(str("graph version ", version, ", this build reads version ", kVersion));

  Network net;
  Store store(f, file);
  std::unordered_map<std::string, ValueId> ids;
  const auto know = [&](const std::string& name, ValueId v) {
    if (net.value(v).name != name || !ids.emplace(name, v).second) file.bad("the graph names '" + name + "' twice");
  };
  const auto id_of = [&](const json& j) {
    if (j.is_null()) return kNone;
    const auto it = ids.find(read.text(j, "value name"));
    if (it == ids.end()) file.bad("the graph reads '" + j.get<std::string>() + "' before it is made");
    return it->second;
  };
  const auto name_of = [&](const json& j) { return read.text(read.member(j, "name"), "name"); };
  for (const json& j : read.list(graph, "inputs")) {
    const std::string name = name_of(j);
    know(name, net.add_input(name, read.dtype(read.member(j, "dtype")), read.dims(read.member(j, "shape"))));
  }
  for (const json& j : read.list(graph, "parameters")) {
    const std::string name = name_of(j);
    know(name, net.add_parameter(name, read_parameter(read, store, j, name)));
  }
  for (const json& j : read.list(graph, "buffers")) {
    const std::string name = read.text(j, "buffer");
    know(name, net.add_buffer(name, Buffer(clone(store.take(name)))));
  }
  for (const json& j : read.list(graph, "constants")) {
    const std::string name = name_of(j);
    const Tensor t = clone(store.take(name));
    if (j.contains("shape") && t.numel() != 1) file.bad("uniform constant '" + name + "' must have one element");
    know(name, j.contains("shape") ? net.add_uniform(name, t, read.dims(j.at("shape"))) : net.add_constant(name, t));
  }
  for (const json& j : read.list(graph, "nodes")) {
    const std::string name = name_of(j), op_name = read.text(read.member(j, "op"), "op");
    const OpDef* op = find_op(op_name);
    for (const OpDef* own : ops)
      if (op_name == own->name) op = own;
    if (!op) file.bad("node '" + name + "' has op '" + op_name + "', which is in no table");
    Node n{.name = name, .op = op, .inputs = {}, .outputs = {}, .attributes = {}};
    n.attributes = attributes_of(read, *op, read.member(j, "attributes"));
    if (j.contains("train")) n.train = attributes_of(read, *op, j.at("train"));
    n.train_only = j.value("train_only", false);
    for (const json& v : read.list(j, "inputs")) n.inputs.push_back(id_of(v));
    net.add_node(std::move(n));
    const json& outputs = read.list(j, "outputs");
    const Node& added = net.nodes().back();
    if (outputs.size() != added.outputs.size())
      file.bad(str("node '", name, "' has ", outputs.size(), " outputs, its op makes ", added.outputs.size()));
    for (size_t o = 0; o < outputs.size(); ++o) know(read.text(outputs[o], "output"), added.outputs[o]);
  }
  std::vector<ValueId> outputs;
  for (const json& j : read.list(graph, "outputs")) {
    const ValueId v = id_of(j);
    if (v == kNone) file.bad("an output of the graph is null");
    outputs.push_back(v);
  }
  if (outputs.empty()) file.bad("the graph has no output");
  store.check_all_taken();
  net.set_outputs(std::move(outputs));
  return net;
}

}  // namespace

Network from_tensor_file(const TensorFile& f, std::span<const OpDef* const> ops) {
  try {
    return read_network(f, ops);
  } catch (const FormatError&) { throw; } catch (const MemoryError&) {
    throw;
  } catch (const Error& e) {
    throw FormatError(str(f.source.empty() ? "the file" : f.source, ": ", e.what()));
  } catch (const json::exception& e) {
    throw FormatError(str(f.source.empty() ? "the file" : f.source, ": the graph is not of the format: ", e.what()));
  }
}

Network load(const std::string& path, std::span<const OpDef* const> ops) {
  try {
    return from_tensor_file(load_safetensors(path), ops);
  } catch (const FormatError& e) {
    if (!path.ends_with(".hone")) throw;
    throw FormatError(str(e.what(), "; a packed file is read by compress::Packed::load"));
  }
}

}  // namespace hone::graph
