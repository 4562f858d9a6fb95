// Networks in files: the same bits, from a fresh process too; masks without what they mask, damage refused.

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>  // environ

#include <cstring>
#include <nlohmann/json.hpp>

#include "support.h"

namespace hone::test {
namespace {

using graph::Network;
using nlohmann::json;

/// Every kind of attribute, both modes, a uniform constant, masks of several densities.
struct Sample : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 3, .padding = 1}};
  nn::BatchNorm2d bn{{.features = 4}};
  nn::Dropout drop{{.p = 0.25}};
  nn::Linear fc1{{.in = 64, .out = 300}}, fc2{{.in = 300, .out = 3}};
  HONE_MODULE(Sample, conv, bn, drop, fc1, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(clamp(bn(conv(x)), -1.0, 2.5), 2);
    h = drop(cast(cast(h, f64), f32));
    return fc2(relu(fc1(reshape(h, {x.size(0), -1})))) + full({x.size(0), 3}, 0.125);
  }
};
Tensor mask_of(const Shape& shape, double density) { return lt(rand(shape), density); }

Network make(uint64_t seed) {
  manual_seed(seed);
  Sample net;
  net.fc1.weight.ref().set_mask(mask_of({300, 64}, 0.01));                     // gaps
  net.fc2.weight.ref().set_mask(mask_of({3, 300}, 0.5), MaskGradient::dense);  // bits
  net.conv.weight.ref().set_mask(zeros({4, 1, 3, 3}, DType::boolean));         // nothing is kept
  Tensor(net.bn.weight.raw()).requires_grad_(false);
  Tensor(net.bn.running_mean.tensor()).copy_(randn({4}));
  return graph::trace(net, randn({1, 1, 8, 8}));
}

TEST(GraphFile, GivesTheSameNetwork) {
  const TempDir dir;
  Network net = make(1);
  graph::save(net, dir / "a");
  Network back = graph::load(dir / "a");
  EXPECT_EQ(graph::difference(net, back), "");
  EXPECT_EQ(net.table(), back.table());
  graph::save(back, dir / "b");
  EXPECT_EQ(read_file(dir / "a"), read_file(dir / "b"));
  const auto p = net.named_parameters(), q = back.named_parameters();
  ASSERT_EQ(p.size(), q.size());
  for (size_t i = 0; i < p.size(); ++i) {
    EXPECT_EQ(p[i].name, q[i].name);
    EXPECT_TRUE(equal(p[i].parameter.value(), q[i].parameter.value())) << p[i].name;
    EXPECT_EQ(p[i].parameter.type(), q[i].parameter.type());
    EXPECT_EQ(p[i].parameter.mask_gradient(), q[i].parameter.mask_gradient());
    EXPECT_EQ(p[i].parameter.raw().requires_grad(), q[i].parameter.raw().requires_grad()) << p[i].name;
  }
  const Tensor x = randn({3, 1, 8, 8});
  net.eval(), back.eval();
  EXPECT_TRUE(equal(net(x), back(x)));
  net.train(), back.train();
  manual_seed(9);
  const Tensor a = net(x);
  manual_seed(9);
  EXPECT_TRUE(equal(a, back(x)));
}

/// conv1 and conv2 masked, fc1 a codebook, fc2 on a learned grid a row, fc3 on a grid and masked.
Network quantized_lenet() {
  manual_seed(11);
  nn::LeNet net;
  const auto grid = [](int64_t levels, double low, double high, bool learned) {
    return WeightGrid{
        rand({levels}) * 0.01 + 0.01, expand(tensor({0.001, low, high, 0.0}, {1, 4}), {levels, 4}), {}, learned};
  };
  net.conv1.weight.ref().set_mask(mask_of(net.conv1.weight.shape(), 0.05));
  net.conv2.weight.ref().set_mask(mask_of(net.conv2.weight.shape(), 0.4), MaskGradient::dense);
  net.fc1.weight.ref().set_codebook(cast(randint(0, 7, net.fc1.weight.shape()), DType::u8), randn({7}) * 0.1);
  net.fc2.weight.ref().set_grid(grid(net.fc2.weight.shape()[0], -8, 7, true));
  net.fc3.weight.ref().set_mask(mask_of(net.fc3.weight.shape(), 0.3));
  net.fc3.weight.ref().set_grid(grid(1, -2, 2, false));
  return graph::trace(net, randn({1, 3, 32, 32}));
}

/// What graph_reader, a new process that has seen nothing but the files, computes.
TensorFile in_a_new_process(const std::string& network, const std::string& input, const std::string& output) {
  std::string reader = HONE_GRAPH_READER, a = network, b = input, c = output;
  char* const arguments[] = {reader.data(), a.data(), b.data(), c.data(), nullptr};
  pid_t child = 0;
  if (const int error = posix_spawn(&child, reader.c_str(), nullptr, nullptr, arguments, environ))
    throw IoError(reader + ": " + std::strerror(error));
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << network << ": status " << status;
  return load_safetensors(output);
}
std::string bytes_of(const Tensor& t) {
  const Tensor plain = contiguous(t);
  return {static_cast<const char*>(plain.raw_data()), static_cast<size_t>(plain.numel() * size_of(plain.dtype()))};
}

