#!/bin/bash
# The kernels that look harder, built from Debian's linux-source-6.12 in
# ${XDG_CACHE_HOME:-~/.cache}/dm-remap. KIND debug has KASAN, lockdep, kmemleak and fault injection,
# kcsan watches modules for data races: tests/vm/KIND.config, and debug-machine.config for both.
#
#   debug-kernel.sh version KIND   its release: 6.12.117-KIND-HASH, another for another configuration
#                                  or source, so that nothing made for the one is taken for the other
#   debug-kernel.sh dir KIND       where it is, or will be: vmlinux, lib/modules/, and build/, against
#                                  which modules are built
#   debug-kernel.sh build KIND     build it unless it is there. About 12 minutes of two processors.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${2:-}
package=linux-source-6.12

die() {
    echo "debug-kernel.sh: $*" >&2
    exit 1
}

[[ $kind == debug || $kind == kcsan ]] || die "usage: debug-kernel.sh version|dir|build debug|kcsan"
fragments=("tests/vm/$kind.config" tests/vm/debug-machine.config)
[[ ${1:-} != build ]] || scripts/deps.sh debug
source_version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)
[[ -n $source_version ]] || die "no $package: scripts/deps.sh debug"
hash=$({ echo "$source_version" && cat "${fragments[@]}"; } | sha256sum | head -c 8)
# 6.12.117-1~deb12u1 -> 6.12.117
release=${source_version%%-*}-$kind-$hash
dir=${XDG_CACHE_HOME:-$HOME/.cache}/dm-remap/linux-$release

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
    make -s tinyconfig
    echo "$wanted" >>.config
    echo "CONFIG_LOCALVERSION=\"-$kind-$hash\"" >>.config
    make -s olddefconfig 2>&1 | grep -v 'override: reassigning' || true
    dropped=$(dropped_options <<<"$wanted")
    [[ -z $dropped ]] || die "${fragments[*]}: kconfig did not accept"$'\n'"$dropped"
}

build() {
    local wanted staging
    wanted=$(cat "${fragments[@]}")
    [[ ! -e $dir/built ]] || return 0
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    [[ ! -e $dir/built ]] || return 0
    if [[ ! -d $dir/build ]]; then
        staging=$(mktemp -d "$dir/unpack.XXXXXX")
        tar -xf "/usr/src/$package.tar.xz" -C "$staging" --strip-components=1
        mv "$staging" "$dir/build"
    fi
    # One that was interrupted goes on. Not a part of the make that may be running this.
    unset MAKEFLAGS MAKELEVEL MFLAGS KVER KDIR
    cd "$dir/build"
    configure "$wanted"
    make -s include/config/kernel.release
    [[ $(<include/config/kernel.release) == "$release" ]] ||
        die "this makes $(<include/config/kernel.release), not $release"
    # The last is for KCSAN, and nothing to the others: modules that come later are watched, and
    # none of this.
    nice make -s -j "$(nproc)" vmlinux modules KCSAN_SANITIZE=n
    make -s modules_install INSTALL_MOD_PATH="$dir"
    ln -f vmlinux "$dir/vmlinux"
    # What is kept is what modules need, and the source.
    find . -path ./scripts -prune -o -path ./tools -prune -o \
        \( -name '*.o' -o -name '*.ko' -o -name '*.a' \) -exec rm {} +
    touch "$dir/built"
}

case ${1:-} in
version) echo "$release" ;;
dir) echo "$dir" ;;
build) build ;;
*) die "usage: debug-kernel.sh version|dir|build debug|kcsan" ;;
esac
