#pragma once
// An adaptive binary range coder: each bit costs −log2 of the probability that a model gave it. All arithmetic is on
// integers: the same bytes on every machine. docs/format.md states every rule by which the numbers here come about.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "hone/core/error.h"

namespace hone::compress::coding {

/// One direction of coding. What is coded goes through the same function, and so through the same model, both ways.
class BinaryCoder {
 public:
  virtual ~BinaryCoder() = default;
  /// p1 / 65536 is the probability of a 1, p1 in [1, 65535]. An encoder writes `bit` and returns it; a decoder ignores
  /// `bit` and returns the next one, FormatError where its bytes have ended.
  virtual bool code(bool bit, uint32_t p1) = 0;
  virtual bool decodes() const { return false; }
  /// The lowest `bits` of `value`, the highest first, at one bit each.
  uint64_t code_bits(uint64_t value, int bits);
};

/// Range coder with carry (Martin, 1979; the byte-wise form is Pavlov's, of LZMA): a 32-bit range, never below 2^24.
class RangeEncoder : public BinaryCoder {
 public:
  bool code(bool bit, uint32_t p1) override;
  /// Ends the stream with as few bytes as its end needs, and begins anew.
  std::vector<uint8_t> finish();

 private:
  void shift();
  std::vector<uint8_t> bytes_;
  uint64_t low_ = 0, pending_ = 0;  // pending: bytes 255 that a carry would still change
  uint32_t range_ = 0xffffffff;
  uint8_t cache_ = 0;  // the byte before them
  bool begun_ = false;
};

class RangeDecoder : public BinaryCoder {
 public:
  /// The bytes must outlive it.
  explicit RangeDecoder(std::span<const uint8_t> bytes);
  bool code(bool, uint32_t p1) override;
  bool decodes() const override { return true; }
  /// FormatError unless all that was written has been read, and no byte follows.
  void finish() const;

 private:
  static constexpr size_t kImplied = 4;  // zero bytes at the end that the encoder may leave out
  uint32_t next();
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  uint32_t range_ = 0xffffffff, code_ = 0;
};

/// Writes nothing; adds up what it would cost. For choosing between ways to code.
class CostMeter : public BinaryCoder {
 public:
  bool code(bool bit, uint32_t p1) override;
  double bits() const { return bits_; }

 private:
  double bits_ = 0;
};

/// ln(p / (1 − p)) in 256ths for p = p1 / 65536, within [−2176, 2176]; and its inverse, within [13, 65523].
int32_t stretch(uint32_t p1);
uint32_t squash(int32_t x);

/// An adaptive probability: (ones + 1/2) / (n + 1) of the bits seen (Krichevsky and Trofimov, 1981), in 22 bits; from
/// the 1,022nd on old ones fade.
class Counter {
 public:
  /// Begins at p1, as if by that many bits seen; at most 1,022.
  explicit Counter(uint32_t p1 = 32768, uint32_t seen = 0) : p_(p1 << 6), n_(static_cast<uint16_t>(seen)) {}
  uint32_t p1() const { return p_ < (1u << 6) ? 1 : p_ >> 6; }
  void update(bool bit) {
    const uint64_t rate = 65536 / (n_ + 2u);
    p_ = static_cast<uint32_t>(bit ? p_ + ((kOne - 1 - p_) * rate >> 16) : p_ - (p_ * rate >> 16));
    if (n_ < kMost) ++n_;
  }
  bool code(BinaryCoder& coder, bool bit) {
    bit = coder.code(bit, p1());
    update(bit);
    return bit;
  }

 private:
  static constexpr uint32_t kOne = 1u << 22, kMost = 1022;
  uint32_t p_;
  uint16_t n_;
};

/// A probability out of several, weighted in the logistic domain: squash(s0 + Σ w_i (s_i − s0)), s = stretch(p), s0 of
/// a prior. The weights learn by descending the cost (Mahoney, "Adaptive weighing of context models", 2005).
class Mixer {
 public:
  static constexpr size_t kMost = 8;
  /// Weights in 65,536ths.
  explicit Mixer(std::initializer_list<int32_t> weights);
  /// Begins a bit, with this prior.
  void begin(uint32_t prior = 32768) { prior_ = stretch(prior), inputs_ = 0; }
  void add(uint32_t p1) { x_[inputs_++] = stretch(p1) - prior_; }
  void add(Counter& counter) { counters_[inputs_] = &counter, x_[inputs_++] = stretch(counter.p1()) - prior_; }
  /// Codes the bit by what was added, as many as there are weights, and teaches counters and weights.
  bool code(BinaryCoder& coder, bool bit);

 private:
  std::array<int32_t, kMost> weights_{}, x_{};
  std::array<Counter*, kMost> counters_{};
  size_t size_, inputs_ = 0;
  int32_t prior_ = 0;
};

/// A number below 2^64 − 1: the count of bits of v + 1 in unary, then its bits below the first, the highest three
/// by counters.
class NumberModel {
 public:
  uint64_t code(BinaryCoder& coder, uint64_t v);

 private:
  std::array<Counter, 64> longer_;
  std::array<std::array<Counter, 8>, 64> top_;
};

}  // namespace hone::compress::coding
