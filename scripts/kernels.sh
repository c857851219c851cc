#!/bin/bash
# The kernels that dm-remap is tested on, and bootable copies of them: Debian's, and our own
# (build-kernel.sh), whose series are their kinds: um, debug, kcsan.
#
#   kernels.sh series          Debian's supported series, one a line
#   kernels.sh version SERIES  the exact version whose headers are there: 6.1 -> 6.1.0-56-amd64
#                              (an exact version is given back as it is). If none are installed,
#                              those of Debian's newest of the series are unpacked into build/headers.
#                              "backports" is the newest kernel of Debian's backports (backports.sh).
#                              Series that this machine's apt does not know come from there, too.
#   kernels.sh headers VERSION where to build modules for it
#   kernels.sh fetch VERSION   prints a directory that has vmlinux (user-mode Linux: linux) and
#                              lib/modules/VERSION. Debian's is made, build/kernels/VERSION, from this
#                              machine if installed, else apt.
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
PATH=$PATH:/usr/sbin:/sbin # of depmod

die() {
    echo "kernels.sh: $*" >&2
    exit 1
}

# Of one of our own, by series or version; Debian's have none.
kind_of() {
    case $1 in
    debug | *-debug-*) echo debug ;; # *-um-debug-*
    um | *-um-*) echo um ;;
    kcsan | *-kcsan-*) echo kcsan ;;
    esac
}

# Ours of now, which is built by nobody but `make KIND-kernel`.
own_dir() {
    local kind dir now
    kind=$(kind_of "$1")
    dir=$(scripts/build-kernel.sh dir "$kind")
    [[ -e $dir/built ]] || die "there is no $kind kernel yet: make $kind-kernel"
    now=$(scripts/build-kernel.sh version "$kind")
    [[ $1 == "$kind" || $1 == "$now" ]] || die "$1 is not the $kind kernel of now, $now"
    echo "$dir"
}

version() {
    local newest
    if [[ -n $(kind_of "$1") ]]; then
        own_dir "$1" >/dev/null
        scripts/build-kernel.sh version "$(kind_of "$1")"
        return
    fi
    if [[ $1 == backports ]]; then
        newest=$(scripts/backports.sh kernel) || exit
        [[ -d $(headers "$newest") ]] || unpack_backported_headers "$newest" >/dev/null
        echo "$newest"
        return
    fi
    if [[ -d $(headers "$1") ]]; then
        echo "$1"
        return
    fi
    newest=$(newest_in /lib/modules "$1.*-amd64" -exec test -e '{}/build' ';')
    [[ -n $newest ]] || newest=$(newest_in build/headers "$1.*-amd64")
    [[ -n $newest ]] || newest=$(unpack_headers "$1")
    basename "$newest"
}

newest_in() { # newest_in DIR NAME [CONDITIONS]
    local dir=$1 name=$2
    shift 2
    [[ ! -d $dir ]] || find "$dir" -maxdepth 1 -name "$name" "$@" -print | sort -V | tail -n 1
}

headers() {
    local dir
    if [[ -n $(kind_of "$1") ]]; then
        dir=$(own_dir "$1")
        echo "$dir/build"
    elif [[ -d build/headers/$1 && ! -d /lib/modules/$1/build ]]; then
        echo "$PWD/build/headers/$1/usr/src/linux-headers-$1"
    else
        echo "/lib/modules/$1/build"
    fi
}

# Old lists are no reason to fail.
update_lists() {
    [[ $(id -u) -ne 0 ]] || apt-get update -qq
}

