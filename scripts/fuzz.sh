#!/usr/bin/env bash
# Fuzzes the reader of topology files for FUZZ_SECONDS (300). What it finds is kept in crates/topology/fuzz/artifacts.
source "$(dirname "$0")/lib.sh"
cd "$repo/crates/topology"

has cargo-fuzz || die "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
cargo +nightly --version >/dev/null 2>&1 || die "a nightly toolchain is missing: rustup toolchain install nightly --profile minimal"

step "gathering seeds and words"
corpus=fuzz/corpus/parse
mkdir -p "$corpus"
find "$repo/examples" -name '*.clab.yml' -exec cp {} "$corpus/" \;
# Each key of the manual is a word worth trying.
sed -n 's/^| `\([A-Za-z_-]*\)` | .*/"\1:"/p' "$repo/docs/topology.md" | sort -u >fuzz/corpus/keys.dict

step "fuzzing for ${FUZZ_SECONDS:=300} s"
# The reader is safe Rust: what is looked for is a panic or a run-away, and a sanitizer only slows that down.
cargo +nightly fuzz run --sanitizer none parse "$corpus" -- -max_total_time="$FUZZ_SECONDS" -dict=fuzz/corpus/keys.dict -max_len=8192 -timeout=10
step "nothing found"
