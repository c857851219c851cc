#!/bin/bash
# The newest kernel in the backports of Debian's stable release, of which this machine may be older:
#
#   backports.sh newest         its series and the version of its packages: "7.3 7.3.4-1~bpo13+1". Looks
#                               at most once a day. Fails, and says why, if the mirror has none.
#   backports.sh get PACKAGE    downloads a package from there, and prints where it is
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
    echo "deb [signed-by=$keyring] $mirror $release-backports main" >"$dir/sources.list"
    in_backports apt-get update -qq >&2 || die "$mirror has no lists of $release-backports"
}

release_name() {
    local release=$dir/InRelease
    mkdir -p "$dir"
    /usr/lib/apt/apt-helper download-file "$mirror/dists/stable/InRelease" "$release" >/dev/null 2>&1 ||
        return
    sed -n 's/^Codename: //p' "$release"
}

newest() {
    local series
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    if [[ -z $(find "$dir/newest" -mtime -1 2>/dev/null) ]]; then
        update
        series=$(in_backports apt-cache search --names-only '^linux-source-[0-9.]+$' |
            cut -d ' ' -f 1 | sort -V | tail -n 1)
        [[ -n $series ]] || die "$mirror has no linux-source in backports"
        in_backports apt-cache show --no-all-versions "$series" |
            awk -v series="${series#linux-source-}" '
                $1 == "Version:" { print series, $2; exit }' >"$dir/newest.new"
        mv "$dir/newest.new" "$dir/newest"
    fi
    cat "$dir/newest"
}

get() {
    local package=$1
    newest >/dev/null
    mkdir -p "$dir/packages"
    cd "$dir/packages"
    in_backports apt-get download -qq "$package" >&2 || die "$package cannot be downloaded"
    find "$PWD" -name "${package}_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2
}

case ${1:-} in
newest) newest ;;
get) get "${2:?}" ;;
*) die "usage: backports.sh newest | get PACKAGE" ;;
esac
