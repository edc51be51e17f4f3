#!/usr/bin/env bash
# Starts what netloom needs of the machine and is not running: Docker Engine, Open vSwitch's ovsdb-server and
# ovs-vswitchd, and libvirt's libvirtd and virtlogd. What already answers is left alone: a restart would stop other
# people's containers and lose every flow.
#
# A machine with systemd is asked through it. Without it the daemons are started here, in a session of their own and
# holding none of the caller's file descriptors, so that they outlive `make` and never keep a pipe of CI open.
source "$(dirname "$0")/lib.sh"

docker_log=/var/log/dockerd.log
ovs_run=/var/run/openvswitch
ovs_log=/var/log/openvswitch
libvirt_run=/var/run/libvirt
libvirt_log=/var/log/libvirt
ready_s=60
dockerd= # its pid, if it was started here

# listens SOCKET: a process listens on this Unix socket. Any user may ask, and a stale socket file does not count.
listens() {
    awk -v run="$1" -v long="${1/#\/var\/run/\/run}" '
        $4 == "00010000" && ($8 == run || $8 == long) { found = 1 } END { exit !found }' /proc/net/unix
}

docker_answers() { timeout 10 docker version --format '{{.Server.Version}}'; }
docker_settled() { docker_answers || { [ -n "$dockerd" ] && ! kill -0 "$dockerd"; }; } # answers, or has died
ovsdb_answers() { timeout 10 ovs-vsctl --no-wait --timeout=5 show; }
# Its first answer about QEMU may take a minute; this one needs none.
libvirt_answers() { timeout 10 virsh -q -c qemu:///system uri >/dev/null 2>&1; }
vswitchd_answers() { timeout 10 ovs-appctl --timeout=5 -t ovs-vswitchd version; }

# For a user who may not open the sockets: is there anything to ask root for?
all_listen() {
    listens /var/run/docker.sock && listens "$ovs_run/db.sock" &&
        [ -S "$libvirt_run/libvirt-sock" ] && listens "$libvirt_run/libvirt-sock" &&
        listens "$ovs_run/ovs-vswitchd.$(cat "$ovs_run/ovs-vswitchd.pid" 2>/dev/null).ctl"
}

# drop_stale_pid FILE NAME: removes a pid file whose process is gone or, after a reboot, is another program's.
drop_stale_pid() {
    [ -e "$1" ] || return 0
    local pid
    pid=$(cat "$1" 2>/dev/null || true)
    if [ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ]; then
        say "removing stale $1"
        rm -f "$1"
    fi
}

# drop_stale_socket FILE: removes a socket file nobody listens on.
drop_stale_socket() {
    if [ -S "$1" ] && ! listens "$1"; then
        say "removing stale $1"
        rm -f "$1"
    fi
}

start_docker() {
    if docker_answers >/dev/null 2>&1; then
        say "Docker Engine $(docker_answers) already answers"
        return
    fi
    if has_systemd; then
        say "starting docker by systemctl"
        systemctl start docker
    else
        has dockerd || die "dockerd is not installed: run 'make deps'"
        say "starting dockerd (log: $docker_log)"
        drop_stale_pid /var/run/docker.pid dockerd
        drop_stale_pid /var/run/docker/containerd/containerd.pid containerd
        # dockerd would take the mere presence of this file for a containerd to use.
        drop_stale_socket /run/containerd/containerd.sock
        ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
        detached "$docker_log" dockerd
        dockerd=$!
    fi
    if ! within "$ready_s" docker_settled || ! docker_answers >/dev/null 2>&1; then
        has_systemd && die "Docker Engine does not answer; see 'journalctl -u docker'"
        tail -n 5 "$docker_log" >&2
        die "Docker Engine does not answer; its log is $docker_log"
    fi
    say "Docker Engine $(docker_answers) answers"
}

start_ovs() {
    if ovsdb_answers >/dev/null 2>&1 && vswitchd_answers >/dev/null 2>&1; then
        say "Open vSwitch already answers"
        return
    fi
    if has_systemd; then
        say "starting openvswitch-switch by systemctl"
        systemctl start openvswitch-switch
    else
        has ovs-vswitchd || die "ovs-vswitchd is not installed: run 'make deps'"
        mkdir -p "$ovs_run" "$ovs_log"
        ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
        start_ovsdb_server
        start_vswitchd
    fi
    within "$ready_s" ovsdb_answers || die "ovsdb-server does not answer after $ready_s s; see $ovs_log/ovsdb-server.log"
    within "$ready_s" vswitchd_answers || die "ovs-vswitchd does not answer after $ready_s s; see $ovs_log/ovs-vswitchd.log"
    say "$(ovs-vsctl --version | head -n 1) answers"
}

start_ovsdb_server() {
    ovsdb_answers >/dev/null 2>&1 && return
    say "starting ovsdb-server (log: $ovs_log/ovsdb-server.log)"
    drop_stale_pid "$ovs_run/ovsdb-server.pid" ovsdb-server
    # ovs-ctl creates or upgrades the database and gives the system its id.
    detached "$ovs_log/start.log" /usr/share/openvswitch/scripts/ovs-ctl \
        --no-ovs-vswitchd --no-record-hostname --system-id=random start
    wait $! || die "ovsdb-server did not start; see $ovs_log/start.log"
}

# Not by ovs-ctl, which gives up where the kernel has no openvswitch module; the userspace datapath needs none.
start_vswitchd() {
    vswitchd_answers >/dev/null 2>&1 && return
    modprobe openvswitch 2>/dev/null || say "no openvswitch kernel module: the userspace datapath will be used"
    say "starting ovs-vswitchd (log: $ovs_log/ovs-vswitchd.log)"
    drop_stale_pid "$ovs_run/ovs-vswitchd.pid" ovs-vswitchd
    detached "$ovs_log/start.log" ovs-vswitchd "unix:$ovs_run/db.sock" --detach --monitor --no-chdir \
        -vconsole:emer -vsyslog:err -vfile:info --pidfile --log-file="$ovs_log/ovs-vswitchd.log"
    wait $! || die "ovs-vswitchd did not start; see $ovs_log/start.log"
}

start_libvirt() {
    if libvirt_answers; then
        say "libvirtd already answers"
        return
    fi
    if has_systemd; then
        say "starting libvirtd by systemctl"
        systemctl start virtlogd.socket libvirtd.socket libvirtd
    else
        has libvirtd || die "libvirtd is not installed: run 'make deps'"
        mkdir -p "$libvirt_run" "$libvirt_log"
        start_libvirt_daemon virtlogd
        start_libvirt_daemon libvirtd
    fi
    within "$ready_s" libvirt_answers || die "libvirtd does not answer; see $libvirt_log"
    say "libvirtd answers"
}

# start_libvirt_daemon NAME: unless it runs. One in another mount namespace has another pid file.
start_libvirt_daemon() {
    drop_stale_pid "/var/run/$1.pid" "$1"
    [ ! -e "/var/run/$1.pid" ] || return 0
    say "starting $1 (log: $libvirt_log/$1.log)"
    detached "$libvirt_log/$1.log" "$1" --daemon
    wait $! || die "$1 did not start; see $libvirt_log/$1.log"
}

if ! is_root; then
    if all_listen; then
        say "Docker Engine, Open vSwitch and libvirtd are running"
        exit 0
    fi
    as_root "start Docker Engine, Open vSwitch and libvirtd" "$0"
    exit
fi

# One start at a time; the descriptor is closed before any daemon is started (see detached).
exec {lock}>/run/netloom-services.lock
flock -w 180 "$lock" || die "another 'make services' has held /run/netloom-services.lock for 3 minutes"
start_docker
start_ovs
start_libvirt