TEST(GraphFile, AnotherProcessComputesTheSameBits) {
  const TempDir dir;
  struct Case {
    std::string name;
    Network net;
    Shape row;
  };
  manual_seed(12);
  nn::ResNet resnet({.depth = 8, .width = 4});
  for (const auto& [name, b] : resnet.named_buffers()) b->tensor().copy_(rand(b->tensor().shape()) + 0.5);
  std::vector<Case> cases;
  cases.push_back({"masked", make(5), {1, 8, 8}});
  cases.push_back({"quantized", quantized_lenet(), {3, 32, 32}});
  cases.push_back({"resnet", graph::trace(resnet, randn({1, 3, 32, 32})), {3, 32, 32}});
  cases.push_back({"optimized", graph::optimize(cases.back().net), {3, 32, 32}});
  for (Case& c : cases) {
    graph::save(c.net, dir / (c.name + ".safetensors"));
    compress::pack(c.net).save(dir / (c.name + ".hone"));
    Shape shape{3};
    for (const int64_t s : c.row) shape.push_back(s);
    const Tensor x = randn(shape);
    TensorFile input;
    input.tensors.emplace_back("x", x);
    save_safetensors(dir / "x", input);
    const NoGrad no_grad;
    c.net.eval();
    const Tensor in_eval = c.net(x), run = clone(graph::Executor(c.net, {.batch = 3}).run(x));
    EXPECT_GT(max(abs(in_eval)).item(), 0) << c.name;
    c.net.train();
    manual_seed(9);
    const Tensor in_training = c.net(x);
    for (const char* kind : {".safetensors", ".hone"}) {
      const TensorFile got = in_a_new_process(dir / (c.name + kind), dir / "x", dir / (c.name + kind + ".out"));
      EXPECT_EQ(got.at("eval").shape(), in_eval.shape()) << c.name << kind;
      EXPECT_TRUE(bytes_of(got.at("eval")) == bytes_of(in_eval)) << c.name << kind;
      EXPECT_TRUE(bytes_of(got.at("executor")) == bytes_of(run)) << c.name << kind;
      EXPECT_TRUE(bytes_of(got.at("train")) == bytes_of(in_training)) << c.name << kind;
    }
  }
}

TEST(GraphFile, StoresOnlyWhatAMaskKeeps) {
  const TensorFile file = graph::to_tensor_file(make(2));
  EXPECT_LT(file.at("fc1.weight.kept").numel(), 300);
  EXPECT_LT(file.at("fc1.weight.gaps").numel(), 600);
  EXPECT_EQ(file.at("fc2.weight.bits").numel(), (900 + 7) / 8);
  EXPECT_EQ(file.at("conv.weight.kept").numel(), 0);
  expect_error<FormatError>([&] { (void)file.at("fc1.weight"); }, "fc1.weight");
}

TEST(GraphFile, MasksOfEveryLengthAndDensityComeBack) {
  manual_seed(3);
  for (const int64_t n : {1, 7, 8, 9, 254, 255, 256, 257, 510, 511, 1000}) {
    for (const double density : {0.0, 0.002, 0.1, 0.5, 1.0}) {
      Network net;
      const graph::ValueId x = net.add_input("x", f32, {{0, 1}, {n, 0}});
      Parameter w(randn({n}));
      const Tensor mask = mask_of({n}, density);
      w.ref().set_mask(mask);
      const graph::ValueId p = net.add_parameter("w", std::move(w));
      net.set_outputs({net.add_node(
          {.name = "y", .op = &kMul, .inputs = {x, p}, .outputs = {}, .attributes = {Attrs(kMul.attributes), {}}})});
      Network back = graph::from_tensor_file(graph::to_tensor_file(net));
      ASSERT_TRUE(equal(back.parameters()[0].mask(), mask)) << n << " elements, density " << density;
      ASSERT_TRUE(equal(back.parameters()[0].value(), net.parameters()[0].value()));
    }
  }
}

/// The file with its graph or tensors changed by `damage`.
void expect_refused(const std::function<void(json&, TensorFile&)>& damage, std::initializer_list<std::string> parts,
                    const char* source = __builtin_FILE(), int line = __builtin_LINE()) {
  TensorFile file = graph::to_tensor_file(make(4));
  file.source = "net.safetensors";
  json g = json::parse(file.metadata["hone.graph"]);
  damage(g, file);
  if (file.metadata.count("hone.graph")) file.metadata["hone.graph"] = g.dump();
  expect_error<FormatError>([&] { graph::from_tensor_file(file); }, parts, source, line);
}
Tensor& tensor_of(TensorFile& file, const std::string& name) {
  for (auto& [n, t] : file.tensors)
    if (n == name) return t;
  throw ValueError(name);
}
json& node_of(json& g, const std::string& name) {
  for (json& n : g["nodes"])
    if (n["name"] == name) return n;
  throw ValueError(name);
}

