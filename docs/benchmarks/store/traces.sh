#!/bin/sh
# Puts real traces into the folder "traces" beside this file, which git ignores. They stay
# their authors': nothing of them is in this repository.
#
#   gli     LIRS's authors; the module of ristretto, which is compared with anyway, has it
#   others  LIRS's authors, as Caffeine's simulator has them
set -eu
cd "$(dirname "$0")"
mkdir -p traces
cp -f "$(go list -m -f '{{.Dir}}' github.com/dgraph-io/ristretto/v2)/sim/gli.lirs.gz" traces/
chmod u+w traces/gli.lirs.gz
caffeine=https://raw.githubusercontent.com/ben-manes/caffeine/2e1db0c1e7759b50b8be94f70ab24bbc2c534d54
for trace in sprite ps multi2 multi3; do
	curl -fsSL -o "traces/$trace.trace.gz" "$caffeine/simulator/src/main/resources/com/github/benmanes/caffeine/cache/simulator/parser/lirs/$trace.trace.gz" ||
		echo "$trace was not fetched" >&2
done
