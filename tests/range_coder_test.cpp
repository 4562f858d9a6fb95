// The range coder and its models: the bytes of plain long arithmetic, exact round trips, costs beside the entropy.

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include "hone/compress/pack/entropy.h"
#include "hone/compress/pack/mask_coder.h"
#include "hone/compress/pack/range_coder.h"
#include "support.h"

namespace hone::test {
namespace {

using namespace hone::compress::coding;
using Bytes = std::vector<uint8_t>;
using Symbols = std::vector<uint16_t>;

/// The same code as one long number: each step adds to it, and carries as far as it must.
struct LongNumber {
  Bytes digits = Bytes(4);  // the last four are what a 32-bit range is measured in
  uint32_t range = 0xffffffff;
  void code(bool bit, uint32_t p1) {
    const auto one = static_cast<uint32_t>(uint64_t{range} * p1 >> 16);
    if (bit) {
      range = one;
    } else {
      add(one);
      range -= one;
    }
    for (; range < 1u << 24; range <<= 8) digits.push_back(0);
  }
  void add(uint32_t v) {
    uint64_t carry = v;
    for (size_t i = digits.size(); carry > 0 && i-- > 0;) {
      carry += digits[i];
      digits[i] = static_cast<uint8_t>(carry);
      carry >>= 8;
    }
    ASSERT_EQ(carry, 0u);
  }
};

/// `bytes` stand for a number of the interval that begins at `low`: by its digits, or with zeros after them.
void expect_in_interval(const Bytes& bytes, const LongNumber& low) {
  ASSERT_LE(bytes.size(), low.digits.size());
  Bytes full = bytes;
  full.resize(low.digits.size(), 0);
  // full − low, by long subtraction
  int64_t difference = 0;
  bool far = false;
  for (size_t i = 0; i < full.size(); ++i) {
    difference = difference * 256 + full[i] - low.digits[i];
    far = far || difference > (int64_t{1} << 40) || difference < -(int64_t{1} << 40);
    if (far) break;
  }
  ASSERT_FALSE(far);
  EXPECT_GE(difference, 0);
  EXPECT_LT(difference, int64_t{low.range});
}

TEST(RangeCoder, IsLongArithmetic) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    RangeEncoder out;
    LongNumber number;
    std::vector<std::pair<bool, uint32_t>> bits;
    double ideal = 0;
    const int n = static_cast<int>(random() % 3000);
    for (int i = 0; i < n; ++i) {
      const uint32_t p1 =
          trial % 3 == 0 ? (random() % 2 == 0 ? 1 : 65535) : 1 + static_cast<uint32_t>(random() % 65535);
      const bool bit = trial % 2 == 0 ? random() % 65536 < p1 : random() % 2 == 0;
      bits.emplace_back(bit, p1);
      out.code(bit, p1), number.code(bit, p1);
      ideal -= std::log2((bit ? p1 : 65536 - p1) / 65536.0);
    }
    const Bytes bytes = out.finish();
    expect_in_interval(bytes, number);
    EXPECT_LE(static_cast<double>(bytes.size()), ideal / 8 * 1.0001 + 2) << "no more than a byte or two beyond";
    RangeDecoder in(bytes);
    for (const auto& [bit, p1] : bits) ASSERT_EQ(in.code(false, p1), bit);
    in.finish();
  }
}

