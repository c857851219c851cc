// SPDX-License-Identifier: GPL-2.0-only
// What went wrong, told from the outside in: "/dev/sdc: superblock 1: cannot write: No space left".
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace remap {

class Error {
  public:
    explicit Error(std::string what) : what_(std::move(what)) {}

    // "cannot <doing>: <text of the errno>"
    static Error from_errno(int number, std::string_view doing);

    // Adds where it happened, outside of what is known already.
    Error within(std::string_view where) &&;
    // What the user can do about it: a sentence.
    Error advise(std::string advice) &&;
    // What the kernel said about it in its log.
    Error quote_kernel(std::vector<std::string> lines) &&;

    const std::string& what() const { return what_; }
    const std::string& advice() const { return advice_; }
    const std::vector<std::string>& kernel_lines() const { return kernel_lines_; }

    // All of it, as lines without a newline at the end.
    std::string text() const;

  private:
    std::string what_;
    std::string advice_;
    std::vector<std::string> kernel_lines_;
};

template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(Error error) {
    return tl::unexpected<Error>(std::move(error));
}
inline tl::unexpected<Error> fail(std::string what) {
    return fail(Error(std::move(what)));
}

// The error of @result, to hand on: `if (!x) return pass_on(x);`
template <typename T>
tl::unexpected<Error> pass_on(Result<T>& result) {
    return fail(std::move(result).error());
}
template <typename T>
tl::unexpected<Error> pass_on(Result<T>& result, std::string_view where) {
    return fail(std::move(result).error().within(where));
}

}  // namespace remap
