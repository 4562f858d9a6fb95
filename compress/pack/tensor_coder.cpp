#include "hone/compress/pack/tensor_coder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "hone/compress/pack/entropy.h"
#include "hone/compress/pack/huffman.h"
#include "hone/compress/pack/relative_index.h"

namespace hone::compress::detail {

using coding::BinaryCoder;
using coding::CostMeter;

namespace {

constexpr size_t kMostValues = 4096;  // of a codebook
constexpr uint32_t kOften = 4;        // so often a value is met that may have a code where others have none
constexpr size_t kAlwaysFew = 256, kSample = 4096;

int exponent_bits(DType d) { return d == DType::f64 ? 11 : 8; }
int width(DType d) { return static_cast<int>(8 * size_of(d)); }

/// A number that ascends as the value of the pattern does; and back.
uint64_t key_of(DType d, uint64_t pattern) {
  const uint64_t sign = uint64_t{1} << (width(d) - 1), all = sign | (sign - 1);
  if (d == DType::u8) return pattern;
  if (!is_floating(d)) return pattern ^ sign;
  return (pattern & sign) != 0 ? ~pattern & all : pattern | sign;
}

uint64_t largest_key(DType d) { return ~uint64_t{0} >> (64 - width(d)); }
uint64_t integer_of_key(DType d, uint64_t key) {
  return d == DType::u8 ? key : key ^ uint64_t { 1 } << (width(d) - 1);
}

int64_t integer_of(DType d, uint64_t pattern) {
  if (d == DType::u8) return static_cast<int64_t>(pattern);
  const int unused = 64 - width(d);
  return static_cast<int64_t>(pattern << unused) >> unused;
}

/// The fewest mantissa bits that hold patterns whose disjunction is `any`.
int mantissa_of(uint64_t any, int most) {
  any &= (uint64_t{1} << most) - 1;
  return any == 0 ? 0 : most - std::countr_zero(any);
}

constexpr int64_t kMostMultiple = int64_t{1} << 24;          // of a codebook's scale
constexpr uint64_t kFormOfRowGrid = 63, kFormOfOthers = 62;  // in the place of mantissa bits

int64_t nearest_multiple(double scale, uint64_t pattern) {
  const double k = static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(pattern))) / scale;
  return std::abs(k) <= kMostMultiple ? std::llround(k) : kMostMultiple + 1;
}

/// A scale of which all these f32 patterns are whole multiples, as those of a uniform quantizer are; 0: none was found.
double scale_of(const std::vector<uint64_t>& patterns) {
  std::vector<double> values;
  for (const uint64_t p : patterns) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(p)));
  const double scale = scale_of_multiples(values, kMostMultiple / 2);
  const auto fits = [&](uint64_t p) { return multiple(scale, nearest_multiple(scale, p)) == p; };  // not of -0
  return scale != 0 && std::all_of(patterns.begin(), patterns.end(), fits) ? scale : 0;
}

coding::MaskShape mask_shape(const Shape& shape) {
  coding::MaskShape m;
  if (shape.ndim() >= 2) m.rows = shape[0];
  for (int d = shape.ndim() >= 2 ? 1 : 0; d < shape.ndim(); ++d) m.cols *= shape[d];
  for (int d = 2; d < shape.ndim(); ++d) m.group *= shape[d];
  return m;
}

/// Bits as they are: their number, then each.
void code_plain(BinaryCoder& coder, coding::NumberModel& length, std::vector<uint8_t>& bytes, size_t bits) {
  bits = length.code(coder, bits);
  if (!coder.decodes()) {
    for (size_t i = 0; i < bits; ++i) coder.code_bits(bytes[i / 8] >> (7 - i % 8) & 1, 1);
    return;
  }
  coding::BitWriter out;  // grows with what the stream holds, not with what it claims
  for (size_t i = 0; i < bits; ++i) out.put(coder.code_bits(0, 1), 1);
  bytes = out.take();
}

}  // namespace

bool Metered::code(bool bit, uint32_t p1) {
  bit = inner.code(bit, p1);
  cost.code(bit, p1);
  return bit;
}
double Metered::take() { return std::exchange(cost, {}).bits() / 8; }

