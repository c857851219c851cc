#!/bin/bash
# All style checks; each reports all that it finds, and any finding fails.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

scripts/deps.sh build test style || exit 1

failed=()
check() {
    local name=$1
    shift
    echo "=== $name"
    "$@" || failed+=("$name")
}

# checkpatch comes with the kernel's source, which is large: unpack the three files once.
run_checkpatch() {
    local dir=build/checkpatch package=linux-source-6.12 files
    if [[ ! -e $dir/checkpatch.pl ]]; then
        mkdir -p "$dir/include"
        tar -xf "/usr/src/$package.tar.xz" -C "$dir" --strip-components=2 --occurrence=1 \
            "$package"/scripts/{checkpatch.pl,spelling.txt,const_structs.checkpatch} || return
    fi
    # dm-remap-user.h makes the kernel's names from user space's: it would have to use the former.
    # Macros like TRACE_EVENT have a layout of their own, in the kernel's trace headers too.
    mapfile -t files < <(find "$PWD/kernel" -name '*.[ch]' ! -name '*.mod.c' \
        ! -name dm-remap-user.h ! -name dm-remap-trace.h | sort)
    # It looks for names in include/ of its root and caches them where it runs: an empty one, and
    # not in our tree, whatever git says about that.
    (
        cd "$dir" || exit
        env -u GIT_DIR perl ./checkpatch.pl --strict --no-tree --root=. --quiet --show-types \
            --no-summary --file "${files[@]}"
        status=$?
        rm -f .checkpatch-camelcase.*
        exit $status
    )
}

# sparse only warns; its words are the verdict, but those on the kernel's own headers.
run_sparse() {
    local version found
    for version in $(scripts/kernels.sh series); do
        version=$(scripts/kernels.sh version "$version")
        make -s module KVER="$version" || return
        found=$(make -s module KVER="$version" C=2 2>&1 | grep -E 'warning:|error:' |
            grep -v '/usr/src/linux-headers-')
        [[ -z $found ]] || { echo "$found" && return 1; }
    done
}

run_clang_format() {
    find tools tests \( -name '*.cpp' -o -name '*.h' \) -exec clang-format --dry-run -Werror {} +
}

# gcc's precompiled headers say nothing to clang, nor do its warnings.
run_clang_tidy() {
    cmake -S . -B build/tidy -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >build/tidy.log ||
        { cat build/tidy.log && return 1; }
    run-clang-tidy -quiet -extra-arg=-Wno-unknown-warning-option -p build/tidy '/(tools|tests)/.*\.cpp$' 2>/dev/null |
        sed -e 's/\x1b\[[0-9;]*m//g' -e '/^clang-tidy/d' -e '/^$/d'
    return "${PIPESTATUS[0]}"
}

run_shellcheck() {
    grep -rlE --exclude-dir={.git,build} '^(#!/bin/(ba)?sh|# shellcheck shell=)' . |
        xargs shellcheck -x
}

check checkpatch run_checkpatch
check sparse run_sparse
check clang-format run_clang_format
check clang-tidy run_clang_tidy
check shellcheck run_shellcheck
check statuses scripts/check-statuses.sh

[[ ${#failed[@]} -eq 0 ]] || { echo "Failed: ${failed[*]}" && exit 1; }
