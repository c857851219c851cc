#!/bin/bash
# Kill the machine without warning, again and again: kill-storm.sh [--kernel 6.1|6.12|VERSION|all]
# [--runs N]
#
# Inside, several writers write over sectors that fail, while others save, remap and bring home
# (cases/kill_storm.cpp). Each write that was acknowledged is told to the host at once, on a port of
# its own, and must be found after the next boot, on the same disks. A last boot looks at all of it
# and stops in good order.
#
# Results are in build/results/kill-storm-VERSION.txt, and what is left of the last boot in
# build/vm/VERSION/storm/.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh

# shellcheck disable=SC2034 # read by vm_boot
VM_PARALLEL=yes
kernel=all
runs=100
vm_options "$@"

# One boot with a case; its verdicts are left in $dir/said.
boot_with() {
    local version=$1 dir=$2 case=$3
    vm_job "$dir" "$case"
    vm_boot "$version" "$dir" >"$dir/said" 2>"$dir/errors"
}

# Kills the machine some time after its storm has begun. Says no if it ended by itself.
storm_and_kill() {
    local version=$1 dir=$2 boot
    : >"$dir/acks"
    boot_with "$version" "$dir" KillStorm.VerifyAndWriteUntilKilled &
    boot=$!
    until grep -q '^boot' "$dir/acks"; do
        kill -0 $boot || return 1
        sleep 0.1
    done
    sleep "$((RANDOM % 5)).$(printf '%03d' $((RANDOM % 1000)))"
    [[ -e $dir/pid ]] || return 1
    kill -9 "$(<"$dir/pid")"
    wait $boot
}

run_kernel() {
    local version=$1 dir=build/vm/$1/storm results=build/results/kill-storm-$1.txt run start
    mkdir -p "$dir"
    rm -f "$dir"/*.img "$dir/history"
    : >"$results"
    : >"$dir/history"
    echo "Kernel $version, $(vm_accelerator "$version"), $runs kills:"
    for ((run = 1; run <= runs; run++)); do
        start=$SECONDS
        if ! storm_and_kill "$version" "$dir"; then
            echo "FAIL KillStorm.Run$run $((SECONDS - start))" | tee -a "$results"
            tail -n 40 "$dir/log" "$dir/console"
            return 1
        fi
        # Whole lines.
        head -n "$(wc -l <"$dir/acks")" "$dir/acks" >>"$dir/history"
        echo "PASS KillStorm.Run$run $((SECONDS - start))" >>"$results"
        grep '^boot ' "$dir/log" || true
    done
    start=$SECONDS
    boot_with "$version" "$dir" KillStorm.VerifyAndStop
    grep '^boot ' "$dir/log" || true
    if ! grep -q '^result KillStorm.VerifyAndStop PASS' "$dir/said"; then
        echo "FAIL KillStorm.Last $((SECONDS - start))" | tee -a "$results"
        tail -n 40 "$dir/log" "$dir/console"
        return 1
    fi
    echo "PASS KillStorm.Last $((SECONDS - start))" >>"$results"
    rm -f "$dir"/*.img
    echo "Kernel $version: $(scripts/count-results.sh "$results")"
}

vm_on_each run_kernel "$kernel"
