#!/bin/bash
# How long a developer waits for VM cases, in user-mode Linux and in an emulated machine. The table
# gives seconds of the wall clock, and in parentheses of the processors. All is built before. The
# machine should be idle. All cases take an emulated machine a quarter of an hour, so they are not run there.
#
#   loop.sh [--emulated SERIES]    6.12 if not said otherwise
set -euo pipefail
cd "$(dirname "$0")/../.."

emulated=6.12
[[ ${1:-} != --emulated ]] || emulated=$2
few='Remap.*:Smoke*'
kernels=(um "$emulated")
TIMEFORMAT='%R %U %S'

# The verdicts are make test's business.
run() { # run KERNEL FILTER
    tests/vm/run.sh --kernel "$1" --case "$2" >/dev/null 2>&1 || true
}

row() { # row WHAT FILTER
    local kernel real user sys cells=
    for kernel in "${kernels[@]}"; do
        read -r real user sys < <({ time run "$kernel" "$2"; } 2>&1)
        cells+=$(awk -v r="$real" -v u="$user" -v s="$sys" 'BEGIN { printf " | %.1f (%.1f)", r, u + s }')
    done
    [[ ${#kernels[@]} -gt 1 ]] || cells+=' | '
    echo "| $1$cells |"
}

for kernel in "${kernels[@]}"; do
    run "$kernel" "$few"
done
echo "| cases | user-mode Linux $(scripts/kernels.sh version um | cut -d - -f 1) | emulated $emulated |"
echo '| --- | --- | --- |'
row 'one, with the boot' Remap.RangeMovesAndComesHome
row "several, \`$few\`" "$few"
# A change of one file of the core, which is in the module and in the program of the cases.
touch kernel/core/dm-remap-table.c
row 'one, after a change of a file of the core' Remap.RangeMovesAndComesHome
kernels=(um)
row 'all that run there' '*'
