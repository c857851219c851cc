// SPDX-License-Identifier: GPL-2.0-only
#include "kernel_log.h"

#include <gtest/gtest.h>

namespace remap {
namespace {

TEST(KernelLog, TakesOurLinesWithoutTheirPrefix) {
    EXPECT_EQ(remap_line_of_kmsg(
                  "3,812,91823,-;device-mapper: table: 253:0: remap: spare is blank (-ENODATA)\n"),
              "table: 253:0: remap: spare is blank (-ENODATA)");
    EXPECT_EQ(remap_line_of_kmsg("3,813,91824,-;device-mapper: remap: home: no such message\n"
                                 " SUBSYSTEM=block\n DEVICE=b253:0\n"),
              "remap: home: no such message");
}

TEST(KernelLog, LeavesOthersOut) {
    for (const char* record :
         {"", "no prefix", "3,1,1,-;", "6,1,1,-;remap: not device-mapper's\n",
          "3,1,1,-;device-mapper: table: 253:0: linear: bad\n",
          "3,1,1,-;device-mapper: table: linear: bad\n remap=in the dictionary\n"}) {
        EXPECT_FALSE(remap_line_of_kmsg(record)) << record;
    }
}

}  // namespace
}  // namespace remap
