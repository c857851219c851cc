#!/bin/bash
# initramfs.sh VERSION TOOL DIR: pack what the machine of the demo runs, DIR/initramfs.cpio, with
# dm-remapctl as TOOL. It is small enough for the kernel to unpack all of it at each boot.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# shellcheck source=tests/vm/stage.sh
. tests/vm/stage.sh

version=$1
tool=$2
dir=$3
kernel=$(scripts/kernels.sh fetch "$version")
root=$dir/root
ours=build/module/$version/dm_remap.ko

make_root "$root"
add_init "$root"
stage_tools "$root" dd dmsetup mke2fs e2fsck
ln -sf mke2fs "$root/usr/bin/mkfs.ext4"
stage_programs "$root" "$tool"
IFS=, read -ra needed <<<"$(modinfo -F depends "$ours")"
stage_modules "$root" virtio_pci virtio_blk virtio_console configfs dm-mod sd_mod scsi_debug ext4 \
    crc32c "${needed[@]}"
cp "$ours" "$root/lib/modules/$version/"
depmod -b "$root" "$version"
pack_root "$root" "$dir/initramfs.cpio"
