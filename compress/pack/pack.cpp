#include "hone/compress/pack/pack.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "hone/compress/pack/architecture.h"
#include "hone/compress/pack/tensor_coder.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/input_file.h"
#include "hone/core/serialize.h"
#include "hone/core/text_table.h"
#include "hone/ops/table.h"

namespace hone::compress {

using detail::Architecture;
using detail::Leaf;
using detail::NodeEntry;
using graph::kNone;
using graph::Network;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

namespace {

constexpr uint8_t kMagic[4] = {'H', 'O', 'N', 1};  // and the version
constexpr size_t kChecksumAt = 4, kSizeAt = 8;
// No more than this decodes out of a file: 16 MiB, or 128 KiB for each of its bytes, which is more than any network
// takes.
constexpr int64_t kFree = int64_t{1} << 24, kMostPerByte = int64_t{1} << 17;

uint32_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), bytes.data(), bytes.size()));
}

void check_name(const std::string& name) {
  const size_t zero = name.find('\0');
  HONE_CHECK(name.size() <= 255 && zero == std::string::npos, ValueError, "pack: the name '",
             name.substr(0, std::min<size_t>(zero, 40)), "' has ", name.size(),
             " bytes, or a zero byte; at most 255, and none");
}

/// Of a leaf's elements and, where it is masked, its mask; FormatError beyond the most that a file may hold.
int64_t decoded_bytes_of(const Leaf& leaf) {
  try {
    const int64_t n = leaf.shape.numel(), bytes = size_of(leaf.dtype) + (leaf.masked ? 1 : 0);
    if (n < (int64_t{1} << 32)) return n * bytes;
  } catch (const ShapeError&) {}
  throw FormatError(str("tensor '", leaf.name, "' ", leaf.shape, " does not have fewer than 2^32 elements"));
}

struct Content {
  Architecture architecture;
  std::vector<Tensor> tensors;              // of each leaf; what its mask hides is 0
  std::vector<std::vector<uint8_t>> masks;  // empty: none
};

/// The tensor that is stored for a value, and its mask.
void add_leaf(Content& content, const Network& net, ValueId v, const PackOptions& options) {
  const Value& value = net.value(v);
  Leaf leaf{.name = value.name, .kind = value.kind};
  Tensor t;
  std::vector<uint8_t> mask;
  if (value.kind == ValueKind::parameter) {
    const ParameterRef& p = net.parameter(v).ref();
    leaf.frozen = !p.raw().requires_grad();
    leaf.masked = p.mask().defined();
    leaf.dense_gradient = leaf.masked && p.mask_gradient() == MaskGradient::dense;
    // Of a codebook or a grid the values that it makes: they are few, and found to be so.
    const bool plain = p.type() == WeightType::dense || p.type() == WeightType::masked;
    t = plain ? p.raw().detach() : p.value().detach();
    if (leaf.masked) {
      const Tensor m = contiguous(p.mask());
      mask.assign(m.data<bool>(), m.data<bool>() + m.numel());
    }
  } else if (value.kind == ValueKind::buffer) {
    t = net.buffer(v).detach();
  } else {
    const graph::Constant& c = net.constant(v);
    t = c.value.detach();
    leaf.uniform = c.uniform;
    if (c.uniform) leaf.uniform_shape = value.shape;
  }
  HONE_CHECK(t.device() == cpu, DeviceError, "pack: '", value.name, "' is not on the CPU");
  t = clone(contiguous(t));
  if (!mask.empty()) {
    const auto bytes = static_cast<size_t>(size_of(t.dtype()));
    auto* p = static_cast<std::byte*>(t.raw_data());
    for (size_t i = 0; i < mask.size(); ++i)
      if (mask[i] == 0) std::memset(p + i * bytes, 0, bytes);
  }
  if (options.mantissa_bits && is_floating(t.dtype()))
    detail::round_mantissa(t.dtype(), t.raw_data(), t.numel(), *options.mantissa_bits);
  leaf.dtype = t.dtype();
  leaf.shape = t.shape();
  content.architecture.leaves.push_back(std::move(leaf));
  content.tensors.push_back(std::move(t));
  content.masks.push_back(std::move(mask));
}