TEST(RangeCoder, CarriesThroughAnyRunOf255) {
  std::mt19937_64 random(2);
  for (const bool carry : {false, true}) {
    RangeEncoder out;
    LongNumber number;
    uint64_t range = 0xffffffff, middle = 0x80000000;  // of the whole code, as a distance from low
    std::vector<std::pair<bool, uint32_t>> bits;
    const auto code = [&](bool bit, uint32_t p1) {
      bits.emplace_back(bit, p1);
      out.code(bit, p1), number.code(bit, p1);
    };
    for (int i = 0; i < 4000; ++i) {  // the middle stays inside: not a digit is decided
      const uint32_t p1 = 20000 + static_cast<uint32_t>(random() % 25000);
      const uint64_t one = range * p1 >> 16;
      const bool bit = middle < one;
      code(bit, p1);
      range = bit ? one : range - one;
      if (!bit) middle -= one;
      for (; range < 1u << 24; range <<= 8) middle <<= 8;
    }
    for (int i = 0; i < 40; ++i) code(!carry, 32768);  // down, below the middle, or up
    const Bytes bytes = out.finish();
    EXPECT_EQ(bytes[0], carry ? 0x80 : 0x7f);
    EXPECT_EQ(bytes[100], carry ? 0x00 : 0xff);
    expect_in_interval(bytes, number);
    RangeDecoder in(bytes);
    for (const auto& [bit, p1] : bits) ASSERT_EQ(in.code(false, p1), bit);
    in.finish();
  }
}

TEST(RangeCoder, KnowsItsEnd) {
  RangeEncoder out;
  EXPECT_TRUE(out.finish().empty());
  std::mt19937_64 random(3);
  Bytes want;
  for (int i = 0; i < 100; ++i) want.push_back(static_cast<uint8_t>(random())), out.code_bits(want.back(), 8);
  Bytes bytes = out.finish();
  EXPECT_LE(bytes.size(), 101u);
  const auto decode = [&](std::span<const uint8_t> from) {
    RangeDecoder in(from);
    Bytes got;
    for (int i = 0; i < 100; ++i) got.push_back(static_cast<uint8_t>(in.code_bits(0, 8)));
    in.finish();
    return got;
  };
  EXPECT_EQ(decode(bytes), want);
  for (size_t n = 0; n < bytes.size() - 4; ++n)
    expect_error<FormatError>([&] { decode({bytes.data(), n}); }, "end before");
  bytes.resize(bytes.size() + 4);
  expect_error<FormatError>([&] { decode(bytes); }, "follow");
}

TEST(Logistic, StretchAndSquash) {
  for (int x = -2176; x <= 2175; ++x) {
    const double exact = 65536 / (1 + std::exp(-x / 256.0));
    EXPECT_NEAR(squash(x), exact, 2 + 0.035 * std::min(exact, 65536 - exact)) << x;  // linear between half units
    EXPECT_GE(squash(x), squash(x - 1));
  }
  EXPECT_EQ(squash(-100000), 13u);
  EXPECT_EQ(squash(100000), squash(2175));
  EXPECT_EQ(stretch(32768), 0);
  for (uint32_t p = 1; p <= 65535; ++p) {
    ASSERT_EQ(stretch(p), -stretch(65536 - p));
    if (p <= 32768) { ASSERT_GE(squash(stretch(p)), p); }
    if (p > 13 && p <= 32768) { ASSERT_LT(squash(stretch(p) - 1), p); }
  }
}

TEST(Counter, CountsAsKrichevskyAndTrofimov) {
  std::mt19937_64 random(4);
  for (const double p : {0.5, 0.05, 0.99}) {
    Counter counter;
    double ones = 0;
    for (int n = 0; n < 1000; ++n) {
      EXPECT_NEAR(counter.p1() / 65536.0, (ones + 0.5) / (n + 1), 2e-4 + 1e-3 * n / 1000) << n;
      const bool bit = static_cast<double>(random() >> 11) * 0x1p-53 < p;
      counter.update(bit);
      ones += bit;
    }
  }
  Counter constant;
  for (int i = 0; i < 100000; ++i) constant.update(true);
  EXPECT_GT(constant.p1(), 65500u);
  EXPECT_LT(constant.p1(), 65536u);
  for (int i = 0; i < 200000; ++i) constant.update(false);
  EXPECT_GE(constant.p1(), 1u);
  EXPECT_LT(constant.p1(), 40u);
}

