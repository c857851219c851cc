// SPDX-License-Identifier: GPL-2.0-only
#include "error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace remap {
namespace {

TEST(Error, ContextGrowsOutwards) {
    const Error error =
        Error::from_errno(ENOSPC, "write").within("superblock 1").within("/dev/sdc");
    EXPECT_EQ(error.text(), "/dev/sdc: superblock 1: cannot write: No space left on device");
}

TEST(Error, QuotesTheKernelAndThenAdvises) {
    const Error error = Error("x: cannot create it")
                            .advise("Use another spare.")
                            .quote_kernel({"table: 253:0: remap: spare too small"})
                            .within("outer");
    EXPECT_EQ(error.text(),
              "outer: x: cannot create it\n"
              "  kernel: table: 253:0: remap: spare too small\n"
              "  Use another spare.");
}

}  // namespace
}  // namespace remap
