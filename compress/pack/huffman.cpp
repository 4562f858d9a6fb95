#include "hone/compress/pack/huffman.h"

#include <algorithm>
#include <numeric>

namespace hone::compress::coding {
namespace {

constexpr int kMostBits = 32;

uint64_t zigzag(int d) { return d >= 0 ? 2 * static_cast<uint64_t>(d) : 2 * static_cast<uint64_t>(-d) - 1; }
int64_t unzigzag(uint64_t z) { return z % 2 == 0 ? static_cast<int64_t>(z / 2) : -static_cast<int64_t>(z / 2) - 1; }

}  // namespace

std::vector<uint8_t> huffman_lengths(std::span<const uint64_t> counts, int limit) {
  HONE_CHECK(limit >= 1 && limit <= kMostBits, ValueError, "huffman: the limit must be in [1, 32], got ", limit);
  std::vector<uint32_t> used;
  for (size_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) used.push_back(static_cast<uint32_t>(s));
  std::vector<uint8_t> lengths(counts.size(), 0);
  const size_t n = used.size();
  if (n <= 1) return lengths;
  HONE_CHECK(n <= uint64_t{1} << limit, ValueError, "huffman: ", n, " symbols do not have codes of ", limit, " bits");
  std::stable_sort(used.begin(), used.end(), [&](uint32_t a, uint32_t b) { return counts[a] < counts[b]; });

  // Each level's list: the symbols merged with the packages, pairs of the level below. A list is kept as one bit an
  // item (is it a symbol?): of any part of it, how many symbols it holds is all that the last step needs.
  std::vector<std::vector<bool>> is_symbol(static_cast<size_t>(limit));
  std::vector<uint64_t> packages, list;
  for (auto& level : is_symbol) {
    list.clear();
    size_t s = 0, p = 0;
    while (s < n || p < packages.size()) {
      const bool symbol = p == packages.size() || (s < n && counts[used[s]] <= packages[p]);
      level.push_back(symbol);
      list.push_back(symbol ? counts[used[s++]] : packages[p++]);
    }
    packages.clear();
    for (size_t i = 0; i + 1 < list.size(); i += 2) packages.push_back(list[i] + list[i + 1]);
  }
  // The cheapest 2n − 2 items of the top level; their packages are pairs of the level below, and so on down. A symbol's
  // length is the number of levels in which it is chosen.
  size_t take = 2 * n - 2;
  for (size_t level = is_symbol.size(); level-- > 0 && take > 0;) {
    const auto& items = is_symbol[level];
    const auto symbols = static_cast<size_t>(std::count(items.begin(), items.begin() + static_cast<long>(take), true));
    for (size_t i = 0; i < symbols; ++i) ++lengths[used[i]];
    take = 2 * (take - symbols);
  }
  return lengths;
}

HuffmanCode::HuffmanCode(std::vector<uint8_t> lengths, int alone) : lengths_(std::move(lengths)), alone_(alone) {
  HONE_CHECK(lengths_.size() <= 65536, FormatError, "huffman: an alphabet of ", lengths_.size(), " symbols");
  for (const uint8_t l : lengths_) {
    HONE_CHECK(l <= kMostBits, FormatError, "huffman: a code of ", l, " bits");
    longest_ = std::max<int>(longest_, l);
    if (l > 0) ++count_[l];
  }
  if (longest_ == 0) return;
  uint64_t code = 0;
  uint32_t place = 0;
  for (int l = 1; l <= kMostBits; ++l) {  // canonical: the first code of a length follows the last shorter one
    code <<= 1;
    first_[l] = code;
    offset_[l] = place;
    code += count_[l];
    place += count_[l];
    HONE_CHECK(code <= uint64_t{1} << l, FormatError, "huffman: more codes than lengths up to ", l, " allow");
  }
  HONE_CHECK(code == uint64_t{1} << kMostBits, FormatError, "huffman: the lengths leave codes unused");
  codes_.resize(lengths_.size());
  order_.resize(place);
  fast_.assign(size_t{1} << kFast, {0, 0});
  uint32_t next[kMostBits + 1] = {};
  for (size_t s = 0; s < lengths_.size(); ++s) {
    const int l = lengths_[s];
    if (l == 0) continue;
    order_[offset_[l] + next[l]] = static_cast<uint16_t>(s);
    codes_[s] = static_cast<uint32_t>(first_[l] + next[l]++);
    if (l > kFast) continue;
    const size_t from = size_t{codes_[s]} << (kFast - l), n = size_t{1} << (kFast - l);
    std::fill_n(fast_.begin() + static_cast<long>(from), n, Entry{static_cast<uint16_t>(s), static_cast<uint8_t>(l)});
  }
}

HuffmanCode HuffmanCode::of(std::span<const uint64_t> counts, int limit) {
  int alone = -1;
  for (size_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) alone = static_cast<int>(s);
  return HuffmanCode(huffman_lengths(counts, limit), alone);
}

void HuffmanCode::encode(BitWriter& out, uint16_t symbol) const {
  if (longest_ == 0 && symbol == alone_) return;
  HONE_CHECK(symbol < lengths_.size() && lengths_[symbol] > 0, ValueError, "huffman: symbol ", symbol, " has no code");
  out.put(codes_[symbol], lengths_[symbol]);
}

uint16_t HuffmanCode::decode(BitReader& in) const {
  if (longest_ == 0) {
    HONE_CHECK(alone_ >= 0, FormatError, "huffman: a symbol of a code that has none");
    return static_cast<uint16_t>(alone_);
  }
  if (const Entry e = fast_[in.peek(kFast)]; e.length > 0) return in.skip(e.length), e.symbol;
  const uint64_t window = in.peek(kMostBits);
  for (int l = kFast + 1; l <= longest_; ++l) {
    const uint64_t code = window >> (kMostBits - l);
    if (code - first_[l] < count_[l]) return in.skip(l), order_[offset_[l] + (code - first_[l])];
  }
  throw FormatError("huffman: bits that are no code");
}

void HuffmanCode::write(BitWriter& out) const {
  const auto used =
      static_cast<size_t>(std::count_if(lengths_.begin(), lengths_.end(), [](uint8_t l) { return l > 0; }));
  if (longest_ == 0) {
    out.put_gamma(alone_ >= 0 ? 2 : 1);
    if (alone_ >= 0) out.put_gamma(static_cast<uint64_t>(alone_) + 1);
    return;
  }
  out.put_gamma(used + 1);
  int before = 1;
  for (size_t s = 0, left = used; left > 0; ++s) {
    const int l = lengths_[s];
    out.put_gamma(1 + zigzag(l - before));
    before = l;
    if (l > 0) {
      --left;
      continue;
    }
    size_t zeros = 0;
    while (lengths_[s + 1] == 0) ++zeros, ++s;
    out.put_gamma(zeros + 1);
  }
}

HuffmanCode HuffmanCode::read(BitReader& in, size_t alphabet) {
  const uint64_t used = in.get_gamma() - 1;
  HONE_CHECK(used <= alphabet, FormatError, "huffman: ", used, " symbols of an alphabet of ", alphabet);
  std::vector<uint8_t> lengths(alphabet, 0);
  if (used <= 1) {
    const uint64_t alone = used == 1 ? in.get_gamma() - 1 : 0;
    HONE_CHECK(used == 0 || alone < alphabet, FormatError, "huffman: symbol ", alone, " of ", alphabet);
    return HuffmanCode(std::move(lengths), used == 1 ? static_cast<int>(alone) : -1);
  }
  int64_t before = 1;
  uint64_t left = used;
  for (size_t s = 0; left > 0; ++s) {
    HONE_CHECK(s < alphabet, FormatError, "huffman: lengths of more than ", alphabet, " symbols");
    const uint64_t z = in.get_gamma() - 1;
    const int64_t l = z > 2 * kMostBits ? -1 : before + unzigzag(z);
    HONE_CHECK(l >= 0 && l <= kMostBits, FormatError, "huffman: a length outside [0, 32]");
    lengths[s] = static_cast<uint8_t>(l);
    before = l;
    if (l > 0) {
      --left;
      continue;
    }
    const uint64_t zeros = in.get_gamma() - 1;
    HONE_CHECK(zeros < alphabet - s, FormatError, "huffman: lengths of more than ", alphabet, " symbols");
    s += static_cast<size_t>(zeros);
  }
  return HuffmanCode(std::move(lengths));
}

std::vector<uint8_t> huffman_encode(std::span<const uint16_t> symbols, size_t alphabet) {
  HONE_CHECK(alphabet <= 65536, ValueError, "huffman_encode: an alphabet of ", alphabet, " symbols; at most 65536");
  std::vector<uint64_t> counts(alphabet);
  for (const uint16_t s : symbols) {
    HONE_CHECK(s < alphabet, ValueError, "huffman_encode: symbol ", s, " of an alphabet of ", alphabet);
    ++counts[s];
  }
  const HuffmanCode code = HuffmanCode::of(counts);
  BitWriter out;
  code.write(out);
  for (const uint16_t s : symbols) code.encode(out, s);
  return out.take();
}

std::vector<uint16_t> huffman_decode(std::span<const uint8_t> bytes, size_t alphabet, size_t count) {
  HONE_CHECK(alphabet <= 65536, ValueError, "huffman_decode: an alphabet of ", alphabet, " symbols; at most 65536");
  BitReader in(bytes);
  const HuffmanCode code = HuffmanCode::read(in, alphabet);
  std::vector<uint16_t> symbols;
  symbols.reserve(count);
  for (size_t i = 0; i < count; ++i) symbols.push_back(code.decode(in));
  HONE_CHECK(in.left() < 8 && in.get(static_cast<int>(in.left())) == 0, FormatError, "huffman: more bits than ", count,
             " symbols have");
  return symbols;
}

}  // namespace hone::compress::coding
