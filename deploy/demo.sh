#!/bin/bash
# The product in one minute: starts wasmeter, deploys real functions, calls them with a real picture and real text,
# checks the answers, and shows what each call cost and that the bill agrees. `make demo` builds first and calls this.
#
#   DEMO_EXIT=1   stop the server at the end; otherwise it runs on until Ctrl-C
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export WASMETER_CACHE=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
bin=${CARGO_TARGET_DIR:-$WASMETER_CACHE/target}/release
wasmeter=$bin/wasmeter
python=$WASMETER_CACHE/venv/bin/python
export PYTHONDONTWRITEBYTECODE=1

bold='' dim='' red='' end=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\033[1m' dim=$'\033[2m' red=$'\033[31m' end=$'\033[0m'
  export DEMO_COLOR=1
fi
step() { printf '\n%s%s%s\n' "$bold" "$1" "$end"; }
fail() {
  printf '%sdemo failed:%s %s\n' "$red" "$end" "$1" >&2
  if [ -s "${log:-}" ]; then printf '%sthe last lines of the server:%s\n' "$dim" "$end" >&2; tail -n 15 "$log" >&2; fi
  exit 1
}

for file in "$wasmeter" "$bin/wasmeter-billing" "$python" "$WASMETER_CACHE/samples/cat.png" \
  "$root"/functions/target/components/{classify,similar,filetype}.wasm; do
  [ -e "$file" ] || fail "$file is missing: run 'make build'"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/wasmeter-demo.XXXXXX")
data=$work/data
log=$work/server.log
server=
stopped=
# stop: end the server as an operator would, once; its exit status is in $stopped
stop() {
  [ -n "$server" ] || return 0
  kill -TERM "$server" 2>/dev/null || true
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$server" 2>/dev/null && echo "  the server did not stop within 60 s of TERM" >&2
  stopped=0
  wait "$server" || stopped=$?
  server=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# free PORT: the port itself, or any free one where it is taken
free() {
  "$python" - "$1" <<'PY'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PY
}

step "starting wasmeter"
port=$(free 8080)
admin=$(free 9464)
url=http://127.0.0.1:$port
# A session of its own, so that Ctrl-C reaches this script, which then stops the server once and orderly; and a server
# that does not outlive the script, however that ends.
mkdir -m 700 "$data"
setsid setpriv --pdeathsig TERM "$wasmeter" serve --billing twin --data "$data" --listen "127.0.0.1:$port" \
  --admin-listen "127.0.0.1:$admin" >"$log" 2>&1 </dev/null &
server=$!
for ((tries = 0; ; tries++)); do
  curl -fs -o /dev/null --max-time 2 "$url/readyz" && [ -s "$data/dev-token" ] && [ -s "$data/operator-token" ] && break
  kill -0 "$server" 2>/dev/null || fail "the server ended by itself"
  [ "$tries" -lt 300 ] || fail "the server was not ready within 30 s: $url/readyz"
  sleep 0.1
done
echo "  $url  ${dim}metrics http://127.0.0.1:$admin/metrics${end}"

export WASMETER_URL=$url
operator() { WASMETER_TOKEN=$(cat "$data/operator-token") "$wasmeter" "$@"; }
dev() { WASMETER_TOKEN=$(cat "$data/dev-token") "$wasmeter" "$@"; }
# quiet WHAT COMMAND...: its talk only if it fails
quiet() {
  local what=$1
  shift
  "$@" >"$work/talk" 2>&1 || { cat "$work/talk" >&2; fail "$what"; }
  echo "  $what"
}

step "models (operator) and functions (tenant dev)"
for model in efficientnet-lite0 minilm magika; do
  quiet "push model $model" operator models push "$WASMETER_CACHE/models/$model" --name "$model" --version 1
done
for function in classify similar filetype; do
  quiet "deploy function $function" dev deploy "$root/functions/$function"
done

# The token goes by a file: what stands in a command line can be read by every user of the machine.
(umask 077 && printf 'Authorization: Bearer %s\n' "$(cat "$data/dev-token")" >"$work/auth")
# call TITLE KIND FUNCTION CURL-ARGUMENT...
call() {
  local title=$1 kind=$2 function=$3
  shift 3
  step "$title"
  curl -sS --max-time 60 -H "@$work/auth" -D "$work/head" -o "$work/body" "$@" "$url/fn/dev/$function" ||
    fail "no answer from $url/fn/dev/$function"
  "$python" "$root/deploy/demo_check.py" "$kind" "$work/head" "$work/body" "$work/costs" ||
    fail "'$title' gave a wrong answer"
}
json=(-H 'content-type: application/json' --data)

step "subscribe (at a stand-in for Stripe on this machine, with play money)"
checkout=$(dev checkout 2>"$work/talk") || { cat "$work/talk" >&2; fail "'wasmeter checkout' failed"; }
echo "  checkout $checkout"
"$python" "$root/deploy/demo_check.py" subscribe "$checkout" "$url" "$work/auth" || fail "the checkout did not lead to a subscription"
portal=$(dev portal 2>"$work/talk") || { cat "$work/talk" >&2; fail "'wasmeter portal' failed"; }
echo "  portal   $portal"

alike='{"a": "The cat sleeps on the sofa.", "b": "A kitten is napping on the couch."}'
apart='{"a": "The cat sleeps on the sofa.", "b": "Quarterly revenue rose by nine percent."}'

call "classify: what is in cat.png?" classify classify -H 'content-type: image/png' \
  --data-binary "@$WASMETER_CACHE/samples/cat.png"
call "classify: and as a JPEG?" classify classify -H 'content-type: image/jpeg' \
  --data-binary "@$WASMETER_CACHE/samples/cat.jpg"
call "similar: a sleeping cat, a napping kitten" similar similar "${json[@]}" "$alike"
call "similar: a sleeping cat, quarterly revenue" unrelated similar "${json[@]}" "$apart"
call "filetype: what is functions/filetype/src/lib.rs?" filetype=rust filetype \
  -H 'content-type: application/octet-stream' --data-binary "@$root/functions/filetype/src/lib.rs"

step "the bill of tenant dev"
# Billing is another process and takes the records over within two seconds; an answer is never held up for it.
for ((tries = 0; ; tries++)); do
  dev bill --format json >"$work/bill.json" 2>"$work/talk" || { cat "$work/talk" >&2; fail "'wasmeter bill' failed"; }
  verdict=0
  "$python" "$root/deploy/demo_check.py" bill "$work/bill.json" "$work/costs" >"$work/verdict" || verdict=$?
  [ "$verdict" = 2 ] && [ "$tries" -lt 100 ] || break
  sleep 0.1
done
dev bill || fail "'wasmeter bill' failed"
cat "$work/verdict"
[ "$verdict" = 0 ] || fail "the bill is not the sum of the calls"

step "the end of the month, by the stand-in's clock: its invoice"
"$python" "$root/deploy/demo_check.py" invoice "$data/twin" "$work/bill.json" || fail "the invoice is not the ledger's bill"

if [ "${DEMO_EXIT:-}" = 1 ]; then
  stop
  [ "$stopped" = 0 ] || fail "the server ended with status $stopped on TERM, 0 expected"
  step "demo passed"
  exit 0
fi

auth="-H \"Authorization: Bearer \$(cat $data/dev-token)\""
step "the server runs until Ctrl-C; try"
cat <<TRY
  curl $auth --data-binary @$WASMETER_CACHE/samples/cat.jpg $url/fn/dev/classify
  curl $auth --data '$alike' $url/fn/dev/similar
  curl -i $auth --data-binary @$root/Makefile $url/fn/dev/filetype
TRY
trap 'exit 0' INT TERM
status=0
wait "$server" || status=$?
server=
fail "the server ended by itself with status $status"
