// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core.h"
#include "temp_dir.h"

namespace remap::test {

// Two image files: a main device, and its spare with records in table and journal.
class SpareImage {
  public:
    enum class Content { empty, records };

    explicit SpareImage(Content content);

    std::string main() const { return dir_.path("main.img"); }
    std::string spare() const { return dir_.path("spare.img"); }
    const dm_remap_layout& layout() const { return layout_; }
    std::uint64_t spare_bytes() const;

    // Sequences in the journal that the table does not have.
    std::uint64_t journal_start() const { return journal_start_; }

    std::vector<std::uint8_t> read(std::uint64_t offset, std::size_t size) const;
    void write(std::uint64_t offset, const std::vector<std::uint8_t>& bytes) const;
    void flip_bit(std::uint64_t offset, unsigned int bit) const;
    // One block of 4 KiB.
    void zero_block(std::uint64_t block) const;
    void resize(std::uint64_t bytes) const;
    // The record that begins at a sector lives where the spare could not read it, says a commit.
    void mark(std::uint64_t sector) const;

    static constexpr std::uint64_t table_records = 200;  // two blocks
    static constexpr std::uint64_t journal_records = 3;  // one commit each

  private:
    void add_records() const;
    void read_layout();

    TempDir dir_;
    dm_remap_layout layout_{};
    std::uint64_t journal_start_ = 0;
};

}  // namespace remap::test
