#!/usr/bin/env bash
# Simultaneous recorded calls from sipp: whether all are answered, whether every clip is complete, and
# the cost.
#
#   tests/bench/load.sh [CALLS [SECONDS]]        default: 200 calls of 60 s
#
# Needs sipp, python3 and a release build. Loopback only; about SECONDS + 30 s.
set -euo pipefail
cd "$(dirname "$0")/../.."
calls=${1:-200} seconds=${2:-60}
daemon=target/release/aftertone
[ -x "$daemon" ] || { echo "build it first: cargo build --release" >&2; exit 1; }
ulimit -n 65536 2>/dev/null || true
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

# Noise: no frame is equal to another.
python3 - "$folder/noise.ulaw" "$seconds" <<'PY'
import random, sys
random.seed(1)
codes = [random.choice((0, 128)) + random.randrange(40, 100) for _ in range(8000 * int(sys.argv[2]))]
open(sys.argv[1], "wb").write(bytes(codes))
PY
sed -e "s/@WAIT_MS@/1000/; s/@TALK_MS@/$(( (seconds + 2) * 1000 ))/; s|@SPEECH@|$folder/noise.ulaw|" \
    tests/sipp/record.xml > "$folder/scenario.xml"

token=load-test-token
cat > "$folder/aftertone.toml" <<TOML
[sip]
listen = ["udp:127.0.0.1:45060"]
trusted_peers = ["127.0.0.1/32"]
[api]
listen = "127.0.0.1:48080"
[fetch]
allow_networks = ["127.0.0.1/32"]
[storage]
database = "sqlite:$folder/aftertone.db"
recordings = "$folder/recordings"
[[applications]]
name = "load"
id = "10ad0000-0000-4000-8000-000000000001"
tokens = ["$token"]
roles = ["Calls.AccessMedia.All"]
callback_uri = "http://127.0.0.1:43978/api/calls"
[[routes]]
to = "load"
application = "load"
public = true
TOML
"$daemon" serve --config "$folder/aftertone.toml" > "$folder/out" 2> "$folder/log" &
pid=$!
until grep -q API "$folder/out"; do kill -0 $pid || { cat "$folder/log"; exit 1; }; sleep 0.1; done
python3 tests/bench/bot.py 43978 http://127.0.0.1:48080 $token "$folder/noise.ulaw" "$calls" "$seconds" \
    "$folder/log" \
    > "$folder/bot" 2>&1 &
bot=$!
until grep -q ready "$folder/bot"; do sleep 0.1; done

( cd "$folder" && exec sipp -sf scenario.xml -s load -m "$calls" -l "$calls" -r 20 -i 127.0.0.1 -mi 127.0.0.1 \
    -nostdin -timeout $((seconds + 60)) 127.0.0.1:45060 > sipp.out 2>&1 ) &
sipp=$!
cpu() { awk '{print $14 + $15}' "/proc/$pid/stat"; }
# The steady part: all calls are established, none has ended.
sleep $(( calls / 20 + 5 ))
before=$(cpu); steady=$(( seconds - calls / 20 - 10 )); sleep "$steady"; after=$(cpu)
rss=$(awk '/VmRSS/ {print $2}' "/proc/$pid/status")
status=0; wait $sipp || status=$?
wait $bot || true
tick=$(getconf CLK_TCK)
sum() { grep -o "$1=[0-9]*" "$folder/log" | cut -d= -f2 | awk '{s += $1} END {print s + 0}'; }
echo "sipp: $(grep -a 'Failed call' "$folder/sipp.out" | tail -1 | tr -s ' ' | cut -d'|' -f3 | tr -d ' ') failed of $calls, exit $status"
grep -v ready "$folder/bot"
echo "rtp received: $(sum rtp.received); lost: $(sum rtp.lost); late: $(sum rtp.late)"
awk -v used=$((after - before)) -v tick="$tick" -v s="$steady" -v n="$calls" -v rss="$rss" 'BEGIN {
    printf "CPU: %.3f ms per call-second; RSS %d KiB, %.0f KiB per call\n", used * 1000 / tick / s / n, rss, rss / n }'