TEST(NumberModel, RoundTripAndCheapWhereNumbersRepeat) {
  std::mt19937_64 random(5);
  std::vector<uint64_t> numbers = {
      0, 1, 2, 7, 8, 9, 255, 256, UINT64_MAX - 1, uint64_t{1} << 63, (uint64_t{1} << 62) - 1};
  for (int i = 0; i < 500; ++i) numbers.push_back((random() >> random() % 64) % UINT64_MAX);
  RangeEncoder out;
  NumberModel write, read;
  for (const uint64_t v : numbers) EXPECT_EQ(write.code(out, v), v);
  const Bytes bytes = out.finish();
  RangeDecoder in(bytes);
  for (const uint64_t v : numbers) ASSERT_EQ(read.code(in, 0), v);
  in.finish();
  CostMeter cost;
  NumberModel model;
  for (int i = 0; i < 200; ++i) model.code(cost, 5);
  EXPECT_LT(cost.bits(), 40);
}

// ---- symbols and masks ----

Symbols make(size_t n, size_t alphabet, const std::function<uint64_t(size_t)>& next) {
  Symbols s;
  for (size_t i = 0; i < n; ++i) s.push_back(static_cast<uint16_t>(next(i) % alphabet));
  return s;
}

void expect_coded_within(const Symbols& symbols, uint32_t alphabet, double part, const std::string& what) {
  const Bytes bytes = encode_symbols(symbols, alphabet);
  ASSERT_EQ(decode_symbols(bytes, alphabet, symbols.size()), symbols) << what;
  // The frequency of each symbol has to be learnt: half of log2 n bits by any code (Rissanen, 1984).
  const double learnt = alphabet > 32 ? (alphabet - 32) / 2.0 * std::log2(std::max<size_t>(symbols.size(), 1)) / 8 : 0;
  EXPECT_LE(static_cast<double>(bytes.size()), entropy_bits(symbols) / 8 * (1 + part) + 64 + learnt) << what;
}

TEST(SymbolCoder, WithinTwoPercentOfTheEntropy) {
  std::mt19937_64 random(6);
  for (const uint32_t k : {1u, 2u, 3u, 8u, 16u, 31u, 32u}) {
    for (const size_t n : {0u, 1u, 2u, 100u, 1000u, 100000u}) {
      if (n >= 100000 && k % 2 == 1) continue;  // long enough
      const double part = n >= 100000 ? 0.02 : 0;
      const std::string what = str(n, " of ", k);
      expect_coded_within(make(n, k, [&](size_t) { return random(); }), k, part, what + " random");
      expect_coded_within(make(n, k, [&](size_t) { return random() % 7 * (random() % 3 == 0); }), k, part,
                          what + " skewed");
      expect_coded_within(make(n, k, [&](size_t) { return random() % 500 == 0; }), k, part, what + " rare");
      expect_coded_within(make(n, k, [&](size_t) { return k - 1; }), k, part, what + " constant");
      expect_coded_within(make(n, k, [&](size_t i) { return i; }), k, part, what + " in turn");
      expect_coded_within(make(n, k, [&](size_t i) { return i < n / 2 ? 0 : k - 1; }), k, part, what + " halves");
      expect_coded_within(make(n, k, [&](size_t i) { return i / 3 % 2 + (i / 700 % 2) * (random() % 2); }), k, part,
                          what + " changing");
    }
  }
  for (const uint32_t k : {33u, 64u, 256u})
    for (const size_t n : {100u, 1000u, 10000u, 50000u})
      for (const bool skewed : {false, true}) {
        const Symbols s = make(n, k, [&](size_t) { return skewed ? std::min(random() % k, random() % k) : random(); });
        expect_coded_within(s, k, 0, str(n, " of ", k, skewed ? " skewed" : ""));
      }
  for (const uint32_t k : {256u, 1000u, 65536u}) {
    const Symbols s = make(100000, k, [&](size_t) { return std::min(random() % 256, random() % 256); });
    expect_coded_within(s, k, 0.02, str(k));
  }
}

/// Against a coder that learns: always the symbol that it expects least.
TEST(SymbolCoder, HoldsAgainstAnAdversary) {
  Symbols symbols;
  Counter known;
  for (int i = 0; i < 100000; ++i) {
    const bool bit = known.p1() < 32768;
    known.update(bit);
    symbols.push_back(bit);
  }
  expect_coded_within(symbols, 2, 0.02, "the least expected bit");
}

