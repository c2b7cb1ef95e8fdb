#!/usr/bin/env bash
# What redis-cli does against nearside, with its defaults. Called as
# check.sh SOCKET; see .ci/clients for what it prints and waits for.
set -euo pipefail
SOCKET=$1
run=$RANDOM$RANDOM # keys of this run alone

fail() { echo "$*" >&2; exit 1; }

# want ANSWER COMMAND…: the command gives exactly this answer.
want() {
  local expected=$1 got
  shift
  got=$(redis-cli -s "$SOCKET" "$@" 2>&1)
  [[ $got == "$expected" ]] || fail "redis-cli $*: want '$expected', got '$got'"
}

load_product() { echo "product $1, price ${price:-10}"; }
save_product() { price=$2; }

# begin cache-aside
read_product() {
  local value
  value=$(redis-cli -s "$SOCKET" GET "product:$1")
  if [[ -z $value ]]; then
    value=$(load_product "$1") # from the database
    redis-cli -s "$SOCKET" SET "product:$1" "$value" EX 300 >/dev/null
  fi
  echo "$value"
}

write_product() {
  save_product "$1" "$2" # commit first,
  redis-cli -s "$SOCKET" DEL "product:$1" >/dev/null # then drop it in every pod
}
# end cache-aside

version=$(redis-cli --version) version=${version#redis-cli }
echo "version ${version%% *}"

want PONG PING
want "" GET "$run:a"
want OK SET "$run:a" 1
want 1 GET "$run:a"
want OK SET "$run:b" 2 EX 100
ttl=$(redis-cli -s "$SOCKET" TTL "$run:b")
[[ $ttl -gt 90 && $ttl -le 100 ]] || fail "TTL after SET EX 100: $ttl"
want $'1\n2' MGET "$run:a" "$run:b" "$run:none" # and an empty line, which $(…) cuts off
want 2 EXISTS "$run:a" "$run:b" "$run:none"
want 1 DEL "$run:a"
want "" GET "$run:a"

# A pipeline of 100 SETs over one connection, and what came of them.
piped=$(for i in {1..100}; do printf 'SET %s:p%d %d\r\n' "$run" "$i" "$i"; done | redis-cli -s "$SOCKET" --pipe 2>&1)
[[ $piped == *"errors: 0, replies: 100"* ]] || fail "--pipe: $piped"
want 77 GET "$run:p77"

# -x reads the value from standard input.
value=$(head -c 786432 /dev/urandom | base64 -w0) # 1 MiB of text
printf %s "$value" | redis-cli -s "$SOCKET" -x SET "$run:large" >/dev/null
[[ $(redis-cli -s "$SOCKET" GET "$run:large" | sha256sum) == "$(echo "$value" | sha256sum)" ]] || fail "1 MiB came back changed"

# An unknown command, and the same connection goes on.
mixed=$(printf 'NOSUCH x\nECHO alive\n' | redis-cli -s "$SOCKET" 2>&1)
[[ $mixed == *"unknown command"*alive ]] || fail "after an unknown command: $mixed"
want hello -3 ECHO hello

[[ $(read_product "$run") == *"price 10" && $(read_product "$run") == *"price 10" ]] || fail "cache-aside: first price"
write_product "$run" 20
[[ $(read_product "$run") == *"price 20" ]] || fail "cache-aside: the old price after a write"

echo restart
read -r _
want OK SET "$run:after" 3
want 3 GET "$run:after"
