# Sourced by the scripts of .ci that need a running nearside. Everything is in
# $scratch, which the script makes and removes.

# build_nearside puts the binary under test at $scratch/nearside: NEARSIDE names
# one that is built already.
build_nearside() {
  if [[ -n ${NEARSIDE:-} ]]; then
    ln -s "$(realpath "$NEARSIDE")" "$scratch/nearside"
  else
    go build -o "$scratch/nearside" ./cmd/nearside
  fi
}

# need_debian COMMAND PACKAGE installs a missing command, or says how to.
need_debian() {
  command -v "$1" >/dev/null && return
  if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "installing $2 (once)" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$2"; } >"$scratch/apt.log" 2>&1 && return
    tail -n 5 "$scratch/apt.log" >&2
  fi
  echo "$1 is missing and could not be installed: install the package $2 (apt-get install $2)" >&2
  return 1
}

# within SECONDS COMMAND… tries until the command succeeds.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $end ]] || return 1
    sleep 0.02
  done
}

is_ready() { redis-cli -s "$socket" NEAR.STATUS | grep -A1 -x ready | grep -qx 1; }

# start_nearside [OPTION…] serves on $socket, with its own NATS, until
# stop_nearside. Each start is a first life, as in a new pod: a stream younger
# than two fill windows cannot tell a second one what SETs it may keep (C3), and
# nobody wants to wait for it here.
start_nearside() {
  rm -f "$socket.lock"
  "$scratch/nearside" serve --nats embedded --data "$scratch/data" --socket "$socket" --admin "" "$@" >>"$scratch/nearside.log" 2>&1 &
  nearside_pid=$!
  within 20 is_ready || {
    echo "nearside did not become ready on $socket; its log ends:" >&2
    tail -n 20 "$scratch/nearside.log" >&2
    return 1
  }
}

stop_nearside() {
  [[ -n ${nearside_pid:-} ]] || return 0
  kill "$nearside_pid" 2>/dev/null || true
  wait "$nearside_pid" 2>/dev/null || true
  nearside_pid=
}
