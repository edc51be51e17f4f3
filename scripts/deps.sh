#!/usr/bin/env bash
# Installs by apt what the demo and the tests need and this machine lacks. With nothing missing it asks nothing of apt.
#
#   scripts/deps.sh [lint]        with `lint`: also what only `make lint` needs
source "$(dirname "$0")/lib.sh"

missing=()
need() { # PROGRAM PACKAGE
    has "$1" || missing+=("$2")
}

# A Docker Engine of whatever origin will do.
if ! has dockerd && ! docker version >/dev/null 2>&1; then missing+=(docker.io); fi
need ovs-vswitchd openvswitch-switch
need ip iproute2
need ping iputils-ping
need curl curl
# Captures: libpcap compiles their filters, tcpdump and tshark check them in tests.
[ -e /usr/include/pcap/pcap.h ] || missing+=(libpcap-dev)
need tcpdump tcpdump
need tshark tshark
need jq jq
# Virtual machines: libvirt and QEMU; its header for the driver.
need libvirtd libvirt-daemon-system
need virtlogd libvirt-daemon-system
need virsh libvirt-clients
compgen -G '/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so' >/dev/null || missing+=(libvirt-daemon-driver-qemu)
[ -e /usr/include/libvirt/libvirt.h ] || missing+=(libvirt-dev)
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
# Machines that boot by EFI.
[ -e /usr/share/OVMF ] || missing+=(ovmf)
# The small guest of the tests and the demo (scripts/guest.sh).
need syslinux syslinux
[ -e /usr/lib/syslinux/mbr/mbr.bin ] || missing+=(syslinux-common)
need mcopy mtools
need mkfs.vfat dosfstools
need mke2fs e2fsprogs
need sfdisk fdisk
need cpio cpio
# Tests verify certificates with it.
need openssl openssl
need strace strace
# Tests make qcow2 disks with it.
need qemu-img qemu-utils
# Tests pull images from it.
need docker-registry docker-registry
# Tests keep the scheduler's database on it, each on a server of its own; the package's server is not needed.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
# Tests wake replicas over it, each on a server of its own; the package's server is not needed.
need redis-server redis-server
# Tests of doctor ask it whether a configuration that was mended is the one in effect.
need lvmconfig lvm2
need cc build-essential
[ "${1:-}" != lint ] || need npm npm

if [ ${#missing[@]} -gt 0 ]; then
    has apt-get || die "these are missing, and there is no apt-get to install them: ${missing[*]}"
    say "installing: ${missing[*]}"
    environment=(DEBIAN_FRONTEND=noninteractive)
    # Without systemd `make services` starts the daemons; the packages' init scripts would try, and fail the install.
    has_systemd || environment+=(RUNLEVEL=1)
    install=(env "${environment[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}")
    # The lists may be missing or too old to find the files they name.
    as_root "install packages" "${install[@]}" || {
        as_root "refresh the package lists" apt-get update -q
        as_root "install packages" "${install[@]}"
    }
else
    say "nothing is missing"
fi

has cargo || die "the Rust toolchain is missing: install it from https://rustup.rs (as the user who builds), then run this again"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
found=$(rustc --version | cut -d ' ' -f 2)
printf '%s\n%s\n' "$wanted" "$found" | sort -V -C || die "Rust $found is too old: $wanted or newer is needed (rustup update)"
