#!/usr/bin/env bash
# Runs a real cluster trace through the gRPC server, twice each on a fresh store, and checks the limits independently.
#   examples/trace.sh DATA [WORK]
# DATA holds pods.csv and nodes.csv of Alibaba's cluster-trace-gpu-v2023; WORK (default run/trace) gets what is made.
# BIN names a directory of built binaries (else they are built for release); PYTHON needs PyYAML; KEEP=yes puts the
# picture and the tables of the tenants in cohorts into engine/docs.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: examples/trace.sh DATA [WORK]}
work=${2:-run/trace}
bin=${BIN:-target/release}
python=${PYTHON:-target/venv/bin/python}
[ -f "$data/pods.csv" ] || { echo "no trace in $data: pods.csv and nodes.csv are expected there" >&2; exit 1; }

[ -n "${BIN:-}" ] || cargo build --locked --release --workspace --bins
rm -rf "$work"
mkdir -p "$work"

# run NAME TRY: one pass over a fresh store; leaves NAME.TRY.jsonl and NAME.TRY.summary.
run() {
    local name=$1 try=$2 pid
    rm -rf "$work/store"
    mkdir -p "$work/store"
    "$bin/placet" serve --bundle policies/reference --facts "$work/$name.yaml" --store "$work/store/placet.db" \
        --keys "$work/store/keys" --listen 127.0.0.1:7543 --http 127.0.0.1:7580 --clock events \
        --log-level warn 2> "$work/$name.$try.server" &
    pid=$!
    until grep -q '127.0.0.1:7543' "$work/$name.$try.server"; do
        kill -0 "$pid" 2> /dev/null || { cat "$work/$name.$try.server" >&2; exit 1; }
        sleep 0.1
    done
    # Exit code 1 means that a line was not decided: the comparison below would show it, and so does the summary.
    "$bin/placet" admit --server http://127.0.0.1:7543 --format json "$work/$name.jsonl" \
        > "$work/$name.$try.jsonl" 2> "$work/$name.$try.summary" || echo "exit code $?" >> "$work/$name.$try.summary"
    kill "$pid"
    wait "$pid" || true
}

# What was decided, without what differs in every run by design: tokens are signed by another key, salts are random.
decisions() {
    "$python" - "$1" << 'PY'
import base64, json, sys
requests = {}  # by reservation: ids of reservations differ between stores
for line in open(sys.argv[1]):
    answer = json.loads(line)
    token = answer.pop("token", None)
    if token:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        answer["claims"] = {k: claims.get(k) for k in ("effect", "reasons", "obligations", "workload", "iat", "exp")}
        reservation = claims.get("reservation")
        answer["held"] = reservation and [reservation[k] for k in ("start", "end", "confirm_by", "charges")]
        if reservation:
            requests[reservation["id"]] = answer["request_id"]
        evictions = claims.get("evictions", [])
        answer["evictions"] = sorted([requests[one["reservation"]], one["evict_by"], one["epoch"]] for one in evictions)
    answer.pop("reservation_id", None)
    print(json.dumps(answer, sort_keys=True))
PY
}

scenario() {
    local name=$1 title=$2
    shift 2
    echo "== $title"
    "$bin/trace-convert" "$data/pods.csv" --nodes "$data/nodes.csv" --facts-out "$work/$name.yaml" "$@" > "$work/$name.jsonl"
    for try in 1 2; do
        run "$name" "$try"
        decisions "$work/$name.$try.jsonl" > "$work/$name.$try.decisions"
    done
    cat "$work/$name.1.summary"
    cmp "$work/$name.1.decisions" "$work/$name.2.decisions"
    echo "second run on a fresh store: the same $(wc -l < "$work/$name.2.decisions") answers"
    "$python" examples/check_limits.py "$work/$name.yaml" "$work/$name.1.jsonl"
}

scenario forty "all GPU tasks with their releases against 40 GPUs" --capacity 40
scenario half "without releases against half of the real cluster, by model" --capacity half --no-releases
scenario cohorts "four tenants in two cohorts, bookings in advance and a burst that preempts, against 40 GPUs" \
    --capacity 40 --tenancy cohorts --longest 43200
"$python" examples/report_trace.py "$work/cohorts.yaml" "$work/cohorts.jsonl" "$work/cohorts.1.jsonl" "$work"
cat "$work/tables.md"
echo "picture: $work/trace.svg; tables: $work/tables.md"
if [ -n "${KEEP:-}" ]; then
    cp "$work/trace.svg" engine/docs/trace.svg
    # The tables stand between two lines of the page.
    sed -i -e '/^<!-- tables -->$/,/^<!-- end of tables -->$/{//!d}' -e "/^<!-- tables -->\$/r $work/tables.md" engine/docs/trace.md
fi
