#!/bin/bash
# What an I/O costs in instructions: io-bench.sh [--kernel 6.12] [--case GTEST_FILTER]
#
# One processor whose clock counts instructions, one a nanosecond (QEMU's icount), so the figures
# are the same at each run, on whatever host. They are left in build/bench/io-VERSION.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh
# shellcheck disable=SC2034 # read by vm_boot
VM_CPU=(-accel "tcg,thread=single" -icount "shift=0,sleep=off" -smp 1 -m 2G)
VM_SILENCE=1800 # a million records take a while

kernel=6.12
case='*'
vm_options "$@"

run_kernel() {
    local version=$1 dir=build/vm/$1/bench results=build/bench/io-$1.txt
    mkdir -p "$dir" build/bench
    printf '#!/bin/sh\nexec io-bench --gtest_color=no --gtest_filter=%s\n' "$case" >"$dir/job"
    chmod +x "$dir/job"
    vm_boot "$version" "$dir" >"$dir/said"
    grep '^bench ' "$dir/log" | cut -d' ' -f2- >"$results"
    rm -f "$dir"/*.img
    ! grep -E '^result .* FAIL' "$dir/said" || { cat "$dir/log" && return 1; }
    grep -q '^end 0' "$dir/said" || { tail -n 40 "$dir/log" "$dir/console" && return 1; }
    column -t "$results"
}

make -s bench-programs
vm_on_each run_kernel "$kernel"
