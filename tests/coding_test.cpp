// Bits, Huffman codes and the relative index: exact round trips, optimal lengths, damage refused.

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <queue>
#include <random>

#include "hone/compress/pack/bits.h"
#include "hone/compress/pack/entropy.h"
#include "hone/compress/pack/huffman.h"
#include "hone/compress/pack/relative_index.h"
#include "support.h"

namespace hone::test {
namespace {

using namespace hone::compress::coding;
using Bytes = std::vector<uint8_t>;
using Symbols = std::vector<uint16_t>;

std::string text_of(const BitWriter& w) {
  std::string s;
  for (size_t i = 0; i < w.size(); ++i) s += (w.bytes()[i / 8] & 0x80 >> i % 8) != 0 ? '1' : '0';
  return s;
}

TEST(Bits, MostSignificantFirst) {
  BitWriter w;
  w.put(0b101, 3);
  w.put(0xff00, 9);  // the lowest nine
  w.put_gamma(1), w.put_gamma(5);
  EXPECT_EQ(text_of(w),
            "101"
            "100000000"
            "1"
            "00101");
  EXPECT_EQ(w.bytes(), (Bytes{0b10110000, 0b00001001, 0b01000000}));
}

TEST(Bits, GiveBackWhatWasPut) {
  std::mt19937_64 random(1);
  BitWriter w;
  std::vector<std::pair<uint64_t, int>> put;
  for (int i = 0; i < 2000; ++i) {
    const int bits = static_cast<int>(random() % 65);
    const uint64_t v = bits == 0 ? 0 : random() >> (64 - bits);
    put.emplace_back(v, bits);
    w.put(v, bits);
    w.put_gamma(v == 0 ? 1 : v);
  }
  BitReader r(w.bytes());
  for (const auto& [v, bits] : put) {
    if (bits <= 32) { ASSERT_EQ(r.peek(bits), v); }
    ASSERT_EQ(r.get(bits), v);
    ASSERT_EQ(r.get_gamma(), v == 0 ? 1 : v);
  }
  EXPECT_LT(r.left(), 8u);
}

TEST(Bits, RefuseToReadPastTheEnd) {
  const Bytes two = {0xff, 0x00};
  BitReader r(two);
  r.skip(13);
  EXPECT_EQ(r.peek(8), 0u);
  expect_error<FormatError>([&] { r.get(4); }, {"4 bits", "3 are left"});
  expect_error<FormatError>([&] { r.skip(4); }, "3 are left");
  expect_error<FormatError>([&] { r.get_gamma(); }, "are left");
  const Bytes zeros(20, 0);
  expect_error<FormatError>([&] { BitReader(zeros).get_gamma(); }, "64 bits");
  EXPECT_EQ(BitReader(Bytes{}).peek(32), 0u);
  expect_error<ValueError>([] { BitWriter().put_gamma(0); }, "from 1");
}

// ---- Huffman ----

/// Bits that Huffman's own algorithm takes: two trees of least count become one.
uint64_t huffman_cost(const std::vector<uint64_t>& counts) {
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> trees;
  for (const uint64_t c : counts)
    if (c > 0) trees.push(c);
  uint64_t cost = 0;
  while (trees.size() > 1) {
    const uint64_t a = trees.top();
    trees.pop();
    const uint64_t b = trees.top();
    trees.pop();
    cost += a + b;
    trees.push(a + b);
  }
  return cost;
}
uint64_t cost_of(const std::vector<uint64_t>& counts, const Bytes& lengths) {
  uint64_t cost = 0;
  for (size_t i = 0; i < counts.size(); ++i) cost += counts[i] * lengths[i];
  return cost;
}
double kraft(const Bytes& lengths) {
  double sum = 0;
  for (const uint8_t l : lengths) sum += l > 0 ? std::ldexp(1, -l) : 0;
  return sum;
}
/// The least cost over all choices of lengths up to the limit, tried one by one.
uint64_t exhaustive_cost(const std::vector<uint64_t>& counts, int limit) {
  uint64_t best = UINT64_MAX;
  Bytes lengths(counts.size(), 1);
  for (;;) {
    if (kraft(lengths) <= 1) best = std::min(best, cost_of(counts, lengths));
    size_t i = 0;
    while (i < lengths.size() && ++lengths[i] > limit) lengths[i++] = 1;
    if (i == lengths.size()) return best;
  }
}

TEST(Huffman, LengthsAreOptimal) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<uint64_t> counts(1 + random() % 300);
    for (uint64_t& c : counts) c = random() % 3 == 0 ? 0 : 1 + (random() >> (40 + random() % 24));
    const Bytes lengths = huffman_lengths(counts, 32);
    ASSERT_EQ(cost_of(counts, lengths), huffman_cost(counts));
    size_t used = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      used += counts[i] > 0;
      if (counts[i] == 0) { ASSERT_EQ(lengths[i], 0); }
    }
    ASSERT_EQ(kraft(lengths), used > 1 ? 1.0 : 0.0);
  }
}