void round_mantissa(DType dtype, void* data, int64_t n, int bits) {
  const int mantissa = width(dtype) - 1 - exponent_bits(dtype), dropped = mantissa - bits;
  if (dropped <= 0) return;
  const uint64_t unit = uint64_t{1} << dropped, infinity = ((uint64_t{1} << exponent_bits(dtype)) - 1) << mantissa;
  const Elements elements(data, dtype, n);
  for (size_t i = 0; i < elements.size(); ++i) {
    const uint64_t v = elements[i], odd = v >> dropped & 1;
    if ((v & infinity) == infinity) continue;
    const uint64_t rounded = (v + unit / 2 - 1 + odd) & ~(unit - 1);
    elements.set(i, (rounded & infinity) == infinity ? rounded - unit : rounded);
  }
}

int64_t IntegerModel::code(BinaryCoder& coder, int64_t v) {
  const bool negative = negative_.code(coder, v < 0);
  const uint64_t size = size_.code(coder, static_cast<uint64_t>(v < 0 ? ~v : v));
  HONE_CHECK(size <= static_cast<uint64_t>(INT64_MAX), FormatError, "a number of more than 64 bits");
  return negative ? ~static_cast<int64_t>(size) : static_cast<int64_t>(size);
}

FloatModel::FloatModel(DType dtype)
    : exponent_(exponent_bits(dtype)), mantissa_(width(dtype) - 1 - exponent_), exponents_(size_t{1} << exponent_) {}

uint64_t FloatModel::code(BinaryCoder& coder, uint64_t v, int mantissa) {
  const bool sign = sign_.code(coder, v >> (exponent_ + mantissa_) & 1);
  size_t node = 1;
  for (int b = exponent_ - 1; b >= 0; --b) node = node * 2 + exponents_[node].code(coder, v >> (mantissa_ + b) & 1);
  const uint64_t exponent = node - exponents_.size(), dropped = static_cast<uint64_t>(mantissa_ - mantissa);
  const uint64_t m = coder.code_bits(v >> dropped & ((uint64_t{1} << mantissa) - 1), mantissa) << dropped;
  return (uint64_t{sign} << exponent_ | exponent) << mantissa_ | m;
}

FloatModel& TensorModel::floats(DType dtype) { return floats_.try_emplace(dtype, dtype).first->second; }

uint64_t TensorModel::code_value(BinaryCoder& coder, DType dtype, uint64_t pattern, int mantissa) {
  if (is_floating(dtype)) return floats(dtype).code(coder, pattern, mantissa);
  const int64_t v = integers_[dtype].code(coder, integer_of(dtype, pattern));
  pattern = static_cast<uint64_t>(v) & (~uint64_t{0} >> (64 - width(dtype)));
  HONE_CHECK(integer_of(dtype, pattern) == v, FormatError, "the integer ", v, " is beyond ", dtype);
  return pattern;
}

double TensorModel::code_scale(BinaryCoder& coder, double scale, int mantissa) {
  scale = std::bit_cast<double>(floats(DType::f64).code(coder, std::bit_cast<uint64_t>(scale), mantissa));
  HONE_CHECK(std::isfinite(scale) && scale > 0, FormatError, "a scale of ", scale);
  return scale;
}

int TensorModel::code_mantissa(BinaryCoder& coder, DType dtype, uint64_t any) {
  if (!is_floating(dtype)) return 0;
  const int most = floats(dtype).mantissa_bits();
  const auto bits = static_cast<int>(coder.code_bits(static_cast<uint64_t>(mantissa_of(any, most)), 6));
  HONE_CHECK(bits <= most, FormatError, "a mantissa of ", bits, " bits");
  return bits;
}

