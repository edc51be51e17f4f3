#!/usr/bin/env bash
# Builds a small virtual machine's disk from Debian packages: Linux and busybox, which boot in seconds also where
# everything is emulated.
#
#   scripts/guest.sh [FILE]       a qcow2, by default target/guest/guest.qcow2
#
# Its console is the first serial port and has a shell, or a login where what it is told gives root a password in /etc/passwd; it says "netloom guest is ready (boot N)" there. Its interfaces are
# eth0, eth1 and so on, all up; a NoCloud volume (`cidata`) gives it a name, its interfaces names and addresses, a
# script to run and a file to have. /data is on its disk and stays; the rest of it is in memory. What went into a disk stands in FILE.recipe,
# and it is built again only when that has changed. No root is needed, and nothing is mounted.
source "$(dirname "$0")/lib.sh"

out=$(realpath -m "${1:-$repo/target/guest/guest.qcow2}")
guest=$repo/deploy/guest
boot_mib=20 data_mib=32
work=

# recipe: over every file that goes into it.
recipe() { (cd "$repo" && sha256sum scripts/guest.sh deploy/guest/* | sha256sum | cut -d ' ' -f 1); }

# fetch: the kernel and busybox, unpacked into $work/root.
fetch() {
    local kernel deb
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$kernel" ] || return 1
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$kernel" busybox-static) >"$work/apt.log" 2>&1 || return 1
    for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
}

build() {
    mkdir -p "$work/root" "$work/initrd"/{bin,data,dev,etc,lib,proc,sys}
    fetch || {
        # The lists may be missing or too old to find the files they name.
        as_root "refresh the package lists" apt-get update -q >"$work/update.log" 2>&1 || true
        fetch || {
            cat "$work/apt.log" >&2
            die "apt could not fetch a kernel and busybox"
        }
    }
    local modules module
    modules=$(echo "$work"/root/lib/modules/*/kernel)
    cp "$work/root/bin/busybox" "$work/initrd/bin/"
    while read -r module; do
        # One that is built into this kernel is no file.
        [ -e "$modules/$module.ko" ] || continue
        cp "$modules/$module.ko" "$work/initrd/lib/"
        basename "$module" >>"$work/initrd/lib/modules.order"
    done <"$guest/modules"
    install -m 755 "$guest/init" "$work/initrd/init"
    install -m 755 "$guest/configure" "$work/initrd/bin/configure"
    (cd "$work/initrd" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible) | gzip -9n >"$work/initrd.gz"

    mkfs.vfat -C -F 16 -n GUEST "$work/boot" $((boot_mib * 1024)) >/dev/null
    syslinux --install "$work/boot"
    mcopy -i "$work/boot" "$work"/root/boot/vmlinuz-* ::vmlinuz
    mcopy -i "$work/boot" "$work/initrd.gz" ::initrd
    mcopy -i "$work/boot" "$guest/syslinux.cfg" ::syslinux.cfg
    mke2fs -q -t ext4 -O ^has_journal "$work/data" "${data_mib}M" >/dev/null

    truncate -s $((boot_mib + data_mib + 2))M "$work/disk"
    sfdisk -q "$work/disk" <<-END
	label: dos
	start=1MiB, size=${boot_mib}MiB, type=e, bootable
	size=${data_mib}MiB, type=83
	END
    dd if=/usr/lib/syslinux/mbr/mbr.bin of="$work/disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/boot" of="$work/disk" bs=1M seek=1 conv=notrunc,sparse status=none
    dd if="$work/data" of="$work/disk" bs=1M seek=$((boot_mib + 1)) conv=notrunc,sparse status=none
    qemu-img convert -O qcow2 -c "$work/disk" "$work/guest.qcow2"
}

mkdir -p "$(dirname "$out")"
# One build at a time: tests that run side by side ask for the same disk.
exec {lock}>"$out.lock"
flock -w 300 "$lock" || die "another build has held $out.lock for 5 minutes"
if [ -e "$out" ] && [ "$(cat "$out.recipe" 2>/dev/null)" = "$(recipe)" ]; then
    say "$out is up to date"
    exit 0
fi
for program in qemu-img syslinux mcopy mkfs.vfat sfdisk cpio mke2fs; do
    has "$program" || die "$program is missing: run 'make deps'"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build
mv "$work/guest.qcow2" "$out.new"
mv "$out.new" "$out"
recipe >"$out.recipe"
say "$out: $(stat -c %s "$out") bytes, built in $SECONDS s"