TEST(Huffman, LimitedLengthsAreOptimal) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<uint64_t> counts(2 + random() % 5);
    for (uint64_t& c : counts) c = 1 + (random() >> (44 + random() % 20));
    for (const int limit : {3, 4}) {
      const Bytes lengths = huffman_lengths(counts, limit);
      ASSERT_LE(*std::max_element(lengths.begin(), lengths.end()), limit);
      ASSERT_EQ(cost_of(counts, lengths), exhaustive_cost(counts, limit)) << trial;
    }
  }
  std::vector<uint64_t> fibonacci = {1, 1};  // the longest codes there are: 39 bits without a limit
  while (fibonacci.size() < 40) fibonacci.push_back(fibonacci.end()[-1] + fibonacci.end()[-2]);
  for (const int limit : {6, 8, 24}) {
    const Bytes lengths = huffman_lengths(fibonacci, limit);
    EXPECT_EQ(*std::max_element(lengths.begin(), lengths.end()), limit);
    EXPECT_EQ(kraft(lengths), 1.0);
  }
  EXPECT_EQ(huffman_lengths(std::vector<uint64_t>(64, 5), 6), Bytes(64, 6));
  expect_error<ValueError>([] { huffman_lengths(std::vector<uint64_t>(65, 1), 6); }, {"65 symbols", "6 bits"});
  expect_error<ValueError>([] { huffman_lengths(std::vector<uint64_t>(2, 1), 0); }, "limit");
}

/// Reads bit by bit, from a table of texts made by the rule of canonical codes: shorter first, then by symbol.
Symbols slow_decode(const Bytes& lengths, const std::string& bits) {
  std::vector<size_t> order;
  for (size_t s = 0; s < lengths.size(); ++s)
    if (lengths[s] > 0) order.push_back(s);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lengths[a] < lengths[b]; });
  std::map<std::string, uint16_t> codes;
  std::string code;
  for (const size_t s : order) {
    if (!code.empty()) {  // the next number
      size_t i = code.size();
      while (code[i - 1] == '1') code[--i] = '0';
      code[i - 1] = '1';
    }
    code.resize(lengths[s], '0');
    codes[code] = static_cast<uint16_t>(s);
  }
  Symbols symbols;
  std::string read;
  for (const char c : bits) {
    read += c;
    if (const auto it = codes.find(read); it != codes.end()) symbols.push_back(it->second), read.clear();
  }
  EXPECT_EQ(read, "");
  return symbols;
}

TEST(Huffman, CodesAreCanonical) {
  std::mt19937_64 random(4);
  for (const size_t alphabet : {2u, 3u, 20u, 300u, 5000u}) {
    std::vector<uint64_t> counts(alphabet);
    for (uint64_t& c : counts) c = random() >> (20 + random() % 40);  // of lengths far beyond the fast table
    counts[0] = 1, counts[1] = uint64_t{1} << 50;
    const HuffmanCode code = HuffmanCode::of(counts);
    Symbols symbols;
    for (int i = 0; i < 500; ++i) {
      const auto s = static_cast<uint16_t>(random() % alphabet);
      if (counts[s] > 0) symbols.push_back(s);
    }
    BitWriter w;
    for (const uint16_t s : symbols) code.encode(w, s);
    EXPECT_EQ(slow_decode(code.lengths(), text_of(w)), symbols);
    BitReader r(w.bytes());
    for (const uint16_t s : symbols) ASSERT_EQ(code.decode(r), s);
  }
}