void TensorModel::code_mask(BinaryCoder& coder, const Shape& shape, std::span<uint8_t> mask) {
  if (coder_ == Coder::range) return masks_.code(coder, mask_shape(shape), mask);
  coding::RelativeIndex index;
  if (!coder.decodes()) {
    std::vector<int64_t> positions;
    for (size_t i = 0; i < mask.size(); ++i)
      if (mask[i] != 0) positions.push_back(static_cast<int64_t>(i));
    index = coding::best_relative_index(positions, 0);
  }
  index.bits = static_cast<int>(coder.code_bits(static_cast<uint64_t>(index.bits - 1), 4)) + 1;
  HONE_CHECK(index.bits <= coding::kMostIndexBits, FormatError, "a relative index of ", index.bits, " bits; at most ",
             coding::kMostIndexBits);
  const uint64_t entries = counts_.code(coder, index.gaps.size());
  HONE_CHECK(entries <= mask.size(), FormatError, "an index of ", entries, " entries for ", mask.size(), " elements");
  // Gaps, and one symbol more: a filler.
  const size_t filler = size_t{1} << index.bits;
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < index.gaps.size(); ++i)
    if (index.filler[i] != 0) ++index.gaps[i];
  if (!coder.decodes()) bytes = coding::huffman_encode(index.gaps, filler + 1);
  code_plain(coder, lengths_, bytes, bytes.size() * 8);
  if (!coder.decodes()) return;
  index.gaps = coding::huffman_decode(bytes, filler + 1, entries);
  index.filler.reserve(entries);
  for (uint16_t& gap : index.gaps) {
    index.filler.push_back(gap == filler);
    if (gap == filler) --gap;
  }
  for (const int64_t p : coding::positions_of(index, static_cast<int64_t>(mask.size())))
    mask[static_cast<size_t>(p)] = 1;
}

void TensorModel::code_symbols(BinaryCoder& coder, uint32_t alphabet, std::span<uint16_t> symbols) {
  if (coder_ == Coder::range) return symbols_.code(coder, alphabet, symbols);
  std::vector<uint8_t> bytes;
  if (!coder.decodes()) bytes = coding::huffman_encode(symbols, alphabet);
  code_plain(coder, lengths_, bytes, bytes.size() * 8);
  if (!coder.decodes()) return;
  const std::vector<uint16_t> decoded = coding::huffman_decode(bytes, alphabet, symbols.size());
  std::copy(decoded.begin(), decoded.end(), symbols.begin());
}

void TensorModel::code_codebook(BinaryCoder& coder, Codebook& book) {
  const uint64_t size = counts_.code(coder, book.values.size());
  HONE_CHECK(size >= 1 && size <= kMostValues, FormatError, "a codebook of ", size, " values");
  book.values.resize(size);
  bool grid = book.scale != 0;
  if (book.dtype == DType::f32 && (grid = grid_.code(coder, grid))) {
    book.scale = code_scale(coder, book.scale, code_mantissa(coder, DType::f64, std::bit_cast<uint64_t>(book.scale)));
    int64_t before = 0;
    for (size_t i = 0; i < size; ++i) {
      int64_t k = coder.decodes() ? 0 : nearest_multiple(book.scale, book.values[i]);
      if (i == 0) {
        k = first_multiple_.code(coder, k);
      } else {
        const uint64_t between = steps_.code(coder, static_cast<uint64_t>(k - before - 1));
        k = between < 2 * kMostMultiple ? before + 1 + static_cast<int64_t>(between) : INT64_MAX;
      }
      HONE_CHECK(k >= -kMostMultiple && k <= kMostMultiple, FormatError, "a codebook's multiple beyond 2^24");
      book.values[i] = multiple(book.scale, before = k);
    }
    return;
  }
  uint64_t any = 0;
  for (const uint64_t v : book.values) any |= v;
  const int mantissa = code_mantissa(coder, book.dtype, any);
  uint64_t before = 0;  // the key of the value before
  for (size_t i = 0; i < size; ++i) {
    uint64_t& v = book.values[i];
    if (is_floating(book.dtype) || i == 0) {
      v = code_value(coder, book.dtype, v, mantissa);
    } else {  // ascending integers: how many lie between
      const uint64_t between = steps_.code(coder, key_of(book.dtype, v) - before - 1);
      HONE_CHECK(between < largest_key(book.dtype) - before, FormatError, "a codebook's value beyond ", book.dtype);
      v = integer_of_key(book.dtype, before + between + 1);
    }
    before = key_of(book.dtype, v);
  }
}

