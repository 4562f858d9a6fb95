// Packed files: the same network, values and logits; as few bytes as masks and codebooks allow.

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include "hone/compress/pack/entropy.h"
#include "hone/compress/pack/tensor_coder.h"
#include "pack_support.h"

namespace hone::test {
namespace {

Packed expect_round_trip(Network& net, const Tensor& x, const PackOptions& options = {}) {
  const TempDir dir;
  const Packed packed = compress::pack(net, options);
  packed.save(dir / "net.hone");
  EXPECT_EQ(std::filesystem::file_size(dir / "net.hone"), packed.bytes().size());
  Network back = Packed::load(dir / "net.hone").network();
  EXPECT_EQ(compress::pack(back, options).bytes(), packed.bytes());
  EXPECT_EQ(graph::difference(net, back), "");
  EXPECT_EQ(net.table(), back.table());
  expect_same_parameters(net, back);
  net.eval(), back.eval();
  EXPECT_TRUE(equal(net(x), back(x)));
  net.train(), back.train();
  manual_seed(5);
  const Tensor y = net(x);
  manual_seed(5);
  EXPECT_TRUE(equal(y, back(x)));
  return packed;
}

compress::PackedPart part_of(const std::vector<compress::PackedPart>& parts, const std::string& name) {
  return *std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.name == name; });
}

TEST(Pack, GivesTheSameNetwork) {
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    Network net = sample_network(1);
    expect_round_trip(net, randn({3, 1, 8, 8}), {.coder = coder});
    Network le = lenet(0.05, 16);
    expect_round_trip(le, randn({2, 3, 32, 32}), {.coder = coder});
  }
  manual_seed(2);
  nn::LeNet dense;
  Network net = graph::trace(dense, zeros({1, 3, 32, 32}));
  expect_round_trip(net, randn({2, 3, 32, 32}));
  Network fast = graph::optimize(net);  // fused ops, packed weights
  Network back = compress::pack(fast).network();
  EXPECT_EQ(graph::difference(fast, back), "");
  const Tensor x = randn({2, 3, 32, 32});
  EXPECT_TRUE(equal(fast.eval()(x), back.eval()(x)));
}

TEST(Pack, KeepsTheValuesOfCodebooksAndGrids) {
  manual_seed(5);
  nn::LeNet net;
  compress::prune(net, {.density = 0.1, .scope = compress::PruneScope::per_layer});
  compress::quantize::share_weights(net, {.clusters = 16, .only = {"conv1", "conv2", "fc1"}});
  compress::quantize::uniform(net, {.range = {-8, 7}, .only = {"fc2"}});
  Network network = graph::trace(net, zeros({1, 3, 32, 32}));
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    const Packed packed = compress::pack(network, {.coder = coder});
    Network back = Packed::parse(packed.bytes()).network();
    const NoGrad no_grad;
    const Tensor x = randn({3, 3, 32, 32});
    EXPECT_TRUE(equal(back(x), network(x)));
    for (const char* layer : {"conv1.weight", "fc1.weight", "fc2.weight"}) {
      const ParameterRef& was = network.parameter(network.find(layer)).ref();
      const ParameterRef& is = back.parameter(back.find(layer)).ref();
      EXPECT_EQ(is.type(), WeightType::masked) << layer;
      EXPECT_TRUE(equal(is.mask(), was.mask()) && equal(is.value(), was.value())) << layer;
    }
    for (const compress::PackedPart& part : packed.parts())
      if (part.name == "fc1.weight") { EXPECT_TRUE(part.codebook > 8 && part.codebook <= 16) << part.codebook; }
  }
}

