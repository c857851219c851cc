// The schedule of those who work on ranges.
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <memory>
#include <random>
#include <vector>

#include "core.h"

namespace remap {
namespace {

class Schedule : public ::testing::Test {
  protected:
    void SetUp() override {
        dm_remap_schedule_init(
            &s_, [](void* ctx) { ++*static_cast<unsigned*>(ctx); }, &kicks_);
    }
    dm_remap_job* add(dm_remap_job_kind kind, std::uint64_t start, std::uint64_t length) {
        jobs_.emplace_back();
        dm_remap_job_add(&s_, &jobs_.back(), kind, start, length);
        return &jobs_.back();
    }
    dm_remap_job* write(std::uint64_t start, std::uint64_t length = 8) {
        return add(DM_REMAP_JOB_WRITE, start, length);
    }
    dm_remap_job* read(std::uint64_t start, std::uint64_t length = 8) {
        return add(DM_REMAP_JOB_READ, start, length);
    }
    dm_remap_job* pending(std::uint64_t start, std::uint64_t length = 8) {
        return add(DM_REMAP_JOB_PENDING, start, length);
    }
    dm_remap_job* next() { return dm_remap_job_next(&s_, DM_REMAP_FOR_ANY); }
    dm_remap_job* next_write() { return dm_remap_job_next(&s_, DM_REMAP_FOR_WRITES); }
    dm_remap_job* next_read() { return dm_remap_job_next(&s_, DM_REMAP_FOR_READS); }
    void done(dm_remap_job* job) { dm_remap_job_done(&s_, job); }
    // A read of the range fails.
    void unread(std::uint64_t start, std::uint64_t length, std::uint64_t took, std::uint64_t now) {
        const unsigned number = dm_remap_unread_begin(&s_, start, length);
        dm_remap_unread_add(&s_, number, start, length, took, now);
        dm_remap_unread_end(&s_, number);
    }

