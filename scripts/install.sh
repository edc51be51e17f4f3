#!/usr/bin/env bash
# Installs netloom, and takes it away again. `make install` and `make uninstall` call it; docs/install.md tells what they do.
#
#   scripts/install.sh install      builds as the user, then puts the files in place, by sudo where root is needed
#   scripts/install.sh uninstall    removes what was installed; configuration and data only with PURGE=1
#
# The environment says where and what:
#
#   PREFIX=/usr/local         below it go bin, share and lib
#   DESTDIR=                  put before every path, to make a package: nothing but files is touched then
#   SYSTEMDUNITDIR=           where the unit goes; without a word where systemd looks for units of this PREFIX
#   PROGRAMS=                 all: also the five programs that netloomd is made of, to run them apart
#   PROFILE=release           what cargo builds
#   BUILT=                    a directory with programs built before, instead of building them
#   PURGE=                    1: uninstall also removes labs, data, configuration and the group
source "$(dirname "$0")/lib.sh"
cd "$repo"

prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
profile=${PROFILE:-release}
built=${BUILT:-}
purge=${PURGE:-}

[[ $prefix == /* ]] || die "PREFIX must begin with /: $prefix"
[[ -z $destdir || $destdir == /* ]] || die "DESTDIR must begin with /: $destdir"
prefix=${prefix%/} destdir=${destdir%/}

etc=/etc/netloom # where the programs look for it, whatever PREFIX is
data=/var/lib/netloom
run=/run/netloom
share=$prefix/share/netloom
# What was installed, one a line: `file PATH`, or `dir PATH` for what was made for it; without DESTDIR.
manifest=$destdir$share/installed

# systemd's own directories are known below these two only.
case $prefix in
    /usr | /usr/local) lib=$prefix/lib unitdir=$prefix/lib/systemd/system ;;
    *) lib=/etc unitdir=/etc/systemd/system ;;
esac
unitdir=${SYSTEMDUNITDIR:-$unitdir}

main_programs=(netloom netloomd netloom-host)
other_programs=(netloom-gateway netloom-scheduler netloom-image-registry netloom-compute netloom-network)
case ${PROGRAMS:-} in
    '') programs=("${main_programs[@]}") ;;
    all) programs=("${main_programs[@]}" "${other_programs[@]}") ;;
    *) die "PROGRAMS is \"all\" or nothing" ;;
esac

# True when this is the machine's own installation, not one below DESTDIR.
real() { [ -z "$destdir" ]; }

# --- putting files in place ---

new=() # lines of the manifest as it will be

declare -A noted
note() { # KIND PATH
    [ -z "${noted["$1 $2"]:-}" ] || return 0
    noted["$1 $2"]=1
    new+=("$1 $2")
    # At once, so that an install that ends half-way can be removed.
    [ ! -e "$manifest" ] || printf '%s %s\n' "$1" "$2" >>"$manifest"
}

# directory PATH: makes it, with all above it, and notes what was made.
directory() {
    [ ! -d "$destdir$1" ] || return 0
    [ "$1" = / ] || [ -z "$1" ] || directory "$(dirname "$1")"
    mkdir -m 755 "$destdir$1"
    note dir "$1"
}

# put MODE SOURCE PATH: at once, so that a program that runs keeps its old file.
put() {
    directory "$(dirname "$3")"
    install -m "$1" "$2" "$destdir$3.new"
    mv -f "$destdir$3.new" "$destdir$3"
    note file "$3"
}

# put_edited SOURCE PATH: with the paths of this installation in place of the usual ones.
put_edited() {
    sed "s#/usr/local/bin/#$prefix/bin/#g" "$1" >"$work/edited"
    put 644 "$work/edited" "$2"
}

put_all() {
    local program file
    for program in "${programs[@]}"; do put 755 "$built/$program" "$prefix/bin/$program"; done

    # The program knows its own manual pages and completions.
    mkdir "$work/man"
    "$built/netloom" man --dir "$work/man"
    for file in "$work"/man/*; do put 644 "$file" "$prefix/share/man/man1/${file##*/}"; done
    "$built/netloom-host" man --dir "$work/man8"
    for file in "$work"/man8/*; do put 644 "$file" "$prefix/share/man/man8/${file##*/}"; done
    for program in netloom netloom-host; do
        "$built/$program" completions bash >"$work/bash"
        "$built/$program" completions zsh >"$work/zsh"
        "$built/$program" completions fish >"$work/fish"
        put 644 "$work/bash" "$prefix/share/bash-completion/completions/$program"
        put 644 "$work/zsh" "$prefix/share/zsh/site-functions/_$program"
        put 644 "$work/fish" "$prefix/share/fish/vendor_completions.d/$program.fish"
    done

    put_edited deploy/systemd/netloomd.service "$unitdir/netloomd.service"
    put_edited deploy/systemd/netloom-host.service "$unitdir/netloom-host.service"
    # One unit for each of a controller's programs, where they are installed.
    [[ " ${programs[*]} " != *" netloom-gateway "* ]] || put_edited deploy/systemd/netloom@.service "$unitdir/netloom@.service"
    put 644 deploy/systemd/netloom.sysusers.conf "$lib/sysusers.d/netloom.conf"
    put 644 deploy/systemd/netloom.tmpfiles.conf "$lib/tmpfiles.d/netloom.conf"

    while read -r file; do put 644 "$file" "$share/$file"; done < <(find kinds examples -type f | sort)
    put 644 LICENSE "$share/LICENSE"
    # The configuration as it comes, to compare with, and the one in use, which is the user's.
    put 644 deploy/netloom.toml "$share/netloom.toml"
    mkdir -p "$destdir$etc/kinds"
    if [ -e "$destdir$etc/netloom.toml" ]; then
        say "$destdir$etc/netloom.toml is left as it is; $share/netloom.toml is as it comes"
    else
        install -m 644 deploy/netloom.toml "$destdir$etc/netloom.toml"
    fi
}