void TensorModel::code_elements(BinaryCoder& outer, DType dtype, const Shape& shape, void* array,
                                std::span<uint8_t> mask) {
  const Elements data(array, dtype, shape.numel());
  Metered coder(outer);
  std::vector<uint8_t> support;
  const bool masked = !mask.empty(), encodes = !coder.decodes();
  bool split = false;
  if (masked) {
    code_mask(coder, shape, mask);
  } else {
    size_t zeros = 0;
    for (size_t i = 0; encodes && i < data.size(); ++i) zeros += data[i] == 0;
    split = split_.code(coder, encodes && zeros > data.size() / 8);
    if (split) {
      support.resize(data.size());
      for (size_t i = 0; encodes && i < data.size(); ++i) support[i] = data[i] != 0;
      code_mask(coder, shape, support);
      mask = support;
    }
  }
  if (!mask.empty()) part_.mask_bytes = coder.take();
  Kept kept{data, mask, data.size()};
  if (!mask.empty()) kept.n = static_cast<size_t>(std::count(mask.begin(), mask.end(), uint8_t{1}));
  part_.kept = static_cast<int64_t>(kept.n);
  const uint64_t counts[] = {kept.n, data.size() - kept.n};
  part_.mask_entropy = coding::entropy_bits_of_counts(counts) / static_cast<double>(data.size());
  if (kept.n == 0) return;
  const int64_t cols = mask_shape(shape).cols;
  Way way = encodes ? cheapest_way(dtype, cols, kept) : Way{};
  code_way(coder, dtype, cols, kept, way);
  part_.value_bytes += coder.take();
}

/// The values themselves; a codebook of them, a list or multiples of a scale or the last one; a scale a run; a codebook
/// of those that are met again and again, and the others themselves.
std::vector<TensorModel::Way> TensorModel::possible_ways(DType dtype, int64_t cols, const Kept& kept) const {
  std::vector<Way> ways(1);
  const auto each = [&](const auto& f) {
    for (size_t i = 0; i < kept.data.size(); ++i)
      if (kept.at(i)) f(kept.data[i]);
  };
  std::unordered_map<uint64_t, uint32_t> counts;
  size_t once = 0, seen = 0;
  const auto many = [&] { return seen > kSample && once > kSample / 2; };  // values that are hardly met again
  each([&](uint64_t v) {
    ways[0].any |= v;
    if (many()) return;
    const uint32_t count = ++counts[v];
    ++seen;
    once += count == 1 ? 1 : count == 2 ? -size_t{1} : 0;
  });
  const auto by_value = [dtype](uint64_t a, uint64_t b) { return key_of(dtype, a) < key_of(dtype, b); };
  const auto holds = [&](const std::vector<uint64_t>& sorted, uint64_t v) {
    return std::binary_search(sorted.begin(), sorted.end(), v, by_value);
  };
  const auto add_codebook = [&](Way way) {
    std::vector<uint64_t>& values = way.book.values;
    way.book.dtype = dtype;
    std::sort(values.begin(), values.end(), by_value);
    if (way.kind == Way::Kind::others) each([&](uint64_t v) { way.other.push_back(!holds(values, v)); });
    const auto in_last = [&](uint64_t v) { return holds(last_.values, v); };
    const double scale = dtype == DType::f32 ? scale_of(values) : 0;
    const bool again = last_.dtype == dtype && std::all_of(values.begin(), values.end(), in_last);
    ways.push_back(way);
    if (scale != 0) ways.push_back(way), ways.back().book.scale = scale;
    if (again) ways.push_back(std::move(way)), ways.back().again = true;
  };
  if (!many() && counts.size() <= std::min(kMostValues, std::max<size_t>(kAlwaysFew, kept.n / 2))) {
    Way few = ways[0];
    few.kind = Way::Kind::codebook;
    for (const auto& [v, count] : counts) few.book.values.push_back(v);
    add_codebook(std::move(few));
  }
  if (!many() && is_floating(dtype) && counts.size() > kAlwaysFew) {
    Way some = ways[0];
    some.kind = Way::Kind::others;
    std::vector<std::pair<uint32_t, uint64_t>> often;  // the most frequent first
    for (const auto& [v, count] : counts)
      if (count >= kOften) often.emplace_back(~count, v);
    std::sort(often.begin(), often.end());
    often.resize(std::min(often.size(), kMostValues));
    for (const auto& [count, v] : often) some.book.values.push_back(v);
    if (!often.empty() && often.size() < counts.size()) add_codebook(std::move(some));
  }
  if (dtype == DType::f32) {
    if (auto grid = row_grid_of(kept, cols, kMostValues)) {
      ways.push_back(ways[0]);
      ways.back().kind = Way::Kind::row_grid;
      ways.back().grid = std::move(*grid);
    }
  }
  return ways;
}

