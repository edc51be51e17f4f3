#!/usr/bin/env bash
# Fetches the pinned tools of `make lint` into .tools/, each once, and checks what came against the digest written here.
source "$(dirname "$0")/lib.sh"

buf_version=1.75.0
buf_sha512=606189031d25a4c084eda3168cd38971fa04686fdefa26079d30b8499d0fe5e4b821f7ccaf203d678fdb6f59b5c0d5c0109f004c530464e024ff9c7d544e3b8a

bin=$repo/.tools/bin
stamp=$repo/.tools/buf-$buf_version
if [ ! -e "$stamp" ]; then
    [ "$(uname -m)" = x86_64 ] || die "buf is pinned for x86_64 only: put a buf $buf_version into $bin and touch $stamp"
    has npm || die "npm is needed to fetch buf: run 'scripts/deps.sh lint'"
    say "fetching buf $buf_version from npm"
    mkdir -p "$bin"
    tmp=$(mktemp -d "$repo/.tools/fetch.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    (cd "$tmp" && npm pack --silent "@bufbuild/buf-linux-x64@$buf_version" >/dev/null)
    echo "$buf_sha512  $(ls "$tmp"/*.tgz)" | sha512sum --check --quiet || die "buf $buf_version is not the file pinned in $0"
    tar -xzf "$tmp"/*.tgz -C "$tmp"
    install -m 755 "$tmp/package/bin/buf" "$tmp/buf"
    mv "$tmp/buf" "$bin/buf" # at once, so that a run beside this one never sees half a file
    touch "$stamp"
fi
