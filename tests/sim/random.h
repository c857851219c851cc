// Where every decision comes from: a seed, and nothing else.
#pragma once

#include <cstdint>

namespace remap::sim {

class Random {
  public:
    explicit Random(std::uint64_t seed) { begin(seed, 0); }

    // From here on numbers of their own, whatever was drawn before.
    void begin(std::uint64_t seed, std::uint64_t part) { state_ = mix(mix(seed + kGolden) + part); }

    // splitmix64
    std::uint64_t next() { return mix(state_ += kGolden); }
    // 0 to n - 1.
    std::uint64_t below(std::uint64_t n) { return next() % n; }
    std::uint64_t between(std::uint64_t low, std::uint64_t high) {
        return low + below(high - low + 1);
    }
    bool one_in(std::uint64_t n) { return below(n) == 0; }
    bool coin() { return one_in(2); }

  private:
    static constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;

    static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        return z ^ (z >> 31);
    }

    std::uint64_t state_ = 0;
};

}  // namespace remap::sim
