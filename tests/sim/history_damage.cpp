// What is spoiled while the power is off.
#include <algorithm>

#include "contents.h"
#include "history.h"
#include "trace.h"

namespace remap::sim {

// ---- where ----

std::vector<std::uint64_t> History::metadata_blocks(int replica) const {
    std::vector<std::uint64_t> all{dm_remap_superblock_at(&layout_, replica)};
    for (std::uint32_t i = 0; i < layout_.journal_blocks; i++) {
        all.push_back(dm_remap_journal_at(&layout_, replica, i));
    }
    for (int table = 0; table < 2; table++) {
        for (std::uint32_t i = 0; i < layout_.table_blocks; i++) {
            all.push_back(dm_remap_table_at(&layout_, replica, table) + i);
        }
    }
    return all;
}

// Mostly one of those in use.
std::uint64_t History::any_metadata_block(int replica) {
    switch (random_.below(4)) {
        case 0:
            return dm_remap_superblock_at(&layout_, replica);
        case 1:
            return dm_remap_table_at(&layout_, replica, static_cast<int>(random_.below(2)));
        case 2:
            return dm_remap_journal_at(&layout_, replica, random_.below(layout_.journal_blocks));
        default:
            const std::vector<std::uint64_t> all = metadata_blocks(replica);
            return all[random_.below(all.size())];
    }
}

bool History::metadata_readable() const {
    const std::uint64_t start = dm_remap_data_start(&layout_);
    const std::uint64_t end = dm_remap_data_end(&layout_);
    const Faults& faults = machine_.spare_faults;
    return std::none_of(faults.faulty().begin(), faults.faulty().end(), [&](std::uint64_t s) {
        return (s < start || s >= end) && faults.reads_to_fail(s) != 0;
    });
}

bool History::metadata_faults() const {
    const std::uint64_t start = dm_remap_data_start(&layout_);
    const std::uint64_t end = dm_remap_data_end(&layout_);
    const Faults& faults = machine_.spare_faults;
    return faults.any(0, start) || faults.any(end, geometry_.params.spare_sectors - end);
}

void History::heal_metadata_faults() {
    const std::uint64_t start = dm_remap_data_start(&layout_);
    const std::uint64_t end = dm_remap_data_end(&layout_);
    machine_.spare_faults.heal(0, start);
    machine_.spare_faults.heal(end, geometry_.params.spare_sectors - end);
}

History::Block History::block_at(std::uint64_t block) {
    Block copy{};
    const auto bytes = machine_.spare.peek(block * kBlockSectors, kBlockSectors);
    std::copy(bytes.begin(), bytes.end(), copy.bytes.begin());
    return copy;
}

void History::put_block(std::uint64_t block, const Block& what) {
    machine_.spare.poke(block * kBlockSectors, what.bytes);
}

bool History::superblock_at(int replica, dm_remap_super* sb) {
    const std::uint64_t at = dm_remap_superblock_at(&layout_, replica);
    const Block block = block_at(at);
    return dm_remap_super_decode(sb, block.bytes.data(), at) == DM_REMAP_VALID;
}

// ---- one block ----

void History::fill(Block& block, std::size_t begin, std::size_t end) {
    const bool zero = random_.coin();
    for (std::size_t i = begin; i < end; i++) {
        block.bytes[i] = static_cast<std::uint8_t>(zero ? 0 : random_.next());
    }
}

void History::spoil_block(std::uint64_t at) {
    Block block = block_at(at);
    const std::size_t sector = random_.below(kBlockSectors) * kSector;
    const std::uint64_t how = random_.below(4);
    trace("    block %lu is spoiled: %lu", at, how);
    switch (how) {
        case 0:
            block.bytes[random_.below(kBlock)] ^= 1U << random_.below(8);
            break;
        case 1:
            fill(block, sector, sector + kSector);
            break;
        case 2:
            fill(block, 0, kBlock);
            break;
        default:
            // What belongs elsewhere was written here. What came from here, once, would be an
            // older state, and not damage.
            block = block_at(any_metadata_block(static_cast<int>(random_.below(2))));
            if (le64toh(block.disk()->header.block) == at) {
                fill(block, 0, kBlock);
            }
    }
    put_block(at, block);
}

// ---- what must be survived ----

// Has one superblock not heard of the last checkpoint or activation? That is when it counts which
// of them is lost.
bool History::superblock_lags(unsigned* newer) {
    dm_remap_super sb[DM_REMAP_REPLICAS]{};
    if (!superblock_at(0, &sb[0]) || !superblock_at(1, &sb[1])) {
        return false;
    }
    *newer = sb[1].generation > sb[0].generation ? 1 : 0;
    return sb[0].generation != sb[1].generation;
}

// Would the other replica do alone? Not where it is known to lack a table.
bool History::may_lose(int replica) {
    const unsigned other = 1U << !replica;
    dm_remap_super sb{};
    bool may = superblock_at(!replica, &sb) && (sb.table_copies & other) != 0;
    if (superblock_at(replica, &sb)) {
        may = may && (sb.table_copies & other) != 0;
    }
    return may;
}

// Some blocks, or all of that end of the spare.
void History::damage_replica() {
    const auto replica = static_cast<int>(metadata_side_);
    if (!may_lose(replica)) {
        return;
    }
    stats_[kDamaged]++;
    damaged_ = true;
    if (random_.one_in(4)) {
        trace("  replica %d is lost", replica);
        for (const std::uint64_t at : metadata_blocks(replica)) {
            Block block{};
            fill(block, 0, random_.one_in(8) ? kBlock : kSector);
            put_block(at, block);
        }
        return;
    }
    trace("  replica %d is damaged", replica);
    for (std::uint64_t n = random_.between(1, random_.coin() ? 1 : 8); n != 0; n--) {
        spoil_block(any_metadata_block(replica));
    }
}

// Have both ends the last superblock, and the same commits?
bool History::ends_agree() {
    dm_remap_super sb[DM_REMAP_REPLICAS]{};
    if (!superblock_at(0, &sb[0]) || !superblock_at(1, &sb[1]) ||
        sb[0].generation != sb[1].generation || sb[0].nonce != sb[1].nonce) {
        return false;
    }
    for (std::uint64_t i = 0; i < layout_.journal_blocks; i++) {
        const std::uint64_t at[] = {dm_remap_journal_at(&layout_, 0, i),
                                    dm_remap_journal_at(&layout_, 1, i)};
        const Block block[] = {block_at(at[0]), block_at(at[1])};
        if (dm_remap_chain_value(block[0].disk(), at[0]) !=
            dm_remap_chain_value(block[1].disk(), at[0])) {
            return false;
        }
    }
    return true;
}

// The last write of one block has left it as it was before: an older state, whole. Of what came
// last an end may lack one thing, so the activation that mends it is not interrupted.
void History::lose_write() {
    const auto replica = static_cast<int>(metadata_side_);
    const std::vector<std::uint64_t> blocks = metadata_blocks(replica);
    const std::uint64_t at =
        random_.coin() ? blocks[random_.below(blocks.size())] : any_metadata_block(replica);
    const auto before = machine_.before.find(at);
    if (before == machine_.before.end() || !may_lose(replica) || !ends_agree()) {
        return;
    }
    trace("  block %lu has lost its last write", at);
    stats_[kLostWrites]++;
    damaged_ = true;
    machine_.spare.poke(at * kBlockSectors, before->second);
    machine_.cut_power_in(0);
    machine_.spare_faults.set_outage(Outage::none, 0);
    machine_.spare_faults.heal(0, machine_.spare.sectors());
}

// Its superblock cannot be read for now, so that another one counts, and then it is back.
void History::hide_superblock(int replica) {
    if (!may_lose(replica)) {
        return;
    }
    const std::uint64_t s = dm_remap_superblock_at(&layout_, replica) * kBlockSectors;
    trace("  superblock %d is out of reach for a while", replica);
    machine_.spare_faults.fail_reads(s, static_cast<Times>(random_.between(1, 2)));
    machine_.spare_faults.fail_writes(s, static_cast<Times>(random_.between(1, 3)));
}

// ---- what must be survived, or refused ----

// The highest sequence of a commit that is found, and the first that a load begins with. False:
// there is none between the two.
bool History::journal_range(std::uint64_t* start, std::uint64_t* last) {
    dm_remap_super sb[DM_REMAP_REPLICAS]{};
    const bool head = superblock_at(0, &sb[0]);
    const bool tail = superblock_at(1, &sb[1]);
    if (!head && !tail) {
        return false;
    }
    const dm_remap_super& newest = sb[!head || (tail && sb[1].generation > sb[0].generation)];
    *start = *last = newest.journal_start;
    for (std::uint64_t i = 0; i < 2ULL * layout_.journal_blocks; i++) {
        const std::uint64_t at = dm_remap_journal_at(&layout_, static_cast<int>(i & 1), i / 2);
        const Block block = block_at(at);
        const dm_remap_disk_header& header = block.disk()->header;
        const std::uint64_t sequence = le64toh(header.sequence);
        // What an earlier activation left, and this one did not see, does not count.
        if (dm_remap_block_verdict(block.disk(), DM_REMAP_JOURNAL, &newest, at) == DM_REMAP_VALID &&
            header.count != 0 &&
            (sequence < newest.activation_sequence ||
             le64toh(header.activation) >= newest.activation)) {
            *last = std::max(*last, sequence);
        }
    }
    return *start < *last;
}

// Another record than was written there, under a right CRC.
void History::forge(std::uint64_t at) {
    Block block = block_at(at);
    auto* disk = reinterpret_cast<dm_remap_disk_block*>(block.bytes.data());
    const std::uint16_t count = le16toh(disk->header.count);
    if (count == 0 || count > DM_REMAP_ENTRIES_PER_BLOCK) {
        return;
    }
    dm_remap_disk_entry& entry = disk->entry[forged_ % count];
    dm_remap_record r{};
    dm_remap_entry_decode(&r, &entry);
    if (r.kind == DM_REMAP_MAPPED && forged_ % 3 != 0) {
        r.kind = DM_REMAP_PENDING;
        r.spare = 0;
    } else {
        r.main = forged_ % blocks_ * g_;
    }
    dm_remap_entry_encode(&entry, &r);
    dm_remap_block_seal(disk, at);
    put_block(at, block);
}

// Both copies of a block, which is not the journal's last: who loses that loses what was
// acknowledged, and cannot know it.
void History::spoil_both(std::uint64_t first, std::uint64_t second) {
    forged_ = random_.next();
    const bool forged = random_.coin();
    trace("  blocks %lu and %lu, one another's copies, are %s", first, second,
          forged ? "forged" : "spoiled");
    for (const std::uint64_t at : {first, second}) {
        if (forged) {
            forge(at);
        } else {
            spoil_block(at);
        }
    }
}

void History::spoil_journal() {
    std::uint64_t start = 0;
    std::uint64_t last = 0;
    if (journal_range(&start, &last)) {
        const std::uint64_t sequence = random_.between(start, last - 1);
        spoil_both(dm_remap_journal_at(&layout_, 0, sequence),
                   dm_remap_journal_at(&layout_, 1, sequence));
    }
}

void History::spoil_table() {
    dm_remap_super sb{};
    if ((superblock_at(0, &sb) || superblock_at(1, &sb)) && sb.table_count != 0) {
        const std::uint64_t block = random_.below(sb.table_count);
        spoil_both(dm_remap_table_at(&layout_, 0, sb.active_table) + block,
                   dm_remap_table_at(&layout_, 1, sb.active_table) + block);
    }
}

// Of each block one copy at most.
void History::spoil_everywhere() {
    const std::vector<std::uint64_t> blocks[] = {metadata_blocks(0), metadata_blocks(1)};
    const std::uint64_t one_in = random_.between(1, 8);
    trace("  blocks of both replicas are spoiled");
    for (std::size_t i = 0; i < blocks[0].size(); i++) {
        if (random_.one_in(one_in)) {
            spoil_block(blocks[random_.below(2)][i]);
        }
    }
}

// One end is from an earlier time.
void History::turn_back() {
    if (earlier_.empty()) {
        return;
    }
    const auto replica = static_cast<int>(random_.below(2));
    trace("  replica %d is an earlier one", replica);
    for (const std::uint64_t at : metadata_blocks(replica)) {
        machine_.spare.poke(at * kBlockSectors, std::span(earlier_).subspan(at * kBlock, kBlock));
    }
}

// Is all that was published in @md, and what leads to its data?
void History::check_loaded(const dm_remap_metadata& md) {
    for (std::uint64_t b = 0; b < blocks_; b++) {
        dm_remap_extent e{};
        dm_remap_table_lookup(&md.table, b * g_, g_, &e);
        if ((published_[b].flags & DM_REMAP_F_DOUBT) != 0) {
            continue;
        }
        const bool mapped = e.kind == DM_REMAP_MAPPED;
        if (mapped != (published_[b].kind == DM_REMAP_MAPPED) ||
            (mapped && e.spare != published_[b].spare) ||
            (saved_pending_[b] && published_[b].kind == DM_REMAP_PENDING &&
             e.kind != DM_REMAP_PENDING)) {
            violated(kTableWhole,
                     "a spoiled spare is accepted; sector %lu was %s at %lu, and is %s at %lu",
                     b * g_, dm_remap_kind_name(published_[b].kind), published_[b].spare,
                     dm_remap_kind_name(e.kind), e.spare);
        }
    }
}

// A spare as no promise covers it is refused, with a reason, or read right. Then it is as it was.
void History::try_spoiled() {
    const Image whole = machine_.spare.image();
    switch (random_.below(6)) {
        case 0:
        case 1:
            spoil_journal();
            break;
        case 2:
            spoil_table();
            break;
        case 3:
            spoil_both(dm_remap_superblock_at(&layout_, 0), dm_remap_superblock_at(&layout_, 1));
            break;
        case 4:
            spoil_everywhere();
            break;
        default:
            turn_back();
    }
    stats_[kSpoiled]++;
    machine_.memory.plenty();
    dm_remap_metadata md{};
    dm_remap_report report{};
    if (dm_remap_metadata_init(&md, &Machine::kOps, &machine_) != 0) {
        violated(kService, "no memory");
    }
    machine_.patient = true;
    const int error =
        dm_remap_load(&md, machine_.spare.sectors(), machine_.main.sectors(), &report);
    machine_.patient = false;
    trace("  load: %d, %s", error, report.refusal != nullptr ? report.refusal : "accepted");
    stats_[kSpoiledRefused] += error != 0;
    if (error != 0 && report.refusal == nullptr) {
        violated(kTableWhole, "load refuses, and does not say why");
    }
    if (error == 0) {
        check_loaded(md);
    }
    dm_remap_metadata_exit(&md);
    machine_.spare.poke(0, whole);
    if (random_.one_in(4)) {
        earlier_ = whole;
    }
}

// ---- all of it ----

// The write that the power failed in has left sectors that cannot be read, for now or until they
// are written again.
void History::tear_unreadable() {
    const Machine::Interrupted& write = machine_.interrupted;
    const auto times = static_cast<Times>(random_.coin() ? kForGood : random_.between(1, 6));
    const bool some = random_.coin();
    const auto replica = write.sector >= dm_remap_data_end(&layout_) ? 1U : 0U;
    const bool metadata = write.dev == DM_REMAP_SPARE &&
                          (write.sector < dm_remap_data_start(&layout_) || replica == 1);
    if (metadata && replica != metadata_side_) {
        if (damaged_ || !metadata_readable()) {
            return;
        }
        metadata_side_ = replica;
    }
    trace("  %s %lu+%u: torn, and unreadable %u times",
          write.dev == DM_REMAP_MAIN ? "main" : "spare", write.sector, write.length, times);
    for (std::uint64_t s = write.sector; s < write.sector + write.length; s++) {
        if (!some || random_.coin()) {
            machine_.faults(write.dev).fail_reads(s, times);
        }
    }
    // Then who is switched on again may leave no trace on one of the ends.
    if (metadata && random_.one_in(4)) {
        trace("  superblock 0 cannot be written");
        machine_.spare_faults.fail_writes(dm_remap_superblock_at(&layout_, 0) * kBlockSectors,
                                          random_.coin() ? 2 : kForGood);
    }
}

void History::damage() {
    // Who is switched off in order has written what was in the cache.
    machine_.spare.flush();
    if (random_.one_in(4)) {
        heal_metadata_faults();
    }
    unsigned newer = 0;
    const bool lags = superblock_lags(&newer);
    const bool faults = metadata_faults();
    const bool damages = random_.one_in(lags ? 2 : 5);
    const bool spoils = !faults && !damaged_ && !damages && random_.one_in(6);
    const bool torn = random_.one_in(6) && machine_.interrupted.length != 0;
    // Loss of the one end is survived whatever the other one does not take any more.
    if (!damaged_ && metadata_readable()) {
        metadata_side_ =
            lags && !random_.one_in(4) ? newer : static_cast<unsigned>(random_.below(2));
    }
    if ((plan_.without & kNoDamage) != 0) {
        return;
    }
    if (torn) {
        tear_unreadable();
    } else if (damages && !damaged_ && lags && random_.coin()) {
        hide_superblock(static_cast<int>(metadata_side_));
    } else if (damages && !damaged_ && random_.one_in(3)) {
        lose_write();
    } else if (damages) {
        damage_replica();
    } else if (spoils) {
        try_spoiled();
    }
}

// Loaded and activated without a fault, both replicas are whole again.
void History::note_mended() {
    const dm_remap_metadata* md = layer_.md();
    if (machine_.on() && !metadata_faults() && md->mode == DM_REMAP_MODE_RW &&
        md->doubt == nullptr) {
        damaged_ = false;
    }
}

}  // namespace remap::sim
