#pragma once
// The packed file: a network in as few bytes as its masks and codebooks allow. docs/format.md describes every byte.
//
//   compress::prune(net, {.density = 0.05}) …; weights that share few values …
//   const compress::Packed packed = compress::pack(graph::trace(net, sample), {.mantissa_bits = 7});
//   packed.save("lenet.hone");
//   graph::Network back = compress::Packed::load("lenet.hone").network();   // the same values, the same logits
//   std::cout << packed.table();                                             // where the bytes go

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::compress {

/// What codes masks and codebook indices.
enum class Coder : uint8_t {
  range,    ///< coding::MaskModel and SymbolModel
  huffman,  ///< Deep Compression's: a relative index and Huffman codes (Han, Mao and Dally, 2016)
};

struct PackOptions {
  Coder coder = Coder::range;
  /// Floating values are rounded, ties to even, to that many bits after the leading one (f32 has 23, bf16 7), in [0,
  /// 52]; not set: nothing is rounded. Rounded values that coincide are one; none becomes an infinity, but the largest
  /// finite value of so many bits.
  std::optional<int> mantissa_bits = {};
};

/// What a packed tensor is made of.
struct PackedPart {
  std::string name;
  DType dtype = DType::f32;
  int64_t elements = 0;
  int64_t kept = 0;      ///< elements that are coded: those that a mask keeps, or that are not 0
  int64_t codebook = 0;  ///< distinct values that codes stand for; 0: the values stand there themselves
  bool grid = false;     ///< those are whole multiples of a scale
  int64_t scales = 0;    ///< so many scales, each of a row or a run of one: `codebook` counts multiples; 0: one or none
  int64_t others = 0;    ///< kept elements that have no code beside those that have one: the values stand there
  // What no code that knows symbols by their frequency alone goes below, in bits.
  double mask_entropy = 0;  ///< an element: whether it is kept
  double code_entropy = 0;  ///< an element that has a code: its code
  // Shares of the file; a range coder spends parts of bytes.
  double mask_bytes = 0;
  double codebook_bytes = 0;  ///< next to nothing where it is that of the tensor before
  double value_bytes = 0;     ///< codes, or values
  double bytes() const { return mask_bytes + codebook_bytes + value_bytes; }
};

class Packed {
 public:
  /// Holds the whole file, and allocates nothing for what it claims: decoded_bytes() says how much that is. IoError;
  /// MemoryError; FormatError for what is no packed file, of another version, cut short or changed (by its checksum).
  static Packed load(const std::string& path);
  static Packed parse(std::vector<uint8_t> bytes, std::string source = "the packed network");
  /// As save_safetensors writes. IoError.
  void save(const std::string& path) const;

  const std::vector<uint8_t>& bytes() const { return bytes_; }  ///< the whole file
  /// Bytes of all tensors and masks of the network: what network() will allocate (in blocks of up to a quarter more),
  /// beside at most twelve bytes an element of the largest tensor while it decodes, 4 MiB, and the graph: at most
  /// 65,536 values, nodes, operands and attributes, and 1.3 kB for each byte of its names, of which there are 64 KiB at
  /// most.
  int64_t decoded_bytes() const { return decoded_bytes_; }

  /// The network: same ops, attributes, names, values, masks. `ops`: a user's own, beside op_table(). FormatError for
  /// any content that is not of the format; memory is bounded as decoded_bytes() says, however hostile the file.
  /// MemoryError.
  graph::Network network(std::span<const OpDef* const> ops = {}) const;

  /// Where the bytes are: of each tensor, as decoding it costs.
  std::vector<PackedPart> parts() const;
  std::string table() const;

 private:
  void read_header(std::span<const uint8_t> first, uint64_t file_bytes);
  template <class F> auto decode(const F& f) const;
  std::vector<uint8_t> bytes_;
  std::string source_;
  int64_t decoded_bytes_ = 0;
  size_t stream_ = 0;  // where it begins
};

/// Packs all that the network is: what a mask hides is not stored (0 after loading), everything else exactly, unless
/// options round. A codebook or fake-quantized parameter is its values: a dense or masked one after loading. Tensors of
/// at most 4096 distinct values become a codebook and codes, where that is smaller, and so do f32 tensors whose rows,
/// or runs of 8 to 1024 elements of a row, are multiples of a scale each, at most 4096, and tensors of which so few
/// values are met again and again: the others stand beside. ValueError for options, names of more than 255 bytes or
/// with a zero byte; FormatError for a graph of more than 65,536 parts or 64 KiB of names, a tensor of 2^32 elements or
/// more, and one so uniform that its file would be smaller by more than 2^17; DeviceError unless on the CPU.
Packed pack(const graph::Network& network, const PackOptions& options = {});

}  // namespace hone::compress
