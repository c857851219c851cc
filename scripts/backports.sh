#!/bin/bash
# The newest kernel in the backports of Debian's stable release, of which this machine may be older:
#
#   backports.sh newest         its series and the version of its packages: "7.3 7.3.4-1~bpo13+1". Looks
#                               at most once a day. Fails, and says why, if the mirror has none.
#   backports.sh kernel [SERIES|VERSION]
#                               the same of what boots: 7.3.4+deb13-amd64, of a series if one is given
#   backports.sh get PACKAGE    downloads a package from there, and prints where it is
#   backports.sh get-all PACKAGES...
#                               the same with all that they depend on, from the stable release or from
#                               its backports, as if this machine had nothing
#
# The mirror is $DEBIAN_MIRROR, or deb.debian.org. Nothing of the machine's own apt is changed: lists and packages are in
# ${XDG_CACHE_HOME:-~/.cache}/dm-remap/backports.
set -euo pipefail

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
dir=${XDG_CACHE_HOME:-$HOME/.cache}/dm-remap/backports

die() {
    echo "backports.sh: $*" >&2
    exit 1
}

in_backports() { # in_backports APT_PROGRAM ARGS...
    local program=$1
    shift
    "$program" -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o Dir::State::Status=/dev/null -o APT::Sandbox::User= -o Acquire::Languages=none "$@"
}

# The name of the release, not "stable": a mirror's copies of that link may be months old.
update() {
    local release
    release=$(release_name) || die "no answer from $mirror"
    mkdir -p "$dir"/{lists,cache}
    printf "deb [signed-by=$keyring] $mirror %s main\n" "$release" "$release-backports" >"$dir/sources.list"
    in_backports apt-get update -qq >&2 || die "$mirror has no lists of $release-backports"
}

release_name() {
    local release=$dir/InRelease
    mkdir -p "$dir"
    /usr/lib/apt/apt-helper download-file "$mirror/dists/stable/InRelease" "$release" >/dev/null 2>&1 ||
        return
    sed -n 's/^Codename: //p' "$release"
}

# The versions of backports are told by their names: apt knows those of the release as well. Kernels of
# other kinds have a second dash: 7.3.4+deb13-rt-amd64.
look() {
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    [[ -z $(find "$dir/kernels" -mtime -1 2>/dev/null) ]] || return 0
    update
    in_backports apt-cache dumpavail | awk '
        $1 == "Package:" { package = $2 }
        $1 == "Version:" && $2 ~ /~bpo/ && package ~ /^linux-(source-[0-9.]+|image-[0-9.]+[^-]*-amd64)$/ {
            print package, $2
        }' | sort -V >"$dir/kernels.new"
    mv "$dir/kernels.new" "$dir/kernels"
}

newest() {
    look
    sed -n 's/^linux-source-//p' "$dir/kernels" | tail -n 1 | grep . ||
        die "$mirror has no linux-source in backports"
}

kernel() {
    look
    awk -v wanted="$1" '
        sub(/^linux-image-/, "") && (wanted == "" || $1 == wanted || index($1, wanted ".") == 1) {
            print $1
        }' "$dir/kernels" | tail -n 1 | grep . ||
        die "$mirror has no kernel ${1:+$1 }in backports"
}

get() {
    local package
    look
    mkdir -p "$dir/packages"
    cd "$dir/packages"
    in_backports apt-get download -qq "$@" >&2 || die "cannot be downloaded: $*"
    for package; do
        find "$PWD" -name "${package}_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2
    done
}

get_all() {
    local packages
    look
    packages=$(in_backports apt-get install --simulate --no-install-recommends "$@" |
        awk '$1 == "Inst" { print $2 }') || die "$mirror does not have all that these need: $*"
    # shellcheck disable=SC2086 # they are words
    get $packages
}

case ${1:-} in
newest) newest ;;
kernel) kernel "${2:-}" ;;
get) get "${2:?}" ;;
get-all) get_all "${@:2}" ;;
*) die "usage: backports.sh newest | kernel [SERIES|VERSION] | get PACKAGE | get-all PACKAGES..." ;;
esac
