#!/bin/bash
# initramfs.sh VERSION: pack what the test machine runs. In build/vm/VERSION it makes
#
#   root/usr         its /usr: busybox, a few tools, this kernel's modules that tests use,
#                    dm_remap.ko, dm-remapctl, the case programs and, in share/corpus, the programs
#                    that make hostile spares
#   system.img       the same as a file system, for a machine that is emulated
#   initramfs.cpio   the rest of its root, and what it takes to mount /usr. The kernel unpacks all of
#                    it at each boot, also what nobody asks for, hence there is little in it.
#
# The tools and modules are staged once; only what changed is copied, and packed, again.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/stage.sh
. tests/vm/stage.sh

version=$1
kernel=$(scripts/kernels.sh fetch "$version")
dir=build/vm/$version
root=$dir/root   # what becomes system.img, in usr
first=$dir/first # what becomes initramfs.cpio

tools=(kmod dmsetup fio mke2fs e2fsck dumpe2fs mkfs.xfs xfs_repair mkfs.btrfs btrfs blkid lsblk dd lvm udevadm)
udev_rules=(50-udev-default 55-dm 60-block 60-persistent-storage 60-persistent-storage-dm 95-dm-notify)
first_modules=(virtio_pci virtio_blk ext4)
modules=(configfs dm-mod dm-zero dm-flakey dm-delay dm-log-writes dm-crypt xts
    sd_mod scsi_debug loop nbd brd null_blk ext4)
# The quickest cipher that the kernel has; and a SCSI target and NVMe, which only Debian's kernels
# have.
case $version in
*-um-*)
    modules+=(dm-dust aes)
    first_modules=()
    ;;
*-kcsan-*) modules+=(virtio_pci virtio_blk virtio_console xfs btrfs crc32c aes_generic ecb) ;;
*)
    modules+=(virtio_pci virtio_blk virtio_console xfs btrfs crc32c
        aesni_intel target_core_mod tcm_loop nvme)
    ;;
esac
built=(build/cmake/tests/vm/vm-cases build/cmake/tests/bench/kernel-bench build/cmake/tools/dm-remapctl)
corpus=tests/fuzz/corpus/spare
# Modules that are built out of tree: ours, and a target that the kernels of Debian lack.
out_of_tree=("build/module/$version/dm_remap.ko")
[[ $version == *-um-* ]] || out_of_tree+=("$(tests/vm/dm-dust.sh "$version")")

stage_system() {
    local tool rules
    make_root "$root"
    stage_tools "$root" "${tools[@]}"
    for tool in modprobe rmmod insmod lsmod modinfo; do
        ln -sf kmod "$root/usr/bin/$tool"
    done
    ln -sf mke2fs "$root/usr/bin/mkfs.ext4"
    ln -sf udevadm "$root/usr/bin/systemd-udevd"
    mkdir -p "$root/usr/lib/udev/rules.d"
    for rules in "${udev_rules[@]}"; do
        cp "/lib/udev/rules.d/$rules.rules" "$root/usr/lib/udev/rules.d/"
    done
    stage_modules "$root" "${modules[@]}"
    touch "$dir/staged"
}

# The list is that of the modules that init loads before it has /usr.
pack_first() {
    make_root "$first"
    add_init "$first"
    if [[ ${#first_modules[@]} -gt 0 ]]; then
        stage_modules "$first" "${first_modules[@]}"
        depmod -b "$first" "$version"
    fi
    pack_root "$first" "$dir/initramfs.cpio"
}

# A tenth is for the file system's own.
pack_system() {
    local kilobytes
    kilobytes=$(du -sk "$root/usr" | cut -f 1)
    rm -f "$dir/packing"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$root/usr" "$dir/packing" \
        "$((kilobytes + kilobytes / 10 + 4096))k" >/dev/null
    mv "$dir/packing" "$dir/system.img"
}

stage_project() {
    local module needs path
    rm -rf "${root:?}/usr/share"
    mkdir -p "$root/usr/share"
    cp -r "$corpus" "$root/usr/share/corpus"
    for path in "${built[@]}"; do
        [[ ! -e $path ]] || stage_programs "$root" "$path"
    done
    for module in "${out_of_tree[@]}"; do
        [[ -e $module ]] || continue
        mkdir -p "$root/lib/modules/$version/updates"
        cp -u "$module" "$root/lib/modules/$version/updates/"
        IFS=, read -ra needs <<<"$(modinfo -F depends "$module")"
        [[ ${#needs[@]} -eq 0 ]] || stage_modules "$root" "${needs[@]}"
    done
    depmod -b "$root" "$version"
}

mkdir -p "$dir"
if [[ ! -e $dir/staged || $0 -nt $dir/staged || tests/vm/stage.sh -nt $dir/staged ||
    $kernel -nt $dir/staged ]]; then
    stage_system
fi
if [[ $dir/staged -nt $dir/initramfs.cpio || tests/vm/init -nt $dir/initramfs.cpio ]]; then
    pack_first
fi
for input in "$dir/staged" "${out_of_tree[@]}" "$corpus" "${built[@]}"; do
    if [[ $input -nt $dir/packed ]]; then
        stage_project
        [[ $version == *-um-* ]] || pack_system
        touch "$dir/packed"
        break
    fi
done
