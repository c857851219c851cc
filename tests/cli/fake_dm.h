// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <gmock/gmock.h>

#include "dm_client.h"

namespace remap::test {

class FakeDm : public DmClient {
  public:
    MOCK_METHOD(Result<std::vector<std::string>>, names, (), (override));
    MOCK_METHOD(Result<MappedDevice>, status, (const std::string& name), (override));
    MOCK_METHOD(Result<MappedDevice>, table, (const std::string& name), (override));
    MOCK_METHOD(Result<std::string>, message, (const std::string& name, const std::string& text),
                (override));
    MOCK_METHOD(Result<void>, create, (const NewDevice& device), (override));
    MOCK_METHOD(Result<void>, remove, (const std::string& name, Removal removal), (override));
    MOCK_METHOD(Result<void>, replace_by_error, (const std::string& name), (override));
    MOCK_METHOD((Result<std::optional<std::array<std::uint32_t, 3>>>), target_version, (),
                (override));
};

}  // namespace remap::test
