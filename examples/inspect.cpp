// What is in a file of a network, packed (.hone) or a saved graph (.safetensors), layer by layer: weights, how they are
// stored, bits, entropies in bits, bytes, and the time that each layer takes. A layer's largest tensor is its weight;
// beside it are biases and norms; its values are codes where it has a codebook. Weights of integer kernels are counted
// with their padding. The bytes add up to the whole file.

#include <algorithm>
#include <filesystem>
#include <map>

#include "common.h"

using namespace hone;
using compress::PackedPart;

namespace {

struct Options {
  CommonOptions common;
  std::string file, pack;
  int64_t batch = 1;
  double seconds = 0.5;
};

/// A file, whose parts and the rest (header, graph) add up to its bytes.
struct File {
  std::string kind;
  int64_t bytes = 0;
  graph::Network network = {};
  std::map<std::string, PackedPart> parts = {};  // by tensor
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Bits an element that a code by frequency alone needs.
double entropy(const std::map<double, int64_t>& counts) {
  double n = 0, bits = 0;
  for (const auto& [value, count] : counts) n += static_cast<double>(count);
  for (const auto& [value, count] : counts)
    bits += static_cast<double>(count) * std::log2(n / static_cast<double>(count));
  return n > 0 ? bits / n : 0;
}

/// A saved graph's tensor: where its bytes are stands in the names that graph::save gives.
PackedPart saved_part(const std::string& name, const std::map<std::string, Tensor>& stored, const ParameterRef* p) {
  const auto bytes = [&](std::initializer_list<const char*> suffixes) {
    int64_t sum = 0;
    for (const char* suffix : suffixes)
      if (const auto it = stored.find(name + suffix); it != stored.end())
        sum += it->second.numel() * size_of(it->second.dtype());
    return static_cast<double>(sum);
  };
  const auto elements = stored.find(name), kept = stored.find(name + ".kept");
  const Tensor& values = elements != stored.end() ? elements->second : kept->second;
  PackedPart part{.name = name, .dtype = values.dtype()};
  part.elements = p ? p->shape().numel() : values.numel();
  part.kept = values.numel();
  part.mask_bytes = bytes({".bits", ".gaps"});
  part.codebook_bytes = bytes({".centroids", ".scale", ".points", ".levels"});
  part.value_bytes = bytes({"", ".kept"});
  if (part.mask_bytes > 0) part.mask_entropy = entropy({{0, part.elements - part.kept}, {1, part.kept}});
  if (const auto centroids = stored.find(name + ".centroids"); centroids != stored.end()) {  // of these codes
    part.dtype = centroids->second.dtype();
    std::map<double, int64_t> counts;
    for (const double v : values.to_vector<double>()) ++counts[v];
    part.codebook = static_cast<int64_t>(counts.size());
    part.code_entropy = entropy(counts);
  }
  return part;
}

File open(const std::string& path) {
  File file;
  if (!ends_with(path, ".safetensors")) {
    const compress::Packed packed = compress::Packed::load(path);
    file = {"packed", static_cast<int64_t>(packed.bytes().size()), packed.network()};
    for (const PackedPart& part : packed.parts()) file.parts[part.name] = part;
    return file;
  }
  const TensorFile tensors = load_safetensors(path);
  file = {"saved graph", static_cast<int64_t>(std::filesystem::file_size(path)), graph::from_tensor_file(tensors)};
  const std::map<std::string, Tensor> stored(tensors.tensors.begin(), tensors.tensors.end());
  for (size_t i = 0; i < file.network.values().size(); ++i) {
    const graph::Value& value = file.network.values()[i];
    if (value.kind == graph::ValueKind::input || value.kind == graph::ValueKind::result) continue;
    const bool is_parameter = value.kind == graph::ValueKind::parameter;
    const ParameterRef p = is_parameter ? file.network.parameter(static_cast<graph::ValueId>(i)).ref() : ParameterRef();
    file.parts[value.name] = saved_part(value.name, stored, is_parameter ? &p : nullptr);
  }
  return file;
}

/// How the elements of a tensor are stored.
std::string form(const PackedPart& part) {
  if (part.kept == 0) return "nothing";
  if (part.codebook == 0) return name(part.dtype);
  if (!is_floating(part.dtype)) return str(name(part.dtype), ", ", part.codebook, " values");
  if (part.scales > 0) return str(part.scales, " grids of ", part.codebook);
  const std::string beside = part.others > 0 ? str(", ", part.others, " beside") : "";
  return str(part.grid ? "grid of " : "codebook of ", part.codebook, beside);
}

/// The tensors of a module, by their names: the largest is the weight, the others beside it.
struct Layer {
  std::string name, shape;
  PackedPart weight = {};
  double beside_bytes = 0, microseconds = 0;
  bool has_weight = false;
  double bytes() const { return weight.bytes() + beside_bytes; }
  double bits_per_weight() const {
    return weight.elements > 0 ? 8 * weight.bytes() / static_cast<double>(weight.elements) : 0;
  }
};

/// "conv1" of "conv1.bias" and of what integers make of it, "conv1.weight.values".
std::string layer_of(const std::string& tensor) {
  for (const char* part : {".weight", ".bias"})
    if (const size_t at = tensor.find(part); at != std::string::npos) return tensor.substr(0, at);
  return tensor.substr(0, tensor.rfind('.'));
}

std::vector<Layer> layers_of(const File& file) {
  std::vector<Layer> layers;
  for (const graph::Value& value : file.network.values()) {
    const auto found = file.parts.find(value.name);
    if (found == file.parts.end()) continue;
    const PackedPart& part = found->second;
    const std::string name = layer_of(value.name);
    auto layer = std::find_if(layers.begin(), layers.end(), [&](const Layer& l) { return l.name == name; });
    if (layer == layers.end()) {
      layers.push_back({name, {}});
      layer = layers.end() - 1;
    }
    const bool larger = !layer->has_weight || part.elements > layer->weight.elements;
    layer->beside_bytes += larger ? layer->weight.bytes() : part.bytes();
    if (larger) layer->weight = part, layer->shape = graph::to_string(value.shape);
    layer->has_weight = true;
  }
  return layers;
}

/// Adds the time of each node of the optimized network to the layer that it is named after, or whose tensor it or the
/// node that it was made of reads; others become rows of their own, without weights.
void time_layers(const File& file, const Options& o, std::vector<Layer>& layers) {
  const graph::Network fast = graph::optimize(file.network);
  std::vector<Tensor> inputs;
  for (const graph::ValueId v : fast.inputs()) {
    const graph::Value& in = fast.value(v);
    const Shape shape = graph::at(in.shape, o.batch);
    inputs.push_back(is_floating(in.dtype) ? cast(randn(shape), in.dtype) : zeros(shape, in.dtype));
  }
  std::map<std::string, std::string> reads;  // node: the layer of the first tensor it reads
  for (const graph::Network* network : {&file.network, &fast})
    for (const graph::Node& node : network->nodes())
      for (const graph::ValueId v : node.inputs)
        if (v != graph::kNone && network->value(v).kind != graph::ValueKind::result &&
            network->value(v).kind != graph::ValueKind::input)
          reads.emplace(node.name, layer_of(network->value(v).name));
  graph::Executor executor(fast, {.batch = o.batch});
  const Stopwatch watch;
  executor.profile(inputs, 1);
  const int64_t runs = std::clamp<int64_t>(static_cast<int64_t>(o.seconds / std::max(watch.seconds(), 1e-7)), 3, 10000);
  for (const graph::NodeTime& t : executor.profile(inputs, runs)) {
    const auto is = [&](const std::string& name) {
      return std::find_if(layers.begin(), layers.end(), [&](const Layer& l) { return l.name == name; });
    };
    auto layer = is(t.name);
    if (const size_t suffix = t.name.rfind('_'); layer == layers.end() && suffix != std::string::npos)
      layer = is(t.name.substr(0, suffix));  // "conv1_3"
    if (layer == layers.end() && reads.count(t.name) > 0) layer = is(reads.at(t.name));
    if (layer == layers.end()) {
      layers.push_back({t.name, {}});
      layer = layers.end() - 1;
    }
    layer->microseconds += t.microseconds;
  }
}

using Cells = std::vector<std::string>;

/// Columns two spaces apart, the first two aligned left.
void print(const std::vector<Cells>& lines) {
  std::vector<int> width(lines[0].size());
  for (const Cells& line : lines)
    for (size_t i = 0; i < line.size(); ++i) width[i] = std::max(width[i], static_cast<int>(line[i].size()));
  for (const Cells& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) std::printf(i < 2 ? "%-*s  " : "%*s  ", width[i], line[i].c_str());
    std::puts("");
  }
}

/// The cells of the bytes and the time that a line gives, 0 left blank.
Cells figures(const PackedPart& part, double beside, double bytes, double share, double microseconds) {
  Cells cells;
  for (const double v : {part.mask_bytes, part.value_bytes, part.codebook_bytes, beside, bytes})
    cells.push_back(v == 0 ? "" : train::format_number(v, 1));
  cells.push_back(share == 0 ? "" : train::format_number(100 * share, 2));
  cells.push_back(microseconds == 0 ? "" : train::format_number(microseconds, 1));
  return cells;
}

void run(const Options& o) {
  const Stopwatch watch;
  const File file = open(o.file);
  if (!o.pack.empty()) compress::pack(file.network).save(o.pack);
  std::vector<Layer> layers = layers_of(file);
  time_layers(file, o, layers);

  train::Results results{.job = "inspect", .figures = {}, .settings = {}, .rows = {}};
  const auto whole = static_cast<double>(file.bytes);
  PackedPart all;
  double beside = 0, microseconds = 0;
  std::vector<Cells> lines{{"layer", "stored as", "shape", "weights", "kept", "bits each", "H(mask)", "H(code)", "mask",
                            "values", "codebook", "beside", "bytes", "% of file", "µs"}};
  const auto add = [&](Cells first, const Cells& rest) {
    first.insert(first.end(), rest.begin(), rest.end());
    lines.push_back(std::move(first));
  };
  for (const Layer& l : layers) {
    const PackedPart& part = l.weight;
    train::Record& row = results.rows.emplace_back();
    row.set("name", l.name);
    Cells cells{l.name, "", "", "", "", "", "", ""};
    if (l.has_weight) {
      cells = {l.name,
               form(part),
               l.shape,
               train::format_count(part.elements),
               train::format_count(part.kept),
               train::format_number(l.bits_per_weight(), 2),
               train::format_number(part.mask_entropy, 3),
               part.codebook > 0 ? train::format_number(part.code_entropy, 3) : ""};
      row.set("shape", l.shape)
          .set("weights", part.elements)
          .set("kept", part.kept)
          .set("stored_as", form(part))
          .set("bits_per_weight", l.bits_per_weight())
          .set("mask_entropy_bits", part.mask_entropy)
          .set("code_entropy_bits", part.code_entropy)
          .set("mask_bytes", part.mask_bytes)
          .set("value_bytes", part.value_bytes)
          .set("codebook_bytes", part.codebook_bytes)
          .set("beside_bytes", l.beside_bytes)
          .set("bytes", l.bytes())
          .set("share", l.bytes() / whole);
    }
    row.set("latency_us", l.microseconds);
    add(std::move(cells), figures(part, l.beside_bytes, l.bytes(), l.bytes() / whole, l.microseconds));
    all.elements += part.elements, all.kept += part.kept;
    all.mask_bytes += part.mask_bytes, all.value_bytes += part.value_bytes, all.codebook_bytes += part.codebook_bytes;
    beside += l.beside_bytes, microseconds += l.microseconds;
  }
  const double rest = whole - all.bytes() - beside;
  add({"header, graph", "", "", "", "", "", "", ""}, figures({}, 0, rest, rest / whole, 0));
  add({"file", "", "", train::format_count(all.elements), train::format_count(all.kept),
       train::format_number(8 * whole / static_cast<double>(std::max<int64_t>(1, all.elements)), 2), "", ""},
      figures(all, beside, whole, 1, microseconds));
  std::printf("%s: %s, %s bytes; %lld at a time\n", o.file.c_str(), file.kind.c_str(),
              train::format_count(file.bytes).c_str(), static_cast<long long>(o.batch));
  print(lines);
  const auto& nodes = file.network.nodes();
  if (std::any_of(nodes.begin(), nodes.end(),
                  [](const graph::Node& n) { return n.op == &kInt8Linear || n.op == &kInt8Conv2d; }))
    std::printf("weights of integer layers are codes in panels of 16 outputs by 4 inputs, padding counted\n");
  results.rows.emplace_back().set("name", "header, graph").set("bytes", rest).set("share", rest / whole);
  results.figures.set("file_bytes", file.bytes)
      .set("weights", all.elements)
      .set("kept", all.kept)
      .set("latency_us", microseconds)
      .set("seconds", watch.seconds());
  results.settings.set("file", o.file)
      .set("kind", file.kind)
      .set("batch", o.batch)
      .set("seed", o.common.seed)
      .set("threads", o.common.threads);
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What a file of a network holds: weights, bits, entropies, bytes and time, layer by layer.", "inspect");
  Options o;
  o.common.threads = 1;
  o.common.add_to(app);
  app.add_option("file", o.file, "A packed file (.hone) or a saved graph (.safetensors)")->required();
  app.add_option("--pack", o.pack, "Write the network to this packed file, too");
  app.add_option("--batch", o.batch, "Inputs at a time in the timed runs")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--latency-seconds", o.seconds, "Time to take for timing")->check(positive())->capture_default_str();
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
