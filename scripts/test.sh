#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line: `N passed, N failed, N skipped`.
#
# A test that lacks a facility says `SKIPPED <test>: …`. One that is not in scripts/skips-allowed.txt counts as failed.
source "$(dirname "$0")/lib.sh"
cd "$repo"
target=${CARGO_TARGET_DIR:-target}
log=$target/test.log
summary=$target/test-summary.txt
mkdir -p "$target"
rm -f "$summary"

# The tests make network namespaces and talk to Docker and Open vSwitch: they are built as the user and run as root.
if ! is_root; then
    as_root "run the tests, which make containers and network namespaces" true
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env"
fi

step "building the programs"
cargo build --workspace --bins --locked

step "fetching what the OpenAPI description is checked with"
# As the user, and once: the tests that need it skip themselves, by name, where it is not to be had.
scripts/openapi.sh || say "it is not to be had here"

step "testing (log: $log)"
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

sum() { # WORD: over cargo's `test result:` lines
    awk -v word="$1" '/^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"
}
# A test program that does not compile or dies prints no result of its own.
failed=$(sum failed)
[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
if [ "$failed" -gt 0 ]; then
    step "failed"
    grep -E '^test .* \.\.\. FAILED$|^error: ' "$log" | sort -u || true
fi

# A test that skips itself counts as passed to cargo.
skipped=0
forbidden=0
for test in $(sed -nE 's/^SKIPPED ([^ ]*[^ :]):?( .*)?$/\1/p' "$log" | sort -u); do
    if grep -qxF "$test" scripts/skips-allowed.txt; then
        skipped=$((skipped + 1))
    else
        say "skipped, and not in scripts/skips-allowed.txt: $test"
        forbidden=$((forbidden + 1))
    fi
done
passed=$(($(sum passed) - skipped - forbidden))
failed=$((failed + forbidden))
skipped=$((skipped + $(sum ignored)))

step "tests"
echo "$passed passed, $failed failed, $skipped skipped" | tee "$summary"
[ "$failed" = 0 ]
