#include "lab.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <random>

#include "bulk.h"
#include "harness.h"
#include "remap.h"

namespace remap::bench {

void report(const std::string& name, double value) {
    std::cout << "bench " << name << ' ' << std::fixed << value << std::endl;
}

Requests requests(const std::string& disk) {
    std::ifstream stat("/sys/block/" + disk.substr(disk.rfind('/') + 1) + "/stat");
    std::array<uint64_t, 5> field{};  // Documentation/block/stat.rst
    for (auto& value : field) {
        stat >> value;
    }
    return {field[0], field[4]};
}

std::vector<uint64_t> records(Spread spread, uint64_t count) {
    std::mt19937_64 random(1);
    std::vector<uint64_t> at(count);
    const uint64_t slot = kSectors / kBlock / count;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t block = spread == Spread::kScattered ? i * slot + random() % slot
                                                            : i / 1000 * 1000 * slot + i % 1000 * 2;
        at[i] = block * kBlock + 1;
    }
    return at;
}

std::string name_of(Spread spread, uint64_t count) {
    return std::to_string(count) + (spread == Spread::kScattered ? "-scattered" : "-clustered");
}

std::vector<uint64_t> anywhere(size_t count, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<uint64_t> at(count);
    std::generate(at.begin(), at.end(), [&] { return random() % (kSectors / kBlock) * kBlock; });
    return at;
}

vm::Table Lab::line(const std::vector<std::string>& features) const {
    return vm::remap_table(main.path(), spare.path(), features);
}

vm::Table Lab::linear() const {
    return {{0, kSectors, "linear", main.path() + " 0"}};
}

void Lab::make_records(const std::vector<uint64_t>& at) const {
    { const vm::DmDevice device("remap", line({"format"})); }
    vm::register_spare(spare.path());
    vm::map_sectors(spare.path(), at);
}

}  // namespace remap::bench
