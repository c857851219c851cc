// SPDX-License-Identifier: GPL-2.0-only
// What holds for every verb: help, wrong usage, and operands that are not there or not what they
// should be.
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "run_tool.h"
#include "spare_image.h"

namespace remap::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

struct Verb {
    std::string name;
    std::vector<std::string> operands;  // well-formed
};

// How gtest names it in a failure.
void PrintTo(const Verb& verb, std::ostream* out) {
    *out << verb.name;
}

// As gtest wants it: without a hyphen.
std::string test_name(const Verb& verb) {
    std::string name = verb.name;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

std::vector<Verb> verbs() {
    return {{"format", {"main", "spare"}},
            {"create", {"NAME", "main", "spare"}},
            {"remove", {"NAME"}},
            {"status", {}},
            {"list", {"NAME"}},
            {"remap", {"NAME", "8"}},
            {"unremap", {"NAME", "8"}},
            {"forget", {"NAME", "8"}},
            {"save", {"NAME"}},
            {"restore", {"NAME"}},
            {"reset-breaker", {"NAME"}},
            {"check", {"spare"}},
            {"dump", {"spare"}},
            {"version", {}}};
}

std::vector<Verb> verbs_with_operands() {
    std::vector<Verb> chosen = verbs();
    std::erase_if(chosen, [](const Verb& verb) { return verb.operands.empty(); });
    return chosen;
}

std::vector<std::string> command(const Verb& verb, const std::vector<std::string>& operands) {
    std::vector<std::string> words = {verb.name};
    words.insert(words.end(), operands.begin(), operands.end());
    return words;
}

class EveryVerb : public testing::TestWithParam<Verb> {};

TEST_P(EveryVerb, Helps) {
    const ToolRun run = run_tool({GetParam().name, "--help"});
    EXPECT_EQ(run.exit_code, 0);
    EXPECT_THAT(run.out, HasSubstr("Usage: dm-remapctl " + GetParam().name));
    EXPECT_THAT(run.out, HasSubstr("Exit"));
    EXPECT_THAT(run.err, IsEmpty());
}

TEST_P(EveryVerb, RefusesAnUnknownOption) {
    std::vector<std::string> words = command(GetParam(), GetParam().operands);
    words.emplace_back("--no-such-option");
    const ToolRun run = run_tool(words);
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_THAT(run.err, HasSubstr("--no-such-option"));
    EXPECT_THAT(run.out, IsEmpty());
}

class VerbWithOperands : public EveryVerb {};

TEST_P(VerbWithOperands, RefusesAMissingOperand) {
    std::vector<std::string> operands = GetParam().operands;
    operands.pop_back();
    const ToolRun run = run_tool(command(GetParam(), operands));
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_THAT(run.err, HasSubstr("required"));
    EXPECT_THAT(run.out, IsEmpty());
}

TEST_P(EveryVerb, RefusesAnExtraOperand) {
    std::vector<std::string> operands = GetParam().operands;
    operands.insert(operands.end(), {"8", "8", "8"});
    const ToolRun run = run_tool(command(GetParam(), operands));
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_THAT(run.err, Not(IsEmpty()));
}

INSTANTIATE_TEST_SUITE_P(All, EveryVerb, testing::ValuesIn(verbs()),
                         [](const auto& verb) { return test_name(verb.param); });

INSTANTIATE_TEST_SUITE_P(All, VerbWithOperands, testing::ValuesIn(verbs_with_operands()),
                         [](const auto& verb) { return test_name(verb.param); });

TEST(Usage, AVerbIsRequired) {
    EXPECT_EQ(run_tool({}).exit_code, 2);
}

// As of a variable of a script that is not set.
TEST(Usage, AnEmptyNameIsNone) {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"status", ""},
          {"save", "disk", "--witness", ""},
          {"create", "disk", "/main", "/spare", "--witness="},
          {"check", "", "--witness", "file"}}) {
        EXPECT_EQ(run_tool(words).exit_code, 2) << words.front();
    }
}

// A blank spare knows no main yet.
TEST(Usage, NothingIsFormattedForAnotherMain) {
    EXPECT_EQ(run_tool({"create", "disk", "/main", "/spare", "--format", "--rebind"}).exit_code, 2);
}

