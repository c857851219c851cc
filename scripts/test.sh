#!/bin/bash
# Everything, on all kernels, from a fresh Debian 12 machine on: packages, builds, unit tests,
# simulator, tool tests, VM tests. A step that fails does not stop those that can still say
# something. The last line is "N passed, N failed", also in build/results/summary.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

rm -rf build/results
mkdir -p build/results
SECONDS=0

failures() {
    cat build/results/*.txt | grep -c '^FAIL'
}

# step NAME COMMAND...: a step that fails and left no failing test in its results counts as one.
step() {
    local name=$1 start=$SECONDS before
    shift
    echo "=== $name"
    before=$(failures)
    if ! "$@" </dev/null && [[ $(failures) -eq $before ]]; then
        echo "FAIL step.${name// /-} 0" >>build/results/steps.txt
    fi
    echo "=== $name: $((SECONDS - start)) s"
}

# Adds Debian's newest kernel to those of its releases, if it is to be had.
kernels=$(scripts/kernels.sh series)
newest_kernel() {
    if scripts/backports.sh kernel; then
        kernels+=' backports'
    else
        echo "SKIP step.kernel-of-backports 0" >>build/results/steps.txt
    fi
}

# All is built with these. Headers that are not installed are unpacked.
packages() {
    local series
    scripts/deps.sh build test || return
    for series in $kernels; do
        scripts/kernels.sh version "$series" >/dev/null || return
    done
}

# For the fuzzers, and what the machines are made of: that can be had while other things are built.
late_packages() {
    local series
    scripts/deps.sh fuzz vm || return
    for series in $kernels; do
        scripts/kernels.sh fetch "$(scripts/kernels.sh version "$series")" || return
    done
}

# The kernel of user-mode Linux, once for each version: nobody but its build is waiting then.
um_kernel() {
    local status=0
    scripts/build-kernel.sh build um || status=$?
    if [[ $status -eq 77 ]]; then
        echo "SKIP step.um-kernel 0" >>build/results/steps.txt
    else
        return $status
    fi
}

has_um() {
    scripts/kernels.sh version um >/dev/null 2>&1
}

# on_each_kernel NAME SCRIPT ARGS...: the kernels side by side, for a machine waits much of the time
# and often uses one processor. What each says comes in one piece.
on_each_kernel() {
    local name=$1 series all
    shift
    all=$(scripts/kernels.sh series)
    if has_um; then
        all+=' um'
    elif [[ $kernels == *backports ]]; then
        all+=' backports'
    fi
    for series in $all; do
        step "$name $series" "$@" --kernel "$series" >"build/results/said-$series" 2>&1 &
    done
    wait
    for series in $all; do
        cat "build/results/said-$series"
        rm "build/results/said-$series"
    done
}

# run_vm --kernel SERIES. User-mode Linux alone has the cases that show the core's work, block after
# block or with many records, and nothing of a kernel. Debian's newest kernel, in an emulated machine,
# has those that user-mode Linux left over:
#   - cases that it skipped
#   - Races.*, for it has one processor
#   - Udev*, which run.sh asks of Debian's kernels alone
#   - Smoke*: the disks are what they should be
run_vm() {
    local status=0 cases='*' jobs='' left
    if [[ $2 == um ]]; then
        jobs=$(nproc) # the emulated ones need processors, too
    elif has_um; then
        cases='*-EachBlock*:HostileSpares*:RebootHundredThousand*'
    fi
    tests/vm/run.sh "$@" --case "$cases" --jobs "$jobs" || status=1
    if [[ $2 == um && $kernels == *backports ]]; then
        left=$(awk '$1 == "SKIP" { print $2 }' "build/results/vm-$(scripts/kernels.sh version um).txt" | paste -sd :)
        tests/vm/run.sh --kernel backports --case "$left:Races.*:Udev*:Smoke*" || status=1
    fi
    return $status
}

# Bash lets SIGINT pass by what runs in the background.
trap 'trap - TERM && kill 0' INT TERM

: >build/results/steps.txt
step 'newest kernel' newest_kernel
step packages packages
{
    step 'late packages' late_packages
    step 'um kernel' um_kernel
} >build/results/said-packages 2>&1 &
for series in $kernels; do
    step "module $series" make -s -j "$(nproc)" module \
        KVER="$(scripts/kernels.sh version "$series")"
done
step '32 bits' scripts/test-32bit.sh
step programs make -s test-programs
step 'unit tests' make -s test-unit
step simulator make -s test-sim
step 'tool tests' make -s test-cli
wait
cat build/results/said-packages
rm build/results/said-packages
step 'fuzz programs' make -s -j "$(nproc)" fuzz-programs
step fuzz make -s test-fuzz
on_each_kernel vm run_vm
on_each_kernel 'kill storm' tests/vm/kill-storm.sh --runs 3
# That the harness itself notices what it must.
step 'vm selftest' tests/vm/run.sh --kernel 6.12 --case 'SelftestFails.*'
# What a newcomer sees first.
step demo make -s demo

echo "=== all: $SECONDS s"
grep -hE '^(FAIL|SKIP)' build/results/*.txt
scripts/count-results.sh build/results/*.txt | tee build/results/summary
! grep -q '^FAIL' build/results/*.txt
