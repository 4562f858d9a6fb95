#include "hone/compress/pack/mask_coder.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace hone::compress::coding {
namespace {

// The prior density of a mask in 7 bits: level · 34 − 2176 in the logistic domain.
constexpr int32_t kStep = 34, kZero = 64;
constexpr int64_t kMostElements = (int64_t{1} << 32) - 1;  // counts of them have 32 bits

uint32_t density_level(std::span<const uint8_t> mask) {
  const auto ones = static_cast<uint64_t>(std::count(mask.begin(), mask.end(), uint8_t{1}));
  const uint64_t n = std::max<uint64_t>(mask.size(), 1);
  const auto p1 = static_cast<uint32_t>(std::clamp<uint64_t>(ones * 65536 / n, 1, 65535));
  return static_cast<uint32_t>(std::min((stretch(p1) + kStep * kZero + kStep / 2) / kStep, 127));
}

/// Density of what was seen, drawn towards the prior as by `weight` elements more.
uint32_t density(int64_t ones, int64_t seen, uint32_t prior, int64_t weight) {
  return static_cast<uint32_t>(std::max<int64_t>((ones * 65536 + weight * prior) / (seen + weight), 1));
}

size_t elements_of(const MaskShape& shape) {
  HONE_CHECK(shape.rows >= 0 && shape.cols >= 0 && shape.group >= 1 && shape.cols % shape.group == 0 &&
                 (shape.cols == 0 || shape.rows <= kMostElements / shape.cols),
             ValueError, "mask coder: ", shape.rows, " rows of ", shape.cols, " columns in groups of ", shape.group);
  return static_cast<size_t>(shape.rows * shape.cols);
}

}  // namespace

void MaskModel::code(BinaryCoder& coder, const MaskShape& shape, std::span<uint8_t> mask) {
  HONE_CHECK(elements_of(shape) == mask.size(), ValueError, "mask coder: ", mask.size(), " elements in ", shape.rows,
             " rows of ", shape.cols, " columns");
  if (mask.empty()) return;
  uint32_t level = 0;
  bool alike = false;
  if (!coder.decodes()) {
    level = density_level(mask);
    const uint32_t prior = squash((static_cast<int32_t>(level) - kZero) * kStep);
    double bits[2];
    for (const bool a : {false, true}) {
      CostMeter cost;
      MaskModel(*this).code_elements(cost, shape, mask, prior, a);
      bits[a] = cost.bits();
    }
    alike = bits[1] <= bits[0];
  }
  level = static_cast<uint32_t>(coder.code_bits(level, 7));
  alike = coder.code_bits(alike, 1) != 0;
  code_elements(coder, shape, mask, squash((static_cast<int32_t>(level) - kZero) * kStep), alike);
}

void MaskModel::code_elements(BinaryCoder& coder, const MaskShape& shape, std::span<uint8_t> mask, uint32_t prior,
                              bool alike) {
  const int64_t rows = shape.rows, cols = shape.cols, makers = static_cast<int64_t>(made_.size());
  const int64_t total = std::accumulate(made_.begin(), made_.end(), int64_t{0});
  const bool made = makers > 0 && cols % makers == 0;
  const int64_t per_maker = made ? cols / makers : 1, group = shape.group == 1 ? per_maker : shape.group;
  constexpr uint32_t kSeen = 16;
  Counter same(prior, kSeen);
  std::vector<Counter> near(alike ? 0 : 128, Counter(prior, kSeen));
  const bool grouped = group > 1;
  std::vector<uint32_t> in_row(static_cast<size_t>(rows)), in_col(static_cast<size_t>(alike ? 0 : cols)),
      in_group(static_cast<size_t>(alike || !grouped ? 0 : cols / group));
  for (int64_t r = 0, i = 0; r < rows; ++r) {
    auto& row = in_row[static_cast<size_t>(r)];
    for (int64_t c = 0; c < cols; ++c, ++i) {
      uint8_t& element = mask[static_cast<size_t>(i)];
      if (alike) {
        element = same.code(coder, element);
      } else {
        uint32_t& col = in_col[static_cast<size_t>(c)];
        uint32_t& channel = grouped ? in_group[static_cast<size_t>(c / group)] : col;
        const auto kept = [&](int64_t back, bool there) { return there ? mask[static_cast<size_t>(i - back)] : 0u; };
        mixer_.begin(prior);
        mixer_.add(density(row, c, prior, 16));
        mixer_.add(density(col, r, prior, 8));
        mixer_.add(density(channel, r * group + c % group, prior, 64));
        mixer_.add(
            made ? static_cast<uint32_t>(std::clamp<int64_t>(
                       prior * (int64_t{made_[static_cast<size_t>(c / per_maker)]} + 1) * makers / (total + makers), 1,
                       65535))
                 : prior);
        mixer_.add(near[kept(1, c >= 1) | kept(2, c >= 2) << 1 | kept(3, c >= 3) << 2 | kept(cols, r >= 1) << 3 |
                        kept(2 * cols, r >= 2) << 4 | static_cast<size_t>(c % 4) << 5]);
        element = mixer_.code(coder, element);
        col += element;
        if (grouped) channel += element;
      }
      row += element;
    }
  }
  if (rows > 1) made_ = std::move(in_row);
}

