#!/usr/bin/env bash
# Builds the images the examples and tests run, on this machine, from Debian packages: no registry is needed.
#
#   scripts/images.sh [NAME…]     builds these, by default all: frr host test, each tagged netloom/NAME:local
#   scripts/images.sh --remove    removes them
#
# An image is a directory of deploy/images: `packages` (one a line), `rootfs/` (files laid over them), `config` (changes
# for `docker import`) and, if needed, `prepare` (shell, run in the unpacked root). The packages are resolved and
# fetched by this machine's apt, with its sources, proxy and certificates, and unpacked without running their scripts:
# that takes seconds, no root, and a third of the space of a bootstrapped system.
#
# An image carries a digest of its recipe in a label and is built again only when the recipe has changed.
source "$(dirname "$0")/lib.sh"

images=$repo/deploy/images
label=netloom.recipe
work=

# digest_of NAME: over every file that goes into the recipe, with its name and mode.
digest_of() {
    (
        cd "$repo"
        find scripts/images.sh deploy/images/common "deploy/images/$1" -type f -printf '%p %m\n' | LC_ALL=C sort |
            while read -r file mode; do
                echo "$file $mode $(sha256sum <"$file")"
            done | sha256sum | cut -d ' ' -f 1
    )
}

# fetch PACKAGE…: the packages and all they depend on, into $work/cache/archives.
fetch() {
    mkdir -p "$work/cache/archives/partial" "$work/lists/partial"
    : >"$work/status" # nothing is installed, so apt names every dependency
    local apt=(apt-get -qq -y -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache" -o Debug::NoLocking=1
        -o APT::Install-Recommends=0 -o APT::Sandbox::User=)
    "${apt[@]}" --download-only install "$@" >"$work/apt.log" 2>&1 && return
    say "apt's package lists are missing or old: fetching fresh ones for this build"
    apt+=(-o "Dir::State::lists=$work/lists")
    if ! { "${apt[@]}" update && "${apt[@]}" --download-only install "$@"; } >"$work/apt.log" 2>&1; then
        cat "$work/apt.log" >&2
        die "apt could not fetch: $*"
    fi
}

# unpack NAME: the fetched packages as a root directory in $work/root.
unpack() {
    local recipe=$images/$1 root=$work/root deb dir applet
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,etc,proc,root,run,sys,tmp,var}
    chmod 1777 "$root/tmp"
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
    ln -s /run "$root/var/run"
    for deb in "$work"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$root"
    done
    rm -rf "$root"/usr/share/{bash-completion,doc,info,initramfs-tools,lintian,locale,man,perl5} "$root"/usr/lib/*/gconv

    # What the scripts of the base packages would have put there.
    if [ -d "$root/usr/share/base-passwd" ]; then
        cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
        cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    fi
    for applet in $("$root/bin/busybox" --list); do
        [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
    done

    for dir in "$images/common/rootfs" "$recipe/rootfs"; do
        [ ! -d "$dir" ] || cp -a "$dir/." "$root"
    done
    [ ! -e "$recipe/prepare" ] || (cd "$root" && bash -eu "$recipe/prepare")
}

build() {
    local tag=netloom/$1:local digest old changes=() line
    digest=$(digest_of "$1")
    old=$(docker_ image inspect --format "{{.Id}} {{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null || true)
    if [ "${old#* }" = "$digest" ]; then
        say "$tag is up to date"
        return
    fi
    say "building $tag"
    work=$(mktemp -d)
    mapfile -t packages <"$images/$1/packages"
    fetch "${packages[@]}"
    unpack "$1"
    while read -r line; do changes+=(--change "$line"); done <"$images/$1/config"
    tar -C "$work/root" --owner=0 --group=0 --numeric-owner -c . |
        docker_ import "${changes[@]}" --change "LABEL $label=$digest" - "$tag" >/dev/null
    # Docker keeps the old one while a container uses it.
    [ -z "$old" ] || docker_ image rm "${old%% *}" >/dev/null 2>&1 || true
    say "built $tag ($(docker_ image inspect --format '{{.Size}}' "$tag" | awk '{ printf "%.0f MB", $1 / 1e6 }'))"
    rm -rf "$work"
}

trap 'rm -rf "$work"' EXIT
is_root || [ -w "${DOCKER_HOST#unix://}" ] || as_root "talk to Docker, whose group you are not in" true
docker_ version >/dev/null 2>&1 || die "Docker Engine does not answer: run 'make services'"
exec {lock}<"$images"
flock "$lock" # one build at a time
all=(test host frr)
if [ "${1:-}" = --remove ]; then
    for name in "${all[@]}"; do
        docker_ image inspect "netloom/$name:local" >/dev/null 2>&1 || continue
        docker_ image rm "netloom/$name:local" >/dev/null
        say "removed netloom/$name:local"
    done
    exit
fi
[ $# -gt 0 ] || set -- "${all[@]}"
for name in "$@"; do
    [ -d "$images/$name/" ] && [ "$name" != common ] || die "no image named $name in deploy/images"
    build "$name"
done