TEST(GraphFile, RefusesDamage) {
  expect_refused([](json&, TensorFile& f) { f.metadata.clear(); }, {"net.safetensors", "no graph"});
  expect_refused([](json& g, TensorFile&) { g["version"] = 2; }, {"version 2"});
  expect_refused([](json& g, TensorFile&) { g.erase("nodes"); }, {"lacks 'nodes'"});
  expect_refused([](json& g, TensorFile&) { g["nodes"] = 3; }, {"'nodes' must be a list"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["op"] = "conv9d"; }, {"conv9d", "no table"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["inputs"][0] = "fc1"; }, {"'fc1' before"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["inputs"].erase(0); }, {"conv"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["attributes"]["fields"].erase("groups"); }, {"groups"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["attributes"]["fields"]["more"] = 1; }, {"attributes"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["attributes"]["fields"]["groups"] = "1"; }, {"groups"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["attributes"]["fields"]["stride_h"] = 0; },
                 {"'conv'", "stride"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["attributes"]["per_batch"] = {1}; },
                 {"'conv'", "integers"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["train_only"] = true; }, {"'conv'", "training"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["outputs"] = json::array(); }, {"outputs"});
  expect_refused([](json& g, TensorFile&) { node_of(g, "conv")["name"] = "fc1.bias"; }, {"twice"});
  expect_refused([](json& g, TensorFile&) { g["outputs"] = json::array(); }, {"no output"});
  expect_refused([](json& g, TensorFile&) { g["outputs"][0] = nullptr; }, {"null"});
  expect_refused([](json& g, TensorFile&) { g["inputs"][0]["shape"][1][0] = -1; }, {"'conv'"});
  expect_refused([](json& g, TensorFile&) { g["inputs"][0]["shape"][1][0] = int64_t{1} << 50; }, {"beyond any use"});
  expect_refused([](json& g, TensorFile&) { g["inputs"][0]["dtype"] = "f16"; }, {"f16"});
  expect_refused([](json&, TensorFile& f) { f.tensors.pop_back(); }, {"not there"});
  expect_refused([](json&, TensorFile& f) { f.tensors.emplace_back("more", ones({1})); }, {"'more'", "no part"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc1.weight.kept") = zeros({2}); },
                 {"fc1.weight.kept", "2 values"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc1.weight.kept") = zeros({2}, DType::i32); }, {"floating"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc1.weight.gaps").data<uint8_t>()[0] += 1; },
                 {"fc1.weight.gaps"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc1.weight.gaps") = zeros({0}, DType::u8); },
                 {"fc1.weight.gaps"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc2.weight.bits").data<uint8_t>()[112] |= 0x80; },
                 {"beyond its last"});
  expect_refused([](json&, TensorFile& f) { tensor_of(f, "fc2.weight.bits") = zeros({5}, DType::u8); }, {"113 bytes"});
  expect_refused(
      [](json& g, TensorFile&) {
        for (json& p : g["parameters"])
          if (p["name"] == "fc1.weight") p["shape"] = {int64_t{1} << 30, int64_t{1} << 30};
      },
      {"more elements than any memory"});
  expect_refused(
      [](json& g, TensorFile&) {
        for (json& p : g["parameters"])
          if (p["name"] == "fc1.weight") p["shape"] = {int64_t{1} << 20, int64_t{1} << 15};
      },
      {"fc1.weight.gaps"});
}

TEST(GraphFile, EveryOpsAttributesSurvive) {
  // Each integer, shape and number of each op set to something of its own.
  struct Set : FieldVisitor {
    void operator()(const char*, int64_t& v) override { v = next += 3; }
    void operator()(const char*, double& v) override { v = 1.0 / static_cast<double>(next += 3); }
    void operator()(const char*, bool& v) override { v = !v; }
    void operator()(const char*, Shape& v) override { v = {next += 3, -1}; }
    void operator()(const char*, DType& v) override { v = DType::i8; }
    int64_t next = 1;
  };
  int seen = 0;
  for (const OpDef* op : op_table()) {
    if (!op->attributes) continue;
    ++seen;
    Attrs a(op->attributes);
    Set set;
    a.visit(set);
    const auto joined = graph::Attributes::join(a, 2, a, 3);
    ASSERT_TRUE(joined) << op->name;
    EXPECT_TRUE(graph::same(joined->at(5), a)) << op->name;
    EXPECT_FALSE(set.next > 1 && graph::same(a, Attrs(op->attributes))) << op->name;
  }
  EXPECT_GT(seen, 20);
}

}  // namespace
}  // namespace hone::test