void SymbolModel::code(BinaryCoder& coder, uint32_t alphabet, std::span<uint16_t> symbols) {
  HONE_CHECK(alphabet >= 1 && alphabet <= 65536, ValueError, "symbol coder: an alphabet of ", alphabet, " symbols");
  if (alphabet == 1) return std::fill(symbols.begin(), symbols.end(), uint16_t{0});
  bool by_previous = false;
  if (!coder.decodes()) {
    for (const uint16_t s : symbols)
      HONE_CHECK(s < alphabet, ValueError, "symbol coder: symbol ", s, " of an alphabet of ", alphabet);
    double bits[2];
    for (const bool b : {false, true}) {
      CostMeter cost;
      SymbolModel(*this).code_sequence(cost, alphabet, symbols, b);
      bits[b] = cost.bits();
    }
    by_previous = bits[1] < bits[0];
  }
  by_previous = coder.code_bits(by_previous, 1) != 0;
  code_sequence(coder, alphabet, symbols, by_previous);
}

void SymbolModel::code_sequence(BinaryCoder& coder, uint32_t alphabet, std::span<uint16_t> symbols, bool by_previous) {
  const int depth = std::bit_width(alphabet - 1);
  const size_t nodes = size_t{1} << depth;
  std::vector<Counter>& shared = shared_[depth];
  shared.resize(nodes);
  constexpr int kClassBits = 6;  // of the symbol before, the highest bits
  const int dropped = std::max(depth - kClassBits, 0);
  const size_t classes = (size_t{1} << (depth - dropped)) + 1;
  std::vector<Counter> own(nodes), after(by_previous ? nodes * classes : 0);
  size_t before = classes - 1;
  for (uint16_t& symbol : symbols) {
    size_t node = 1;
    for (int b = depth - 1; b >= 0; --b) {
      bool bit = symbol >> b & 1;
      if (((node * 2 + 1) << b) - nodes >= alphabet) {
        bit = false;  // no symbol has a 1 here
      } else {
        Mixer& mixer = by_previous ? with_previous_ : alone_;
        mixer.begin();
        mixer.add(own[node]);
        mixer.add(shared[node]);
        if (by_previous) mixer.add(after[before * nodes + node]);
        bit = mixer.code(coder, bit);
      }
      node = node * 2 + bit;
    }
    symbol = static_cast<uint16_t>(node - nodes);
    before = symbol >> dropped;
  }
}

std::vector<uint8_t> encode_mask(const MaskShape& shape, std::span<const uint8_t> mask) {
  RangeEncoder out;
  std::vector<uint8_t> elements(mask.begin(), mask.end());
  MaskModel().code(out, shape, elements);
  return out.finish();
}

std::vector<uint8_t> decode_mask(const MaskShape& shape, std::span<const uint8_t> bytes) {
  RangeDecoder in(bytes);
  std::vector<uint8_t> mask(elements_of(shape));
  MaskModel().code(in, shape, mask);
  in.finish();
  return mask;
}

std::vector<uint8_t> encode_symbols(std::span<const uint16_t> symbols, uint32_t alphabet) {
  RangeEncoder out;
  std::vector<uint16_t> copy(symbols.begin(), symbols.end());
  SymbolModel().code(out, alphabet, copy);
  return out.finish();
}

std::vector<uint16_t> decode_symbols(std::span<const uint8_t> bytes, uint32_t alphabet, size_t count) {
  RangeDecoder in(bytes);
  std::vector<uint16_t> symbols(count);
  SymbolModel().code(in, alphabet, symbols);
  in.finish();
  return symbols;
}

}  // namespace hone::compress::coding
