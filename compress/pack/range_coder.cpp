#include "hone/compress/pack/range_coder.h"

#include <algorithm>
#include <cmath>

namespace hone::compress::coding {

namespace {

constexpr uint32_t kLeastRange = 1u << 24;

uint32_t part_of_one(uint32_t range, uint32_t p1) { return static_cast<uint32_t>(uint64_t{range} * p1 >> 16); }

}  // namespace

uint64_t BinaryCoder::code_bits(uint64_t value, int bits) {
  uint64_t v = 0;
  for (int i = bits - 1; i >= 0; --i) v = v << 1 | static_cast<uint64_t>(code(value >> i & 1, 32768));
  return v;
}

// ---- encoder ----

bool RangeEncoder::code(bool bit, uint32_t p1) {
  const uint32_t one = part_of_one(range_, p1);
  if (bit)
    range_ = one;
  else
    low_ += one, range_ -= one;
  while (range_ < kLeastRange) shift(), range_ <<= 8;
  return bit;
}

/// Moves the highest of low's four bytes out, once no carry can change it.
void RangeEncoder::shift() {
  if (low_ < 0xff000000u || low_ >> 32 != 0) {
    const auto carry = static_cast<uint8_t>(low_ >> 32);
    if (begun_) bytes_.push_back(static_cast<uint8_t>(cache_ + carry));  // the byte before the first is always 0
    begun_ = true;
    for (; pending_ > 0; --pending_) bytes_.push_back(static_cast<uint8_t>(0xff + carry));
    cache_ = static_cast<uint8_t>(low_ >> 24);
  } else {
    ++pending_;
  }
  low_ = (low_ & 0x00ffffff) << 8;
}

std::vector<uint8_t> RangeEncoder::finish() {
  // Of the numbers in [low, low + range) the one that ends in most zeros; the decoder supplies up to four zero bytes.
  for (int k = 32; k >= 0; --k) {
    const uint64_t ones = (uint64_t{1} << k) - 1, v = (low_ + ones) & ~ones;
    if (v - low_ >= range_) continue;
    low_ = v;
    break;
  }
  for (int i = 0; i < 5; ++i) shift();
  for (int i = 0; i < 4 && !bytes_.empty() && bytes_.back() == 0; ++i) bytes_.pop_back();
  std::vector<uint8_t> bytes = std::move(bytes_);
  *this = RangeEncoder();
  return bytes;
}

// ---- decoder ----

RangeDecoder::RangeDecoder(std::span<const uint8_t> bytes) : bytes_(bytes) {
  for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
}

uint32_t RangeDecoder::next() {
  if (at_ < bytes_.size()) return bytes_[at_++];
  HONE_CHECK(at_ < bytes_.size() + kImplied, FormatError, "range coder: the ", bytes_.size(),
             " bytes end before what they code");
  ++at_;
  return 0;
}

bool RangeDecoder::code(bool, uint32_t p1) {
  const uint32_t one = part_of_one(range_, p1);
  const bool bit = code_ < one;
  if (bit)
    range_ = one;
  else
    code_ -= one, range_ -= one;
  while (range_ < kLeastRange) code_ = code_ << 8 | next(), range_ <<= 8;
  return bit;
}

void RangeDecoder::finish() const {
  HONE_CHECK(at_ >= bytes_.size(), FormatError, "range coder: ", bytes_.size() - at_, " bytes follow what was coded");
}

bool CostMeter::code(bool bit, uint32_t p1) {
  static const std::vector<float> costs = [] {
    std::vector<float> c(65536);
    for (size_t p = 1; p < c.size(); ++p) c[p] = static_cast<float>(16 - std::log2(static_cast<double>(p)));
    return c;
  }();
  bits_ += static_cast<double>(costs[bit ? p1 : 65536 - p1]);
  return bit;
}

// ---- models ----

namespace {

/// 65536 / (1 + exp(−x)) at x = −8.5, −8, … 8.5, rounded.
constexpr uint16_t kLogistic[] = {13,    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                                  4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565, 62428,
                                  63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514, 65523};
constexpr int32_t kMost = 2176;  // 8.5 in 256ths

struct StretchTable {
  std::array<int16_t, 32769> at;
  StretchTable() {
    int32_t x = -kMost;
    for (uint32_t p = 0; p <= 32768; ++p) {
      while (squash(x) < p) ++x;
      at[p] = static_cast<int16_t>(x);
    }
  }
};

}  // namespace

uint32_t squash(int32_t x) {
  x = std::clamp(x, -kMost, kMost - 1) + kMost;
  const auto i = static_cast<size_t>(x >> 7);
  const auto w = static_cast<uint32_t>(x & 127);
  return (kLogistic[i] * (128 - w) + kLogistic[i + 1] * w + 64) >> 7;
}

int32_t stretch(uint32_t p1) {
  static const StretchTable table;
  return p1 <= 32768 ? table.at[p1] : -table.at[65536 - p1];
}

Mixer::Mixer(std::initializer_list<int32_t> weights) : size_(weights.size()) {
  HONE_ASSERT(size_ <= kMost);
  std::copy(weights.begin(), weights.end(), weights_.begin());
}

bool Mixer::code(BinaryCoder& coder, bool bit) {
  constexpr int64_t kRate = 32, kLargest = 1 << 20;
  HONE_ASSERT(inputs_ == size_);
  int64_t sum = 0;
  for (size_t i = 0; i < size_; ++i) sum += int64_t{weights_[i]} * x_[i];
  const auto p1 = static_cast<int32_t>(squash(static_cast<int32_t>(prior_ + (sum >> 16))));
  bit = coder.code(bit, static_cast<uint32_t>(p1));
  const int64_t error = (bit ? 65536 : 0) - p1;
  for (size_t i = 0; i < size_; ++i) {
    const int64_t w = weights_[i] + ((x_[i] * error * kRate + (1 << 19)) >> 20);
    weights_[i] = static_cast<int32_t>(std::clamp(w, -kLargest, kLargest));
    if (counters_[i]) counters_[i]->update(bit), counters_[i] = nullptr;
  }
  return bit;
}

uint64_t NumberModel::code(BinaryCoder& coder, uint64_t v) {
  const uint64_t n = v + 1;
  int below = 0;
  while (below < 63 && longer_[static_cast<size_t>(below)].code(coder, n >> below > 1)) ++below;
  uint64_t got = 1;
  auto& top = top_[static_cast<size_t>(below)];
  for (int i = below - 1; i >= 0; --i) {
    const bool bit = n >> i & 1;
    got = got << 1 | static_cast<uint64_t>(got < 8 ? top[got].code(coder, bit) : coder.code(bit, 32768));
  }
  return got - 1;
}

}  // namespace hone::compress::coding
