#!/bin/bash
# Does the module link on a 32-bit kernel? There a division of 64 bits is a function that the kernel
# lacks, and only modpost tells. Builds it against the headers of Debian's newest kernel for i386,
# which are unpacked, not installed; the tools of kbuild are this machine's own.
#
# The result is in build/results/32bit.txt: PASS, FAIL, or SKIP where the mirror has no such headers.
set -euo pipefail
cd "$(dirname "$0")/.."

results=build/results/32bit.txt
dir=$PWD/build/32bit
mkdir -p "${results%/*}" "$dir"/{lists,cache}
SECONDS=0

in_i386() { # in_i386 APT_PROGRAM ARGS...: as on a machine of that architecture
    local program=$1
    shift
    "$program" -o APT::Architecture=i386 -o APT::Architectures=i386 -o Dir::State::Lists="$dir/lists" \
        -o Dir::Cache="$dir/cache" -o Dir::State::Status=/dev/null -o APT::Sandbox::User= \
        -o Acquire::Languages=none "$@"
}

result() { # result VERDICT [WHY]
    echo "$1 Module.LinksOn32Bits $SECONDS" | tee "$results"
    [[ -z ${2:-} ]] || echo "  $2"
}

# Prints where modules are built for the newest one.
headers() {
    local newest series root=$dir/root
    # Of several mirrors one may be out of order.
    in_i386 apt-get update -qq >&2 || true
    newest=$(in_i386 apt-cache depends linux-headers-686 | awk '$1 == "Depends:" { print $2 }')
    [[ $newest == linux-headers-*-686 ]] || return
    series=$(cut -d . -f 1,2 <<<"${newest#linux-headers-}")
    [[ -d /usr/lib/linux-kbuild-$series ]] || return
    if [[ ! -e $root/usr/src/$newest/Makefile ]]; then
        rm -rf "$root"
        mkdir -p "$root/usr/lib"
        (cd "$dir" && in_i386 apt-get download -qq "$newest" "${newest%-686}-common") >&2 || return
        for package in "$dir"/linux-headers-*.deb; do
            dpkg-deb -x "$package" "$root"
            rm "$package"
        done
        ln -sfn "/usr/lib/linux-kbuild-$series" "$root/usr/lib/linux-kbuild-$series"
        # It names the other package by an absolute path.
        sed -i "s,/usr/src,$root/usr/src," "$root/usr/src/$newest/Makefile"
    fi
    echo "$root/usr/src/$newest"
}

scripts/deps.sh build
if ! kdir=$(headers); then
    result SKIP 'the mirror has no headers for i386 of a series whose kbuild is here'
    exit
fi
kver=${kdir##*/linux-headers-}
if make -s module KVER="$kver" KDIR="$kdir" ARCH=i386; then
    result PASS
else
    result FAIL "it does not build or link for $kver"
    exit 1
fi
