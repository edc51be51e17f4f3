#!/usr/bin/env bash
# The demo with virtual machines: builds a small guest from Debian packages, pushes it, deploys
# examples/vm-and-container.clab.yml, and shows that to a cable a virtual machine and a container are the same. Works where
# guests are emulated too. `make demo-down` removes all of it.
#
#   scripts/demo-vm.sh            install, start and build what is missing before
#   scripts/demo-vm.sh SOCKET     on a netloom that listens there; the machine stays as it is
source "$(dirname "$0")/lib.sh"
cd "$repo"

lab=vm-and-container
topology=examples/$lab.clab.yml
guest=target/guest/guest.qcow2
image=netloom/guest:local
reach_s=60

bin=${CARGO_TARGET_DIR:-$repo/target}/debug
socket=${1:-/run/netloom/api.sock}

# nl ARGUMENT…: netloom, by sudo for a user outside the group of its socket.
nl() {
    if [ -w "$socket" ] || is_root; then
        "$bin/netloom" --endpoint "unix:$socket" "$@"
    else
        sudo "$bin/netloom" --endpoint "unix:$socket" "$@"
    fi
}

runs_machines() { nl host list --format json | jq -e 'any(.hosts[]; any(.runtimes[]; . == "RUNTIME_LIBVIRT"))'; }

# carrier NODE: what the guest itself sees.
carrier() { nl exec "$lab" "$1" -- cat /sys/class/net/eth1/carrier; }

has_carrier() { [ "$(carrier "$1")" = "$2" ]; }

# at_console NODE COMMAND SECONDS: what is shown at the node's console when COMMAND is typed there, for so long.
at_console() {
    local netloom="'$bin/netloom' --endpoint 'unix:$socket' console $lab $1"
    [ -w "$socket" ] || is_root || netloom="sudo $netloom"
    # Ctrl-] leaves it.
    { sleep 1; printf '%s\r' "$2"; sleep "$3"; printf '\035'; } |
        script -qec "$netloom" /dev/null | tr -d '\r'
}

reaches() { # NODE ADDRESS
    local said
    within "$reach_s" nl exec "$lab" "$1" -- ping -c 1 -W 1 "$2" || die "$1 does not reach $2"
    said=$(nl exec "$lab" "$1" -- ping -c 3 -W 2 "$2") || die "$1 loses pings to $2"
    say "$1 -> $2: $(sed -n 's/.* \([0-9]*\) \(packets \)\?received.*/\1 of 3 replies/p' <<<"$said")"
}

[ $# -gt 0 ] || scripts/demo.sh start
step "a guest"
scripts/guest.sh "$guest"
step "whether netloom's host runs virtual machines"
within 60 runs_machines || die "it does not: netloom host list says why"
nl host list
# As Debian's rule of udev has it; where libvirt's QEMU cannot open /dev/kvm, each definition takes libvirt most of a minute.
if [ $# = 0 ]; then
    step "whether libvirt can open /dev/kvm (sudo where it cannot)"
    if nl doctor libvirt-kvm --format json | jq -e 'any(.. | objects; .status? == "WARN" or .status? == "FAIL")' >/dev/null; then
        as_root "let libvirt open /dev/kvm" "$bin/netloom" --endpoint "unix:$socket" doctor libvirt-kvm --fix --yes
    fi
fi
step "pushing the guest's disk"
nl image push "$guest" "$image"
step "deploying $topology"
nl deploy -t "$topology"
step "the lab"
nl inspect "$lab"
step "a container reaches both machines"
reaches r1 10.1.0.10
reaches r1 10.2.0.10
step "one machine reaches the other, across both containers"
reaches v1 10.2.0.10
step "its console"
at_console v1 'uname -a' 2 | sed 's/^/    /'
step "a cable is pulled, and plugged again"
say "v1 sees carrier: $(carrier v1)"
nl link down "$lab" r1:eth2--v1:eth1
within 20 has_carrier v1 0 || die "v1 does not see that its cable was pulled"
say "v1 sees carrier: 0"
nl link up "$lab" r1:eth2--v1:eth1
within 20 has_carrier v1 1 || die "v1 does not see that its cable was plugged"
say "v1 sees carrier: 1"
step "done"
cli=$bin/netloom
[ -w "$socket" ] || is_root || cli="sudo $cli"
cat <<END

    Go on:
      $cli exec $lab v1 -- ip address
      $cli console $lab v1        a shell in the machine; Ctrl-] leaves
      $cli logs $lab v1           what its console said
      $cli exec $lab r1 -- vtysh -c 'show ip route'
    Stop, and leave nothing behind:
      make demo-down
END
