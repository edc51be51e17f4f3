#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line: `N passed, N failed, N skipped`.
#
# On a busy machine a bounded wait may be too short by chance: a few failures are looked at once more, each test by
# itself, and told by name when it passes then. More than that, or a program that dies, is not chance.
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

step "fetching what the OpenAPI description is checked with, and a store for images"
# As the user, and once: the tests that need them skip themselves, by name, where they are not to be had.
for what in openapi s3; do
    scripts/pypi.sh "$what" || say "$what is not to be had here"
done

step "testing (log: $log)"
status=0
# One more than there are cores: most tests wait most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

sum() { # WORD: over cargo's `test result:` lines
    awk -v word="$1" '/^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"
}
count() { # PATTERN: lines of the log that have it
    grep -cE "$1" "$log" || true
}
failed=$(sum failed)
passed=$(sum passed)
mapfile -t names < <(sed -nE 's/^test ([^ ]+) \.\.\. FAILED$/\1/p' "$log" | sort -u)

note=
# A test program that does not compile or dies prints no result of its own.
dead=$(($(count '^error: (test|doctest) failed') - $(count '^test result: FAILED')))
if [ "$status" != 0 ] && { [ "$dead" != 0 ] || [ "$failed" = 0 ]; }; then
    failed=$((failed + 1))
elif [ "$failed" -gt 0 ] && [ "$failed" -le 5 ] && [ "${#names[@]}" = "$failed" ]; then
    step "running what failed once more, each by itself"
    unsteady=()
    for test in "${names[@]}"; do
        # Not a name that no program has any more: it would run nothing and pass.
        again=$(cargo test --workspace --locked --no-fail-fast -- --exact "$test" 2>&1) &&
            grep -q '^test result: ok\. 1 passed' <<<"$again" && unsteady+=("$test")
        printf '%s\n' "$again" | grep -vE '^running 0 tests|^test result: ok\. 0 passed|^ +(Running|Doc-tests)|^$' || true
    done
    failed=$((failed - ${#unsteady[@]}))
    passed=$((passed + ${#unsteady[@]}))
    [ "${#unsteady[@]}" = 0 ] || note="failed among all, passed alone: ${unsteady[*]}"
fi
if [ "$failed" -gt 0 ]; then
    step "failed"
    grep -E '^test .* \.\.\. FAILED$|^error: ' "$log" | sort -u || true
    step "why"
    grep -A3 -E "^thread '.*' .*panicked at" "$log" | grep -vE '^(stack backtrace:|note: |--|$)| +[0-9]+: ' | cut -c1-600 | head -60 || true
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
passed=$((passed - skipped - forbidden))
failed=$((failed + forbidden))
skipped=$((skipped + $(sum ignored)))

step "tests"
{
    [ -z "$note" ] || echo "$note"
    echo "$passed passed, $failed failed, $skipped skipped"
} | tee "$summary"
[ "$failed" = 0 ]
