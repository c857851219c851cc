# shellcheck shell=bash
# Sourced by those who pack what a test machine runs, for a kernel: its $version, and in $kernel what
# kernels.sh has fetched.
#
#   make_root ROOT                  anew, with busybox
#   stage_programs ROOT PATHS...    programs with their libraries
#   stage_tools ROOT NAMES...       the same, by the names that they have on this machine
#   stage_modules ROOT NAMES...     modules of the kernel
#   add_init ROOT                   what a root is booted by, and into
#   pack_root ROOT FILE             the archive that the kernel unpacks

# Of depmod, modprobe and mke2fs.
PATH=$PATH:/usr/sbin:/sbin

# Copies of programs into ROOT/usr/bin, with the libraries that they are linked to.
stage_programs() {
    local root=$1 library
    shift
    cp -L --remove-destination "$@" "$root/usr/bin/"
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && NF == 2 { print $1 }' |
        grep -v ':$' | sort -u |
        while read -r library; do
            mkdir -p "$root/$(dirname "$library")"
            cp -Lu "$library" "$root/$library"
        done
}

stage_tools() {
    local root=$1 paths
    shift
    mapfile -t paths < <(type -P "$@")
    [[ ${#paths[@]} -eq $# ]] || { echo "missing one of: $*" >&2 && exit 1; }
    stage_programs "$root" "${paths[@]}"
}

# Modules for ROOT with all that they depend on, decompressed: the kernel loads them without help.
stage_modules() {
    local root=$1 module path to
    : "${version:?}" "${kernel:?}"
    shift
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

# With busybox, under all its names.
make_root() {
    local root=$1 applet
    rm -rf "$root"
    mkdir -p "$root"/usr/{bin,lib,lib64}
    ln -s usr/bin "$root/bin"
    ln -s usr/bin "$root/sbin"
    ln -s bin "$root/usr/sbin"
    ln -s usr/lib "$root/lib"
    ln -s usr/lib64 "$root/lib64"
    cp /bin/busybox "$root/usr/bin/"
    for applet in $(busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/usr/bin/$applet"
    done
}

add_init() {
    mkdir -p "$1"/{dev,etc,mnt,proc,run,sys,tmp}
    cp /etc/mke2fs.conf "$1/etc/"
    cp tests/vm/init "$1/init"
}

pack_root() {
    (cd "$1" && find . -print0 | cpio -0 -o -H newc --quiet -R 0:0) >"$2.new"
    mv "$2.new" "$2"
}