Content content_of(const Network& net, const PackOptions& options) {
  Content content;
  Architecture& a = content.architecture;
  std::vector<int64_t> number(net.values().size(), -1);
  int64_t next = 0;
  for (const ValueId v : net.inputs()) {
    const Value& value = net.value(v);
    number[static_cast<size_t>(v)] = next++;
    a.inputs.push_back({value.name, value.dtype, value.shape});
  }
  for (size_t i = 0; i < net.values().size(); ++i) {
    const ValueKind kind = net.values()[i].kind;
    if (kind == ValueKind::input || kind == ValueKind::result) continue;
    number[i] = next++;
    add_leaf(content, net, static_cast<ValueId>(i), options);
  }
  const auto numbers = [&](const std::vector<ValueId>& list) {
    std::vector<int64_t> n;
    for (const ValueId v : list) n.push_back(v == kNone ? -1 : number[static_cast<size_t>(v)]);
    return n;
  };
  for (const graph::Node& n : net.nodes()) {
    NodeEntry entry{.name = n.name, .op = n.op->name, .inputs = numbers(n.inputs)};
    entry.outputs = static_cast<int64_t>(n.outputs.size());
    entry.attributes = detail::fields_of(n.attributes);
    if (n.train) entry.train = detail::fields_of(*n.train);
    entry.train_only = n.train_only;
    for (const ValueId v : n.outputs) number[static_cast<size_t>(v)] = next++;
    check_name(entry.name), check_name(entry.op);
    a.nodes.push_back(std::move(entry));
  }
  a.outputs = numbers(net.outputs());
  for (const auto& in : a.inputs) check_name(in.name);
  for (const auto& leaf : a.leaves) check_name(leaf.name);
  return content;
}

/// The content of a stream; FormatError unless its tensors take the bytes that the header claims.
Content content_of(std::span<const uint8_t> stream, int64_t claimed, std::vector<PackedPart>* parts = nullptr) {
  coding::RangeDecoder in(stream);
  const Coder coder = in.code(false, 32768) ? Coder::huffman : Coder::range;
  Content content;
  detail::ArchitectureModel().code(in, content.architecture);
  const std::vector<Leaf>& leaves = content.architecture.leaves;
  int64_t decoded = 0;
  for (const Leaf& leaf : leaves) {
    decoded += decoded_bytes_of(leaf);
    HONE_CHECK(decoded <= claimed, FormatError, "its tensors take more than the ", claimed, " bytes that it claims");
    HONE_CHECK(leaf.kind != ValueKind::parameter || is_floating(leaf.dtype), FormatError, "parameter '", leaf.name,
               "' is of ", leaf.dtype, "; it must be floating");
  }
  HONE_CHECK(decoded == claimed, FormatError, "its tensors take ", decoded, " bytes, it claims ", claimed);
  detail::TensorModel tensors(coder);
  for (const Leaf& leaf : leaves) {
    Tensor t = zeros(leaf.shape, leaf.dtype);
    std::vector<uint8_t> mask(leaf.masked ? static_cast<size_t>(t.numel()) : 0);
    tensors.code(in, leaf.dtype, leaf.shape, t.raw_data(), mask);
    content.tensors.push_back(std::move(t));
    content.masks.push_back(std::move(mask));
    if (parts) parts->push_back(tensors.part()), parts->back().name = leaf.name;
  }
  in.finish();
  return content;
}

