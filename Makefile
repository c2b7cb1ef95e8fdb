# Every target is one line: what it does stands in .ci/ or in the binary itself.
.DEFAULT_GOAL := help
.PHONY: help build demo test lint fmt fuzz sim clients compare hitratio rss reads traces herd events nemesis mutants charts injection admission e2e image tidy ci

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

build: ## build the binary as ./nearside
	go build -o nearside ./cmd/nearside

demo: ## run three sidecars, a writer and readers; needs no other server
	go run ./cmd/nearside demo

test: ## vet, lint and all tests with the race detector
	.ci/run vet lint tests

lint: ## the linters alone
	.ci/run vet lint

fmt: ## format all Go files as the linters want them
	.ci/steps/lint fmt

fuzz: ## every fuzz target; FUZZTIME=1m for longer
	.ci/run fuzz

clients: ## real Redis clients against a nearside, each from its own registry
	.ci/clients

sim: ## 10,000 simulated domains with all faults; ARGS=-sim.seed=7 replays one
	go test ./sidecar/sidecartest/sim -run 'TestSim$$' -v -timeout 30m $(or $(ARGS),-sim.seeds=10000)

compare: ## GET hits beside Redis and memcached, into docs/benchmarks/results; ROUNDS=15 for steadier figures
	.ci/compare

traces: ## real traces for hitratio, into a folder that git ignores
	docs/benchmarks/store/traces.sh

hitratio: ## hit ratios beside otter, ristretto, LRU and bigcache at equal bytes, and plots; make traces first for real ones
	go -C docs/benchmarks/store run ./hitratio -traces traces -out . $(ARGS)

rss: ## the store's resident memory against its budget while values churn, half an hour; ARGS='-each 30s'
	go -C docs/benchmarks/store run ./rss -out rss.svg $(ARGS)

reads: ## the store's lookups, tail and memory for an entry, beside other caches and Redis
	go -C docs/benchmarks/store run ./reads $(ARGS)

herd: ## what a hot key that changes costs its origin, beside Redis; ARGS='-rounds 1 -storm 5s' is quicker
	mkdir -p bin && go build -o bin/nearside ./cmd/nearside && go run ./docs/benchmarks/herd -nearside bin/nearside $(ARGS)

events: ## applying, fan-out, DELs and reads in a storm, beside bare NATS and Redis; BENCH=Fanout for one
	go test ./sidecar/sidecartest/eventbench -run '^$$' -bench '$(or $(BENCH),.)' -benchtime 1x $(ARGS)

nemesis: ## real processes and a real cluster under random faults; FAULTS=list SEED=1 DURATION=5m SERVERS=1
	go test -count=1 -v -timeout 0 -run '^TestNemesis$$' ./sidecar/sidecartest/nemesis -args -faults '$(or $(FAULTS),all)' -seed '$(SEED)' -duration '$(or $(DURATION),30s)' -servers '$(or $(SERVERS),3)'

mutants: ## take each rule out and see which test notices; ONLY='B3|fence' for some, some minutes for all
	go run ./sidecar/sidecartest/mutants -only '$(ONLY)' $(ARGS)

injection: ## webhook, policy, library chart and filter inject the same; needs no cluster
	.ci/run injection

admission: ## the admission policy on the API server that KUBECONFIG names, Kubernetes 1.36 or later
	go -C kube/inject/equal test -count=1 -tags cluster -run Cluster -v .

charts: ## render the charts as Helm does, and look at every object; ARGS=-update writes what they are made of anew
	go test ./charts $(ARGS) && cd charts/test && go test -count=1 . $(ARGS)

e2e: ## the chart and an app on the cluster that KUBECONFIG names; E2E_IMAGE=nearside:dev E2E_APP_IMAGE=cache-aside:dev
	mkdir -p bin && go build -o bin/nearside ./cmd/nearside && go run ./charts/e2e $(ARGS)

image: ## the image, as nearside:dev; VERSION=v1.2.3
	docker buildx build --build-arg VERSION=$(or $(VERSION),dev) --tag nearside:dev --load .

tidy: ## make go.mod and go.sum exactly what the code needs
	go mod tidy

ci: ## everything that must pass before a merge
	.ci/run
