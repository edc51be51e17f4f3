#!/usr/bin/env bash
# Fuzzes the reader of topology files and those of images, FUZZ_SECONDS (300) each; FUZZ_ONLY=image or topology takes one. What is found is kept in
# crates/*/fuzz/artifacts.
source "$(dirname "$0")/lib.sh"

has cargo-fuzz || die "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
cargo +nightly --version >/dev/null 2>&1 || die "a nightly toolchain is missing: rustup toolchain install nightly --profile minimal"
: "${FUZZ_SECONDS:=300}" "${FUZZ_ONLY:=}"

# fuzz CRATE TARGET ARGUMENT...: the readers are safe Rust, so what is looked for is a panic or a run-away, and a sanitizer only slows that down.
fuzz() {
	local target=$2
	cd "$repo/crates/$1"
	shift 2
	step "fuzzing $target for $FUZZ_SECONDS s"
	cargo +nightly fuzz run --sanitizer none "$target" "fuzz/corpus/$target" -- -max_total_time="$FUZZ_SECONDS" -timeout=10 "$@"
}

if [[ $FUZZ_ONLY != image ]]; then
	cd "$repo/crates/topology"
	mkdir -p fuzz/corpus/parse
	find "$repo/examples" -name '*.clab.yml' -exec cp {} fuzz/corpus/parse/ \;
	# Each key of the manual is a word worth trying.
	sed -n 's/^| `\([A-Za-z_-]*\)` | .*/"\1:"/p' "$repo/docs/topology.md" | sort -u >fuzz/corpus/keys.dict
	fuzz topology parse -dict=fuzz/corpus/keys.dict -max_len=8192
fi
if [[ $FUZZ_ONLY != topology ]]; then
	cd "$repo/crates/image"
	mkdir -p fuzz/corpus/inspect
	if has qemu-img; then
		for options in compat=0.10 compat=1.1,cluster_size=512 cluster_size=512,extended_l2=off,refcount_bits=64; do
			qemu-img create -q -f qcow2 -o "$options" "fuzz/corpus/inspect/$options" 1M
		done
	fi
	echo '{"architecture":"amd64"}' >fuzz/corpus/manifest.json
	tar --format=ustar -C fuzz/corpus -cf fuzz/corpus/inspect/tar manifest.json
	# The words that formats are known by.
	printf '%s\n' '"QFI\xfb"' '"ustar"' '"CD001"' '"EFI PART"' '"\x7fELF"' '"manifest.json"' '"oci-layout"' '"index.json"' '"DATA"' >fuzz/corpus/words.dict
	fuzz image inspect -dict=fuzz/corpus/words.dict -max_len=65536
fi
step "nothing found"
