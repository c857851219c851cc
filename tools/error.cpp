// SPDX-License-Identifier: GPL-2.0-only
#include "error.h"

#include <fmt/format.h>

#include <system_error>

namespace remap {

Error Error::from_errno(int number, std::string_view doing) {
    return Error(fmt::format("cannot {}: {}", doing, std::generic_category().message(number)));
}

Error Error::within(std::string_view where) && {
    what_ = fmt::format("{}: {}", where, what_);
    return std::move(*this);
}

Error Error::advise(std::string advice) && {
    advice_ = std::move(advice);
    return std::move(*this);
}

Error Error::quote_kernel(std::vector<std::string> lines) && {
    kernel_lines_ = std::move(lines);
    return std::move(*this);
}

std::string Error::text() const {
    std::string text = what_;
    for (const std::string& line : kernel_lines_) {
        text += fmt::format("\n  kernel: {}", line);
    }
    if (!advice_.empty()) {
        text += fmt::format("\n  {}", advice_);
    }
    return text;
}

}  // namespace remap
