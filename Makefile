# Everything here runs with Go, make, bash and git; `make tools` tells what else the tests want.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Two cores are busy with one target; two at once would only mix their output.
.NOTPARALLEL:
.PHONY: help build test unit tools generate simulator controlplane end-to-end lint demo local bench dist cli build-SpotHandlerFunction reproducible clean

VERSION := $(shell cat VERSION)

# Lambda's custom runtime talks over HTTP alone: norpc leaves the old protocol's net/rpc out of the binary.
LAMBDA := -tags lambda.norpc -ldflags '-s -w -buildid= -X main.version=$(VERSION)'

# What the environment may say about a processor or a C compiler must not reach what is shipped.
SHIPPED := CGO_ENABLED=0 GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off GOFLAGS= GOWORK=off

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The test module without the two packages that link all of Kubernetes: to analyse them is to compile it once more, five
# minutes for a few hundred lines that only wire it up. What they do is proven by every test that runs on them.
LIGHT := $$(go list ./... | grep -v '/controlplane$$')

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## for this machine, the Lambda's binary and the command line: bin/bootstrap, bin/kops-spot
	go build $(LAMBDA) -o bin/bootstrap ./lambda
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kops-spot ./cmd/kops-spot

test: tools unit controlplane end-to-end ## all tests: each package's own, then those on a real control plane

unit: ## each package's own tests
	go test -timeout 5m ./...

generate: ## write what is made from code and from iam/: the role in template.yaml, docs/settings.md, docs/outcome.schema.json
	go test ./iam ./internal/app -run 'TheRoleInTheTemplate|TheSettingsAreDocumented' -update
	go run ./tools/schema internal/spot > docs/outcome.schema.json

tools: ## are the tools there that tests need? Says how to install what is not
	@command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.9 or later" >&2; exit 1; }
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "node or npm is missing: install Node.js 20 or later, with npm" >&2; exit 1; }
	@for tool in aws kubectl; do command -v $$tool >/dev/null || { echo "$$tool is missing, with which the commands of docs/onboarding.md are run:" \
		"install the AWS CLI and kubectl" >&2; exit 1; }; done
	@python3 tools/python/check.py

simulator: test/iam/node_modules/.package-lock.json ## the IAM policy simulator of the tests, by npm: seconds the first time, then kept

test/iam/node_modules/.package-lock.json: test/iam/package-lock.json
	npm ci --prefix test/iam --no-audit --no-fund
	@touch $@

controlplane: ## the control plane that tests and demo run on: five minutes the first time, then cached
	@echo "compiling what starts the control plane (two or three minutes the first time, then it is cached)"
	@cd test && go run ./cmd/prepare

# Go's test cache sees neither the programs these tests start nor the module above theirs: -count=1. Each of them has
# clocks to keep, so packages take turns: -p 1. Only packages that have tests are named: to the others `go test ./...`
# would compile all of Kubernetes a second time. Vetting is lint's.
end-to-end: controlplane simulator ## the tests of the test module
	cd test && go test -count=1 -p 1 -vet=off -timeout 20m \
		$$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...)

lint: ## gofmt, go vet and staticcheck, and cfn-lint on template.yaml
	@echo gofmt; found=$$(gofmt -l .); [ -z "$$found" ] || { printf 'to be formatted with gofmt -w:\n%s\n' "$$found" >&2; exit 1; }
	go vet ./...
	cd test && go vet $(LIGHT)
	$(STATICCHECK) ./...
	cd test && $(STATICCHECK) $(LIGHT)
	@python3 tools/python/check.py cfn-lint
	cfn-lint template.yaml

demo: ## one interrupted node on a real control plane, live
	@echo "compiling the demo (two or three minutes the first time, then it is cached)"
	@cd test && go run ./cmd/demo

# Credentials are the shell's AWS_ACCESS_KEY_ID and what goes with it:
# eval "$$(aws configure export-credentials --format env)" sets them.
EVENTS_ENV ?= events/env.json
PORT ?= 3001
local: ## run the function in AWS's Lambda emulator; EVENTS_ENV and PORT name its settings and its port
	go build $(LAMBDA) -o bin/bootstrap ./lambda
	@cd test && go build -o bin/ ./cmd/local tool
	@EVENTS_ENV="$(EVENTS_ENV)" PORT="$(PORT)" test/bin/local

bench: controlplane ## the benchmarks: twenty minutes; BENCH='-only growth' runs a part, BENCH='-write ../docs/benchmarks.md' keeps them
	go test -run '^$$' -bench . -benchmem ./...
	cd test && go run ./cmd/bench $(BENCH)

dist: ## what Lambda runs: dist/<arch>/bootstrap and its zip, the same bytes every time
	@rm -rf dist
	@for arch in amd64 arm64; do \
		$(SHIPPED) GOARCH=$$arch go build -trimpath -buildvcs=false $(LAMBDA) -o dist/$$arch/bootstrap ./lambda; \
		go run ./tools/zip dist/kops-spot-$(VERSION)-$$arch.zip dist/$$arch/bootstrap LICENSE; \
	done

# Lambda's names for the processors are not Go's.
cli: dist ## the command line with the function in it, for this machine: dist/kops-spot
	@mkdir -p deploy/code
	@cp dist/kops-spot-$(VERSION)-arm64.zip deploy/code/arm64.zip
	@cp dist/kops-spot-$(VERSION)-amd64.zip deploy/code/x86_64.zip
	CGO_ENABLED=0 go build -trimpath -tags shipped -ldflags '-s -w -X main.version=$(VERSION)' -o dist/kops-spot ./cmd/kops-spot

# `sam build` asks for the function by its name in template.yaml, in a copy of this directory. ARCH is arm64 or amd64; the
# template's parameter Architecture has to say the same.
ARCH ?= arm64
build-SpotHandlerFunction:
	@[ -n "$(ARTIFACTS_DIR)" ] || { echo "ARTIFACTS_DIR is not set: run sam build, or name a directory for what is built" >&2; exit 1; }
	@case "$(ARCH)" in arm64|amd64) ;; *) echo "ARCH: set it to arm64 or amd64, not $(ARCH)" >&2; exit 1;; esac
	mkdir -p "$(ARTIFACTS_DIR)"
	$(SHIPPED) GOARCH=$(ARCH) go build -trimpath -buildvcs=false $(LAMBDA) -o "$(ARTIFACTS_DIR)/bootstrap" ./lambda
	cp LICENSE "$(ARTIFACTS_DIR)/"

reproducible: ## dist, here and as another machine would build it: are the bytes the same?
	@tools/reproducible

clean: ## remove what was built here; Go's caches stay
	rm -rf bin dist deploy/code test/bin test/iam/node_modules
