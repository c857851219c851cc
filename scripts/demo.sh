#!/bin/bash
# make demo: a virtual machine with a disk that has unreadable sectors; remap in front of it; a
# reboot of that machine on the same disks. Every command and its output are the machine's own
# (tests/vm/demo).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh
# shellcheck disable=SC2034 # read by vm_boot
VM_DISKS=(main:64M spare:16M)

version=$(scripts/kernels.sh version 6.12)
dir=$PWD/build/demo
rm -rf "$dir"
mkdir -p "$dir"

echo "Building the module for $version, and dm-remapctl..."
make -s module KVER="$version"
make -s vm-programs
tests/vm/initramfs.sh "$version"

for part in before-reboot after-reboot; do
    echo
    echo "===== booting $version ($(vm_accelerator "$version")): $part ====="
    cat tests/vm/demo/common.sh "tests/vm/demo/$part.sh" >"$dir/job"
    chmod +x "$dir/job"
    vm_boot "$version" "$dir" | tee "$dir/$part"
    [[ $(tail -n 1 "$dir/$part") == 'done: '* ]] ||
        { tail -n 40 "$dir/console" "$dir/log" && exit 1; }
done
rm -f "$dir"/*.img