/// A scale a row or a group costs its bytes; the weights their codes.
TEST(Pack, KeepsAGridForEachRowOrGroup) {
  namespace quantize = compress::quantize;
  manual_seed(15);
  const NoGrad no_grad;
  nn::LeNet net;
  compress::prune(net, {.criterion = compress::random(), .density = 0.5, .only = {"fc2"}});
  quantize::dynamic(net, {.by = quantize::LevelBy::channel, .range = {-8, 7}, .except = {"fc3"}});
  const Tensor fc3 = net.fc3.weight.raw().detach();
  const auto groups = quantize::Affine::of(fc3, {.bits = 3, .granularity = quantize::Granularity::group, .group = 32});
  Tensor(net.fc3.weight.raw()).copy_(groups.values(groups.codes(fc3)));
  Network network = graph::trace(net, zeros({1, 3, 32, 32}));
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    const Packed packed = compress::pack(network, {.coder = coder});
    Network back = Packed::parse(packed.bytes()).network();
    for (const auto& [name, p] : network.named_parameters()) {
      const ParameterRef& is = back.parameter(back.find(name)).ref();
      EXPECT_TRUE(equal(is.value(), p.value())) << name;
      const compress::PackedPart part = part_of(packed.parts(), name);
      if (p.raw().ndim() < 2) continue;
      const bool grouped = name == "fc3.weight";
      EXPECT_EQ(part.scales, grouped ? 10 * 3 : p.shape()[0]) << name;
      EXPECT_TRUE(part.grid && part.codebook <= (grouped ? 8 : 16)) << name << " " << part.codebook;
      const double bits = (grouped ? 3 : 4) * static_cast<double>(part.kept);  // and 7 bytes a scale at most
      EXPECT_LT(part.value_bytes + part.codebook_bytes, bits / 8 + 7.0 * static_cast<double>(part.scales) + 20) << name;
    }
  }
}

/// Scales of any size, and rows that have few values or one.
TEST(Pack, FindsTheGridOfARow) {
  std::mt19937_64 random(16);
  for (int trial = 0; trial < 100; ++trial) {
    const auto most = static_cast<int64_t>(1 + random() % 127), rows = static_cast<int64_t>(1 + random() % 6);
    const auto cols = static_cast<int64_t>(4 + random() % 200);
    Tensor w = empty({rows, cols});
    for (int64_t r = 0; r < rows; ++r) {
      const int bits = trial % 2 == 0 ? 30 : 23;  // of an f32: multiples may lie in the middle of two
      const double scale = std::ldexp(1 + std::ldexp(static_cast<double>(random() % (uint64_t{1} << bits)), -bits),
                                      static_cast<int>(random() % 100) - 60);
      for (int64_t c = 0; c < cols; ++c) {
        const auto k = static_cast<double>(static_cast<int64_t>(random() % static_cast<uint64_t>(2 * most + 1)) - most);
        w.data<float>()[r * cols + c] = static_cast<float>(k == 0 ? 0 : scale * k);
      }
    }
    Network net = product(w), back = compress::pack(net).network();
    expect_same_parameters(net, back);
    const auto parts = compress::pack(net).parts();
    if (rows > 1 && cols * rows > 300 && most > 1) {
      EXPECT_GT(part_of(parts, "w").codebook, 0) << most << " " << rows << " x " << cols;
    }
  }
}

/// Some floats among few values: bytes as for both, each by itself.
TEST(Pack, KeepsOthersBesideACodebook) {
  namespace quantize = compress::quantize;
  manual_seed(17);
  nn::LeNet net;
  quantize::mixed(net, {.part = !quantize::outliers(0.02), .inside = {.range = {-4, 3}}, .only = {"fc1"}});
  Network network = graph::trace(net, zeros({1, 3, 32, 32}));
  for (const Coder coder : {Coder::range, Coder::huffman}) {
    const Packed packed = compress::pack(network, {.coder = coder});
    Network back = Packed::parse(packed.bytes()).network();
    EXPECT_TRUE(equal(back.parameter(back.find("fc1.weight")).ref().value(), net.fc1.weight.value()));
    const compress::PackedPart part = part_of(packed.parts(), "fc1.weight");
    EXPECT_EQ(part.others, 960);
    EXPECT_TRUE(part.codebook == 6 && part.grid) << part.codebook;  // zeros are a mask's
    EXPECT_LT(part.bytes(), 48000 * 3 / 8.0 + 960 * 4 + 48000 * 0.15 / 8 + 40);
  }
  // Of every floating dtype, and where values are codes alone but for one.
  for (const DType d : {f32, f64, bf16}) {
    const Tensor noise = randn({30, 20}, f64), few = round(noise * 2.0) / 2.0;
    for (const double share : {0.002, 0.3, 0.9}) {
      for (const Tensor& mask : {Tensor(), lt(rand({30, 20}), 0.5)}) {
        Network mixed = product(cast(where(lt(rand({30, 20}), share), noise, few), d), mask);
        for (const Coder coder : {Coder::range, Coder::huffman}) {
          Network loaded = compress::pack(mixed, {.coder = coder}).network();
          expect_same_parameters(mixed, loaded);
        }
      }
    }
  }
}

