#!/bin/bash
# dm-dust.sh VERSION: build dm-dust.ko for a kernel, and print its path. It is a target whose listed
# blocks fail to read until they are written; Debian's kernels come without it, their source with it.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$1
dir=build/dm-dust/$version
series=$(grep -oE '^[0-9]+\.[0-9]+' <<<"$version")
source=/usr/src/linux-source-$series.tar.xz

# Of the source's archive, this file alone; tar stops when it has it.
unpack() {
    tar -xJ -C "$dir" --strip-components=3 --touch --occurrence=1 \
        "linux-source-$series/drivers/md/dm-dust.c"
}

if [[ ! -e $dir/dm-dust.ko || $source -nt $dir/dm-dust.ko ]]; then
    mkdir -p "$dir"
    if [[ -e $source ]]; then
        unpack <"$source"
    else
        package=$(scripts/backports.sh get "linux-source-$series") ||
            { echo "dm-dust.sh: no $source: scripts/deps.sh vm" >&2 && exit 1; }
        unpack < <(dpkg-deb --fsys-tarfile "$package" 2>/dev/null | tar -xO "./${source#/}")
    fi
    echo 'obj-m := dm-dust.o' >"$dir/Kbuild"
    headers=$(scripts/kernels.sh headers "$version")
    # Not a part of the make that may be running this. The races of this module are not ours.
    env -u MAKEFLAGS -u MAKELEVEL make -s -C "$headers" M="$PWD/$dir" KCSAN_SANITIZE=n modules >&2
fi
echo "$dir/dm-dust.ko"
