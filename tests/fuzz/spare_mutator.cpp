// Changes programs edit by edit, so that most of what is tried means something.
#include <algorithm>
#include <cstring>
#include <random>

#include "spare_program.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max);

namespace remap::fuzz {
namespace {

using Random = std::minstd_rand;

constexpr std::size_t kHeader = sizeof(ProgramHeader);

unsigned below(Random& random, std::size_t n) {
    return static_cast<unsigned>(random() % n);
}

// Values at which something may turn over.
std::uint64_t telling_value(Random& random) {
    constexpr std::uint64_t kValues[] = {0,
                                         1,
                                         2,
                                         3,
                                         4,
                                         5,
                                         8,
                                         16,
                                         125,
                                         126,
                                         127,
                                         0x1ff,
                                         0x2000,
                                         0xffff,
                                         0x7fffffff,
                                         0xffffffff,
                                         1ULL << 32,
                                         1ULL << 46,
                                         (1ULL << 54) - 1,
                                         1ULL << 54,
                                         INT64_MAX,
                                         1ULL << 63};
    const std::uint64_t value = kValues[below(random, std::size(kValues))];
    switch (below(random, 4)) {
        case 0:
            return -value;
        case 1:
            return value + below(random, 16) - 8;
        case 2:
            return below(random, 256);
        default:
            return value;
    }
}

Edit new_edit(Random& random) {
    Edit edit{};
    edit.verb = below(random, static_cast<unsigned>(Verb::kVerbs));
    // Mostly in both replicas, and with a right CRC.
    edit.where = below(random, 2) != 0 ? below(random, 4) << 2 : below(random, 32);
    edit.where |= below(random, 8) == 0 ? 0x20 : 0;
    edit.index = below(random, 4) == 0 ? below(random, 256) : below(random, 3);
    edit.entry = below(random, 4) == 0 ? below(random, 126) : below(random, 4);
    edit.field = below(random, 40);
    std::uint64_t value = telling_value(random);
    if (static_cast<Verb>(edit.verb) == Verb::record) {
        // Near one another, so that they meet; short.
        value = below(random, 64) | below(random, 64) << 16 |
                std::uint64_t{below(random, 8)} << 32 | std::uint64_t{below(random, 256)} << 48;
    }
    std::memcpy(edit.value, &value, sizeof(edit.value));
    return edit;
}

void change(Edit& edit, Random& random) {
    const Edit other = new_edit(random);
    std::uint64_t value = 0;
    switch (below(random, 7)) {
        case 0:
            edit.where = other.where;
            break;
        case 1:
            edit.index = other.index;
            break;
        case 2:
            edit.entry = other.entry;
            break;
        case 3:
            edit.field = other.field;
            break;
        case 4:
            std::memcpy(edit.value, other.value, sizeof(edit.value));
            break;
        case 5:
            std::memcpy(&value, edit.value, sizeof(value));
            value += below(random, 9) - 4U;
            std::memcpy(edit.value, &value, sizeof(value));
            break;
        default:
            edit.value[below(random, sizeof(edit.value))] ^= 1U << below(random, 8);
    }
}

void change_header(std::uint8_t* data, Random& random) {
    switch (below(random, 4)) {
        case 0:
            data[0] = below(random, 22);
            break;
        case 1:
            data[1] = below(random, 2) == 0 ? 0 : below(random, 8);
            break;
        case 2:
            data[2] = below(random, 4);
            break;
        default:
            data[3] = below(random, 2) == 0 ? 0 : below(random, 16);
    }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max, unsigned seed) {
    Random random(seed);
    if (size < kHeader || max < kHeader + sizeof(Edit)) {
        return LLVMFuzzerMutate(data, size, max);
    }
    const std::size_t n = (size - kHeader) / sizeof(Edit);
    auto* const edits = data + kHeader;
    const auto at = [&](std::size_t i) { return edits + i * sizeof(Edit); };
    const unsigned way = n == 0 ? 0 : below(random, 16);
    if (way < 5) {
        // One more, a new one or one that is there, anywhere.
        if (kHeader + (n + 1) * sizeof(Edit) <= max) {
            Edit edit = new_edit(random);
            if (way == 4) {
                std::memcpy(&edit, at(below(random, n)), sizeof(edit));
                change(edit, random);
            }
            const std::size_t i = below(random, n + 1);
            std::memmove(at(i + 1), at(i), (n - i) * sizeof(Edit));
            std::memcpy(at(i), &edit, sizeof(edit));
            return kHeader + (n + 1) * sizeof(Edit);
        }
    }
    if (way == 5) {
        const std::size_t i = below(random, n);
        std::memmove(at(i), at(i + 1), (n - i - 1) * sizeof(Edit));
        return kHeader + (n - 1) * sizeof(Edit);
    }
    if (way == 6) {
        change_header(data, random);
        return size;
    }
    if (way == 7) {
        return LLVMFuzzerMutate(data, size, max);
    }
    Edit edit{};
    const std::size_t i = below(random, n);
    std::memcpy(&edit, at(i), sizeof(edit));
    change(edit, random);
    std::memcpy(at(i), &edit, sizeof(edit));
    return size;
}

}  // namespace remap::fuzz