TEST(Pack, KeepsEveryBitOfEveryValue) {
  manual_seed(3);
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const DType d : {f32, f64, bf16}) {
    for (const Shape& shape : {Shape{0}, {1}, {300}, {20, 31}, {5, 4, 3, 3}, {2, 0, 3}}) {
      const Tensor noise = randn(shape, f64), few = round(noise * 2.0) / 2.0;
      for (const Tensor& t : {noise, few, round(noise), zeros(shape, f64), full(shape, 0.3, f64), noise * 1e-42}) {
        Network net = product(cast(t, d));
        Network back = compress::pack(net).network();
        expect_same_parameters(net, back);
        for (const double density : {0.0, 0.1, 1.0}) {
          net = product(cast(t, d), lt(rand(shape), density));
          back = compress::pack(net, {.coder = density > 0 ? Coder::range : Coder::huffman}).network();
          expect_same_parameters(net, back);
        }
      }
    }
    for (const auto& odd :
         {std::vector<double>{0.0, -0.0, inf, -inf, nan, 5e-324, 1.0}, {-0.0, -0.0, -0.0}, {nan, nan, nan, nan}}) {
      Network net = product(cast(tensor(odd), d)), back = compress::pack(net).network();
      expect_same_parameters(net, back);
    }
  }
  // What a mask hides is not stored, whatever it is.
  Network net =
      product(tensor(std::vector<float>{1, NAN, 3, INFINITY}), ne(tensor(std::vector<float>{1, 0, 1, 0}), 0.0));
  Network back = compress::pack(net).network();
  EXPECT_EQ(back.parameters()[0].raw().detach().to_vector<double>(), (std::vector<double>{1, 0, 3, 0}));
}

TEST(Pack, KeepsTheSparsestMasks) {
  for (const Coder coder : {Coder::range, Coder::huffman})
    for (const int64_t n : {200, 1000})
      for (const bool kept : {true, false}) {
        Tensor mask = zeros({n, n}, DType::boolean), w = zeros({n, n});
        mask.data<bool>()[n * n - 1] = kept;
        w.data<float>()[n * n - 1] = kept ? 0.7f : 0.0f;
        for (const Tensor& m : {mask, Tensor()}) {
          Network net = product(w, m), back = compress::pack(net, {.coder = coder}).network();
          expect_same_parameters(net, back);
        }
      }
}

TEST(Pack, RefusesAnIndexOf16Bits) {
  compress::coding::RangeEncoder out;
  out.code_bits(15, 4);  // width − 1
  const Bytes bytes = out.finish();
  compress::coding::RangeDecoder in(bytes);
  bool elements[10] = {};
  expect_error<FormatError>(
      [&] { compress::detail::TensorModel(Coder::huffman).code(in, DType::boolean, {10}, elements, {}); },
      {"relative index", "16 bits"});
}

