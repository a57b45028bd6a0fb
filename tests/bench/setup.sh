#!/usr/bin/env bash
# Calls that sipp sets up and ends over real sockets: the time from INVITE to 200, and the cost of a call.
#
#   tests/bench/setup.sh [CALLS-PER-SECOND [CALLS]]        default: 200 a second, 6000 in all
#
# Needs sipp and a release build. Loopback only; about CALLS / CALLS-PER-SECOND + 10 s.
set -euo pipefail
cd "$(dirname "$0")/../.."
rate=${1:-200} calls=${2:-6000}
daemon=$PWD/target/release/aftertone
[ -x "$daemon" ] || { echo "build it first: cargo build --release" >&2; exit 1; }
ulimit -n 65536 2>/dev/null || true
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cp tests/bench/setup.xml "$folder"
cat > "$folder/aftertone.toml" <<TOML
[sip]
listen = ["udp:127.0.0.1:45061"]
trusted_peers = ["127.0.0.1/32"]
[media]
ports = "20000-29999"
[api]
listen = "127.0.0.1:48081"
[storage]
database = "sqlite:$folder/aftertone.db"
recordings = "$folder/recordings"
[telemetry]
log = "warn"
TOML
"$daemon" serve --config "$folder/aftertone.toml" > "$folder/out" 2> "$folder/log" &
pid=$!
until grep -q API "$folder/out"; do kill -0 $pid || { cat "$folder/log"; exit 1; }; sleep 0.1; done
cpu() { awk '{print $14 + $15}' "/proc/$pid/stat"; }
before=$(cpu)
status=0
( cd "$folder" && exec sipp -sf setup.xml -m "$calls" -r "$rate" -i 127.0.0.1 -nostdin -trace_rtt \
    -timeout $(( calls / rate + 60 )) 127.0.0.1:45061 > sipp.out 2>&1 ) || status=$?
used=$(( $(cpu) - before ))
echo "sipp: $(grep -a 'Failed call' "$folder/sipp.out" | tail -1 | tr -s ' ' | cut -d'|' -f3 | tr -d ' ') failed of $calls, exit $status"
cut -d';' -f2 "$folder"/*_rtt.csv | grep -E '^[0-9.]+$' | sort -n | awk '{ at[NR] = $1 } END {
    printf "INVITE to 200, in whole ms: median %s, p99 %s, most %s, of %d\n",
        at[int(NR / 2)], at[int(NR * 0.99)], at[NR], NR }'
awk -v used="$used" -v tick="$(getconf CLK_TCK)" -v n="$calls" -v rate="$rate" 'BEGIN {
    cost = used * 1000 / tick / n
    printf "CPU: %.3f ms a call of 6 messages with its leg and its rows; %d messages a second\n", cost, rate * 6 }'
