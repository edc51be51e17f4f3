#!/usr/bin/env bash
# Installs what a test needs of PyPI into .tools/NAME, once for each change of its pinned list, scripts/NAME-requirements.txt.
#
# Exit code 75 means that it cannot be fetched here: no Python, or no package index.
source "$(dirname "$0")/lib.sh"

name=${1:?usage: pypi.sh NAME}
requirements=$repo/scripts/$name-requirements.txt
venv=$repo/.tools/$name
stamp=$venv/installed-requirements.txt
unavailable() { say "$1"; exit 75; }

cmp -s "$requirements" "$stamp" && exit 0
mkdir -p "$repo/.tools"
# Tests of several processes may ask at once.
exec 9>"$repo/.tools/$name.lock"
flock 9
cmp -s "$requirements" "$stamp" && exit 0

has python3 || unavailable "python3 is missing"
say "fetching what scripts/$name-requirements.txt names from PyPI"
rm -rf "$venv"
python3 -m venv "$venv" || unavailable "python3 cannot make a virtual environment (Debian: python3-venv)"
"$venv/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 2 --requirement "$requirements" ||
    unavailable "PyPI does not give what scripts/$name-requirements.txt names"
cp "$requirements" "$stamp"
