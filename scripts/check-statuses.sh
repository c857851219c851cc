#!/bin/bash
# Does docs/relocation.md say of each way in which a block device can fail what becomes of it? Each
# BLK_STS_* of the kernels that are supported wants a row, with who gives it, what is done, and tests
# that exist. A row that no kernel has a status for is an error, too.
#
#   check-statuses.sh [HEADER...]    blk_types.h. Without: those of Debian's series, and of the
#                                    newest kernel, which is user-mode Linux or else backports'
set -euo pipefail
cd "$(dirname "$0")/.."

table=docs/relocation.md
failed=0

wrong() {
    echo "check-statuses.sh: $*" >&2
    failed=1
}

# Of one kernel. Debian's headers that all flavours share are in a package of their own.
header_of() { # header_of VERSION
    local dir
    dir=$(realpath "$(scripts/kernels.sh headers "$1")")
    ls "$dir/include/linux/blk_types.h" 2>/dev/null ||
        ls "${dir%-*}-common/include/linux/blk_types.h"
}

statuses() { # statuses HEADER
    sed -nE 's/^#define[[:space:]]+(BLK_STS_[A-Z_]+)[[:space:]].*/\1/p' "$1"
}

row() { # row STATUS
    grep -E "^\| \`$1\`( \(|,| \|)|^\| \`[^|]*, \`$1\`" "$table"
}

# Of the unit tests and the VM cases: Suite.Name, or Suite.* for all of them.
test_exists() {
    local suite=${1%%.*} name=${1#*.}
    [[ $name != '*' ]] || name='[A-Za-z0-9]+'
    grep -Eqr "^TEST(_F|_P)?\($suite, $name\)" tests/unit tests/vm/cases
}

check_row() { # check_row STATUS
    local line who what shown name tests
    if ! line=$(row "$1"); then
        wrong "$table has no row for $1"
        return
    fi
    IFS='|' read -r _ _ who what shown _ <<<"$line"
    [[ -n ${who// /} && -n ${what// /} ]] || wrong "$1: who gives it, or what is done, is missing"
    mapfile -t tests < <(grep -oE '[A-Z][A-Za-z]+\.[A-Za-z*]+' <<<"$shown")
    [[ ${#tests[@]} -gt 0 ]] || wrong "$1: no test shows it"
    for name in "${tests[@]}"; do
        test_exists "$name" || wrong "$1: there is no test $name"
    done
}

if [[ $# -gt 0 ]]; then
    headers=("$@")
else
    headers=()
    for series in $(scripts/kernels.sh series); do
        headers+=("$(header_of "$(scripts/kernels.sh version "$series")")")
    done
    version=$(scripts/kernels.sh version um 2>/dev/null || scripts/kernels.sh version backports)
    headers+=("$(header_of "$version")")
fi

all=
for header in "${headers[@]}"; do
    names=$(statuses "$header")
    [[ $names == *BLK_STS_IOERR* ]] || wrong "$header: no statuses found"
    all+=" $names"
done
for status in $(tr ' ' '\n' <<<"$all" | sort -u); do
    check_row "$status"
done
while read -r status; do
    grep -qw "$status" <<<"$all" || wrong "$table has a row for $status, which no kernel has"
done < <(grep -oE '^\| `BLK_STS_[^|]*' "$table" | grep -oE 'BLK_STS_[A-Z_]+')
exit "$failed"
