#!/bin/bash
# make demo: a virtual machine with a disk that has unreadable sectors; remap in front of it; a
# reboot of that machine on the same disks. Every command and its output are the machine's own
# (tests/vm/demo).
#
# A newcomer waits for all of it. So it installs and builds what it shows and no more, and does at one
# time what can be done at one time.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/vm/boot.sh
. tests/vm/boot.sh

dir=build/demo
# shellcheck disable=SC2034 # both are read by vm_boot
VM_DISKS=(main:32M spare:16M) VM_SYSTEM=$dir
packages=(demo-module tool demo-machine)

# Says what goes on, after how many seconds.
step() {
    printf '[%3d s] %s\n' "$SECONDS" "$*"
}

# wait_for PROCESS WHAT
wait_for() {
    ! kill -0 "$1" 2>/dev/null || step "Waiting until $2"
    wait "$1"
}

install() { # install GROUP WHY
    local line
    scripts/deps.sh --updated "$1" | while IFS= read -r line; do
        step "$2: ${line,}"
    done
}

# The packages that are installed, and their versions and sizes in KiB.
installed() {
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${Installed-Size}\n' |
        sed -n 's/^installed //p' | sort
}

# quiet NAME COMMAND...: its output is shown if it fails.
quiet() {
    local log=$dir/$1.log
    shift
    "$@" >"$log" 2>&1 || { cat "$log" >&2 && return 1; }
}

what_was_installed() {
    comm -13 "$dir/installed" <(installed) >"$dir/new"
    [[ -s $dir/new ]] || return 0
    awk '{ size += $3 }
        END { printf "\nInstalled on this machine, or upgraded, were %d packages, %d MB:\n", NR, size / 1024 }' \
        "$dir/new"
    awk '{ print $1 }' "$dir/new" | fmt -w 100
}

SECONDS=0
rm -rf "$dir"
mkdir -p "$dir"
installed >"$dir/installed"
# An apt that works in the background is not left alone.
trap wait EXIT

if [[ -n $(scripts/deps.sh --list "${packages[@]}") ]]; then
    # Others are told what to do, and that is all.
    [[ $(id -u) -eq 0 ]] || scripts/deps.sh "${packages[@]}"
    step "Waiting for apt-get update"
    apt-get update -qq
fi

scripts/kernels.sh version 6.12 >"$dir/version" &
headers=$!
install demo-module 'Waiting for a compiler'
wait_for $headers "Debian's headers of Linux 6.12 are fetched"
version=$(<"$dir/version")

also='; that kernel is fetched meanwhile'
[[ ! -e build/kernels/$version ]] || also=
scripts/kernels.sh fetch "$version" >/dev/null &
kernel=$!
step "Compiling the module for Linux $version$also"
quiet module make -s -j "$(nproc)" module KVER="$version" &
module=$!
install tool 'Waiting for what dm-remapctl is built with'

install demo-machine 'The emulator comes meanwhile' &
machine=$!
step "Compiling dm-remapctl"
quiet tool make -s quick-tool
wait_for $module "the module is compiled"
wait_for $kernel "the kernel is fetched"
wait_for $machine "the emulator is installed"
tests/vm/demo/initramfs.sh "$version" build/quick/tools/dm-remapctl "$dir"

how='emulated, without KVM'
[[ $(vm_accelerator "$version") != kvm ]] || how='with KVM'
for part in before-reboot after-reboot; do
    echo
    step "Booting Linux $version in QEMU, $how: ${part/-/ the }"
    cat tests/vm/demo/common.sh "tests/vm/demo/$part.sh" >"$dir/job"
    chmod +x "$dir/job"
    vm_boot "$version" "$dir" | tee "$dir/$part"
    [[ $(tail -n 1 "$dir/$part") == 'done: '* ]] ||
        { tail -n 40 "$dir/console" "$dir/log" && exit 1; }
done
rm -f "$dir"/*.img
what_was_installed