TEST(SymbolCoder, SeesWhatFollowsWhat) {
  std::mt19937_64 random(7);
  uint64_t before = 0;
  const Symbols chain =
      make(20000, 16, [&](size_t) { return before = random() % 4 == 0 ? random() % 16 : (before * 5 + 3) % 16; });
  EXPECT_LT(static_cast<double>(encode_symbols(chain, 16).size()), 0.6 * entropy_bits(chain) / 8);
  EXPECT_EQ(decode_symbols(encode_symbols(chain, 16), 16, chain.size()), chain);
}

struct Drawn {
  MaskShape shape;
  Bytes mask;
};
Drawn draw(MaskShape shape, const std::function<double(int64_t r, int64_t c)>& density, uint64_t seed = 8) {
  std::mt19937_64 random(seed);
  Drawn d{shape, {}};
  for (int64_t r = 0; r < shape.rows; ++r)
    for (int64_t c = 0; c < shape.cols; ++c)
      d.mask.push_back(static_cast<double>(random() >> 11) * 0x1p-53 < density(r, c));
  return d;
}
double entropy_of(const Bytes& mask) {
  const auto ones = static_cast<uint64_t>(std::count(mask.begin(), mask.end(), 1));
  const uint64_t counts[] = {mask.size() - ones, ones};
  return entropy_bits_of_counts(counts) / 8;
}

TEST(MaskCoder, WithinTwoPercentOfTheEntropy) {
  for (const MaskShape shape :
       {MaskShape{1, 100000, 1}, {250, 400, 25}, {100000, 1, 1}, {7, 9, 9}, {1, 1, 1}, {0, 5, 1}}) {
    for (const double p : {0.0, 0.0005, 0.02, 0.1, 0.5, 0.97, 1.0}) {
      const Drawn d = draw(shape, [&](int64_t, int64_t) { return p; });
      const Bytes bytes = encode_mask(d.shape, d.mask);
      ASSERT_EQ(decode_mask(d.shape, bytes), d.mask) << shape.rows << " " << p;
      EXPECT_LE(static_cast<double>(bytes.size()), entropy_of(d.mask) * 1.02 + 64) << shape.rows << " " << p;
    }
  }
}

/// Bytes over those of the entropy of all elements alike.
double gain(const Drawn& d) {
  const Bytes bytes = encode_mask(d.shape, d.mask);
  EXPECT_EQ(decode_mask(d.shape, bytes), d.mask);
  return static_cast<double>(bytes.size()) / entropy_of(d.mask);
}

TEST(MaskCoder, SeesStructure) {
  const auto odd = [](int64_t i) { return i * 2654435761 % 97 < 30 ? 0.25 : 0.01; };
  EXPECT_LT(gain(draw({120, 400, 1}, [&](int64_t r, int64_t) { return odd(r); })), 0.9) << "rows of their own density";
  EXPECT_LT(gain(draw({120, 400, 1}, [&](int64_t, int64_t c) { return odd(c); })), 0.9) << "columns";
  EXPECT_LT(gain(draw({60, 400, 25}, [&](int64_t, int64_t c) { return odd(c / 25); })), 0.9) << "input channels";
  Drawn two_of_four = draw({64, 256, 1}, [](int64_t, int64_t) { return 0.0; });
  std::mt19937_64 random(9);
  for (size_t i = 0; i < two_of_four.mask.size(); i += 4) {
    const size_t a = random() % 4, b = (a + 1 + random() % 3) % 4;
    two_of_four.mask[i + a] = two_of_four.mask[i + b] = 1;
  }
  EXPECT_LT(gain(two_of_four), 0.72) << "log2(6) / 4 = 0.65 bits an element";
  Drawn blocks = draw({64, 256, 1}, [](int64_t, int64_t) { return 0.0; });
  for (size_t r = 0; r < 64; r += 4)
    for (size_t c = 0; c < 256; c += 4)
      if (random() % 10 == 0)
        for (size_t k = 0; k < 16; ++k) blocks.mask[(r + k / 4) * 256 + c + k % 4] = 1;
  EXPECT_LT(gain(blocks), 0.35) << "blocks of 4 × 4";

  // A second layer whose inputs are the first one's outputs, dead ones among them.
  const auto dead = [](int64_t i) { return i * 2654435761 % 89 < 40; };
  const Drawn first = draw({100, 300, 1}, [&](int64_t r, int64_t) { return dead(r) ? 0.0 : 0.1; });
  const Drawn second = draw(
      {20, 100, 1}, [&](int64_t, int64_t c) { return dead(c) ? 0.0 : 0.1; }, 10);
  CostMeter alone, after, both;
  MaskModel model;
  Bytes a = first.mask, b = second.mask;
  MaskModel().code(alone, second.shape, b);
  model.code(both, first.shape, a);
  model.code(after, second.shape, b);
  EXPECT_LT(after.bits(), 0.95 * alone.bits()) << "what the layer before says of its outputs";
}

