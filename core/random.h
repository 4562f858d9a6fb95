#pragma once
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): counter-based, so element i of
// a draw is a function of (seed, stream, i) alone, whatever the threads or the device.

#include <array>
#include <cstdint>

namespace hone {

/// Four 32-bit words for one counter value.
struct Philox {
  uint64_t seed = 0;    ///< key
  uint64_t stream = 0;  ///< upper half of the counter
  constexpr std::array<uint32_t, 4> operator()(uint64_t counter) const {
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
    uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }
  /// Word i of the stream.
  constexpr uint32_t word(uint64_t i) const { return (*this)(i >> 2)[i & 3]; }
};

/// 24-bit uniform in [0, 1).
constexpr float uniform_f32(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }
/// 53-bit uniform in [0, 1) from two words.
constexpr double uniform_f64(uint32_t hi, uint32_t lo) {
  return static_cast<double>((uint64_t{hi} << 32 | lo) >> 11) * 0x1p-53;
}
/// Unbiased enough for shuffles: floor(word64 * n / 2^64), n >= 1.
constexpr uint64_t below(uint64_t word64, uint64_t n) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(word64) * n) >> 64);
}

/// The process's generator: a seed and the number of the next stream. Each random call takes one stream.
struct GeneratorState {
  uint64_t seed = 0, next_stream = 0;
};
void manual_seed(uint64_t seed);  ///< also resets the stream number
GeneratorState generator_state();
void set_generator_state(GeneratorState s);
Philox next_stream();  ///< thread-safe

/// While it lives, random calls of this thread take their streams from `state` instead of the process's generator: the
/// draws of a piece of parallel work are then its own, whichever thread does it and whatever the others do.
class GeneratorScope {
 public:
  explicit GeneratorScope(GeneratorState state);
  ~GeneratorScope();
  GeneratorScope(const GeneratorScope&) = delete;
  GeneratorScope& operator=(const GeneratorScope&) = delete;

 private:
  GeneratorState state_;
  GeneratorState* former_;
};

}  // namespace hone
