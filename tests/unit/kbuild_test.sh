#!/bin/bash
# kernel/Kbuild leaves a clone's blkg to dm core only where the kernel's own dm-mod.ko proves that dm
# core sees to it. On a kernel that does not, the first I/O would oops. The number of the kernel, here
# one that has the fix at kernel.org, is no proof.
set -euo pipefail
cd "$(dirname "$0")/../.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
built=$dir/built/drivers/md installed=$dir/installed/kernel/drivers/md
fixed=bio_clone_blkg_association
failed=0

leaves_it_to_dm_core() {
    # shellcheck disable=SC2016 # it is make's
    printf 'include kernel/Kbuild\nall:\n\t@echo $(ccflags-y)\n' |
        make -rs -f - objtree="$dir/built" MODLIB="$dir/installed" KGZIP=gzip XZ=xz ZSTD=zstd \
            VERSION=6 PATCHLEVEL=12 SUBLEVEL=200 | grep -qw -e -DDM_REMAP_CORE_SETS_BLKG
}

# expect yes|no WHAT: with the files that are there, which are removed.
expect() {
    local answer=no
    ! leaves_it_to_dm_core || answer=yes
    [[ $answer == "$1" ]] || { echo "$2: $answer instead of $1" && failed=1; }
    rm -rf "$dir/built" "$dir/installed"
    mkdir -p "$built" "$installed"
}

module() { # module SYMBOL: as in a table of symbols
    printf '\0submit_bio_noacct\0%s\0bio_init\0' "$1"
}

expect no 'no dm-mod.ko'
module bio_associate_blkg >"$installed/dm-mod.ko"
expect no 'installed, without the fix'
module "un$fixed" >"$installed/dm-mod.ko"
expect no 'installed, with a symbol that has a longer name'
module bio_associate_blkg | xz >"$installed/dm-mod.ko.xz"
expect no 'installed by xz, without the fix'
module "$fixed" >"$installed/dm-mod.ko.odd"
expect no 'installed under a name that modprobe does not know'
echo damaged >"$installed/dm-mod.ko.xz"
expect no 'installed by xz, damaged'
module "$fixed" >"$built/dm-mod.ko"
expect yes 'where the kernel was built'
module "$fixed" >"$installed/dm-mod.ko"
expect yes 'installed'
for pack in gzip:gz xz:xz zstd:zst; do
    command -v "${pack%:*}" >/dev/null || continue
    module "$fixed" | "${pack%:*}" >"$installed/dm-mod.ko.${pack#*:}"
    expect yes "installed by ${pack%:*}"
done
exit $failed
