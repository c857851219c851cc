#!/bin/bash
# Do the tests find bugs? Each patch in mutants/ plants one in a copy of the core. The simulator
# plays seeds until it finds the bug. A line "unit: Suite.Name ..." below the title of a patch names
# unit tests that find it, and that are asked before the simulator. If neither finds the bug, all
# unit tests are tried. Fails if a bug is not found, or if the tests find one where there is none.
#
#   mutants.sh [--seeds N] [--sim] [NAME ...]
#                           N seeds at most for each; names as of the patches;
#                           --sim: the simulator is asked first, whatever the patch says
#   mutants.sh --fit        only: can each of them still be planted? are the tests there?
set -euo pipefail
cd "$(dirname "$0")/../.."

seeds=2000
cuts=100
build=$PWD/build/mutants
sim_parts=build/cmake/tests/sim/libsim-parts.a
unit_parts=build/cmake/tests/unit/libunit-parts.a
patches=tests/sim/mutants
sim_first=
# Of the unit tests, which allocate much.
export ASAN_OPTIONS=quarantine_size_mb=4
# After so many seconds tests count as endless: all of them, and those that a patch names.
unit_seconds=900
named_seconds=120

unit_tests() { # unit_tests NAME: the tests that the patch names
    sed -n '2,/^--- /s/^unit: //p' "$patches/$1.patch"
}