TEST(Pack, KeepsBuffersAndConstantsOfEveryDType) {
  manual_seed(4);
  for (const DType d : {f64, f32, bf16, i64, i32, i8, u8, DType::boolean}) {
    for (const double scale : {1.0, 100.0}) {
      Network net;
      const graph::ValueId x = net.add_input("x", d, {{0, 1}, {50, 0}});
      const Tensor noise = randn({50}) * scale;
      const Tensor t = d == DType::boolean ? lt(noise, 0.0) : d == u8 ? cast(abs(noise), d) : cast(noise, d);
      const graph::ValueId c = net.add_constant("c", t), b = net.add_buffer("b", Buffer(clone(t)));
      const graph::ValueId u = net.add_uniform("u", clone(reshape(slice(t, 0, 0, 1), {1})), {{0, 1}, {50, 0}});
      const auto node = [&](const char* name, graph::ValueId other) {
        return net.add_node(
            {.name = name, .op = &kEq, .inputs = {x, other}, .outputs = {}, .attributes = {Attrs(kEq.attributes), {}}});
      };
      net.set_outputs({node("is_c", c), node("is_b", b), node("is_u", u)});
      Network back = compress::pack(net).network();
      EXPECT_EQ(graph::difference(net, back), "") << name(d);
      EXPECT_TRUE(equal(back.buffer(back.find("b")), t)) << name(d);
      EXPECT_TRUE(equal(back.constant(back.find("c")).value, t)) << name(d);
      const Tensor input = stack({t, t});
      const auto want = net.run({input}), got = back.run({input});
      for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(equal(got[i], want[i])) << name(d) << " output " << i;
    }
  }
  const std::vector<int64_t> extremes = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX};
  Network net;
  const graph::ValueId x = net.add_input("x", i64, {{0, 1}, {6, 0}});
  const graph::ValueId c = net.add_constant("c", tensor(extremes));
  net.set_outputs({net.add_node(
      {.name = "y", .op = &kMul, .inputs = {x, c}, .outputs = {}, .attributes = {Attrs(kMul.attributes), {}}})});
  EXPECT_EQ(graph::difference(net, compress::pack(net).network()), "");
}

TEST(Pack, RoundsWhereAsked) {
  manual_seed(6);
  const Tensor w = concat({randn({1000}), tensor(std::vector<float>{0, -0.0f, INFINITY, -INFINITY, 3.3e38f, 1e-42f})});
  Network net = product(w), seven = compress::pack(net, {.mantissa_bits = 7}).network();
  const Tensor got = seven.parameters()[0].raw().detach();
  EXPECT_TRUE(equal(got, cast(cast(w, bf16), f32)));  // bf16 has seven
  EXPECT_EQ(compress::pack(net, {.mantissa_bits = 23}).bytes(), compress::pack(net).bytes());
  const Tensor two = compress::pack(net, {.mantissa_bits = 1}).network().parameters()[0].raw().detach();
  for (const double v : two.to_vector<double>()) {
    if (!std::isfinite(v)) continue;
    int exponent = 0;
    const double m = std::frexp(std::abs(v), &exponent);
    EXPECT_TRUE(m == 0 || m == 0.5 || m == 0.75) << v;
  }
  // What would round to an infinity is the largest finite value of so many bits.
  const auto rounded = [](const Tensor& t, int bits) {
    return compress::pack(product(t), {.mantissa_bits = bits}).network().parameters()[0].raw().detach().item();
  };
  EXPECT_EQ(rounded(full({1}, 3.4e38f), 4), std::ldexp(31, 123));
  for (const int bits : {0, 4, 7, 22}) {
    const double most = 2 - std::ldexp(1.0, -bits);
    EXPECT_EQ(rounded(full({1}, std::numeric_limits<float>::max()), bits), std::ldexp(most, 127)) << bits;
    EXPECT_EQ(rounded(full({1}, std::numeric_limits<float>::lowest()), bits), -std::ldexp(most, 127)) << bits;
    EXPECT_EQ(rounded(full({1}, std::numeric_limits<double>::max(), f64), bits), std::ldexp(most, 1023)) << bits;
  }
  expect_error<ValueError>([&] { compress::pack(net, {.mantissa_bits = 53}); }, "mantissa_bits");
}

TEST(Pack, TakesTheBytesThatItsContentNeeds) {
  for (const double density : {0.02, 0.05, 0.1}) {
    Network net = lenet(density, 16);
    const Packed packed = compress::pack(net, {.mantissa_bits = 7});
    double need = 0, biases = 0;
    for (const auto& p : packed.parts()) {
      if (p.kept == p.elements) {
        biases += p.bytes();
        continue;
      }
      const uint64_t counts[] = {static_cast<uint64_t>(p.elements - p.kept), static_cast<uint64_t>(p.kept)};
      const double mask = compress::coding::entropy_bits_of_counts(counts) / 8;
      EXPECT_LE(p.mask_bytes, 1.02 * mask + 8) << p.name;
      EXPECT_LE(p.value_bytes, static_cast<double>(p.kept) / 2 + 40) << p.name;
      EXPECT_LE(p.codebook, 16);
      need += p.bytes();
    }
    EXPECT_LT(biases, 236 * 12.5 / 8);
    const double graph = static_cast<double>(packed.bytes().size()) - need - biases;
    EXPECT_LT(graph, 110) << packed.table();
    EXPECT_LT(packed.bytes().size(), compress::pack(net, {.coder = Coder::huffman, .mantissa_bits = 7}).bytes().size());
  }
}

