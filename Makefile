# Everything here runs with Go, make, bash, git and Python; what else the tests need, `make tools` installs in this directory.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Two cores are busy with one target; two at once would only mix their output.
.NOTPARALLEL:
.PHONY: help build bootstrap test unit tools generate simulator controlplane end-to-end slowest lint demo local bench dist cli build-SpotHandlerFunction reproducible clean

VERSION := $(shell cat VERSION)

# What is not shipped is compiled with the same flags everywhere, so once: the control plane and what tests it have packages
# in common. Without debugging information that takes a quarter less time.
export GOFLAGS += -gcflags=all=-dwarf=false

# Without cgo, so that a machine with a C compiler and one without build the same.
export CGO_ENABLED := 0

# Compilers have memory enough to collect their garbage seldom: a tenth less time.
COMPILE := GOGC=400

# The tests' tools come first, so that their versions are those named here.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/test/bin:$(PATH)

# Lambda's custom runtime talks over HTTP alone: norpc leaves the old protocol's net/rpc out of the binary.
LAMBDA := -tags lambda.norpc -ldflags '-s -w -buildid= -X main.version=$(VERSION)'

# What the environment says about a processor must not reach what is shipped.
SHIPPED := GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off GOFLAGS= GOWORK=off

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The test module without the two packages that link all of Kubernetes: to analyse a few hundred lines that only wire it
# up would take minutes. What they do is proven by every test that runs on them.
LIGHT := $$(go list ./... | grep -v '/controlplane$$')

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: bootstrap ## for this machine, the Lambda's binary and the command line: bin/bootstrap, bin/kops-spot
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kops-spot ./cmd/kops-spot

bootstrap: # the Lambda's binary alone
	go build $(LAMBDA) -o bin/bootstrap ./lambda

test: tools unit controlplane end-to-end slowest ## all tests: each package's own, then those on a real control plane

# Prints a line for each package, and what failed; what it keeps is for slowest.
GOTESTSUM := gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --hide-summary skipped --jsonfile $(CURDIR)/test/bin

unit: tools ## each package's own tests
	@echo "compiling the packages and their tests (3 minutes the first time)"
	@$(GOTESTSUM)/unit.json -- -vet=off -timeout 5m ./...

slowest: # the ten slowest tests of the last run
	@printf '\nthe ten slowest tests\n'
	@cat test/bin/unit.json test/bin/end-to-end.json | gotestsum tool slowest --num 10

generate: ## write what is made from code and from iam/: the role in template.yaml, docs/settings.md, docs/outcome.schema.json
	go test ./iam ./internal/app -run 'TheRoleInTheTemplate|TheSettingsAreDocumented' -update
	go run ./tools/schema internal/spot > docs/outcome.schema.json

# Node.js is not installed here: without it the tests of IAM policies are left out, and the others run.
NODE := $(shell command -v node >/dev/null && command -v npm >/dev/null && echo yes)

tools: .venv/installed ## install what the tests need into .venv and test/bin: Python packages, AWS CLI, kubectl, gotestsum
	@echo "compiling kubectl and gotestsum (2 minutes the first time)"
	@cd test && $(COMPILE) go build -o bin/ gotest.tools/gotestsum k8s.io/kubernetes/cmd/kubectl

.venv/installed: tools/python/requirements.txt tools/python/install
	@tools/python/install

simulator: test/iam/node_modules/.package-lock.json ## the IAM policy simulator of the tests, by npm: seconds the first time, then kept

test/iam/node_modules/.package-lock.json: test/iam/package-lock.json
	npm ci --prefix test/iam --no-audit --no-fund
	@touch $@

controlplane: ## the control plane that tests and demo run on
	@echo "compiling the control plane (9 minutes the first time)"
	@cd test && $(COMPILE) go run ./cmd/prepare -authenticator

# Go's test cache sees neither the programs these tests start nor the module above theirs: -count=1. Each of them has
# clocks to keep, so packages take turns: -p 1. Only packages that have tests are named: to the others `go test ./...`
# would compile all of Kubernetes a second time. Vetting is lint's.
end-to-end: tools controlplane $(if $(NODE),simulator) ## the tests of the test module
	@$(if $(NODE),,echo "Node.js 20 or npm is missing: the tests of IAM policies (test/iam) are left out")
	@cd test && $(GOTESTSUM)/end-to-end.json -- -count=1 -p 1 -vet=off -timeout 20m \
		$$(go list -f '{{if and (or .TestGoFiles .XTestGoFiles) $(if $(NODE),,(ne .Name "iam"))}}{{.ImportPath}}{{end}}' ./...)

lint: .venv/installed ## gofmt, go vet and staticcheck, and cfn-lint on template.yaml
	@echo gofmt; found=$$(gofmt -l .); [ -z "$$found" ] || { printf 'to be formatted with gofmt -w:\n%s\n' "$$found" >&2; exit 1; }
	go vet ./...
	cd test && go vet $(LIGHT)
	$(STATICCHECK) ./...
	cd test && $(STATICCHECK) $(LIGHT)
	cfn-lint template.yaml

demo: ## one interrupted node on a real control plane, live; the first time after a preview in memory
	@cd test && $(COMPILE) go build -o bin/ ./demo/preview && $(COMPILE) bin/preview go run ./cmd/prepare
	@cd test && go run ./demo

# Credentials are the shell's AWS_ACCESS_KEY_ID and what goes with it:
# eval "$$(aws configure export-credentials --format env)" sets them.
EVENTS_ENV ?= events/env.json
PORT ?= 3001
local: bootstrap ## run the function in AWS's Lambda emulator; EVENTS_ENV and PORT name its settings and its port
	@cd test && go build -o bin/ ./cmd/local github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie
	@EVENTS_ENV="$(EVENTS_ENV)" PORT="$(PORT)" test/bin/local

bench: controlplane ## the benchmarks: twenty minutes; BENCH='-only growth' runs a part, BENCH='-write ../docs/benchmarks.md' keeps them
	go test -run '^$$' -bench . -benchmem ./...
	cd test && go run ./bench $(BENCH)

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
	go build -trimpath -tags shipped -ldflags '-s -w -X main.version=$(VERSION)' -o dist/kops-spot ./cmd/kops-spot

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
	rm -rf bin dist deploy/code test/bin test/iam/node_modules .venv