/// Sequences that coders meet, and that they fear.
std::vector<std::pair<Symbols, size_t>> sequences() {
  std::mt19937_64 random(5);
  std::vector<std::pair<Symbols, size_t>> all = {
      {{}, 1}, {{}, 16}, {{0}, 1}, {{15}, 16}, {Symbols(1000, 3), 4}, {{65535, 0, 65535}, 65536}};
  const auto add = [&](size_t n, size_t alphabet, const std::function<uint64_t(size_t)>& next) {
    Symbols s;
    for (size_t i = 0; i < n; ++i) s.push_back(static_cast<uint16_t>(next(i) % alphabet));
    all.emplace_back(std::move(s), alphabet);
  };
  for (const size_t alphabet : {2u, 8u, 16u, 31u, 256u}) {
    add(3000, alphabet, [&](size_t) { return random(); });                                // nothing to gain
    add(3000, alphabet, [&](size_t) { return std::min(random() % 97, random() % 97); });  // skewed
    add(3000, alphabet, [&](size_t) { return random() % 100 == 0 ? random() : 0; });      // nearly constant
    add(3000, alphabet, [](size_t i) { return i; });                                      // a pattern
    add(3000, alphabet, [](size_t i) { return i < 1500 ? 0 : 1; });                       // a change halfway
  }
  add(70000, 65536, [&](size_t i) { return i < 65536 ? i : random(); });  // every symbol of the largest alphabet
  return all;
}

TEST(Huffman, RoundTripWithinABitOfTheEntropy) {
  for (const auto& [symbols, alphabet] : sequences()) {
    const Bytes bytes = huffman_encode(symbols, alphabet);
    ASSERT_EQ(huffman_decode(bytes, alphabet, symbols.size()), symbols) << "alphabet " << alphabet;
    std::vector<uint64_t> counts(alphabet);
    for (const uint16_t s : symbols) ++counts[s];
    BitWriter table;
    HuffmanCode::of(counts).write(table);
    const double n = static_cast<double>(symbols.size()),
                 payload = static_cast<double>(bytes.size() * 8 - table.size());
    EXPECT_LE(payload, entropy_bits(symbols) + n + 8) << "alphabet " << alphabet;
    EXPECT_GE(payload, entropy_bits(symbols) - 1e-6);
  }
  EXPECT_EQ(huffman_encode(Symbols(100000, 7), 8).size(), 2u);  // one symbol takes no bits
}

TEST(Huffman, RefusesDamage) {
  std::mt19937_64 random(6);
  for (const auto& [symbols, alphabet] : sequences()) {
    if (symbols.size() > 5000) continue;
    const Bytes good = huffman_encode(symbols, alphabet);
    for (size_t n = 0; n < good.size(); n += 1 + n / 16)
      EXPECT_THROW(huffman_decode({good.data(), n}, alphabet, symbols.size()), FormatError) << n;
    Bytes longer = good;
    longer.push_back(0);
    EXPECT_THROW(huffman_decode(longer, alphabet, symbols.size()), FormatError);
    for (int trial = 0; trial < 50 && !good.empty(); ++trial) {
      Bytes bad = good;
      bad[random() % bad.size()] ^= static_cast<uint8_t>(1 << random() % 8);
      try {
        EXPECT_EQ(huffman_decode(bad, alphabet, symbols.size()).size(), symbols.size());
      } catch (const FormatError&) {}
    }
  }
  expect_error<FormatError>([] { HuffmanCode({1, 1, 1}); }, "more codes");
  expect_error<FormatError>([] { HuffmanCode({1, 2}); }, "unused");
  expect_error<FormatError>([] { HuffmanCode({1}); }, "unused");
  expect_error<FormatError>([] { HuffmanCode({33, 1}); }, "33 bits");
  const auto table = [](std::initializer_list<uint64_t> numbers) {
    BitWriter w;
    for (const uint64_t n : numbers) w.put_gamma(n);
    return w.take();
  };
  const auto refuse = [](const Bytes& bytes, const std::string& why) {
    expect_error<FormatError>([&] { huffman_decode(bytes, 4, 0); }, why);
  };
  refuse(table({6}), "5 symbols");           // of four
  refuse(table({2, 5}), "symbol 4");         // the only one
  refuse(table({3, 1, 1000}), "length");     // far beyond 32 bits
  refuse(table({3, 3, 9, 9}), "length");     // negative
  refuse(table({3, 2, 5}), "of more than");  // four zeros after the first
  refuse(table({4, 1, 1, 1}), "more codes");
  refuse(table({3, 1, 3}), "unused");
  EXPECT_THROW(huffman_decode(table({1}), 4, 1), FormatError);  // a symbol where none occurs
  expect_error<ValueError>([] { huffman_encode(Symbols{4}, 4); }, "symbol 4");
  expect_error<ValueError>([] { huffman_encode({}, 65537); }, "65537");
}

