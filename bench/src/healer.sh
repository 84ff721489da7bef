#!/usr/bin/env bash
# Reference (d): the healer that a careful person writes in an afternoon, for comparison only. Marker files for what is being
# done and for the cooldown, a token bucket in awk, the alert asked again, one audit line by jq, then the restart.
#   healer.sh STATE PROMETHEUS RESTART_DOOR PAYLOAD
set -euo pipefail
state=$1 prometheus=$2 door=$3 payload=$4
mkdir -p "$state"
now=$(date +%s)
# A parenthesis of one jq for the lot: one process for each field would be slower still.
read -r instance number < <(jq -r '.alerts[] | select(.status == "firing") | .labels.instance
    | "\(.) \(capture("-(?<n>[0-9]+):").n)"' <<<"$payload" | head -n 1)
record() {
    jq -cn --arg at "$now" --arg instance "$instance" --arg outcome "$1" '{at: $at, instance: $instance, outcome: $outcome}' \
        >>"$state/audit.jsonl"
}
marker=$state/$number.cooldown
exec 9>"$state/lock"
flock 9
if [ -e "$marker" ] && [ $((now - $(stat -c %Y "$marker"))) -lt 3600 ]; then
    record cooldown
    exit 0
fi
bucket=$(cat "$state/bucket" 2>/dev/null || echo "1000 $now")
if ! awk -v now="$now" '{
        tokens = $1 + (now - $2) * 1000 / 60; if (tokens > 1000) tokens = 1000
        if (tokens < 1) exit 1
        print tokens - 1, now
    }' <<<"$bucket" >"$state/bucket.new"; then
    record rate
    exit 0
fi
if [ "$prometheus" != none ]; then
    firing=$(curl -sf --data-urlencode "query=leaks > 0" "http://$prometheus/api/v1/query" |
        jq --arg instance "$instance" '[.data.result[] | select(.metric.instance == $instance)] | length')
    if [ "$firing" -eq 0 ]; then
        record cleared
        exit 0
    fi
fi
mv "$state/bucket.new" "$state/bucket"
touch "$marker"
record restart
if [ "$door" != none ]; then
    curl -sf -X POST "http://$door/containers/$(printf '%064x' $((number + 1)))/restart?t=1"
fi