/// The network that the architecture describes, of these tensors.
Network network_of(Content&& content, std::span<const OpDef* const> ops) {
  const Architecture& a = content.architecture;
  Network net;
  std::vector<ValueId> ids;
  const auto know = [&](const std::string& name, ValueId v) {
    HONE_CHECK(net.value(v).name == name, FormatError, "two values are named '", name, "'");
    ids.push_back(v);
  };
  for (const auto& in : a.inputs) know(in.name, net.add_input(in.name, in.dtype, in.shape));
  for (size_t i = 0; i < a.leaves.size(); ++i) {
    const Leaf& leaf = a.leaves[i];
    Tensor& t = content.tensors[i];
    if (leaf.kind == ValueKind::parameter) {
      Parameter p(std::move(t));
      if (leaf.masked) {
        Tensor mask = empty(leaf.shape, DType::boolean);
        std::copy(content.masks[i].begin(), content.masks[i].end(), mask.data<bool>());
        content.masks[i] = {};
        p.ref().set_mask(mask, leaf.dense_gradient ? MaskGradient::dense : MaskGradient::masked);
      }
      if (leaf.frozen) Tensor(p.raw()).requires_grad_(false);
      know(leaf.name, net.add_parameter(leaf.name, std::move(p)));
    } else if (leaf.kind == ValueKind::buffer) {
      know(leaf.name, net.add_buffer(leaf.name, Buffer(std::move(t))));
    } else {
      know(leaf.name, leaf.uniform ? net.add_uniform(leaf.name, std::move(t), leaf.uniform_shape)
                                   : net.add_constant(leaf.name, std::move(t)));
    }
  }
  const auto id_of = [&](int64_t number) { return number < 0 ? kNone : ids.at(static_cast<size_t>(number)); };
  for (const NodeEntry& entry : a.nodes) {
    const OpDef* op = find_op(entry.op);
    for (const OpDef* own : ops)
      if (entry.op == own->name) op = own;
    HONE_CHECK(op != nullptr, FormatError, "node '", entry.name, "' has op '", entry.op, "', which is in no table");
    graph::Node node{.name = entry.name, .op = op, .inputs = {}, .outputs = {}, .attributes = {}};
    node.attributes = detail::attributes_of(entry.attributes, *op);
    if (entry.train) node.train = detail::attributes_of(*entry.train, *op);
    node.train_only = entry.train_only;
    for (const int64_t v : entry.inputs) node.inputs.push_back(id_of(v));
    net.add_node(std::move(node));
    const graph::Node& added = net.nodes().back();
    HONE_CHECK(static_cast<int64_t>(added.outputs.size()) == entry.outputs, FormatError, "node '", entry.name, "' has ",
               entry.outputs, " outputs, its op makes ", added.outputs.size());
    ids.insert(ids.end(), added.outputs.begin(), added.outputs.end());
  }
  std::vector<ValueId> outputs;
  for (const int64_t v : a.outputs) outputs.push_back(id_of(v));
  net.set_outputs(std::move(outputs));
  return net;
}

}  // namespace

Packed pack(const Network& network, const PackOptions& options) {
  HONE_CHECK(!options.mantissa_bits || (*options.mantissa_bits >= 0 && *options.mantissa_bits <= 52), ValueError,
             "pack: mantissa_bits must be in [0, 52], got ", options.mantissa_bits.value_or(0));
  const NoGrad no_grad;
  Content content = content_of(network, options);
  coding::RangeEncoder out;
  out.code(options.coder == Coder::huffman, 32768);
  detail::ArchitectureModel().code(out, content.architecture);
  detail::TensorModel tensors(options.coder);
  uint64_t decoded = 0;
  for (size_t i = 0; i < content.tensors.size(); ++i) {
    const Leaf& leaf = content.architecture.leaves[i];
    decoded += static_cast<uint64_t>(decoded_bytes_of(leaf));
    tensors.code(out, leaf.dtype, leaf.shape, content.tensors[i].raw_data(), content.masks[i]);
  }
  std::vector<uint8_t> bytes(kMagic, kMagic + 4);
  bytes.resize(kSizeAt);
  for (uint64_t v = decoded;; v >>= 7) {
    bytes.push_back(static_cast<uint8_t>(v < 128 ? v : v % 128 + 128));
    if (v < 128) break;
  }
  const std::vector<uint8_t> stream = out.finish();
  bytes.insert(bytes.end(), stream.begin(), stream.end());
  const uint32_t sum = checksum(std::span<const uint8_t>(bytes).subspan(kSizeAt));
  for (size_t i = 0; i < 4; ++i) bytes[kChecksumAt + i] = static_cast<uint8_t>(sum >> 8 * i);
  return Packed::parse(std::move(bytes));
}

