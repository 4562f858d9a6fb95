// Writes networks packed and as saved graphs, for packed_format_test.py to compare: pack_sample FOLDER.

#include <cstdio>
#include <string>

#include "hone/hone.h"

namespace {

using namespace hone;

/// Every kind of value and attribute, both modes.
struct Sample : nn::Module {
  nn::Conv2d conv{{.in = 2, .out = 6, .kernel = 3, .padding = 1}};
  nn::BatchNorm2d bn{{.features = 6}};
  nn::Dropout drop{{.p = 0.25}};
  nn::Linear fc1{{.in = 96, .out = 40}}, fc2{{.in = 40, .out = 3}};
  HONE_MODULE(Sample, conv, bn, drop, fc1, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(clamp(bn(conv(x)), -1.0, 2.5), 2);
    h = drop(cast(cast(h, f64), f32));
    return fc2(relu(fc1(reshape(h, {x.size(0), -1})))) + full({x.size(0), 3}, 0.125);
  }
};

void write(const graph::Network& net, const std::string& path, compress::Coder coder) {
  compress::pack(net, {.coder = coder}).save(path + ".hone");
  graph::save(net, path + ".safetensors");
}

graph::Network tensors_of_every_dtype() {
  graph::Network net;
  const graph::ValueId x = net.add_input("x", f32, {{0, 1}});
  std::vector<graph::ValueId> made;
  for (const DType d : {f64, f32, bf16, i64, i32, i8, u8, DType::boolean}) {
    for (const double scale : {3.0, 1e3}) {
      const Tensor noise = randn({7, 30}) * scale;
      net.add_buffer(str(name(d), ".", scale),
                     Buffer(d == DType::boolean ? lt(noise, -scale) : cast(d == u8 ? abs(noise) : noise, d)));
    }
  }
  for (const double v : {0.0, 0.3}) net.add_buffer(str("same.", v), Buffer(full({9}, v, f64)));
  net.add_buffer("none", Buffer(zeros({0, 4})));
  net.set_outputs({net.add_node({.name = "relu", .op = &kRelu, .inputs = {x}, .outputs = {}, .attributes = {}})});
  return net;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: pack_sample FOLDER\n"), 2;
  const std::string folder = std::string(argv[1]) + "/";
  const NoGrad no_grad;
  manual_seed(1);
  Sample net;
  Tensor(net.bn.weight.raw()).requires_grad_(false);
  Tensor(net.bn.running_mean.tensor()).copy_(randn({6}));
  const Tensor sample = randn({1, 2, 8, 8});
  write(graph::trace(net, sample), folder + "dense", compress::Coder::range);
  net.conv.weight.ref().set_mask(lt(rand({6, 2, 3, 3}), 0.4));
  net.fc1.weight.ref().set_mask(lt(rand({40, 96}), 0.06));
  net.fc2.weight.ref().set_mask(lt(rand({3, 40}), 0.5), MaskGradient::dense);
  for (const ParameterRef& p : {net.fc1.weight.ref(), net.fc2.weight.ref()})
    Tensor(p.raw()).copy_(round(p.raw().detach() * 60.0) / 60.0);  // few values
  for (const auto coder : {compress::Coder::range, compress::Coder::huffman}) {
    const std::string with = coder == compress::Coder::range ? "" : "_huffman";
    write(graph::trace(net, sample), folder + "pruned" + with, coder);
    write(tensors_of_every_dtype(), folder + "dtypes" + with, coder);
  }
  // Rows and groups on grids of their own, and floats among codes.
  namespace quantize = compress::quantize;
  quantize::dynamic(net, {.by = quantize::LevelBy::channel, .range = {-8, 7}, .only = {"fc1.weight"}});
  Tensor(net.fc2.weight.raw()).copy_(randn({3, 40}));
  const auto groups =
      quantize::Affine::of(net.fc2.weight.raw(), {.bits = 4, .granularity = quantize::Granularity::group, .group = 16});
  Tensor(net.fc2.weight.raw()).copy_(groups.values(groups.codes(net.fc2.weight.raw())));
  net.conv.weight = Parameter(round(randn({6, 2, 3, 3})) * 0.3);
  Sample other = net;
  other.fc1.weight = Parameter(randn({40, 96}));
  quantize::mixed(other, {.part = !quantize::outliers(0.1), .inside = {.range = {-4, 3}}, .only = {"fc1.weight"}});
  for (const auto coder : {compress::Coder::range, compress::Coder::huffman}) {
    const std::string with = coder == compress::Coder::range ? "" : "_huffman";
    write(compress::pack(graph::trace(net, sample)).network(), folder + "grids" + with, coder);
    write(compress::pack(graph::trace(other, sample)).network(), folder + "others" + with, coder);
  }
  // A row that keeps more than 2^16 weights, and a mask whose columns it made.
  graph::Network wide;
  const graph::ValueId x = wide.add_input("x", f32, {{0, 1}});
  const auto add = [&](const char* name, const Shape& shape, double density) {
    Parameter p(ones(shape));
    p.ref().set_mask(lt(rand(shape), density));
    wide.add_parameter(name, std::move(p));
  };
  add("long", {2, 70000}, 0.97), add("behind", {40, 2}, 0.5);
  wide.set_outputs({wide.add_node({.name = "relu", .op = &kRelu, .inputs = {x}, .outputs = {}, .attributes = {}})});
  write(wide, folder + "wide", compress::Coder::range);
  nn::ResNet resnet({.depth = 8, .width = 4});
  write(graph::trace(resnet, randn({1, 3, 32, 32})), folder + "resnet", compress::Coder::range);
}
