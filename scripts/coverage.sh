#!/bin/bash
# How much of the core the tests run, all together: the unit tests, a short run of the simulator and
# the fuzzers' corpus, over one core that counts. The same each time. Prints a table and every place
# that none of them reaches, with its reason from tests/coverage-reasons.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=build/coverage/tests
profiles=$PWD/build/coverage/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
# What several processes of one program count is summed in one file.
export LLVM_PROFILE_FILE=$profiles/%m.profraw

# run NAME COMMAND...: a test that fails measures nothing.
run() {
    local name=$1 log=build/coverage/$1.log start=$SECONDS
    shift
    "$@" >"$log" 2>&1 </dev/null || { tail -n 40 "$log" && return 1; }
    echo "$name: $((SECONDS - start)) s"
}

# One process for each history: those that many share end without writing what they counted.
simulate() {
    seq 1 300 | xargs -P "$(nproc)" -I '{}' "$programs/sim/sim" --seed '{}' --cuts 50
}

replay() {
    local name
    for name in spare offline text; do
        "$programs/fuzz/fuzz-$name" "tests/fuzz/corpus/$name"/* || return
    done
}

run unit-tests env RC_PARAMS=seed=1 "$programs/unit/unit-tests" --gtest_brief=1
run simulator simulate
run corpus replay

llvm-profdata merge -sparse "$profiles"/*.profraw -o build/coverage/core.profdata
export_as() {
    llvm-cov export -format="$1" -instr-profile=build/coverage/core.profdata \
        "$programs/unit/unit-tests" -object "$programs/sim/sim" \
        -object "$programs/fuzz/fuzz-spare" -object "$programs/fuzz/fuzz-offline" \
        -object "$programs/fuzz/fuzz-text"
}
export_as text >build/coverage/core.json
export_as lcov >build/coverage/core.lcov
scripts/coverage-report.py tests/coverage-reasons build/coverage/core.json build/coverage/core.lcov
