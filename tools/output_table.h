// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <memory>
#include <string>
#include <vector>

struct libscols_table;

namespace remap {

enum class Align { left, right };

struct Column {
    std::string heading;
    Align align = Align::left;
};

// Aligned columns on stdout.
class OutputTable {
  public:
    // Without any heading there is no line of headings.
    explicit OutputTable(const std::vector<Column>& columns);
    void add_row(const std::vector<std::string>& cells);
    void print() const;

  private:
    std::unique_ptr<libscols_table, void (*)(libscols_table*)> table_;
};

}  // namespace remap