# get_packages PACKAGES...: into the current directory, unpacked.
get_packages() {
    local package
    apt-get download -qq "$@" 2>/dev/null ||
        { update_lists && apt-get download -qq "$@"; } || return
    for package in *.deb; do
        dpkg-deb -x "$package" . || return
    done
    rm ./*.deb
}

# backported get|get-all PACKAGES...: the same, from Debian's backports.
backported() {
    local package paths
    paths=$("$project/scripts/backports.sh" "$@") || return
    for package in $paths; do
        dpkg-deb -x "$package" . || return
    done
}

# A directory for what becomes $1 when it is complete.
staging_for() {
    local staging
    mkdir -p "$(dirname "$1")"
    staging=$(mktemp -d "$1.XXXXXX")
    chmod 755 "$staging" # apt fetches as a user of its own
    echo "$staging"
}

depends_on() {
    { apt-cache depends "$1" 2>/dev/null || true; } | sed -n 's/^ *|\?Depends: //p'
}

# Installed, linux-headers of 6.12 would bring the image along, and the machine would have another
# kernel to boot.
unpack_headers() {
    local series=$1 version staging packages
    set -e # in a substitution it is off
    version=$(depends_on "linux-headers-$series-amd64")
    [[ -n $version ]] || { update_lists >&2 && version=$(depends_on "linux-headers-$series-amd64"); }
    version=${version#linux-headers-}
    if [[ -z $version ]] && version=$(scripts/backports.sh kernel "$series"); then
        unpack_backported_headers "$version"
        return
    fi
    [[ -n $version ]] || die "no headers of $series in /lib/modules, and apt knows none (apt-get update)"
    staging=$(staging_for "build/headers/$version")
    # shellcheck disable=SC2064 # the name as it is now: it is gone at the time of the exit
    trap "rm -rf '$staging'" EXIT
    mapfile -t packages < <(depends_on "linux-headers-$version" | grep -E '^linux-(headers|kbuild)-')
    (
        cd "$staging"
        get_packages "linux-headers-$version" "${packages[@]}" ||
            die "apt cannot download linux-headers-$version (apt-get update)"
        # The name of the file that it includes begins with /usr/src.
        # shellcheck disable=SC2016 # they are make's
        sed -i 's#^include /usr/src/#include $(dir $(lastword $(MAKEFILE_LIST)))../#' \
            "usr/src/linux-headers-$version/Makefile"
    ) >&2
    mv "$staging" "build/headers/$version"
    echo "$version"
}

# With the compiler and all else that the headers need. The programs among it are made for a newer
# Debian, whose libc is newer than this machine's. The kernel's configuration has options that only its
# compiler knows. Those who use this kernel have that compiler, so its warnings count.
unpack_backported_headers() {
    local version=$1 dir=$PWD/build/headers/$1 staging headers
    set -e # in a substitution it is off
    staging=$(staging_for "$dir")
    # shellcheck disable=SC2064 # the name as it is now: it is gone at the time of the exit
    trap "rm -rf '$staging'" EXIT
    headers=usr/src/linux-headers-$version
    (
        cd "$staging"
        backported get-all "linux-headers-$version" || die "no headers of $version"
        rm -rf etc var usr/share
        wrap_programs "$dir"
        # shellcheck disable=SC2016 # they are make's
        sed -i -e 's#^KBUILD_OUTPUT=.*#KBUILD_OUTPUT=$(CURDIR)#' \
            -e 's#^include /usr/src/#include $(dir $(lastword $(MAKEFILE_LIST)))../#' "$headers/Makefile"
        sed -i "s#^override CROSS_COMPILE = #&$dir/usr/bin/#" "$headers/.kernelvariables"
        echo "PAHOLE = $dir/usr/bin/pahole" >>"$headers/.kernelvariables"
    ) >&2
    mv "$staging" "$dir"
    echo "$version"
}

# wrap_programs DIR: those in the current directory, which becomes DIR, run with the loader and
# libraries beside them. Each becomes a script, for patchelf makes a compiler that crashes, and a
# chroot would need root, /proc and the sources in it.
wrap_programs() {
    local dir=$1 library=usr/lib/x86_64-linux-gnu program compiler
    while read -r program; do
        [[ $(head -c 4 "$program" | tail -c 3) == ELF ]] || continue
        mv "$program" "$program.elf"
        cat >"$program" <<EOF
#!/bin/sh
exec $dir/$library/ld-linux-x86-64.so.2 --library-path $dir/$library --argv0 "\$0" $dir/$program.elf "\$@"
EOF
        chmod +x "$program"
    done < <(find usr/bin usr/libexec usr/lib/linux-kbuild-* -type f -perm -100 ! -name '*.so')
    # Else the compiler takes this machine's assembler.
    for compiler in usr/libexec/gcc/*/*/cc1; do
        ln -s "$dir/usr/bin/x86_64-linux-gnu-as" "${compiler%/*}/as"
    done
}

# Installing the image would give the machine another kernel to boot: unpack it.
unpack_image() {
    local version=$1
    (
        cd "$2"
        if ! apt-cache show "linux-image-$version" >/dev/null 2>&1 &&
            "$project/scripts/backports.sh" kernel "$version" >/dev/null 2>&1; then
            # The image package is empty there.
            for part in base binary modules; do
                backported get "linux-$part-$version" || die "no linux-$part-$version"
            done
            mkdir boot
            mv "usr/lib/modules/$version/vmlinuz" "boot/vmlinuz-$version"
            mv usr/lib .
        else
            get_packages "linux-image-$version" ||
                die "apt has no linux-image-$version: upgrade the linux-headers packages, or rm -r build/headers"
        fi
        rm -rf usr
        depmod -b . "$version"
    ) >&2
}

# The ELF kernel out of a bzImage, by the fields of its header (Documentation/arch/x86/boot.rst).
# An emulated machine takes 4 s to decompress it, at each boot.
extract() {
    local image=$1 setup_sectors offset length start magic
    setup_sectors=$(od -An -tu1 -j 497 -N 1 "$image")
    offset=$(od -An -tu4 -j 584 -N 4 "$image")
    length=$(od -An -tu4 -j 588 -N 4 "$image")
    start=$(((setup_sectors + 1) * 512 + offset))
    magic=$(od -An -tx4 -j "$start" -N 4 "$image")
    # The last four bytes of the payload are the size of what it unpacks to.
    head -c $((start + length - 4)) "$image" | tail -c $((length - 4)) |
        case $magic in
        *fd2fb528) zstd -dc ;;
        *587a37fd) xz -dc ;;
        *) die "$image: compressed in a way that is not known here" ;;
        esac
}

fetch() {
    local version=$1 dir=$PWD/build/kernels/$1 staging
    if [[ -n $(kind_of "$version") ]]; then
        own_dir "$version"
        return
    fi
    if [[ ! -d $dir ]]; then
        staging=$(staging_for "$dir")
        # shellcheck disable=SC2064 # the name as it is now: it is gone at the time of the exit
        trap "rm -rf '$staging'" EXIT
        if [[ -r /boot/vmlinuz-$version && -f /lib/modules/$version/modules.dep ]]; then
            mkdir -p "$staging/lib/modules"
            ln -s "/lib/modules/$version" "$staging/lib/modules/$version"
            extract "/boot/vmlinuz-$version" >"$staging/vmlinux"
        else
            unpack_image "$version" "$staging"
            extract "$staging/boot/vmlinuz-$version" >"$staging/vmlinux"
            rm -r "${staging:?}/boot"
        fi
        mv "$staging" "$dir"
    fi
    echo "$dir"
}

case ${1:-} in
series) printf '%s\n' 6.1 6.12 ;;
version) version "${2:?}" ;;
headers) headers "${2:?}" ;;
fetch) fetch "${2:?}" ;;
*) die "usage: kernels.sh series | version SERIES | headers VERSION | fetch VERSION" ;;
esac
