// The kernel's trace, for a scope.
#pragma once

#include <filesystem>
#include <string>

namespace remap::vm {

class Trace {
  public:
    // Events by their directory in tracefs, "dm_remap" or "block/block_rq_error". One at a time.
    explicit Trace(const std::string& events);
    // Of this disk alone.
    Trace(const std::string& event, const std::string& disk);
    ~Trace();
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;

    // A line an event, without those at the head.
    [[nodiscard]] std::string text() const;
    [[nodiscard]] unsigned count() const;

  private:
    std::filesystem::path directory_;
};

}  // namespace remap::vm
