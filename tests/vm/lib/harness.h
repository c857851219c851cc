// What surrounds the cases: the verdict that leaves the machine, and the checks after each case.
//
// After each case, whatever it did:
//  - the kernel log since the case before holds no trouble (is_kernel_trouble);
//  - no device-mapper device is left;
//  - `dm-remapctl check` is clean on every spare that the case registered.
// Each of these fails the case. On the debug kernel kmemleak is asked at the end whether the module
// has lost memory; that is a case of its own, Memory.NothingLeaked.
//
// With FAIL_ALLOCATIONS=<percent> in the environment so many of the allocations fail that the
// module makes in kernel threads (allocations.h). Nothing that a case sees may depend on those.
//
// Cases are plain gtest TESTs in tests/vm/cases/*.cpp. They run one after the other in one boot,
// in one process, as root. Names of suites say what else they need:
//
//   Reboot*     each test of the suite has a boot of its own, in the order of the file, on the same
//               machine_disk()s, which are blank at the suite's first. A phase ends its boot in
//               good order by returning, or by cut_power() as its last statement:
//
//                   TEST(RebootAfterRemap, Phase1) { ...; cut_power(); }
//                   TEST(RebootAfterRemap, Phase2) { ... }
//
//   Races*      on processors that really run at once, where the others take turns (boot.sh).
//
//   RebootLong*, KillStorm*
//               run only when named: they take long, or belong to kill-storm.sh.
//
//   AllocationFails*
//               run on the debug kernel alone.
//
//   Udev*       run on Debian's kernels alone: udevd needs more than the others have.
//
//   Selftest*   of the harness itself: run only when named, and expected to fail.
#pragma once

#include <string>

namespace remap::vm {

// `path` holds a spare. It is checked when the device under it goes (backing.h) or, if that stays,
// when the case ends; at that time no target may be using it.
void register_spare(const std::string& path);

// The case damaged it on purpose: don't check. (That `check` then finds the damage is for the case
// to say.)
void forget_spare(const std::string& path);

// Checks the spare if it is registered, now.
void check_spare_on(const std::string& path);

// Ends the machine at once, as a power cut does: nothing is unmounted, removed or synced. The test
// passes if it has no failure up to here; if it has one, this returns.
void cut_power();

}  // namespace remap::vm
