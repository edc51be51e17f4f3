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
check "licences" scripts/licences.sh

if [ ${#failed[@]} -gt 0 ]; then
    step "lint failed: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
    exit 1
fi
step "lint passed"