TensorModel::Way TensorModel::cheapest_way(DType dtype, int64_t cols, const Kept& kept) const {
  std::vector<Way> ways = possible_ways(dtype, cols, kept);
  if (ways.size() == 1) return ways[0];
  std::vector<double> bits;
  for (const Way& way : ways) {
    CostMeter cost;
    Metered metered(cost);
    TensorModel copy(*this);
    Way tried = way;
    copy.code_way(metered, dtype, cols, kept, tried);
    bits.push_back(cost.bits());
  }
  return std::move(ways[static_cast<size_t>(std::min_element(bits.begin(), bits.end()) - bits.begin())]);
}

void TensorModel::code_way(Metered& coder, DType dtype, int64_t cols, const Kept& kept, Way& way) {
  using Kind = Way::Kind;
  if (book_.code(coder, way.kind == Kind::codebook)) return code_by_codebook(coder, dtype, kept, way);
  if (!is_floating(dtype)) return code_values(coder, dtype, kept, 0);
  const int most = floats(dtype).mantissa_bits();
  const uint64_t form = coder.code_bits(way.kind == Kind::row_grid ? kFormOfRowGrid
                                        : way.kind == Kind::others ? kFormOfOthers
                                                                   : static_cast<uint64_t>(mantissa_of(way.any, most)),
                                        6);
  if (form == kFormOfRowGrid) {
    HONE_CHECK(dtype == DType::f32, FormatError, "a grid by rows of ", dtype);
    return code_row_grid(coder, cols, kept, way.grid);
  }
  if (form == kFormOfOthers) return code_others(coder, dtype, kept, way);
  HONE_CHECK(form <= static_cast<uint64_t>(most), FormatError, "a mantissa of ", form, " bits");
  code_values(coder, dtype, kept, static_cast<int>(form));
}

void TensorModel::code_values(BinaryCoder& coder, DType dtype, const Kept& kept, int mantissa) {
  for (size_t i = 0; i < kept.data.size(); ++i)
    if (kept.at(i)) kept.data.set(i, code_value(coder, dtype, kept.data[i], mantissa));
}

void TensorModel::code_by_codebook(Metered& coder, DType dtype, const Kept& kept, Way& way) {
  if (again_.code(coder, way.again)) {
    HONE_CHECK(last_.dtype == dtype && !last_.values.empty(), FormatError, "a codebook again where none was before");
  } else {
    way.book.dtype = dtype;
    code_codebook(coder, way.book);
    last_ = std::move(way.book);
  }
  const std::vector<uint64_t>& values = last_.values;
  part_.codebook = static_cast<int64_t>(values.size());
  part_.grid = last_.scale != 0;
  part_.codebook_bytes = coder.take();
  std::vector<uint16_t> codes(kept.n);
  if (!coder.decodes()) {
    std::unordered_map<uint64_t, uint16_t> code;
    for (size_t k = 0; k < values.size(); ++k) code[values[k]] = static_cast<uint16_t>(k);
    for (size_t i = 0, k = 0; i < kept.data.size(); ++i)
      if (kept.at(i)) codes[k++] = code.at(kept.data[i]);
  }
  code_codes(coder, static_cast<uint32_t>(values.size()), codes);
  for (size_t i = 0, k = 0; i < kept.data.size(); ++i)
    if (kept.at(i)) kept.data.set(i, values[codes[k++]]);
}

