#!/usr/bin/env bash
# Installs the outside checkers of the OpenAPI description into .tools/openapi, once for each change of their pinned list.
#
# Exit code 75 means that they cannot be fetched here: no Python, or no package index.
source "$(dirname "$0")/lib.sh"

requirements=$repo/scripts/openapi-requirements.txt
venv=$repo/.tools/openapi
stamp=$venv/installed-requirements.txt
unavailable() { say "$1"; exit 75; }

cmp -s "$requirements" "$stamp" && exit 0
mkdir -p "$repo/.tools"
# Tests of several processes may ask at once.
exec 9>"$repo/.tools/openapi.lock"
flock 9
cmp -s "$requirements" "$stamp" && exit 0

has python3 || unavailable "python3 is missing"
say "fetching the checkers of the OpenAPI description from PyPI"
rm -rf "$venv"
python3 -m venv "$venv" || unavailable "python3 cannot make a virtual environment (Debian: python3-venv)"
"$venv/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 2 --requirement "$requirements" ||
    unavailable "PyPI does not give what scripts/openapi-requirements.txt names"
cp "$requirements" "$stamp"
