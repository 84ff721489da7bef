#!/bin/sh
# Proves the production rules with promtool, and the same rules and tests scaled down for the lab (15s / 2s = 7.5).
# Works in a temporary directory, leaves nothing behind, installs nothing. PROMTOOL=/path/to/promtool picks another one.
set -eu

factor=7.5
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
promtool=${PROMTOOL:-promtool}
command -v "$promtool" >/dev/null || { echo "promtool is missing: apt-get install prometheus" >&2; exit 1; }
command -v perl >/dev/null || { echo "perl is missing: apt-get install perl-base" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mkdir -p "$work/production/tests" "$work/scaled/tests"
cp "$here"/*.yml "$work/production/"
cp "$here"/tests/*.yml "$work/production/tests/"
perl "$here/tests/generate" "$work/production/tests" >"$work/series"
(cd "$work/production" && ls ./*.yml tests/*.yml) >"$work/files"
while read -r file; do
    perl "$here/../lab/scale" "$factor" <"$work/production/$file" >"$work/scaled/$file" || { echo "not scaled: $file" >&2; exit 1; }
done <"$work/files"

# One set; its output only matters when it failed. A rules file without tests, or a test without expectations, would
# pass promtool, so both are counted.
prove() {
    cd "$work/$1"
    "$promtool" check rules ./*.yml && "$promtool" test rules tests/*.yml
}
prove production >"$work/production.log" 2>&1 & first=$!
prove scaled >"$work/scaled.log" 2>&1 & second=$!
failed=0
wait "$first"  || { failed=$((failed + 1)); echo "FAILED: production rules" >&2; cat "$work/production.log" >&2; }
wait "$second" || { failed=$((failed + 1)); echo "FAILED: rules scaled by $factor" >&2; cat "$work/scaled.log" >&2; }

alerts=$(cat "$work"/production/*.yml | grep -c '^ *- alert:')
expectations=$(cat "$work"/production/tests/*.yml | grep -c '^ *- eval_time:')
[ "$alerts" -gt 0 ] && [ "$expectations" -gt 100 ] || { echo "only $alerts alerts and $expectations expectations: is a file empty?" >&2; exit 1; }
[ "$failed" -eq 0 ] || exit 1
"$promtool" --version 2>&1 | sed -n 1p
echo "$alerts alerts, $expectations expectations in $(ls "$work"/production/tests | wc -l) files: all hold, at 15s and scaled by $factor to 2s"
