// SPDX-License-Identifier: GPL-2.0-only
#include "output_table.h"

#include <libsmartcols/libsmartcols.h>

#include <algorithm>
#include <new>

namespace remap {
namespace {

void check(bool succeeded) {
    if (!succeeded) {
        throw std::bad_alloc();  // the only way in which they fail
    }
}

}  // namespace

OutputTable::OutputTable(const std::vector<Column>& columns)
    : table_(scols_new_table(), scols_unref_table) {
    check(table_ != nullptr);
    const bool headings = std::any_of(columns.begin(), columns.end(),
                                      [](const Column& c) { return !c.heading.empty(); });
    scols_table_enable_noheadings(table_.get(), headings ? 0 : 1);
    for (const Column& column : columns) {
        const int flags = column.align == Align::right ? SCOLS_FL_RIGHT : 0;
        check(scols_table_new_column(table_.get(), column.heading.c_str(), 0, flags) != nullptr);
    }
}

void OutputTable::add_row(const std::vector<std::string>& cells) {
    libscols_line* line = scols_table_new_line(table_.get(), nullptr);
    check(line != nullptr);
    for (std::size_t i = 0; i < cells.size(); i++) {
        check(scols_line_set_data(line, i, cells[i].c_str()) == 0);
    }
}

void OutputTable::print() const {
    check(scols_print_table(table_.get()) == 0);
}

}  // namespace remap