// ---- the relative index ----

TEST(RelativeIndex, IsThePapers) {
  // Han et al., figure 2: differences 1, 3, 8 (a filler) and 3 in three bits.
  const RelativeIndex index = relative_index(std::vector<int64_t>{0, 3, 14}, 3);
  EXPECT_EQ(index.gaps, (Symbols{0, 2, 7, 2}));
  EXPECT_EQ(index.filler, (Bytes{0, 0, 1, 0}));
  EXPECT_EQ(positions_of(index, 15), (std::vector<int64_t>{0, 3, 14}));
  EXPECT_TRUE(relative_index(std::vector<int64_t>{}, 5).gaps.empty());
  EXPECT_TRUE(positions_of(RelativeIndex{}, 0).empty());
}

TEST(RelativeIndex, RoundTripAtEveryWidthAndTheBestIsLeast) {
  std::mt19937_64 random(7);
  for (const double density : {0.0, 0.0005, 0.02, 0.1, 0.5, 1.0}) {
    std::vector<int64_t> positions;
    const int64_t n = 20000;
    for (int64_t i = 0; i < n; ++i)
      if (static_cast<double>(random() >> 11) * 0x1p-53 < density) positions.push_back(i);
    for (const int value_bits : {0, 3, 32}) {
      size_t least = SIZE_MAX;
      for (int bits = 1; bits <= 15; ++bits) {
        const RelativeIndex index = relative_index(positions, bits);
        ASSERT_EQ(positions_of(index, n), positions) << bits;
        std::vector<int64_t> places;  // of every entry, filler or not
        int64_t at = -1;
        for (const uint16_t gap : index.gaps) {
          ASSERT_LT(gap, 1 << bits);
          places.push_back(at += gap + 1);
        }
        size_t k = 0;
        for (size_t i = 0; i < places.size(); ++i) {
          if (index.filler[i] != 0) continue;
          ASSERT_EQ(places[i], positions[k++]);
        }
        least = std::min(least, index.gaps.size() * static_cast<size_t>(bits + value_bits));
      }
      const RelativeIndex best = best_relative_index(positions, value_bits);
      EXPECT_EQ(best.gaps.size() * static_cast<size_t>(best.bits + value_bits), least);
    }
  }
}

TEST(RelativeIndex, RefusesWhatIsNone) {
  using Positions = std::vector<int64_t>;
  expect_error<ValueError>([] { relative_index(Positions{3, 3}, 4); }, "position 3");
  expect_error<ValueError>([] { relative_index(Positions{-1}, 4); }, "position -1");
  expect_error<ValueError>([] { relative_index(Positions{1}, 0); }, "bits");
  expect_error<ValueError>([] { relative_index(Positions{1}, 16); }, "bits");
  expect_error<ValueError>([] { relative_index(Positions{INT64_MAX - 1}, 15); }, "2^32");
  expect_error<ValueError>([] { best_relative_index(Positions{INT64_MAX - 1}, 4); }, "2^32");
  expect_error<FormatError>([] { positions_of({16, {0}, {0}}, 20); }, "16 bits");
  expect_error<FormatError>([] { positions_of({3, {0, 8}, {0, 0}}, 20); }, "3 bits");
  expect_error<FormatError>([] { positions_of({3, {0, 6, 1}, {0, 1, 0}}, 20); }, "closer than 8");
  expect_error<FormatError>([] { positions_of({3, {0, 7}, {0, 1}}, 20); }, "at the end");
  expect_error<FormatError>([] { positions_of({3, {0, 7}, {0}}, 20); }, "1 marks");
  expect_error<FormatError>([] { positions_of({3, {7, 7}, {0, 0}}, 15); }, "position 15 of 15");
}

}  // namespace
}  // namespace hone::test
