// What is played: a seed decides all of it, and a plan what of that is left out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace remap::sim {

// What a history can do without, while one looks for what matters in it.
enum Without : unsigned {
    kNoMeanwhile = 1U << 0,  // nobody else goes on while the core is at work
    kNoStop = 1U << 1,       // nobody interrupts it
    kNoShortage = 1U << 2,   // there is memory
    kNoDamage = 1U << 3,     // nothing is spoiled while the power is off
    kNoLoss = 1U << 4,       // what was written and not flushed survives
    kNoTear = 1U << 5,       // all of a write that was interrupted survives, or nothing
};
inline constexpr unsigned kNrWithout = 6;

// Turns go on by themselves: each has random numbers of its own, so that leaving one out changes
// no other's.
using Turn = std::uint32_t;

struct Plan {
    std::uint64_t seed = 0;
    std::vector<Turn> turns;  // ascending
    unsigned without = 0;     // enum Without
};

// All that a seed does with so many power cuts.
Plan whole_plan(std::uint64_t seed, unsigned cuts);

// "0-3,7,9-11". parse_turns: false if it is none.
std::string turns_text(const std::vector<Turn>& turns);
bool parse_turns(const std::string& text, std::vector<Turn>* turns);
// "damage,loss", and "" for nothing.
std::string without_text(unsigned without);
bool parse_without(const std::string& text, unsigned* without);

}  // namespace remap::sim
