#!/bin/bash
# Install the Debian packages that the given groups need: deps.sh [--updated|--list] [build] [test]
# [vm] [kernel] [fuzz] [coverage] [bench] [style] [tool] [demo-module] [demo-machine].
# Without a group: build and test. Says nothing and does nothing when all are there.
# --updated: apt's lists are new. --list: installs nothing, and prints what is missing.
set -euo pipefail

tool="g++ cmake ninja-build pkg-config
    libdeflate-dev libdevmapper-dev libblkid-dev libmount-dev libsmartcols-dev libudev-dev uuid-dev
    libcli11-dev libexpected-dev libfmt-dev nlohmann-json3-dev"
declare -A groups=(
    [tool]="$tool"
    [build]="build-essential kmod linux-headers-amd64 pahole $tool"
    [test]="libgtest-dev libgmock-dev librapidcheck-dev"
    [vm]="qemu-system-x86 busybox-static cpio dmsetup lvm2 udev e2fsprogs xfsprogs btrfs-progs fio
        linux-source-6.1 linux-source-6.12
        patch xz-utils zstd"
    [fuzz]="clang libclang-rt-14-dev llvm"
    [coverage]="clang libclang-rt-14-dev llvm python3"
    [kernel]="bc bison flex libelf-dev linux-source-6.12 patch xz-utils"
    [bench]="libbenchmark-dev python3 python3-matplotlib"
    [style]="clang-format clang-tidy shellcheck sparse linux-source-6.12 perl xz-utils"
    [demo-module]="g++ kmod pahole xz-utils zstd"
    [demo-machine]="qemu-system-x86 busybox-static cpio dmsetup e2fsprogs"
)

option=
if [[ ${1:-} == --* ]]; then
    option=$1
    shift
fi

missing=()
for group in "${@:-build test}"; do
    for name in $group; do
        if [[ -z ${groups[$name]:-} ]]; then
            echo "deps.sh: no group '$name'; there are: ${!groups[*]}" >&2
            exit 2
        fi
        for package in ${groups[$name]}; do
            state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
            [[ $state == installed || " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
        done
    done
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
[[ $option != --list ]] || { echo "${missing[*]}" && exit 0; }

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [[ $(id -u) -ne 0 ]]; then
    echo "Packages are missing. Run this as root, then try again:" >&2
    echo "  apt-get update && ${install[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
[[ $option == --updated ]] || apt-get update -qq
# Of what apt says, how many they are with those that they need, and how large.
LC_ALL=C "${install[@]}" -q </dev/null | while read -r -a word; do
    case ${word[*]} in
    *' newly installed, '*) number=$((word[0] + word[2])) ;;
    'Need to get '*)
        echo "Installing $number packages, ${word[*]:3:2} to download: ${missing[*]}"
        ;;
    esac
done
