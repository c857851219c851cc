#!/bin/bash
# What the layer costs in the kernel: kernel-bench.sh [--kernel 6.12] [--case GTEST_FILTER]
#
# Most of it on one processor whose clock counts instructions, one a nanosecond (QEMU's icount), so
# the figures are the same at each run, on whatever host. The suites Parallel* need processors that
# run at once, and a clock of the wall. "NAME VALUE" a line is left in build/bench/kernel-VERSION.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh
VM_SILENCE=1800 # a million records take a while

kernel=6.12
case='*'
vm_options "$@"

# The names that the filter picks: with "yes" those that want a parallel machine, or the others.
list_cases() {
    local parallel=$1
    build/cmake/tests/bench/kernel-bench --gtest_list_tests --gtest_filter="$case" |
        awk -v wanted="$parallel" '
            /^[^ ]/ { suite = $1; parallel = suite ~ /Parallel/ ? "yes" : "no" }
            /^ / && parallel == wanted { printf "%s%s%s", separator, suite $1, ""; separator = ":" }'
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
    mkdir -p build/bench
    {
        run_cases "$version" "$(list_cases no)" \
            -accel tcg,thread=single -icount shift=0,sleep=off -smp 1 -m 2G &&
            run_cases "$version" "$(list_cases yes)" -accel tcg,thread=multi -smp 2 -m 2G
    } | tee "$results"
    return "${PIPESTATUS[0]}"
}

make -s bench-programs
vm_on_each run_kernel "$kernel"