    dm_remap_schedule s_{};
    std::list<dm_remap_job> jobs_;  // where they are they stay
    unsigned kicks_ = 0;
};

TEST_F(Schedule, JobsThatDoNotOverlapRunTogether) {
    dm_remap_job* a = write(0);
    dm_remap_job* b = write(8);
    EXPECT_EQ(next(), a);
    EXPECT_EQ(next(), b);
    EXPECT_EQ(next(), nullptr);
    done(b);
    done(a);
    EXPECT_TRUE(dm_remap_schedule_is_idle(&s_));
}

TEST_F(Schedule, JobsThatOverlapRunInTheOrderInWhichTheyCame) {
    dm_remap_job* first = write(0, 16);
    dm_remap_job* second = read(8, 16);
    dm_remap_job* third = write(16, 16);
    dm_remap_job* other = write(100);
    EXPECT_EQ(next(), first);
    EXPECT_EQ(next(), other);
    EXPECT_EQ(next(), nullptr) << "the third overlaps the second, which waits";
    done(first);
    EXPECT_EQ(next(), second);
    EXPECT_EQ(next(), nullptr);
    done(second);
    EXPECT_EQ(next(), third);
}

TEST_F(Schedule, AJobWaitsForEachThatOverlapsIt) {
    dm_remap_job* a = write(0);
    dm_remap_job* b = write(8);
    dm_remap_job* both = write(4, 8);
    EXPECT_EQ(next(), a);
    EXPECT_EQ(next(), b);
    done(b);
    EXPECT_EQ(next(), nullptr);
    done(a);
    EXPECT_EQ(next(), both);
}

TEST_F(Schedule, OneMoverIsForWritesAlone) {
    dm_remap_job* r = read(0);
    dm_remap_job* p = pending(8);
    EXPECT_EQ(next_write(), nullptr);
    dm_remap_job* w = write(16);
    EXPECT_EQ(next_write(), w);
    EXPECT_EQ(next(), r);
    EXPECT_EQ(next(), p);
}

TEST_F(Schedule, OneMoverIsForReadsAlone) {
    write(0);
    EXPECT_EQ(next_read(), nullptr);
    dm_remap_job* p = pending(8);
    dm_remap_job* r = read(16);
    EXPECT_EQ(next_read(), p) << "or reads that failed would keep it waiting";
    EXPECT_EQ(next_read(), r);
    unsigned roles[3] = {};
    for (unsigned i = 0; i < DM_REMAP_MOVERS; i++) {
        roles[dm_remap_role_of(i)]++;
    }
    EXPECT_EQ(roles[DM_REMAP_FOR_WRITES], 1U);
    EXPECT_EQ(roles[DM_REMAP_FOR_READS], 1U);
}

TEST_F(Schedule, OneReadOfWhatIsPendingAtATime) {
    dm_remap_job* first = pending(0);
    dm_remap_job* second = pending(8);
    dm_remap_job* r = read(16);
    EXPECT_EQ(next(), r) << "others do not wait behind them";
    EXPECT_EQ(next(), first);
    EXPECT_EQ(next(), nullptr);
    done(first);
    EXPECT_EQ(next(), second);
    done(second);
    done(r);
    EXPECT_TRUE(dm_remap_schedule_is_idle(&s_));
}

// One that is redone, and not one that the spare keeps.
TEST_F(Schedule, SaysWhetherWritesUseMain) {
    dm_remap_job* w = write(0);
    EXPECT_FALSE(dm_remap_writes_use_main(&s_, 0));
    EXPECT_EQ(next_write(), w);
    EXPECT_FALSE(dm_remap_writes_use_main(&s_, 100));
    dm_remap_write_on_main(&s_);
    EXPECT_TRUE(dm_remap_writes_use_main(&s_, 100));
    EXPECT_TRUE(dm_remap_writes_use_main(&s_, 200));
    dm_remap_write_off_main(&s_, 200);
    EXPECT_TRUE(dm_remap_writes_use_main(&s_, 201)) << "the next command may follow";
    EXPECT_FALSE(dm_remap_writes_use_main(&s_, 202));
    dm_remap_write_on_main(&s_);
    dm_remap_write_off_main(&s_, 300);
    done(w);
    EXPECT_FALSE(dm_remap_writes_use_main(&s_, 300));
}

TEST_F(Schedule, KicksWhenATurnMayHaveCome) {
    dm_remap_job* w = write(0);
    EXPECT_EQ(kicks_, 1U);
    write(4);
    EXPECT_EQ(kicks_, 1U) << "it waits for the first";
    EXPECT_EQ(next(), w);
    done(w);
    EXPECT_EQ(kicks_, 2U);
}

TEST_F(Schedule, AClaimWaitsForItsTurnAndOthersForIt) {
    dm_remap_job* w = write(0);
    dm_remap_job claim{};
    dm_remap_job_claim(&s_, &claim, 0, 100);
    dm_remap_job* later = write(50);
    EXPECT_FALSE(dm_remap_job_claimed(&s_, &claim));
    EXPECT_EQ(next(), w);
    EXPECT_EQ(next(), nullptr);
    done(w);
    EXPECT_TRUE(dm_remap_job_claimed(&s_, &claim));
    EXPECT_EQ(next(), nullptr);
    done(&claim);
    EXPECT_EQ(next(), later);
}

TEST_F(Schedule, AClaimThatIsGivenUpKeepsNobodyWaiting) {
    dm_remap_job* w = write(0);
    dm_remap_job claim{};
    dm_remap_job_claim(&s_, &claim, 0, 100);
    dm_remap_job* later = write(50);
    EXPECT_EQ(next(), w);
    done(&claim);
    EXPECT_EQ(next(), later);
}

TEST_F(Schedule, AClaimThatDoesNotWaitTakesNothingFromOthers) {
    dm_remap_job* w = write(0);
    dm_remap_job claim{};
    EXPECT_FALSE(dm_remap_job_claim_now(&s_, &claim, 4, 8));
    EXPECT_TRUE(dm_remap_job_claim_now(&s_, &claim, 8, 8));
    dm_remap_job* later = write(12);
    EXPECT_EQ(next(), w);
    EXPECT_EQ(next(), nullptr);
    done(&claim);
    EXPECT_EQ(next(), later);
}

TEST_F(Schedule, TheAnswerOfAFailedReadServesOthersForAsLongAsItTook) {
    std::uint64_t length = 8;
    unread(100, 8, 3, 1000);
    EXPECT_TRUE(dm_remap_unread(&s_, 100, &length, 1000));
    EXPECT_EQ(length, 8U);
    EXPECT_TRUE(dm_remap_unread(&s_, 100, &length, 1002));
    EXPECT_FALSE(dm_remap_unread(&s_, 100, &length, 1003));
    unread(100, 8, 60, 1000);
    EXPECT_TRUE(dm_remap_unread(&s_, 100, &length, 1000 + DM_REMAP_UNREAD_PAUSE - 1));
    EXPECT_FALSE(dm_remap_unread(&s_, 100, &length, 1000 + DM_REMAP_UNREAD_PAUSE));
}

TEST_F(Schedule, TheAnswerIsForThoseSectorsAlone) {
    unread(100, 8, 3, 1000);
    std::uint64_t length = 100;
    EXPECT_FALSE(dm_remap_unread(&s_, 90, &length, 1000));
    EXPECT_EQ(length, 10U) << "up to there";
    length = 100;
    EXPECT_TRUE(dm_remap_unread(&s_, 104, &length, 1000));
    EXPECT_EQ(length, 4U);
    length = 100;
    EXPECT_FALSE(dm_remap_unread(&s_, 108, &length, 1000));
    EXPECT_EQ(length, 100U);
    length = 10;
    EXPECT_FALSE(dm_remap_unread(&s_, 90, &length, 1000));
    EXPECT_EQ(length, 10U);
}

TEST_F(Schedule, AWriteEndsTheAnswer) {
    unread(100, 8, 3, 1000);
    std::uint64_t length = 8;
    dm_remap_unread_forget(&s_, 108, 8);
    dm_remap_unread_forget(&s_, 92, 8);
    EXPECT_TRUE(dm_remap_unread(&s_, 100, &length, 1000));
    dm_remap_unread_forget(&s_, 107, 8);
    EXPECT_FALSE(dm_remap_unread(&s_, 100, &length, 1000));
}

TEST_F(Schedule, AWriteMeanwhileMakesItNoAnswer) {
    const unsigned number = dm_remap_unread_begin(&s_, 100, 16);
    const unsigned other = dm_remap_unread_begin(&s_, 200, 16);
    dm_remap_unread_forget(&s_, 100, 1);
    dm_remap_unread_add(&s_, number, 104, 8, 3, 1000);
    dm_remap_unread_add(&s_, other, 204, 8, 3, 1000);
    std::uint64_t length = 8;
    EXPECT_FALSE(dm_remap_unread(&s_, 104, &length, 1000));
    EXPECT_TRUE(dm_remap_unread(&s_, 204, &length, 1000));
}

TEST_F(Schedule, RemembersTheLatestAnswers) {
    for (unsigned i = 0; i <= DM_REMAP_UNREAD; i++) {
        unread(100ULL * i, 8, 3, 1000);
    }
    std::uint64_t length = 8;
    EXPECT_FALSE(dm_remap_unread(&s_, 0, &length, 1000));
    for (unsigned i = 1; i <= DM_REMAP_UNREAD; i++) {
        EXPECT_TRUE(dm_remap_unread(&s_, 100 * i, &length, 1000)) << i;
    }
}

// Jobs come, begin and end in any order. No two that overlap run at once. None overtakes one that
// it overlaps. In the end all have run.
TEST_F(Schedule, KeepsItsRulesInAnyOrder) {
    for (unsigned seed = 0; seed < 200; seed++) {
        SetUp();
        std::mt19937 random(seed);
        struct Known {
            dm_remap_job job{};
            bool claim = false;
            bool runs = false;
        };
        std::list<std::unique_ptr<Known>> all;  // in the order in which they came
        const auto overlap = [](const Known& a, const Known& b) {
            return a.job.start < b.job.end && b.job.start < a.job.end;
        };
        const auto may_run = [&](const Known& k) {
            for (const auto& other : all) {
                if (other.get() == &k) {
                    return true;
                }
                if (overlap(*other, k)) {
                    return false;
                }
            }
            return true;
        };
        const auto begin = [&](dm_remap_job* job) {
            const auto it =
                std::find_if(all.begin(), all.end(), [&](const auto& k) { return &k->job == job; });
            ASSERT_NE(it, all.end());
            EXPECT_FALSE((*it)->runs);
            EXPECT_TRUE(may_run(**it));
            (*it)->runs = true;
        };
        unsigned left = 300;
        while (left != 0 || !all.empty()) {
            const unsigned what = random() % 4;
            if (what == 0 && left != 0) {
                left--;
                auto k = std::make_unique<Known>();
                k->claim = random() % 4 == 0;
                const std::uint64_t start = random() % 64;
                const std::uint64_t length = 1 + random() % 16;
                if (!k->claim) {
                    const auto kind = static_cast<dm_remap_job_kind>(random() % DM_REMAP_JOB_KINDS);
                    dm_remap_job_add(&s_, &k->job, kind, start, length);
                } else if (random() % 2 == 0) {
                    dm_remap_job_claim(&s_, &k->job, start, length);
                } else if (!dm_remap_job_claim_now(&s_, &k->job, start, length)) {
                    continue;
                }
                all.push_back(std::move(k));
            } else if (what == 1) {
                if (dm_remap_job* job =
                        dm_remap_job_next(&s_, static_cast<dm_remap_mover_role>(random() % 3))) {
                    begin(job);
                }
            } else if (what == 2) {
                for (const auto& k : all) {
                    if (k->claim) {
                        EXPECT_EQ(dm_remap_job_claimed(&s_, &k->job), may_run(*k));
                        k->runs = may_run(*k);
                    }
                }
            } else if (!all.empty()) {
                auto it = all.begin();
                std::advance(it, random() % all.size());
                if ((*it)->runs) {
                    dm_remap_job_done(&s_, &(*it)->job);
                    all.erase(it);
                }
            }
        }
        EXPECT_TRUE(dm_remap_schedule_is_idle(&s_));
        EXPECT_EQ(s_.first, nullptr);
    }
}

}  // namespace
}  // namespace remap
