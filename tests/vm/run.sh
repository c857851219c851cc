#!/bin/bash
# Run the VM cases: run.sh [--kernel um|6.1|6.12|debug|kcsan|VERSION|all] [--case GTEST_FILTER]
#                          [--failing PERCENT] [--machine NAME]
#
# Builds what is needed, boots each kernel and runs the cases that match the filter inside. What the
# names of the suites mean is in lib/harness.h. Ordinary cases share one boot, and those that race
# another; after a crash or a hang, which cost the case that was running, the rest goes on in the next.
#
# --failing: so many of the allocations of the module's workers fail (um, debug; lib/harness.h).
# --machine: one of its own, so that several runs go on side by side on one kernel.
#
# Results, "PASS|FAIL|SKIP name seconds" a line, are in build/results/vm-VERSION.txt (of the
# selftest, vm-selftest-VERSION.txt; of a machine with a name, vm-NAME-VERSION.txt); log and console of
# the last boot in build/vm/VERSION/machine (machine-NAME).
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh

kernel=all
case='*'
failing=
machine=
vm_options "$@"

declare -A verdicts # of the kernel at hand: test -> PASS, FAIL or SKIP
allocations=0       # of the module, made to fail there
watched=0           # accesses of the module, by KCSAN

# PASS, FAIL, SKIP, or LOST: it did not even start.
record() {
    local name=$1 verdict=$2 seconds=$3
    # These show that the harness notices: to fail is their success.
    case $name:$verdict in
    *:LOST) verdict=FAIL ;;
    SelftestFails.*:FAIL) verdict=PASS ;;
    SelftestFails.*) verdict=FAIL ;;
    esac
    verdicts[$name]=$verdict
    printf '  %s %8s s  %s\n' "$verdict" "$seconds" "$name"
    echo "$verdict $name $seconds" >>"$results"
}

# What the log holds about one test, and the end of the console if the machine didn't survive it.
explain() {
    local name=$1 dir=$2 crashed=$3
    echo "--- $name: log"
    awk -v name="$name" '
        $0 == "[ RUN      ] " name { on = 1 }
        on
        on && /^\[  (FAILED |     OK) / { exit }' "$dir/log"
    if [[ $crashed == yes ]]; then
        echo "--- $name: the machine or the test program ended in it. Console:"
        tail -n 60 "$dir/console"
    fi
    echo '---'
}

# One boot with the given tests; the verdicts of those that it came to.
boot_with() {
    local version=$1 dir=$2 word name verdict seconds current='' end=''
    shift 2
    vm_job "$dir" "$(IFS=: && echo "$*")" "${failing:+FAIL_ALLOCATIONS=$failing}"
    while read -r word name verdict seconds; do
        case $word in
        start) current=$name ;;
        result)
            current=
            record "$name" "$verdict" "$seconds"
            [[ ${verdicts[$name]} != FAIL ]] || explain "$name" "$dir" no
            ;;
        kill)
            current=
            end=killed
            record "$name" PASS "$verdict"
            ;;
        failed-allocations) allocations=$((allocations + verdict)) ;;
        watched-accesses) watched=$((watched + name)) ;;
        end) end="status $name" ;;
        silent) echo "  (silent for too long: killed)" ;;
        esac
    done < <(vm_boot "$version" "$dir")
    if [[ -n $current ]]; then
        record "$current" FAIL 0
        [[ ${verdicts[$current]} != FAIL ]] || explain "$current" "$dir" yes
    elif [[ -z $end ]]; then
        echo "  (the machine ended without a word)"
    fi
}

# Boots until each test has its verdict. A boot that comes to none of them ends it: they fail.
run_batch() {
    local version=$1 dir=$2 name left=() before
    shift 2
    left=("$@")
    while [[ ${#left[@]} -gt 0 ]]; do
        before=${#left[@]}
        boot_with "$version" "$dir" "${left[@]}"
        left=()
        for name in "$@"; do
            [[ -n ${verdicts[$name]:-} ]] || left+=("$name")
        done
        if [[ ${#left[@]} -eq $before ]]; then
            for name in "${left[@]}"; do
                record "$name" LOST 0
            done
            tail -n 40 "$dir/console" "$dir/log"
            return
        fi
    done
}

# The names that the filter picks for a version. These have to be asked for.
list_cases() {
    local suite excluded=:-
    [[ $case != *-* ]] || excluded=:
    for suite in Selftest RebootLong KillStorm; do
        [[ $case == *$suite* ]] || excluded+="$suite*:"
    done
    [[ $1 == *-debug-* ]] || excluded+="AllocationFails*:"
    [[ $1 == *-amd64 ]] || excluded+="Udev*:"
    build/cmake/tests/vm/vm-cases --gtest_list_tests --gtest_filter="$case${excluded%:}" |
        awk '/^[^ ]/ { suite = $1 } /^ / { print suite $1 }'
}

results_of() {
    if [[ -n $machine ]]; then
        echo "build/results/vm-$machine-$1.txt"
        return
    fi
    case $case in
    *Selftest*) echo "build/results/vm-selftest-$1.txt" ;;
    *) echo "build/results/vm-$1.txt" ;;
    esac
}

run_kernel() {
    local version=$1 dir=build/vm/$1/machine${machine:+-$machine} results
    local name suite ordinary=() racing=() suites=() VM_PARALLEL=
    # KCSAN waits to see somebody else come to the same place.
    [[ $version != *-kcsan-* ]] || VM_PARALLEL=yes
    results=$(results_of "$version")
    verdicts=()
    allocations=0
    watched=0
    mkdir -p "$dir"
    : >"$results"

    for name in $(list_cases "$version"); do
        suite=${name%%.*}
        case $suite in
        Reboot*) [[ " ${suites[*]} " == *" $suite "* ]] || suites+=("$suite") ;;
        Races*) racing+=("$name") ;;
        *) ordinary+=("$name") ;;
        esac
    done
    if [[ ${#ordinary[@]} -eq 0 && ${#racing[@]} -eq 0 && ${#suites[@]} -eq 0 ]]; then
        echo "No case matches '$case'." >&2
        record "$case" LOST 0
        return 1
    fi

    echo "Kernel $version, $(vm_accelerator "$version"):"
    rm -f "$dir"/*.img
    [[ ${#ordinary[@]} -eq 0 ]] || run_batch "$version" "$dir" "${ordinary[@]}"
    [[ ${#racing[@]} -eq 0 ]] || VM_PARALLEL=yes run_batch "$version" "$dir" "${racing[@]}"
    for suite in "${suites[@]}"; do
        rm -f "$dir"/*.img
        # All phases, even if the filter names one: it would find nothing on the disks.
        for name in $(case="$suite.*" list_cases "$version"); do
            run_batch "$version" "$dir" "$name"
        done
    done
    rm -f "$dir"/*.img
    # Without any, the run has shown nothing.
    [[ -z $failing || $allocations -gt 0 ]] || record FailingAllocations.None LOST 0
    [[ $version != *-kcsan-* || $watched -gt 0 ]] || record WatchedAccesses.None LOST 0
    [[ $watched -eq 0 ]] || echo "Kernel $version: $watched accesses were watched for data races"
    [[ $allocations -eq 0 ]] || echo "Kernel $version: $allocations allocations were made to fail"
    echo "Kernel $version: $(scripts/count-results.sh "$results")"
    ! grep -q '^FAIL' "$results"
}

vm_on_each run_kernel "$kernel"
