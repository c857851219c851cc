// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

namespace remap::test {

// A directory of its own, gone with the object.
class TempDir {
  public:
    TempDir() {
        std::string name = std::filesystem::temp_directory_path() / "dm-remapctl-XXXXXX";
        if (mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("cannot create a temporary directory");
        }
        root_ = name;
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() {
        std::error_code error;
        std::filesystem::remove_all(root_, error);
    }

    std::string path(const std::string& name) const { return root_ / name; }

  private:
    std::filesystem::path root_;
};

}  // namespace remap::test
