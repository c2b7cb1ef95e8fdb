# Every target is one line: what it does stands in .ci/ or in the binary itself.
.DEFAULT_GOAL := help
.PHONY: help build demo test lint fmt fuzz clients compare tidy ci

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

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

compare: ## GET hits beside Redis and memcached; ROUNDS=15 for steadier figures
	.ci/compare

tidy: ## make go.mod and go.sum exactly what the code needs
	go mod tidy

ci: ## everything that must pass before a merge
	.ci/run
