#!/usr/bin/env bash
# What redis-benchmark does against nearside: its tests of the commands that
# nearside has, plain and pipelined. Called as check.sh SOCKET; see .ci/clients
# for what it prints and waits for.
set -euo pipefail
SOCKET=$1

# bench OPTION…: every test ends with a result, and nothing complains.
bench() {
  local out
  out=$(redis-benchmark -s "$SOCKET" -q -n 5000 "$@" 2>&1 | tr '\r' '\n')
  if grep -iE 'error|warning|inf,' <<<"$out"; then return 1; fi
  [[ $(grep -c 'requests per second' <<<"$out") -ge 1 ]] || { echo "no result: $out" >&2; return 1; }
}

version=$(redis-benchmark --version)
version=${version#redis-benchmark }
echo "version ${version%% *}"

bench -t ping,set,get,mset
bench -t set,get -P 16 -r 1000 -d 1024
bench -t set,get -c 4 -d 1048576 -n 100
bench -3 -t get
bench GET key:none
bench -c 5 -n 500 DEL key:__rand_int__ -r 100

echo restart
read -r _
bench -t get