void TensorModel::code_codes(Metered& coder, uint32_t alphabet, std::span<uint16_t> codes) {
  code_symbols(coder, alphabet, codes);
  std::vector<uint64_t> counts(alphabet);
  for (const uint16_t c : codes) ++counts[c];
  part_.code_entropy = coding::entropy_bits_of_counts(counts) / static_cast<double>(std::max<size_t>(codes.size(), 1));
}

void TensorModel::code_row_grid(Metered& coder, int64_t cols, const Kept& kept, RowGrid& grid) {
  grid.length = static_cast<int64_t>(counts_.code(coder, static_cast<uint64_t>(grid.length)));
  HONE_CHECK(grid.length >= kShortestRun && grid.length <= cols, FormatError, "runs of ", grid.length,
             " elements in rows of ", cols);
  grid.low = first_multiple_.code(coder, grid.low);
  HONE_CHECK(grid.low >= -kMostMultiple && grid.low <= kMostMultiple, FormatError, "a multiple beyond 2^24");
  const uint64_t count = counts_.code(coder, grid.count);
  HONE_CHECK(count >= 1 && count <= kMostValues, FormatError, "a grid of ", count, " multiples");
  uint64_t any = 0;
  for (const double s : grid.scales) any |= std::bit_cast<uint64_t>(s);
  const int mantissa = code_mantissa(coder, DType::f64, any);
  if (coder.decodes()) {
    size_t runs = 0;
    each_run(kept, cols, grid.length, [&](size_t, size_t) { return ++runs; });
    grid.scales.resize(runs);
  }
  for (double& s : grid.scales) s = code_scale(coder, s, mantissa);
  part_.codebook = static_cast<int64_t>(count);
  part_.grid = true;
  part_.scales = static_cast<int64_t>(grid.scales.size());
  part_.codebook_bytes = coder.take();
  grid.codes.resize(kept.n);
  code_codes(coder, static_cast<uint32_t>(count), grid.codes);
  size_t run = 0, k = 0;
  each_run(kept, cols, grid.length, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      if (kept.at(i)) kept.data.set(i, multiple(grid.scales[run], grid.low + grid.codes[k++]));
    return ++run;
  });
}

void TensorModel::code_others(Metered& coder, DType dtype, const Kept& kept, Way& way) {
  way.other.resize(kept.n);
  code_mask(coder, Shape{static_cast<int64_t>(kept.n)}, way.other);
  std::vector<uint8_t> others(kept.data.size()), few(kept.data.size());
  for (size_t i = 0, k = 0; i < kept.data.size(); ++i)
    if (kept.at(i)) (way.other[k++] != 0 ? others : few)[i] = 1;
  way.other = {};
  const auto count = static_cast<size_t>(std::count(others.begin(), others.end(), uint8_t{1}));
  HONE_CHECK(count < kept.n, FormatError, "a codebook for none of ", kept.n, " values");
  uint64_t any = 0;
  for (size_t i = 0; i < kept.data.size(); ++i)
    if (others[i] != 0) any |= kept.data[i];
  code_values(coder, dtype, {kept.data, others, count}, code_mantissa(coder, dtype, any));
  part_.others = static_cast<int64_t>(count);
  part_.value_bytes = coder.take();
  code_by_codebook(coder, dtype, {kept.data, few, kept.n - count}, way);
}

void TensorModel::code(BinaryCoder& coder, DType dtype, const Shape& shape, void* data, std::span<uint8_t> mask) {
  const auto n = static_cast<size_t>(shape.numel());
  part_ = {.name = {}, .dtype = dtype, .elements = static_cast<int64_t>(n)};
  if (n == 0) return;
  if (dtype == DType::boolean) {
    Metered metered(coder);
    const std::span elements(static_cast<uint8_t*>(data), n);
    code_mask(metered, shape, elements);
    part_.kept = std::count(elements.begin(), elements.end(), uint8_t{1});
    const auto ones = static_cast<uint64_t>(part_.kept);
    const uint64_t counts[] = {ones, n - ones};
    part_.mask_entropy = coding::entropy_bits_of_counts(counts) / static_cast<double>(n);
    part_.mask_bytes = metered.take();
    return;
  }
  code_elements(coder, dtype, shape, data, mask);
}

}  // namespace hone::compress::detail