test_exists() { # test_exists Suite.Name
    grep -Eq "^TEST(_F|_P)?\\(${1%%.*}, ${1#*.}\\)" tests/unit/*.cpp
}

if [[ ${1:-} == --fit ]]; then
    bad=0
    for patch in "$patches"/*.patch; do
        # As plant does.
        patch --dry-run --batch --fuzz=0 --strip=1 --quiet <"$patch" || { echo "$patch" && bad=1; }
        for test in $(unit_tests "$(basename "$patch" .patch)"); do
            test_exists "$test" || { echo "$patch: there is no test $test" && bad=1; }
        done
    done
    exit $bad
fi
while [[ ${1:-} == --* ]]; do
    case $1 in
    --seeds)
        seeds=$2
        shift
        ;;
    --sim) sim_first=1 ;;
    *) sed -n '/^#   mutants/,/^[^#]/s/^# *//p' "$0" && exit 2 ;;
    esac
    shift
done
names=("$@")
if [[ ${#names[@]} -eq 0 ]]; then
    mapfile -t names < <(cd "$patches" && printf '%s\n' *.patch | sed 's/\.patch$//')
fi

compile() { # compile SOURCE OBJECT: as CMake does
    # shellcheck disable=SC2046 # flags are words
    cc -std=gnu11 -O2 -g -Wall -Wextra -Werror $(pkg-config --cflags libdeflate) -c "$1" -o "$2"
}

link_sim() { # link_sim PROGRAM OBJECT...
    local program=$1
    shift
    # shellcheck disable=SC2046
    c++ -o "$program" "$@" "$sim_parts" $(pkg-config --libs libdeflate)
}

link_unit() { # link_unit PROGRAM PARTS OBJECT...: the core is not sanitized, the tests are
    local program=$1 parts=$2
    shift 2
    # shellcheck disable=SC2046
    c++ -fsanitize=address,undefined -o "$program" "$@" \
        -Wl,--whole-archive "$parts" -Wl,--no-whole-archive \
        -lrapidcheck -lgmock -lgtest -lgtest_main $(pkg-config --libs libdeflate)
}

plant() { # plant NAME: compiles its core, and says which objects it consists of
    local dir=$build/$1 file
    local -a changed=()
    rm -rf "$dir"
    mkdir -p "$dir/kernel"
    cp -r kernel/core "$dir/kernel/"
    # No fuzz: a patch that nearly fits may plant nothing.
    patch --batch --fuzz=0 --no-backup-if-mismatch --strip=1 --directory="$dir" --quiet \
        <"$patches/$1.patch" || return
    for file in kernel/core/*.[ch]; do
        cmp -s "$file" "$dir/$file" || changed+=("$file")
    done
    if [[ ${changed[*]} == *.h* ]]; then
        changed=(kernel/core/*.c)
        # Of the simulator this alone calls what the core's headers decide.
        c++ -std=c++20 -O2 -I "$dir/kernel/core" -I tests/lib -c tests/sim/layer.cpp \
            -o "$dir/layer.o" || return
        echo "$dir/layer.o"
    fi >"$dir/objects"
    for file in kernel/core/*.c; do
        if [[ " ${changed[*]} " == *" $file "* ]]; then
            compile "$dir/$file" "$dir/$(basename "$file" .c).o" || return
            echo "$dir/$(basename "$file" .c).o"
        else
            echo "$build/none/$(basename "$file" .c).o"
        fi
    done >>"$dir/objects"
}

filter() { # filter TEST...: for GoogleTest; those with a parameter, too
    local test all=
    for test; do
        all+="${all:+:}$test:*/$test/*"
    done
    echo "$all"
}

# A row of the table.
say() { # say NAME BY WHERE WHAT
    printf '%-44s %-5s %-10s %s\n' "$@"
}

# Each of the two builds a program for mutant NAME, and says what it finds. 1: it finds nothing; 2: it
# cannot be built, which is no verdict about the bug.

ask_sim() { # ask_sim NAME
    local dir=$build/$1 verdict seed promise what
    local -a objects
    mapfile -t objects <"$dir/objects"
    link_sim "$dir/sim" "${objects[@]}" || return 2
    "$dir/sim" --seeds "1-$seeds" --cuts "$cuts" --brief >"$dir/sim.out" 2>&1 || true
    # FAILED: seed 7: promise 1: what
    verdict=$(grep -m1 '^FAILED: seed ' "$dir/sim.out") || return 1
    IFS=: read -r _ seed promise what <<<"$verdict"
    say "$1" sim "${seed# }" "${promise# }:${what:0:90}"
}

compile_tests() { # compile_tests NAME: and parts.a is the unit tests without them
    local dir=$build/$1 test file
    cp "$unit_parts" "$dir/parts.a"
    for test in $(unit_tests "$1"); do
        file=$(grep -lE "^TEST(_F|_P)?\\(${test%%.*}, ${test#*.}\\)" tests/unit/*.cpp)
        [[ ! -e $dir/$(basename "$file" .cpp).o ]] || continue
        c++ -std=c++20 -fsanitize=address,undefined -I "$dir/kernel/core" -I tests/lib -c "$file" \
            -o "$dir/$(basename "$file" .cpp).o" || return
        ar d "$dir/parts.a" "$(basename "$file").o"
    done
}

ask_unit() { # ask_unit NAME FILTER SECONDS
    local dir=$build/$1 parts=$unit_parts test
    local -a objects
    mapfile -t objects <"$dir/objects"
    # With another header the tests are compiled anew that the patch names, or none can tell.
    if [[ -e $dir/layer.o ]]; then
        [[ $(unit_tests "$1") ]] || return 1
        compile_tests "$1" || return 2
        objects=("$dir"/*_test.o "${objects[@]:1}")
        parts=$dir/parts.a
    fi
    link_unit "$dir/unit" "$parts" "${objects[@]}" || return 2
    if timeout "$3" "$dir/unit" --gtest_filter="$2" --gtest_fail_fast \
        --gtest_color=no >"$dir/unit.out" 2>&1; then
        return 1
    fi
    # The one that failed, or that the program did not come out of.
    test=$(sed -n 's/^\[  FAILED  \] \([^, ]*\).*/\1/p' "$dir/unit.out" | head -1)
    [[ $test ]] || test=$(sed -n 's/^\[ RUN      \] //p' "$dir/unit.out" | tail -1)
    say "$1" unit - "$test"
}

ask() { # ask NAME: all who may find it, in turn
    local -a tests
    read -ra tests <<<"$(unit_tests "$1" | paste -sd ' ')"
    local ret=1 by
    local -a order=(sim)
    [[ ${#tests[@]} -eq 0 ]] || order=(named sim)
    [[ ! $sim_first || ${#tests[@]} -eq 0 ]] || order=(sim named)
    for by in "${order[@]}" all; do
        ret=0
        case $by in
        sim) ask_sim "$1" || ret=$? ;;
        named) ask_unit "$1" "$(filter "${tests[@]}")" "$named_seconds" || ret=$? ;;
        all) ask_unit "$1" '*' "$unit_seconds" || ret=$? ;;
        esac
        [[ $ret -eq 1 ]] || return "$ret"
    done
    return "$ret"
}

# The core as it is.
rm -rf "$build"
mkdir -p "$build/none"
for file in kernel/core/*.c; do
    compile "$file" "$build/none/$(basename "$file" .c).o"
    echo "$build/none/$(basename "$file" .c).o"
done >"$build/none/objects"
named=$(for name in "${names[@]}"; do unit_tests "$name"; done | tr ' ' '\n' | sort -u)
# shellcheck disable=SC2086 # names are words
for found in "$(seeds=20 ask_sim none || [[ $? -eq 1 ]] || echo 'no simulator')" \
    "$(ask_unit none "$(filter $named)" "$unit_seconds" || [[ $? -eq 1 ]] || echo 'no unit tests')"; do
    if [[ $found ]]; then
        printf 'Without any bug planted: %s\n' "$found" >&2
        exit 1
    fi
done

say MUTANT BY WHERE WHAT
failed=()
for name in "${names[@]}"; do
    ret=2
    # Nothing ends the loop: a mutant that cannot be built is one of several.
    if plant "$name"; then
        ret=0
        ask "$name" || ret=$?
    fi
    [[ $ret -ne 1 ]] || say "$name" - - 'NOT CAUGHT'
    [[ $ret -ne 2 ]] || say "$name" - - 'CANNOT BE PLANTED'
    [[ $ret -eq 0 ]] || failed+=("$name")
done

[[ ${#failed[@]} -eq 0 ]] || { echo "Not caught: ${failed[*]}" && exit 1; }