# What an earlier install put there and this one did not.
drop_stale() {
    local -A now=()
    local line
    for line in "${new[@]}"; do now[$line]=1; done
    for line in "${old[@]}"; do
        case $line in
            file\ *) [ -n "${now[$line]:-}" ] || rm -f "$destdir${line#file }" ;;
            *) [ -n "${now[$line]:-}" ] || new+=("$line") ;; # a directory made then is still ours
        esac
    done
    printf '%s\n' "${new[@]}" >"$manifest"
}

read_manifest() {
    old=()
    [ ! -e "$manifest" ] || mapfile -t old <"$manifest"
}

make_group() {
    ! getent group netloom >/dev/null || return 0
    if has systemd-sysusers; then
        systemd-sysusers "$lib/sysusers.d/netloom.conf"
    else
        groupadd --system netloom
    fi
}

answers() { NETLOOM_ENDPOINT=unix:$run/api.sock "$prefix/bin/netloom" host list; }

start_service() {
    systemctl daemon-reload
    systemctl enable --quiet netloomd
    systemctl restart netloomd # also one that runs: labs run on meanwhile
    within 30 answers || die "netloomd was started and does not answer: see 'journalctl -u netloomd', and 'netloom doctor'"
    say "netloomd runs, now and after every boot"
}

place() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    read_manifest
    mkdir -p "$destdir/"
    directory "$share"
    [ -e "$manifest" ] || { [ ${#new[@]} = 0 ] || printf '%s\n' "${new[@]}"; } >"$manifest"
    note file "$share/installed"
    put_all
    if real; then make_group; fi
    drop_stale
    say "installed: $(grep -c ^file "$manifest") files, listed in $manifest"
    if real && has_systemd; then start_service; fi
}

what_next() {
    real || return 0
    local start='' member='' user=${SUDO_USER:-$(id -un)}
    has_systemd || start="
    sudo netloomd                           # systemd does not run here: start it yourself"
    [ "$user" = root ] || member="
    sudo usermod --append --groups netloom $user    # then log in again: netloom without sudo, and as mighty as with it"
    cat <<END

    Go on:$start$member
    sudo netloom doctor --fix               # checks this machine, and prepares it when you say so
    make images                             # the images of the examples
    cp -r $share/examples . && netloom deploy -t examples/ospf-triangle.clab.yml
    docs/tutorial.md goes on from there; 'man netloom' has every command.
END
}

# --- taking them away ---

remove_labs() {
    [ -e "$data/owner" ] || return 0
    say "removing all labs"
    NETLOOM_ENDPOINT=unix:$run/api.sock "$prefix/bin/netloom" destroy --all --yes ||
        die "the labs cannot be removed, so nothing was: start netloomd and run this again, or do without PURGE=1"
}

remove_service() {
    local labs
    labs=$(answers >/dev/null 2>&1 && NETLOOM_ENDPOINT=unix:$run/api.sock "$prefix/bin/netloom" inspect --all --format json | jq '.labs | length') || labs=0
    [ "$labs" = 0 ] || say "labs that go on running without netloomd: $labs ('netloom destroy --all' after installing it again)"
    if has_systemd; then systemctl disable --now --quiet netloomd 2>/dev/null || true; fi
}

remove_files() {
    local line i
    for ((i = ${#old[@]} - 1; i >= 0; i--)); do
        line=${old[i]}
        [[ $line != file\ * ]] || rm -f "$destdir${line#file }"
    done
    # Deepest first, and only what is empty: others may have put something there since.
    for ((i = ${#old[@]} - 1; i >= 0; i--)); do
        line=${old[i]}
        [[ $line != dir\ * ]] || rmdir "$destdir${line#dir }" 2>/dev/null || true
    done
}

take_away() {
    read_manifest
    [ ${#old[@]} -gt 0 ] || die "nothing is installed here: there is no $manifest"
    if real; then
        [ "$purge" != 1 ] || remove_labs
        remove_service
    fi
    remove_files
    if real && has_systemd; then systemctl daemon-reload; fi
    say "removed ${#old[@]} files and directories"
    if [ "$purge" = 1 ]; then
        rm -rf "$destdir$etc"
        if real; then
            rm -rf "$data" "$run"
            ! getent group netloom >/dev/null || groupdel netloom
        fi
        say "removed configuration and data"
    else
        say "left: $destdir$etc, $destdir$data and the group netloom (PURGE=1 removes them, and all labs)"
    fi
    [ -z "$destdir" ] || rmdir "$destdir/etc" 2>/dev/null || true
}

# --- as the right user ---

# The nearest directory that exists tells who may write there.
writable() {
    local path=$destdir$1
    while [ ! -e "$path" ]; do path=$(dirname "$path"); done
    [ -w "$path" ]
}

# with_rights WHY WORD: this script again, as root where that is needed.
with_rights() {
    if writable "$prefix" && writable "$etc"; then
        "$repo/scripts/install.sh" "$2"
    else
        as_root "$1" env PREFIX="$prefix" DESTDIR="$destdir" SYSTEMDUNITDIR="$unitdir" PROGRAMS="${PROGRAMS:-}" BUILT="$built" \
            PURGE="$purge" "$repo/scripts/install.sh" "$2"
    fi
}

case ${1:-} in
    install)
        if [ -z "$built" ]; then
            cargo build --workspace --bins --locked --profile "${profile/#debug/dev}"
            built=${CARGO_TARGET_DIR:-$repo/target}/$profile
        fi
        export BUILT=$built
        with_rights "install netloom into $destdir$prefix" place
        what_next
        ;;
    uninstall) with_rights "remove netloom from $destdir$prefix" take-away ;;
    place) place ;;         # asked for by install, with the rights it needs
    take-away) take_away ;; # asked for by uninstall
    *) die "usage: $0 install|uninstall" ;;
esac
