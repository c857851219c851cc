#!/bin/bash
# initramfs.sh VERSION: pack what the test machine runs into build/vm/VERSION/initramfs.cpio:
# busybox, a few tools, this kernel's modules that tests use, dm_remap.ko, dm-remapctl, the case programs
# and, in /corpus, the programs that make hostile spares.
# The tools and modules are staged once; only what changed is copied, and packed, again.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."

version=$1
kernel=$(scripts/kernels.sh fetch "$version")
dir=build/vm/$version
root=$dir/root

tools=(kmod dmsetup fio mke2fs e2fsck dumpe2fs mkfs.xfs xfs_repair mkfs.btrfs btrfs blkid dd lvm)
modules=(virtio_pci virtio_blk virtio_console configfs
    dm-mod dm-zero dm-flakey dm-delay dm-log-writes dm-crypt xts aesni_intel
    sd_mod scsi_debug loop brd null_blk ext4 xfs btrfs crc32c)
built=(build/cmake/tests/vm/vm-cases build/cmake/tests/bench/io-bench build/cmake/tools/dm-remapctl)
corpus=tests/fuzz/corpus/spare
# Modules that are built out of tree: ours, and a target that Debian's kernels lack.
dm_remap=build/module/$version/dm_remap.ko
dm_dust=$(tests/vm/dm-dust.sh "$version")

# Copies of programs into usr/bin, with the libraries that they are linked to.
stage_programs() {
    local library
    cp -L --remove-destination "$@" "$root/usr/bin/"
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && NF == 2 { print $1 }' |
        grep -v ':$' | sort -u |
        while read -r library; do
            mkdir -p "$root/$(dirname "$library")"
            cp -Lu "$library" "$root/$library"
        done
}

# Modules with all that they depend on, decompressed: the kernel loads them without help.
stage_modules() {
    local module path to
    mkdir -p "$root/lib/modules/$version"
    cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} \
        "$root/lib/modules/$version/"
    for module in "$@"; do
        modprobe -d "$kernel" -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" { print $2 }' | sort -u |
        while read -r path; do
            to=$root/${path#"$kernel"/}
            mkdir -p "$(dirname "$to")"
            case $path in
            *.xz) xz -dc "$path" >"${to%.xz}" ;;
            *) cp "$path" "$to" ;;
            esac
        done
}

stage_system() {
    local applet paths tool
    rm -rf "$root"
    mkdir -p "$root"/usr/{bin,lib,lib64} "$root"/{dev,etc,mnt,proc,run,sys,tmp}
    ln -s usr/bin "$root/bin"
    ln -s usr/bin "$root/sbin"
    ln -s bin "$root/usr/sbin"
    ln -s usr/lib "$root/lib"
    ln -s usr/lib64 "$root/lib64"
    cp /bin/busybox "$root/usr/bin/"
    for applet in $(busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/usr/bin/$applet"
    done
    mapfile -t paths < <(PATH=$PATH:/usr/sbin:/sbin type -P "${tools[@]}")
    [[ ${#paths[@]} -eq ${#tools[@]} ]] || { echo "missing one of: ${tools[*]}" >&2; exit 1; }
    stage_programs "${paths[@]}"
    for tool in modprobe rmmod insmod lsmod modinfo; do
        ln -sf kmod "$root/usr/bin/$tool"
    done
    ln -sf mke2fs "$root/usr/bin/mkfs.ext4"
    cp /etc/mke2fs.conf "$root/etc/"
    stage_modules "${modules[@]}"
    touch "$dir/staged"
}

stage_project() {
    local module needs path
    cp -u tests/vm/init "$root/init"
    rm -rf "$root/corpus"
    cp -r "$corpus" "$root/corpus"
    for path in "${built[@]}"; do
        [[ ! -e $path ]] || stage_programs "$path"
    done
    for module in "$dm_remap" "$dm_dust"; do
        [[ -e $module ]] || continue
        mkdir -p "$root/lib/modules/$version/updates"
        cp -u "$module" "$root/lib/modules/$version/updates/"
        IFS=, read -ra needs <<<"$(modinfo -F depends "$module")"
        [[ ${#needs[@]} -eq 0 ]] || stage_modules "${needs[@]}"
    done
    depmod -b "$root" "$version"
}

mkdir -p "$dir"
if [[ ! -e $dir/staged || $0 -nt $dir/staged || $kernel -nt $dir/staged ]]; then
    stage_system
fi
for input in "$dir/staged" tests/vm/init "$dm_remap" "$dm_dust" "$corpus" "${built[@]}"; do
    if [[ $input -nt $dir/initramfs.cpio ]]; then
        stage_project
        (cd "$root" && find . -print0 | cpio -0 -o -H newc --quiet -R 0:0) >"$dir/packing"
        mv "$dir/packing" "$dir/initramfs.cpio"
        break
    fi
done