/// Magic, version and the claim of a file's first bytes; FormatError. Sets all but the bytes.
void Packed::read_header(std::span<const uint8_t> first, uint64_t file_bytes) {
  const auto check = [&](bool good, const auto&... why) { HONE_CHECK(good, FormatError, source_, ": ", why...); };
  const bool packed = first.size() > kSizeAt && std::equal(kMagic, kMagic + 3, first.begin());
  check(packed, "is no packed network",
        first.size() > 8 && first[8] == '{' ? "; graph::load reads safetensors files" : "");
  check(first[3] == kMagic[3], "packed format version ", int{first[3]}, ", this build reads version ", int{kMagic[3]});
  stream_ = kSizeAt;
  uint64_t decoded = 0;
  for (int shift = 0;; shift += 7) {
    check(stream_ < first.size() && shift < 56, "its decoded size has no end");
    decoded |= static_cast<uint64_t>(first[stream_] % 128) << shift;
    if (first[stream_++] < 128) break;
  }
  const uint64_t most = std::max<uint64_t>(kFree, file_bytes * kMostPerByte);
  check(decoded <= most, "claims to decode to ", decoded, " bytes, out of ", file_bytes);
  decoded_bytes_ = static_cast<int64_t>(decoded);
}

Packed Packed::parse(std::vector<uint8_t> bytes, std::string source) {
  Packed p;
  p.source_ = std::move(source);
  p.read_header(bytes, bytes.size());
  uint32_t sum = 0;
  for (size_t i = 0; i < 4; ++i) sum |= uint32_t{bytes[kChecksumAt + i]} << 8 * i;
  HONE_CHECK(sum == checksum(std::span<const uint8_t>(bytes).subspan(kSizeAt)), FormatError, p.source_,
             ": is damaged: its checksum does not match");
  p.bytes_ = std::move(bytes);
  return p;
}

Packed Packed::load(const std::string& path) {
  const hone::detail::InputFile file(path);
  std::vector<uint8_t> bytes(std::min<size_t>(file.size(), kSizeAt + 8));
  if (!bytes.empty()) file.read(0, bytes.data(), bytes.size());
  Packed first;  // a file that is none is not read whole
  first.source_ = "'" + path + "'";
  first.read_header(bytes, file.size());
  try {
    bytes.resize(static_cast<size_t>(file.size()));
  } catch (const std::bad_alloc&) {
    throw MemoryError(str("'", path, "': the system has no memory for its ", file.size(), " bytes"));
  }
  file.read(0, bytes.data(), bytes.size());
  return parse(std::move(bytes), first.source_);
}

void Packed::save(const std::string& path) const { write_file_atomically(path, bytes_.data(), bytes_.size()); }

/// Calls f on what the stream decodes to; what is wrong is a FormatError that names the file, or a MemoryError.
template <class F> auto Packed::decode(const F& f) const {
  HONE_CHECK(!bytes_.empty(), ValueError, "an empty Packed holds no network");
  const NoGrad no_grad;
  try {
    return f(std::span<const uint8_t>(bytes_).subspan(stream_));
  } catch (const MemoryError&) { throw; } catch (const std::bad_alloc&) {
    throw MemoryError(str(source_, ": the system has no memory to decode its ", decoded_bytes_, " bytes"));
  } catch (const Error& e) { throw FormatError(str(source_, ": ", e.what())); }
}

Network Packed::network(std::span<const OpDef* const> ops) const {
  return decode([&](auto stream) { return network_of(content_of(stream, decoded_bytes_), ops); });
}

std::vector<PackedPart> Packed::parts() const {
  std::vector<PackedPart> parts;
  decode([&](auto stream) { content_of(stream, decoded_bytes_, &parts); });
  return parts;
}

std::string Packed::table() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{
      {"tensor", "elements", "kept", "values", "mask bytes", "codebook bytes", "value bytes"}};
  double sum = 0;
  const auto tenths = [](double v) {
    const auto t = static_cast<int64_t>(v * 10 + 0.5);
    return str(grouped(t / 10), ".", t % 10);
  };
  for (const PackedPart& p : parts()) {
    lines.push_back({p.name, grouped(p.elements), grouped(p.kept), p.codebook > 0 ? grouped(p.codebook) : "",
                     tenths(p.mask_bytes), tenths(p.codebook_bytes), tenths(p.value_bytes)});
    sum += p.bytes();
  }
  const auto whole = static_cast<double>(bytes_.size());
  lines.push_back({"graph and header", "", "", "", "", "", tenths(whole - sum)});
  lines.push_back({"file", "", "", "", "", "", grouped(static_cast<int64_t>(bytes_.size()))});
  return hone::detail::text_table(lines, 1);
}

}  // namespace hone::compress