/// The same bytes on every machine and compiler: the sums of the bytes of fixed inputs.
TEST(MaskCoder, BytesArePinned) {
  const auto digest = [](const Bytes& bytes) {
    uint64_t h = 1469598103934665603u;  // FNV-1a
    for (const uint8_t b : bytes) h = (h ^ b) * 1099511628211u;
    return h;
  };
  Bytes mask(84 * 120);
  Symbols symbols(5000);
  uint64_t x = 1;
  for (uint8_t& m : mask) x = x * 6364136223846793005u + 1442695040888963407u, m = x >> 60 == 0;
  for (uint16_t& s : symbols)
    x = x * 6364136223846793005u + 1442695040888963407u, s = static_cast<uint16_t>((x >> 60) * (x >> 56 & 15) / 15);
  EXPECT_EQ(digest(encode_mask({84, 120, 1}, mask)), 17306006187362689889u);
  EXPECT_EQ(digest(encode_symbols(symbols, 16)), 118785811835396291u);
}

TEST(MaskCoder, RefusesDamageOrGivesSomeMask) {
  const Drawn d = draw({40, 60, 1}, [](int64_t r, int64_t) { return r % 5 == 0 ? 0.3 : 0.02; });
  const Bytes good = encode_mask(d.shape, d.mask);
  for (size_t n = 0; n + 4 < good.size(); ++n) {
    try {
      EXPECT_NE(decode_mask(d.shape, {good.data(), n}), d.mask) << n;
    } catch (const FormatError&) {}
  }
  Bytes bad = good;
  bad.resize(good.size() + 5, 0xaa);
  EXPECT_THROW(decode_mask(d.shape, bad), FormatError);
  std::mt19937_64 random(11);
  for (int trial = 0; trial < 300; ++trial) {
    bad = good;
    bad[random() % bad.size()] ^= static_cast<uint8_t>(1 << random() % 8);
    try {
      for (const uint8_t m : decode_mask(d.shape, bad)) ASSERT_LE(m, 1);
    } catch (const FormatError&) {}
    try {
      for (const uint16_t s : decode_symbols(bad, 11, 700)) ASSERT_LT(s, 11);
    } catch (const FormatError&) {}
  }
  expect_error<ValueError>([&] { encode_mask({40, 61, 1}, d.mask); }, {"2400 elements", "61 columns"});
  expect_error<ValueError>([&] { encode_mask({40, 60, 7}, d.mask); }, "groups of 7");
  expect_error<ValueError>([&] { decode_mask({-1, 60, 1}, good); }, "-1 rows");
  expect_error<ValueError>([&] { decode_mask({int64_t{1} << 40, int64_t{1} << 40, 1}, good); }, "columns");
  expect_error<ValueError>([] { encode_symbols(Symbols{3}, 3); }, "symbol 3");
  expect_error<ValueError>([] { encode_symbols(Symbols{}, 0); }, "alphabet of 0");
}

}  // namespace
}  // namespace hone::test
