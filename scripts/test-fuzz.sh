#!/bin/bash
# The fuzzers: every input that is kept in tests/fuzz/corpus, then new ones. test-fuzz.sh [MINUTES]
#
# Without MINUTES it is short, and the same each time. With it each of the fuzzers gets that long,
# side by side, and what they learn is kept in build/fuzz/learnt for the next time. Results,
# "PASS|FAIL name seconds" a line, are in build/results/fuzz.txt; what failed is in
# build/fuzz/findings.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

minutes=${1:-}
results=build/results/fuzz.txt
findings=$PWD/build/fuzz/findings
mkdir -p build/results "$findings"
: >"$results"

# A large quarantine costs more than it finds where every input has its own memory.
export ASAN_OPTIONS=quarantine_size_mb=8:malloc_context_size=4
common=(-rss_limit_mb=1024 -timeout=60 -verbosity=0 -print_final_stats=1)

# verdict NAME LOG COMMAND...: runs it, and says how it went.
verdict() {
    local name=$1 log=$2 start=$SECONDS word=PASS
    shift 2
    "$@" >"$log" 2>&1 </dev/null || word=FAIL
    echo "$word $name $((SECONDS - start))" | tee -a "$results"
    [[ $word == PASS ]] || { tail -n 40 "$log" && return 1; }
}

# fuzz NAME MAX_LENGTH RUNS [OPTION...]: the short run is counted, not timed, so that it is the same
# on any machine.
fuzz() {
    local name=$1 length=$2 runs=$3 program=build/fuzz/tests/fuzz/fuzz-$1 log=build/fuzz/$1.log
    local corpus=tests/fuzz/corpus/$1 learnt=build/fuzz/learnt/$1 options
    shift 3
    verdict "fuzz.$name.corpus" "$log" "$program" "${common[@]}" -runs=0 \
        -artifact_prefix="$findings/$name-" "$corpus" || return
    options=(-max_len="$length" -artifact_prefix="$findings/$name-" "$@")
    # What is new is written to the first directory.
    if [[ -n $minutes ]]; then
        options+=(-max_total_time=$((minutes * 60)))
    else
        options+=(-seed=1 -runs="$runs")
        learnt=build/fuzz/learnt-short/$name
        rm -rf "$learnt"
    fi
    mkdir -p "$learnt"
    options+=("$learnt" "$corpus")
    verdict "fuzz.$name" "$log" "$program" "${common[@]}" "${options[@]}"
    awk -v name="$name" '/^stat::/ { stat[$1] = $2 } END {
        print "  " name ":", stat["stat::number_of_executed_units:"], "inputs,",
            stat["stat::average_exec_per_sec:"], "a second" }' "$log"
}

fuzz spare 400 3000 &
fuzz offline 400 1000 &
fuzz text 512 200000 -dict=tests/fuzz/text.dict &
wait
! grep -q '^FAIL' "$results"
