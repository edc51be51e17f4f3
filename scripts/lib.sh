# What the scripts here share. Sourced, never run.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# netloomd talks to this socket, so every script asks the same Engine, whatever context the user's client is set to.
export DOCKER_HOST=unix:///var/run/docker.sock

# sbin is not on every user's path, and the programs looked for live there.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

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

# docker_ COMMAND…: docker, by sudo for a user who may not open the Engine's socket.
docker_() {
    if [ -w "${DOCKER_HOST#unix://}" ] || is_root; then
        docker "$@"
    else
        sudo DOCKER_HOST="$DOCKER_HOST" docker "$@"
    fi
}
