# shellcheck shell=bash
# A libvirtd of a test's own: in a mount namespace, with directories and a configuration of its own. Reads commands on standard
# input, one a line, and answers each with a line. When that ends, however its owner ended, so does everything it made.
#
#   libvirtd.sh DIRECTORY plain|distributed        `plain` is the quickest; `distributed`: QEMU has a user of its own, consoles are the log daemon's
set -eu
dir=$1 flavour=$2
mount --make-rprivate /
for name in run/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt etc/libvirt; do
    mkdir -p "/$name" "$dir/$name"
    mount --bind "$dir/$name" "/$name"
done
echo 'cgroup_controllers = []' >/etc/libvirt/qemu.conf
# Where /dev/kvm is root's alone, and QEMU is another's, libvirtd takes its knowledge of QEMU for outdated at each call.
case $flavour in
plain)
    cat >>/etc/libvirt/qemu.conf <<'END'
security_driver = "none"
stdio_handler = "file"
user = "root"
group = "root"
remember_owner = 0
END
    ;;
distributed)
    # A log is put aside sooner than after 2 MiB.
    echo 'max_size = 131072' >/etc/libvirt/virtlogd.conf
    if [ -c /dev/kvm ]; then
        mkdir "$dir/dev"
        mount -t tmpfs -o mode=0755 dev "$dir/dev"
        mknod -m 0660 "$dir/dev/kvm" c 10 232
        chgrp kvm "$dir/dev/kvm"
        mount --bind "$dir/dev/kvm" /dev/kvm
    fi
    ;;
esac
cat >/etc/libvirt/libvirtd.conf <<'END'
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
END
listens() { # SOCKET PID
    local n=0
    until [ -S "$1" ]; do
        kill -0 "$2"
        n=$((n + 1))
        [ "$n" -lt 1200 ]
        sleep 0.05
    done
}
pid=
start() {
    rm -f /run/libvirt/libvirt-sock
    libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid >>"$dir/libvirtd.log" 2>&1 </dev/null &
    pid=$!
    listens /run/libvirt/libvirt-sock "$pid"
}
stop() {
    kill -CONT "$pid" 2>/dev/null || true
    kill -"$1" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
logd=
if [ "$flavour" = distributed ]; then
    virtlogd --config /etc/libvirt/virtlogd.conf --pid-file /run/libvirt/virtlogd.pid >>"$dir/libvirtd.log" 2>&1 </dev/null &
    logd=$!
    listens /run/libvirt/virtlogd-sock "$logd"
fi
start
echo "up $pid"
while read -r command; do
    case $command in
    stop) stop TERM ;;
    start) start ;;
    freeze) kill -STOP "$pid" ;;
    thaw) kill -CONT "$pid" ;;
    esac
    echo "done $pid"
done
for file in /run/libvirt/qemu/*.pid; do
    [ ! -e "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
done
stop KILL
if [ -n "$logd" ]; then
    kill -KILL "$logd"
    wait "$logd" 2>/dev/null || true
fi
umount /dev/kvm "$dir/dev" 2>/dev/null || true
# The binds are busy until this shell is gone; what is below them goes now.
rm -rf "$dir"/var/*/libvirt/* "$dir"/run/libvirt/* "$dir"/etc/libvirt/* 2>/dev/null || true
umount "$dir" 2>/dev/null || true
cd / && exec rm -rf "$dir"