TEST(Pack, ATableSaysWhereTheBytesAre) {
  Network net = lenet(0.05, 16);
  const Packed packed = compress::pack(net);
  const auto parts = packed.parts();
  ASSERT_EQ(parts.size(), 10u);
  EXPECT_EQ(parts[0].name, "conv1.weight");
  EXPECT_EQ(parts[0].elements, 450);
  EXPECT_EQ(parts[0].kept, sum(cast(net.parameter(net.find("conv1.weight")).ref().mask(), i64)).item());
  EXPECT_EQ(parts[1].codebook, 0);
  double bytes = 0;
  for (const auto& part : parts) {
    bytes += part.bytes();
    const ParameterRef p = net.parameter(net.find(part.name)).ref();
    std::map<float, double> counts;
    double kept = 0;
    for (int64_t i = 0; i < part.elements; ++i) {
      if (p.mask().defined() && !contiguous(p.mask()).data<bool>()[i]) continue;
      ++counts[p.raw().data<float>()[i]], ++kept;
    }
    const double share = kept / static_cast<double>(part.elements);
    const double mask = share < 1 ? -share * std::log2(share) - (1 - share) * std::log2(1 - share) : 0;
    double codes = 0;
    for (const auto& [value, count] : counts) codes -= count / kept * std::log2(count / kept);
    EXPECT_NEAR(part.mask_entropy, mask, 1e-12) << part.name;
    EXPECT_NEAR(part.code_entropy, part.codebook > 0 ? codes : 0, 1e-12) << part.name;
    EXPECT_EQ(part.grid, part.codebook > 0) << part.name;
    if (part.codebook > 0) {
      EXPECT_GT(part.codebook_bytes, 0);
      EXPECT_GE(part.codebook, static_cast<int64_t>(counts.size()));  // more, where it is a larger one again
      EXPECT_NEAR(8 * part.value_bytes, codes * kept, 0.1 * codes * kept + 64) << part.name;
    }
  }
  EXPECT_LT(bytes, static_cast<double>(packed.bytes().size()));
  EXPECT_EQ(parts[1].mask_bytes, 0);
  EXPECT_NE(packed.table().find("graph and header"), std::string::npos);
  EXPECT_EQ(packed.decoded_bytes(), 62006 * 4 + 61770);
}

struct Swish {
  double beta = 1;
  void fields(FieldVisitor& v) { v("beta", beta); }
};

TEST(Pack, TakesAUsersOps) {
  static const OpDef op = {.name = "my_scale",
                           .attributes = attributes<Swish>(),
                           .shapes = [](ShapeContext& c) { c.add(c.shape(0), c.dtype(0)); },
                           .run = [](RunContext&) {},
                           .not_differentiable = "a test"};
  Network net;
  const graph::ValueId x = net.add_input("x", f32, {{0, 1}});
  net.set_outputs({net.add_node(
      {.name = "a.b.c", .op = &op, .inputs = {x}, .outputs = {}, .attributes = {Attrs(Swish{-0.0}), {}}})});
  const Packed packed = compress::pack(net);
  const OpDef* const own[] = {&op};
  const Network back = packed.network(own);
  EXPECT_EQ(graph::difference(net, back), "");
  EXPECT_EQ(back.nodes()[0].name, "a.b.c");
  EXPECT_TRUE(std::signbit(back.nodes()[0].attributes.as<Swish>().beta));
  expect_error<FormatError>([&] { packed.network(); }, {"my_scale", "no table"});
  expect_error<ValueError>([] { compress::pack(product(ones({2}), {}, std::string(256, 'n'))); }, "256 bytes");
  expect_error<ValueError>([] { compress::pack(product(ones({2}), {}, std::string("a\0b", 3))); }, "zero");
  expect_error<ValueError>([] { Packed().network(); }, "empty");
}

// ---- damage ----
}  // namespace
}  // namespace hone::test
