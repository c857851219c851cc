#!/bin/bash
# Does the simulator find bugs? Each patch in mutants/ plants one in a copy of the core; the simulator
# plays seeds until it finds it. Fails if it finds one of them not, or finds one where there is none.
#
#   mutants.sh [--seeds N] [NAME ...]     N seeds at most for each; names as of the patches
#   mutants.sh --fit                      only: can each of them still be planted?
set -euo pipefail
cd "$(dirname "$0")/../.."

seeds=2000
cuts=100
build=$PWD/build/mutants
parts=build/cmake/tests/sim/libsim-parts.a
patches=tests/sim/mutants

if [[ ${1:-} == --fit ]]; then
    bad=0
    for patch in "$patches"/*.patch; do
        # As plant does.
        patch --dry-run --batch --fuzz=0 --strip=1 --quiet <"$patch" || { echo "$patch" && bad=1; }
    done
    exit $bad
fi
if [[ ${1:-} == --seeds ]]; then
    seeds=$2
    shift 2
fi
names=("$@")
if [[ ${#names[@]} -eq 0 ]]; then
    mapfile -t names < <(cd "$patches" && printf '%s\n' *.patch | sed 's/\.patch$//')
fi

compile() { # compile SOURCE OBJECT: as CMake does
    # shellcheck disable=SC2046 # flags are words
    cc -std=gnu11 -O2 -g -Wall -Wextra -Werror $(pkg-config --cflags libdeflate) -c "$1" -o "$2"
}

link() { # link PROGRAM OBJECT...
    local program=$1
    shift
    # shellcheck disable=SC2046
    c++ -o "$program" "$@" "$parts" $(pkg-config --libs libdeflate)
}

plant() { # plant NAME: builds its simulator. Whatever goes wrong here is no verdict about the bug.
    local dir=$build/$1 file
    local -a objects=()
    rm -rf "$dir"
    mkdir -p "$dir/kernel"
    cp -r kernel/core "$dir/kernel/"
    # No fuzz: a patch that nearly fits may plant nothing.
    patch --batch --fuzz=0 --no-backup-if-mismatch --strip=1 --directory="$dir" --quiet \
        <"$patches/$1.patch" || return
    for file in kernel/core/*.c; do
        if cmp -s "$file" "$dir/$file"; then
            objects+=("$build/none/$(basename "$file" .c).o")
        else
            compile "$dir/$file" "$dir/$(basename "$file" .c).o" || return
            objects+=("$dir/$(basename "$file" .c).o")
        fi
    done
    if ! diff -rq --exclude='*.c' kernel/core "$dir/kernel/core"; then
        echo "$1 changes a header, which the rest of the simulator was built with" >&2
        return 1
    fi
    link "$dir/sim" "${objects[@]}"
}

# The core as it is.
rm -rf "$build"
mkdir -p "$build/none"
for file in kernel/core/*.c; do
    compile "$file" "$build/none/$(basename "$file" .c).o"
done
link "$build/none/sim" "$build"/none/*.o
if ! "$build/none/sim" --seeds 1-20 --cuts "$cuts" --brief >"$build/none/out"; then
    cat "$build/none/out"
    echo 'The simulator fails without any bug planted' >&2
    exit 1
fi

printf '%-34s %6s  %-9s %s\n' MUTANT SEEDS PROMISE VIOLATION
failed=()
for name in "${names[@]}"; do
    if ! plant "$name"; then
        printf '%-34s %6s  %-9s %s\n' "$name" - - 'CANNOT BE PLANTED'
        failed+=("$name")
        continue
    fi
    "$build/$name/sim" --seeds "1-$seeds" --cuts "$cuts" --brief >"$build/$name/out" 2>&1 || true
    # FAILED: seed 7: promise 1: what
    if ! verdict=$(grep -m1 '^FAILED: seed ' "$build/$name/out"); then
        printf '%-34s %6s  %-9s %s\n' "$name" "$seeds" - 'NOT CAUGHT'
        failed+=("$name")
        continue
    fi
    IFS=: read -r _ seed promise what <<<"$verdict"
    printf '%-34s %6s  %-9s %s\n' "$name" "${seed# seed }" "${promise# }" "${what:1:90}"
done

[[ ${#failed[@]} -eq 0 ]] || { echo "Not caught: ${failed[*]}" && exit 1; }
