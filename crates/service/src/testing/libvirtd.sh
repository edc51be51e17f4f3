# shellcheck shell=bash
# A libvirtd of a test's own: in a mount namespace, with directories and a configuration of its own. Reads commands on standard
# input, one a line, and answers each with a line. When that ends, however its owner ended, so does everything it made.
set -eu
dir=$1
mount --make-rprivate /
for name in run/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt etc/libvirt; do
    mkdir -p "/$name" "$dir/$name"
    mount --bind "$dir/$name" "/$name"
done
# user: where /dev/kvm is root's alone, libvirtd would take its knowledge of QEMU for outdated at each call.
cat >/etc/libvirt/qemu.conf <<'END'
security_driver = "none"
stdio_handler = "file"
user = "root"
group = "root"
remember_owner = 0
cgroup_controllers = []
END
cat >/etc/libvirt/libvirtd.conf <<'END'
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
END
pid=
start() {
    rm -f /run/libvirt/libvirt-sock
    libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid >>"$dir/libvirtd.log" 2>&1 </dev/null &
    pid=$!
    n=0
    until [ -S /run/libvirt/libvirt-sock ]; do
        kill -0 "$pid"
        n=$((n + 1))
        [ "$n" -lt 1200 ]
        sleep 0.05
    done
}
stop() {
    kill -CONT "$pid" 2>/dev/null || true
    kill -"$1" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
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
# The binds are busy until this shell is gone; what is below them goes now.
rm -rf "$dir"/var/*/libvirt/* "$dir"/run/libvirt/* "$dir"/etc/libvirt/* 2>/dev/null || true
umount "$dir" 2>/dev/null || true
cd / && exec rm -rf "$dir"
