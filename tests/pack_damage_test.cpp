// Packed files that are damaged or hostile: refused, within the memory and the time that they may take.

#include <sys/resource.h>
#include <zlib.h>

#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <random>

#include "hone/compress/graph/pass_support.h"
#include "hone/compress/pack/architecture.h"
#include "layouts.h"
#include "pack_support.h"

namespace hone::test {
namespace {

Bytes with_checksum(Bytes bytes) {
  const auto sum = static_cast<uint32_t>(crc32(0, bytes.data() + 8, static_cast<uInt>(bytes.size() - 8)));
  for (size_t i = 0; i < 4; ++i) bytes[4 + i] = static_cast<uint8_t>(sum >> 8 * i);
  return bytes;
}

TEST(PackDamage, RefusesDamage) {
  const Bytes good = compress::pack(sample_network(7)).bytes();
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_THROW(Packed::parse(Bytes(good.begin(), good.begin() + static_cast<long>(n))), FormatError) << n;
  for (size_t i = 0; i < good.size(); ++i) {
    Bytes bad = good;
    bad[i] ^= static_cast<uint8_t>(1 << i % 8);
    EXPECT_THROW(Packed::parse(bad), FormatError) << i;
  }
  Bytes longer = good;
  longer.push_back(0);
  expect_error<FormatError>([&] { Packed::parse(longer, "'x.hone'"); }, {"'x.hone'", "checksum"});
  longer.resize(good.size() + 9);
  expect_error<FormatError>([&] { Packed::parse(with_checksum(longer)).network(); }, "follow");
  Bytes other = good;
  other[3] = 2;
  expect_error<FormatError>([&] { Packed::parse(other); }, {"version 2", "version 1"});
  other[0] = 'h';
  expect_error<FormatError>([&] { Packed::parse(other); }, "no packed network");
  expect_error<IoError>([] { Packed::load("/nowhere/x.hone"); }, "/nowhere/x.hone");
}

/// Whatever the stream says: a FormatError, or a network that packs to what loads as the same. A stream that is cut off
/// is refused.
TEST(PackDamage, IsSafeOnAnyStream) {
  std::vector<Bytes> samples{compress::pack(sample_network(8)).bytes()};
  const Tensor w = randn({30, 10}), scales = exp(randn({30, 1}));
  samples.push_back(compress::pack(product(round(w * 3.0) * scales)).bytes());
  samples.push_back(compress::pack(product(where(lt(rand({30, 10}), 0.1), w, round(w)))).bytes());
  std::mt19937_64 random(9);
  int loaded = 0, refused = 0;
  for (int trial = 0; trial < 750; ++trial) {
    Bytes bad = samples[static_cast<size_t>(trial % 3)];
    const bool cut = trial / 3 % 3 == 0;
    if (cut) bad.resize(9 + random() % (bad.size() - 9));
    const size_t from = trial % 2 == 0 ? 10 : 10 + random() % (bad.size() > 11 ? bad.size() - 11 : 1);
    for (size_t i = from; i < bad.size(); ++i)
      if (trial % 5 == 0 || random() % 100 == 0) bad[i] = static_cast<uint8_t>(random());
    std::optional<graph::Network> made;
    try {
      made = Packed::parse(with_checksum(bad)).network();
    } catch (const FormatError&) { ++refused; }
    if (made) {
      const graph::Network& network = *made;
      ++loaded;
      EXPECT_FALSE(cut) << trial;
      const graph::Network again = Packed::parse(compress::pack(network).bytes()).network();
      ASSERT_EQ(graph::difference(again, network), "") << trial;
      for (size_t v = 0; v < network.values().size(); ++v) {
        const Tensor w = graph::detail::elements(network, static_cast<graph::ValueId>(v));
        if (!w.defined()) continue;
        ASSERT_TRUE(same_bits(graph::detail::elements(again, static_cast<graph::ValueId>(v)), w)) << trial;
      }
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GE(refused, 250 + 10) << loaded;
}

Bytes of_hexadecimal(const std::filesystem::path& path) {
  std::ifstream in(path);
  Bytes bytes;
  for (char digits[3] = {}; in >> digits[0] >> digits[1];)
    bytes.push_back(static_cast<uint8_t>(std::stoi(digits, nullptr, 16)));
  return bytes;
}

/// What fuzzing begins with: files of versions before this one load, and are what pack() writes.
TEST(PackDamage, TheCorpusLoadsOrIsRefused) {
  int good = 0, damaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HONE_CORPUS_DIR)) {
    const std::string name = entry.path().stem();
    SCOPED_TRACE(name);
    const Bytes bytes = of_hexadecimal(entry.path());
    ASSERT_TRUE(bytes.size() > 8 && bytes.size() < 4096) << bytes.size();
    if (name.starts_with("damaged")) {
      ++damaged;
      EXPECT_THROW(Packed::parse(bytes).network(), FormatError);
    } else {
      ++good;
      const Coder coder = name.starts_with("huffman") ? Coder::huffman : Coder::range;
      EXPECT_EQ(compress::pack(Packed::parse(bytes).network(), {.coder = coder}).bytes(), bytes);
    }
  }
  EXPECT_EQ(good, 16);
  EXPECT_EQ(damaged, 10);
}

TEST(PackDamage, BelievesNoClaim) {
  const Bytes good = compress::pack(sample_network(10)).bytes();
  const auto claim = [&](uint64_t decoded) {
    Bytes bytes(good.begin(), good.begin() + 8);
    for (; decoded >= 128; decoded >>= 7) bytes.push_back(static_cast<uint8_t>(decoded % 128 + 128));
    bytes.push_back(static_cast<uint8_t>(decoded));
    size_t at = 8;
    while (good[at] >= 128) ++at;
    bytes.insert(bytes.end(), good.begin() + static_cast<long>(at) + 1, good.end());
    return with_checksum(bytes);
  };
  const auto right = static_cast<uint64_t>(compress::pack(sample_network(10)).decoded_bytes());
  EXPECT_NO_THROW(Packed::parse(claim(right)).network());
  expect_error<FormatError>([&] { Packed::parse(claim(right + 1)).network(); }, {str(right), str(right + 1)});
  expect_error<FormatError>([&] { Packed::parse(claim(right - 1)).network(); }, "more than");
  expect_error<FormatError>([&] { Packed::parse(claim(uint64_t{1} << 40)); }, "claims to decode");
  expect_error<FormatError>([&] { Packed::parse(claim(UINT64_MAX)); }, "no end");

  // A stream of ones or zeros decodes to large numbers: nothing is allocated for them.
  for (const int fill : {0x00, 0xff, 0x55, 0xaa}) {
    Bytes bytes = claim(right);
    std::fill(bytes.begin() + 12, bytes.end(), static_cast<uint8_t>(fill));
    EXPECT_THROW(Packed::parse(with_checksum(bytes)).network(), FormatError) << fill;
  }
}

/// Nodes that each have an op of their own: eight times as many take about eight times as long, both ways.
TEST(PackDamage, TimeIsLinearInTheOps) {
  const auto seconds = [](int n) {
    compress::detail::Architecture a, back;
    a.inputs.push_back({.name = "x", .dtype = f32, .shape = {}});
    for (int i = 0; i < n; ++i) a.nodes.push_back({.name = {}, .op = std::to_string(i), .inputs = {}});
    const std::clock_t begin = std::clock();
    compress::coding::RangeEncoder out;
    compress::detail::ArchitectureModel().code(out, a);
    const Bytes bytes = out.finish();
    compress::coding::RangeDecoder in(bytes);
    compress::detail::ArchitectureModel().code(in, back);
    EXPECT_EQ(back.nodes.back().op, std::to_string(n - 1));
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  EXPECT_LT(seconds(12000), 24 * seconds(1500));
}

/// name=value for each attribute, at its default.
struct DefaultsText : FieldVisitor {
  void put(const char* name, const std::string& v) { text += str(" ", name, "=", v); }
  void operator()(const char* name, int64_t& v) override { put(name, str(v)); }
  void operator()(const char* name, double& v) override { put(name, str(v)); }
  void operator()(const char* name, bool& v) override { put(name, v ? "true" : "false"); }
  void operator()(const char* name, Shape& v) override {
    std::string s = str(v);
    std::erase(s, ' ');
    put(name, s);
  }
  void operator()(const char* name, DType& v) override { put(name, hone::name(v)); }
  std::string text = {};
};

/// A file leaves out what is at its default: the page has to say what that is, and it must not change.
TEST(PackDamage, ThePageListsTheDefaultsOfEveryOp) {
  std::string lines = "\n```\n";
  for (const OpDef* op : op_table()) {
    if (!op->attributes) continue;
    DefaultsText defaults;
    Attrs(op->attributes).visit(defaults);
    lines += op->name + defaults.text + "\n";
  }
  lines += "```\n";
  std::ifstream in(std::filesystem::path(HONE_CORPUS_DIR) / "../../../docs/format.md");
  const std::string page{std::istreambuf_iterator<char>(in), {}};
  EXPECT_TRUE(page.ends_with(lines)) << "the page should end with" << lines;
}

TEST(PackDamage, KeepsTheSignOfAnAttribute) {
  Network net;
  graph::ValueId v = net.add_input("x", f32, {{0, 1}});
  for (const double low : {0.0, -0.0, 0.0})
    v = net.add_node({.name = "", .op = &kClamp, .inputs = {v}, .outputs = {}, .attributes = {ClampAttrs{low, 1}, {}}});
  net.set_outputs({v});
  EXPECT_EQ(graph::difference(net, compress::pack(net).network()), "");
}

TEST(PackDamage, AFileThatIsNoneIsNotReadWhole) {
  const TempDir dir;
  std::ofstream(dir / "zeros").put('\0');
  std::filesystem::resize_file(dir / "zeros", std::uintmax_t{1} << 31);
  const auto peak_kilobytes = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const long before = peak_kilobytes();
  expect_error<FormatError>([&] { Packed::load(dir / "zeros"); }, "no packed network");
  EXPECT_LT(peak_kilobytes() - before, 1 << 20);
}

TEST(PackDamage, OneKindOfFileNamesTheOther) {
  const TempDir dir;
  const Network net = sample_network(11);
  compress::pack(net).save(dir / "net.hone");
  graph::save(net, dir / "net.safetensors");
  expect_error<FormatError>([&] { graph::load(dir / "net.hone"); }, {"net.hone", "Packed::load"});
  expect_error<FormatError>([&] { Packed::load(dir / "net.safetensors"); }, {"net.safetensors", "graph::load"});
}

TEST(PackDamage, LimitsNames) {
  std::mt19937_64 random(18);
  const auto of_names = [&](int64_t bytes) {
    Network net = product(ones({1}));
    for (int64_t i = 0; i < bytes / 200; ++i) {
      std::string name;
      while (name.size() < 200) name += static_cast<char>('a' + random() % 26);
      net.add_buffer(name, Buffer(ones({1})));
    }
    return net;
  };
  EXPECT_NO_THROW(compress::pack(of_names(60000)));
  expect_error<FormatError>([&] { compress::pack(of_names(70000)); }, "64 KiB of names");
}

TEST(PackDamage, AllocatesWhatItSays) {
  const Packed packed = compress::pack(lenet(0.05, 16));
  const int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  const Network net = packed.network();
  EXPECT_LE(memory_stats().peak_bytes - before, packed.decoded_bytes() + 4 * 48000);
}

}  // namespace
}  // namespace hone::test
