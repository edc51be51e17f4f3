#!/usr/bin/env bash
# Every check that needs no running lab; all are run, and those that failed are named at the end.
source "$(dirname "$0")/lib.sh"
cd "$repo"

failed=()
check() { # NAME COMMAND…
    local name=$1
    shift
    step "$name"
    "$@" || failed+=("$name")
}

documentation() { RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked; }

# The units as systemd reads them. It also looks whether the program is there, which it is only where netloom is installed.
units() {
    has systemd-analyze || { say "there is no systemd-analyze to read it"; return; }
    local copy said unit
    copy=$(mktemp -d)
    for unit in deploy/systemd/*.service; do
        sed 's#^ExecStart=.*#ExecStart=/bin/true#' "$unit" >"$copy/${unit##*/}"
    done
    said=$(systemd-analyze verify "$copy"/*.service 2>&1) || said+=' (failed)'
    rm -r "$copy"
    [ -z "$said" ] || { say "$said"; return 1; }
}

# Reported only: until the first release the contracts may still change.
breaking() {
    if ! git rev-parse --quiet --verify main:proto >/dev/null; then
        say "there is no main branch with contracts to compare with"
    elif buf breaking --against '.git#branch=main'; then
        say "compatible with main"
    else
        say "not compatible with main (reported only)"
    fi
}

# A guest writes its disk, so that no kernel of a host may read what is on it: no service runs what would show it a disk, or mounts anything but what is here already.
guest_disks() {
    local found
    found=$(grep -rnE 'qemu-nbd|losetup|guestmount|libguestfs|LOOP_(CTL|SET)|/dev/(loop|nbd)' --include='*.rs' services/*/src crates/*/src netloomd/src netloom-host/src |
        grep -vE ':[0-9]+: *//' || true)
    # Of mounts there are binds, and what sets how they spread.
    found+=$(awk '
        FNR == 1 { tests = 0 }
        /#\[cfg\(test\)\]/ { tests = 1 }
        !tests && /[^_a-zA-Z.]mount\(/ && !/fn mount\(/ && !/MS_BIND|MS_SHARED/ { print FILENAME ":" FNR ":" $0 }
    ' $(grep -rlE 'nix::mount' --include='*.rs' services/*/src | grep -v tests))
    [ -z "$found" ] || { say "disks of guests are not for a host's kernel: $found"; return 1; }
}

scripts/deps.sh lint
scripts/tools.sh
export PATH="$repo/.tools/bin:$PATH"

check "rustfmt" cargo fmt --all --check
check "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
check "rustdoc" documentation
check "buf lint" buf lint
check "buf format" buf format --diff --exit-code --exclude-path proto/google
check "buf breaking" breaking
check "systemd units" units
check "disks of guests" guest_disks
check "licences" scripts/licences.sh

if [ ${#failed[@]} -gt 0 ]; then
    step "lint failed: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
    exit 1
fi
step "lint passed"
