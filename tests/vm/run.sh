#!/bin/bash
# Run the VM cases: run.sh [--kernel um|6.1|6.12|backports|debug|kcsan|VERSION|all]
#                          [--case GTEST_FILTER] [--failing PERCENT] [--machine NAME] [--jobs N]
#
# Builds what is needed, boots each kernel and runs the cases that match the filter inside. What the
# names of the suites mean is in lib/harness.h. Ordinary cases share a boot, and those that race
# another. A crash or a hang costs the case that was running; the rest goes on in the next boot.
#
# --failing: so many of the allocations of the module's workers fail (um, debug; lib/harness.h).
# --machine: one of its own, so that several runs go on side by side on one kernel.
# --jobs:    so many machines side by side. One by default; of user-mode Linux, which is there at
#            once, three for each processor.
#
# Results, "PASS|FAIL|SKIP name seconds" a line, are in build/results/vm-VERSION.txt (of the
# selftest, vm-selftest-VERSION.txt; of a machine with a name, vm-NAME-VERSION.txt); log and console of
# the last boot in build/vm/VERSION/machine (machine-NAME; of the second machine, machine-2).
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh

kernel=all
case='*'
failing=
machine=
jobs=
# shellcheck disable=SC2034 # vm_boot reads it
VM_BAD=yes
vm_options "$@"
# Bash lets SIGINT pass by what runs in the background.
trap 'trap - TERM && kill 0' INT

declare -A verdicts # of the machine at hand: test -> PASS, FAIL or SKIP

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

# In one piece: others may report, too.
report() { # report NAME VERDICT SECONDS DIR CRASHED
    {
        flock 6
        record "$1" "$2" "$3"
        [[ ${verdicts[$1]} != FAIL ]] || explain "$1" "$4" "$5"
    } 6>"$queue.lock"
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
            report "$name" "$verdict" "$seconds" "$dir" no
            ;;
        kill)
            current=
            end=killed
            record "$name" PASS "$verdict"
            ;;
        failed-allocations) echo "failed-allocations $verdict" >>"$dir/counts" ;;
        watched-accesses) echo "watched-accesses $name" >>"$dir/counts" ;;
        end) end="status $name" ;;
        silent) echo "  (silent for too long: killed)" ;;
        esac
    done < <(vm_boot "$version" "$dir")
    if [[ -n $current ]]; then
        report "$current" FAIL 0 "$dir" yes
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

# How many machines a version gets. User-mode Linux has one processor, and half of the time it waits.
count_machines() {
    case $1 in
    *-um-*) echo $((3 * $(nproc))) ;;
    *) echo 1 ;;
    esac
}

# Batches of cases, "HOW NAMES..." a line. The longest come first.
#
#   race    the processors run at once
#   reboot  a suite that boots several times, and wants disks of its own
#   share   one boot for all
# Several machines get several batches of each. Neighbours take about as long: they are dealt out.
list_batches() {
    local version=$1 machines=$2 name suite suites=() ordinary=() racing=() parts part
    for name in $(list_cases "$version"); do
        suite=${name%%.*}
        case $suite in
        Reboot*) [[ " ${suites[*]} " == *" $suite "* ]] || suites+=("$suite") ;;
        Races*) racing+=("$name") ;;
        *) ordinary+=("$name") ;;
        esac
    done
    printf '%s\n' "${racing[@]}" | awk -F . -v machines="$machines" '
        NF { batch[machines > 1 ? $1 : ""] = batch[machines > 1 ? $1 : ""] " " $0 }
        END { for (i in batch) print "race" batch[i] }'
    for suite in "${suites[@]}"; do
        # All phases, even if the filter names one: it would find nothing on the disks.
        case="$suite.*" list_cases "$version" | xargs echo reboot
    done
    parts=$((machines == 1 ? 1 : 4 * machines))
    for ((part = 0; part < parts && part < ${#ordinary[@]}; part++)); do
        for ((name = part; name < ${#ordinary[@]}; name += parts)); do
            echo "${ordinary[$name]}"
        done | xargs echo share
    done
}

# One machine: takes batches from the queue (descriptor 3), which others may do as well, until it is
# empty.
run_machine() {
    local version=$1 dir=$2 how names name VM_PARALLEL
    mkdir -p "$dir"
    : >"$dir/counts"
    while { flock 6 && read -r -u 3 how names; } 6>"$queue.lock"; do
        rm -f "$dir"/*.img
        VM_PARALLEL=
        # KCSAN waits to see somebody else come to the same place.
        [[ $how != race && $version != *-kcsan-* ]] || VM_PARALLEL=yes
        # shellcheck disable=SC2086 # names have no spaces
        case $how in
        reboot)
            for name in $names; do
                run_batch "$version" "$dir" "$name"
            done
            ;;
        *) run_batch "$version" "$dir" $names ;;
        esac
    done
    rm -f "$dir"/*.img
}

# count NAME DIRS...: what the machines have counted.
count() {
    local name=$1
    shift
    awk -v name="$name" '$1 == name { sum += $2 } END { print sum + 0 }' "${@/%//counts}"
}

run_kernel() {
    local version=$1 results machines=${jobs:-$(count_machines "$1")} i dirs=() name
    local queue=build/vm/$1/queue${machine:+-$machine} allocations watched
    results=$(results_of "$version")
    : >"$results"
    list_batches "$version" "$machines" >"$queue"
    if [[ ! -s $queue ]]; then
        echo "No case matches '$case'." >&2
        record "$case" LOST 0
        return 1
    fi

    echo "Kernel $version, $(vm_accelerator "$version"):"
    for ((i = 1; i <= machines; i++)); do
        dirs+=("build/vm/$version/machine${machine:+-$machine}")
        ((i == 1)) || dirs[-1]+=-$i
        run_machine "$version" "${dirs[-1]}" &
    done 3<"$queue"
    wait
    cut -d ' ' -f 2- "$queue" | tr ' ' '\n' | while read -r name; do
        grep -qF " $name " "$results" || record "$name" LOST 0
    done
    rm "$queue"*
    allocations=$(count failed-allocations "${dirs[@]}") # of the module
    watched=$(count watched-accesses "${dirs[@]}")       # by KCSAN
    # Without any, the run has shown nothing.
    [[ -z $failing || $allocations -gt 0 ]] || record FailingAllocations.None LOST 0
    [[ $version != *-kcsan-* || $watched -gt 0 ]] || record WatchedAccesses.None LOST 0
    [[ $watched -eq 0 ]] || echo "Kernel $version: $watched accesses were watched for data races"
    [[ $allocations -eq 0 ]] || echo "Kernel $version: $allocations allocations were made to fail"
    echo "Kernel $version: $(scripts/count-results.sh "$results")"
    ! grep -q '^FAIL' "$results"
}

vm_on_each run_kernel "$kernel"
