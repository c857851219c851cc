#include "plan.h"

#include <array>
#include <cstdlib>
#include <numeric>
#include <sstream>

#include "history.h"

namespace remap::sim {

static constexpr std::array<const char*, kNrWithout> kNames{"meanwhile", "stop", "shortage",
                                                            "damage",    "loss", "tear"};

Plan whole_plan(std::uint64_t seed, unsigned cuts) {
    Plan plan{.seed = seed, .turns = {}, .without = 0};
    plan.turns.resize(std::size_t{cuts} * History::kTurns);
    std::iota(plan.turns.begin(), plan.turns.end(), 0);
    return plan;
}

std::string turns_text(const std::vector<Turn>& turns) {
    std::string text;
    for (std::size_t i = 0; i < turns.size();) {
        std::size_t end = i + 1;
        while (end < turns.size() && turns[end] == turns[end - 1] + 1) {
            end++;
        }
        text += (i == 0 ? "" : ",") + std::to_string(turns[i]);
        if (end - i > 1) {
            text += "-" + std::to_string(turns[end - 1]);
        }
        i = end;
    }
    return text;
}

static bool parse_turn(const char** text, Turn* turn) {
    char* end = nullptr;
    *turn = static_cast<Turn>(std::strtoul(*text, &end, 10));
    const bool any = end != *text;
    *text = end;
    return any;
}

bool parse_turns(const std::string& text, std::vector<Turn>* turns) {
    const char* at = text.c_str();
    turns->clear();
    do {
        Turn first = 0;
        at += turns->empty() ? 0 : 1;
        if (!parse_turn(&at, &first)) {
            return false;
        }
        Turn last = first;
        if (*at == '-' && !parse_turn(&++at, &last)) {
            return false;
        }
        if (last < first || (!turns->empty() && first <= turns->back())) {
            return false;
        }
        for (std::uint64_t turn = first; turn <= last; turn++) {
            turns->push_back(static_cast<Turn>(turn));
        }
    } while (*at == ',');
    return *at == '\0';
}

std::string without_text(unsigned without) {
    std::string text;
    for (unsigned i = 0; i < kNrWithout; i++) {
        if ((without & (1U << i)) != 0) {
            text += (text.empty() ? "" : ",") + std::string(kNames[i]);
        }
    }
    return text;
}

bool parse_without(const std::string& text, unsigned* without) {
    std::istringstream words(text);
    std::string word;
    *without = 0;
    while (std::getline(words, word, ',')) {
        unsigned i = 0;
        while (i < kNrWithout && word != kNames[i]) {
            i++;
        }
        if (i == kNrWithout) {
            return false;
        }
        *without |= 1U << i;
    }
    return true;
}

}  // namespace remap::sim
