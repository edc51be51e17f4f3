#!/usr/bin/env bash
# Fetches the pinned tools of `make lint` into .tools/, each once, and checks what came against the digest written here.
source "$(dirname "$0")/lib.sh"

buf_version=1.75.0
buf_sha512=606189031d25a4c084eda3168cd38971fa04686fdefa26079d30b8499d0fe5e4b821f7ccaf203d678fdb6f59b5c0d5c0109f004c530464e024ff9c7d544e3b8a

buf_dir=$repo/.tools/buf-$buf_version
if [ ! -x "$buf_dir/buf" ]; then
    [ "$(uname -m)" = x86_64 ] || die "buf is pinned for x86_64 only; put a buf $buf_version at $buf_dir/buf"
    has npm || die "npm is needed to fetch buf: run 'make deps' (or apt-get install npm)"
    say "fetching buf $buf_version from npm"
    mkdir -p "$repo/.tools"
    tmp=$(mktemp -d "$repo/.tools/fetch.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    (cd "$tmp" && npm pack --silent "@bufbuild/buf-linux-x64@$buf_version" >/dev/null)
    echo "$buf_sha512  $(ls "$tmp"/*.tgz)" | sha512sum --check --quiet || die "buf $buf_version is not the file pinned in $0"
    tar -xzf "$tmp"/*.tgz -C "$tmp"
    mkdir -p "$tmp/buf"
    mv "$tmp/package/bin/buf" "$tmp/buf/buf"
    chmod +x "$tmp/buf/buf"
    mv -T "$tmp/buf" "$buf_dir" 2>/dev/null || [ -x "$buf_dir/buf" ]
fi