TEST(Usage, NothingIsFormattedReadOnly) {
    EXPECT_EQ(run_tool({"create", "disk", "/main", "/spare", "--format", "--readonly"}).exit_code,
              2);
}

TEST(Usage, AnUnknownVerbIsRefused) {
    EXPECT_EQ(run_tool({"frobnicate"}).exit_code, 2);
}

TEST(Usage, HelpNamesEveryVerbAndTheExitCodes) {
    const ToolRun run = run_tool({"--help"});
    EXPECT_EQ(run.exit_code, 0);
    for (const Verb& verb : verbs()) {
        EXPECT_THAT(run.out, HasSubstr("\n  " + verb.name + " "));
    }
    EXPECT_THAT(run.out, HasSubstr("Exit codes:"));
}

class BadNumber : public testing::TestWithParam<const char*> {};

TEST_P(BadNumber, IsWrongUsage) {
    for (const char* verb : {"remap", "unremap", "forget"}) {
        EXPECT_EQ(run_tool({verb, "NAME", "--", GetParam()}).exit_code, 2);
        EXPECT_EQ(run_tool({verb, "NAME", "--", "8", GetParam()}).exit_code, 2);
    }
    EXPECT_EQ(
        run_tool({"create", "NAME", "a", "b", std::string("--start=") + GetParam()}).exit_code, 2);
    EXPECT_EQ(run_tool({"format", "a", "b", std::string("--records=") + GetParam()}).exit_code, 2);
}

INSTANTIATE_TEST_SUITE_P(Numbers, BadNumber,
                         testing::Values("-1", "x", "0x8", "8k", "1.5", "18446744073709551616"));

// Where a verb takes a device: the words before and after it. IMAGE is a good one.
struct DeviceOperand {
    std::string what;
    std::vector<std::string> before;
    std::vector<std::string> after;
};

void PrintTo(const DeviceOperand& operand, std::ostream* out) {
    *out << operand.what;
}

class EveryDevice : public testing::TestWithParam<DeviceOperand> {
  protected:
    ToolRun run_with(const std::string& path) {
        std::vector<std::string> words = GetParam().before;
        words.push_back(path);
        words.insert(words.end(), GetParam().after.begin(), GetParam().after.end());
        std::replace(words.begin(), words.end(), std::string("IMAGE"), image_.main());
        return run_tool(words);
    }

    void expect_error(const std::string& path, const std::string& reason) {
        const ToolRun run = run_with(path);
        EXPECT_EQ(run.exit_code, 1);
        EXPECT_THAT(run.err + run.out, HasSubstr(path));
        EXPECT_THAT(run.err + run.out, HasSubstr(reason));
        EXPECT_THAT(run.err, Not(HasSubstr("Invalid argument")));
    }

    SpareImage image_{SpareImage::Content::empty};
    TempDir dir_;
};

TEST_P(EveryDevice, ThatIsMissing) {
    expect_error(dir_.path("missing"), "No such file or directory");
}

TEST_P(EveryDevice, ThatCannotBeOpened) {
    if (geteuid() == 0) {
        GTEST_SKIP() << "root may read anything";
    }
    const std::string path = dir_.path("unreadable");
    std::ofstream(path).close();
    std::filesystem::permissions(path, std::filesystem::perms::none);
    expect_error(path, "Permission denied");
}

TEST_P(EveryDevice, ThatIsADirectory) {
    expect_error(dir_.path(""), "neither a block device nor an image file");
}

TEST_P(EveryDevice, ThatIsACharacterDevice) {
    expect_error("/dev/null", "neither a block device nor an image file");
}

TEST_P(EveryDevice, ThatIsTiny) {
    const std::string path = dir_.path("tiny");
    std::ofstream(path) << "tiny";
    const ToolRun run = run_with(path);
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err + run.out, HasSubstr(path));
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryDevice,
    testing::Values(DeviceOperand{"FormatMain", {"format", "--yes"}, {"IMAGE"}},
                    DeviceOperand{"FormatSpare", {"format", "--yes", "IMAGE"}, {}},
                    DeviceOperand{"CreateMain", {"create", "x"}, {"IMAGE"}},
                    DeviceOperand{"Check", {"check"}, {}}, DeviceOperand{"Dump", {"dump"}, {}}),
    [](const auto& operand) { return operand.param.what; });

}  // namespace
}  // namespace remap::test
