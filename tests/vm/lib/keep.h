// What must be known after the next boot, as text, kept on a disk of its own ("extra").
#pragma once

#include <string>
#include <string_view>

namespace remap::vm {

void keep(std::string_view text);
std::string kept();

}  // namespace remap::vm
