# shellcheck shell=bash disable=SC2034
# What the scripts here share. Sourced, never run.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# netloomd talks to this socket, so every script asks the same Engine, whatever context the user's client is set to.
export DOCKER_HOST=unix:///var/run/docker.sock

# The programs looked for live in sbin, which is not on every user's path, and rustup's may not be yet.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin"

say() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step TITLE: a header with the seconds since the script began.
step() { printf '==> [%3d s] %s\n' "$SECONDS" "$*"; }

is_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }
has_systemd() { [ -d /run/systemd/system ]; }

# as_root WHY COMMAND…: runs COMMAND as root; says why before sudo can ask for a password.
as_root() {
    local why=$1
    shift
    if is_root; then
        "$@"
    else
        has sudo || die "root is needed to $why, and there is no sudo: run this as root"
        say "sudo, to $why"
        sudo "$@"
    fi
}

# within SECONDS COMMAND…: repeats COMMAND until it succeeds, at most that long.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# detached LOG COMMAND…: starts COMMAND in the background ($!), its output in LOG and with no other open file of ours.
detached() {
    local log=$1 fd
    shift
    (
        exec </dev/null >>"$log" 2>&1
        for fd in /proc/"$BASHPID"/fd/*; do
            fd=${fd##*/}
            [ "$fd" -gt 2 ] && eval "exec $fd>&-"
        done
        cd /
        exec setsid "$@"
    ) &
}

# docker_ COMMAND…: docker, by sudo for a user who may not open the Engine's socket.
docker_() {
    if [ -w "${DOCKER_HOST#unix://}" ] || is_root; then
        docker "$@"
    else
        sudo DOCKER_HOST="$DOCKER_HOST" docker "$@"
    fi
}

# mounts_below DIR: each mount there, in the order they were made; one that is stacked comes more than once.
mounts_below() {
    local path
    awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo |
        while read -r path; do printf '%b\n' "${path//\\/\\0}"; done # a space is written \040 there
}
