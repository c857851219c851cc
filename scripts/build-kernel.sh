#!/bin/bash
# The kernels of our own, built in ${XDG_CACHE_HOME:-~/.cache}/dm-remap:
#
#   um          user-mode Linux with lockdep and fault injection: the quick loop
#   debug       user-mode Linux with all that looks on: the same, KASAN, UBSAN, kmemleak, and a second
#               processor
#   kcsan       for an emulated machine: watches modules for data races
#
# Their configurations are made of tests/vm/kernel/*.config; debug has patches of there, too. User-mode
# Linux is the newest of Debian's backports (backports.sh). A mirror may have none: then um is
# linux-source-6.12, and there is no debug, for 6.12 in user mode has no second processor. kcsan is
# linux-source-6.12.
#
#   build-kernel.sh version KIND   its release: 6.12.117-KIND-HASH, of debug 7.3.4-um-debug-HASH; another
#                                  for another configuration or source, so that nothing made for the
#                                  one is taken for the other
#   build-kernel.sh dir KIND       where it is, or will be: vmlinux or linux, lib/modules/, and build/,
#                                  against which modules are built
#   build-kernel.sh build KIND     build it unless it is there: 6 to 10 minutes of two processors.
#                                  Exits with 77 if this machine can't have it, and says why.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${2:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dm-remap
package=linux-source-6.12

die() {
    echo "build-kernel.sh: $*" >&2
    exit 1
}

suffix=$kind
patches=()
case $kind in
um) parts=(common checks um) ;;
debug)
    parts=(common checks um kasan smp)
    patches=(tests/vm/kernel/um-{stacktrace,ipi}.patch)
    suffix=um-debug # by its name, too, it is user-mode Linux
    ;;
kcsan) parts=(common kcsan pc) ;;
*) die "usage: build-kernel.sh version|dir|build um|debug|kcsan" ;;
esac
fragments=("${parts[@]/#/tests/vm/kernel/}")
fragments=("${fragments[@]/%/.config}")
[[ ${1:-} != build ]] || scripts/deps.sh kernel

# The package that has the source, and its version. Before 6.13 UML dies at its first program on
# a processor with AMX, whose registers are more than it expects.
source_version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)
target=(vmlinux modules)
make=(make -s)
if [[ $kind != kcsan ]]; then
    target=(linux modules)
    make+=(ARCH=um)
    if newest=$(scripts/backports.sh newest); then
        package=linux-source-${newest% *}
        source_version=${newest#* }
    elif [[ $kind == debug ]]; then
        echo "build-kernel.sh: no kernel in Debian's backports, and user-mode Linux 6.12 has one processor" >&2
        exit 77
    elif grep -qw amx_tile /proc/cpuinfo; then
        echo "build-kernel.sh: no kernel in Debian's backports, and user-mode Linux 6.12 cannot run on this processor" >&2
        exit 77
    fi
fi
[[ -n $source_version ]] || die "no $package: scripts/deps.sh kernel"
hash=$({
    echo "$source_version"
    grep -h CONFIG_ "${fragments[@]}"
    [[ ${#patches[@]} -eq 0 ]] || cat "${patches[@]}"
} | sha256sum | head -c 8)
# 6.12.117-1~deb12u1 -> 6.12.117
release=${source_version%%-*}-$suffix-$hash
dir=$cache/linux-$release

# Prints each line of the fragments (stdin) that the configuration doesn't have.
dropped_options() {
    local line name
    while read -r line; do
        case $line in
        CONFIG_*) grep -qxF "$line" .config || echo "$line" ;;
        '# CONFIG_'*' is not set')
            name=${line#\# }
            ! grep -q "^${name%% *}=" .config || echo "$line"
            ;;
        esac
    done
}

configure() {
    local wanted=$1 dropped
    "${make[@]}" tinyconfig
    echo "$wanted" >>.config
    echo "CONFIG_LOCALVERSION=\"-$suffix-$hash\"" >>.config
    "${make[@]}" olddefconfig 2>&1 | grep -v 'override: reassigning' || true
    dropped=$(dropped_options <<<"$wanted")
    [[ -z $dropped ]] || die "${fragments[*]}: kconfig did not accept"$'\n'"$dropped"
}

# The source's archive, to the standard output.
archive() {
    if [[ -e /usr/src/$package.tar.xz ]]; then
        cat "/usr/src/$package.tar.xz"
    else
        dpkg-deb --fsys-tarfile "$(scripts/backports.sh get "$package")" |
            tar -xO "./usr/src/$package.tar.xz"
    fi
}

build() {
    local wanted staging one
    wanted=$(cat "${fragments[@]}")
    [[ ! -e $dir/built ]] || return 0
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    [[ ! -e $dir/built ]] || return 0
    echo "building Linux $release, once: $dir"
    if [[ ! -d $dir/build ]]; then
        staging=$(mktemp -d "$dir/unpack.XXXXXX")
        archive | tar -xJ -C "$staging" --strip-components=1
        for one in "${patches[@]}"; do
            patch -s -p1 -d "$staging" <"$one"
        done
        mv "$staging" "$dir/build"
    fi
    # One that was interrupted goes on. Not a part of the make that may be running this.
    unset MAKEFLAGS MAKELEVEL MFLAGS KVER KDIR
    cd "$dir/build"
    configure "$wanted"
    "${make[@]}" include/config/kernel.release
    [[ $(<include/config/kernel.release) == "$release" ]] ||
        die "this makes $(<include/config/kernel.release), not $release"
    # The last is for KCSAN, and nothing to the others: modules that come later are watched, and
    # none of this.
    nice "${make[@]}" -j "$(nproc)" "${target[@]}" KCSAN_SANITIZE=n
    "${make[@]}" modules_install INSTALL_MOD_PATH="$dir"
    ln -f "${target[0]}" "$dir/${target[0]}"
    # The source stays, and all that a build of modules needs.
    find . -path ./scripts -prune -o -path ./tools -prune -o \
        \( -name '*.o' -o -name '*.ko' -o -name '*.a' \) -exec rm {} +
    touch "$dir/built"
}

case ${1:-} in
version) echo "$release" ;;
dir) echo "$dir" ;;
build) build ;;
*) die "usage: build-kernel.sh version|dir|build um|debug|kcsan" ;;
esac
