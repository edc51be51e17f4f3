#!/usr/bin/env bash
# Checks the licence of every crate that is linked in against scripts/licences-allowed.txt, read as an SPDX expression:
# of an OR one side must be allowed, of an AND both. A line there is a licence, and, if only some may have it, crates.
source "$(dirname "$0")/lib.sh"

declare -A allowed
declare -A only
while read -r licence crates; do
    if [ -z "$crates" ]; then allowed[$licence]=1; fi
    for crate in $crates; do only[$crate]=$licence; done
done <"$repo/scripts/licences-allowed.txt"

# acceptable EXPRESSION: each licence becomes 1 or 0, OR and AND become || and &&, and the shell does the sum.
acceptable() {
    local rest sum='' token
    # An exception belongs to its licence; some crates still write / for OR.
    rest=$(sed -E 's# *[/] *# OR #g; s/ WITH /~/g; s/([()])/ \1 /g' <<<"$1")
    for token in $rest; do
        case $token in
            OR) sum+='||' ;;
            AND) sum+='&&' ;;
            '(' | ')') sum+=$token ;;
            *) sum+=${allowed[${token//\~/ WITH }]:-0} ;;
        esac
    done
    [ "$((sum))" = 1 ]
}

crates=$(cargo metadata --format-version 1 --locked --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
    jq -r '.packages[] | select(.source) | "\(.name) \(.version)\t\(.license // "")"')
bad=0
while IFS=$'\t' read -r crate licence; do
    if [ "${only[${crate%% *}]:-}" != "$licence" ] && ! acceptable "${licence:-none}"; then
        say "$crate: licence '${licence:-none given}' is not in scripts/licences-allowed.txt"
        bad=1
    fi
done <<<"$crates"
say "$(wc -l <<<"$crates") crates checked"
exit "$bad"
