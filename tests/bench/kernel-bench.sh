#!/bin/bash
# What the layer costs in the kernel: kernel-bench.sh [--kernel 6.12] [--case GTEST_FILTER]
#
# Most of it on one processor whose clock counts instructions, one a nanosecond (QEMU's icount), so
# the figures are the same at each run, on whatever host. The suites Parallel* need processors that
# run at once, and a clock of the wall; those of several jobs also several boots. "NAME VALUE" a line
# is left in build/bench/kernel-VERSION.txt; of what is there more than once the median counts.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh
VM_SILENCE=1800 # a million records take a while

kernel=6.12
case='*'
vm_options "$@"

# The names that the filter picks, of one kind of suites.
list_cases() {
    local kind=$1
    build/cmake/tests/bench/kernel-bench --gtest_list_tests --gtest_filter="$case" |
        awk -v wanted="$kind" '
            /^[^ ]/ { suite = $1; match(suite, /Parallel(Jobs)?/) }
            /^[^ ]/ { kind = RSTART ? substr(suite, RSTART, RLENGTH) : "counted" }
            /^ / && kind == wanted { printf "%s%s", separator, suite $1; separator = ":" }'
}

# One boot with these cases, on this machine.
run_cases() {
    local version=$1 cases=$2 dir=build/vm/$1/bench
    shift 2
    [[ -n $cases ]] || return 0
    # shellcheck disable=SC2034 # read by vm_boot
    VM_CPU=("$@")
    mkdir -p "$dir"
    printf '#!/bin/sh\nexec kernel-bench --gtest_color=no --gtest_filter=%s\n' "$cases" >"$dir/job"
    chmod +x "$dir/job"
    vm_boot "$version" "$dir" >"$dir/said"
    rm -f "$dir"/*.img
    ! grep -E '^result .* FAIL' "$dir/said" || { cat "$dir/log" && return 1; }
    grep -q '^end 0' "$dir/said" || { tail -n 40 "$dir/log" "$dir/console" && return 1; }
    sed -n 's/^bench //p' "$dir/log"
}

run_kernel() {
    local version=$1 results=build/bench/kernel-$1.txt
    local counting=(-accel "tcg,thread=single" -icount "shift=0,sleep=off" -smp 1 -m 2G)
    local parallel=(-accel "tcg,thread=multi" -smp 2 -m 2G)
    mkdir -p build/bench
    (
        set -e
        run_cases "$version" "$(list_cases counted)" "${counting[@]}"
        run_cases "$version" "$(list_cases Parallel)" "${parallel[@]}"
        for _ in 1 2 3 4 5; do
            run_cases "$version" "$(list_cases ParallelJobs)" "${parallel[@]}"
        done
    ) | tee "$results"
    return "${PIPESTATUS[0]}"
}

make -s bench-programs
vm_on_each run_kernel "$kernel"
