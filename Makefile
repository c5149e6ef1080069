# Requires Go, make, bash, git and Python. `make tools` installs everything else that the tests need in this directory.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One target keeps two cores busy. Parallel targets would only mix their output.
.NOTPARALLEL:
.PHONY: help build bootstrap test unit race tools generate simulator controlplane end-to-end slowest lint demo local bench dist cli command release recording build-SpotHandlerFunction reproducible clean

VERSION := $(shell cat VERSION)

# One set of flags for everything that is not shipped: the tests share most packages with the control plane, so each is
# compiled once. Omitting debugging information saves a quarter of the time.
export GOFLAGS += -gcflags=all=-dwarf=false

# Builds are the same with and without a C compiler.
export CGO_ENABLED := 0

# Less garbage collection in the compiler saves a tenth of the time.
COMPILE := GOGC=400

# The pinned tools come first.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/test/bin:$(PATH)

# Lambda's custom runtime uses HTTP only. lambda.norpc omits the RPC server of the old runtime.
LAMBDA := -tags lambda.norpc -ldflags '-s -w -buildid= -X main.version=$(VERSION)'

# Shipped binaries must not depend on the environment. The linker strips debugging information, so it is not generated.
SHIPPED := GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off GOFLAGS=-gcflags=all=-dwarf=false GOWORK=off

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The test module without the two packages that link all of Kubernetes: analyzing them takes minutes, and every
# end-to-end test exercises them.
LIGHT := $$(go list ./... | grep -v '/controlplane$$')

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: bootstrap ## Build the function and the command for this machine: bin/bootstrap, bin/kops-spot
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kops-spot ./cmd/kops-spot

bootstrap: # Build the function for this machine, as sam build does
	@$(MAKE) --no-print-directory build-SpotHandlerFunction ARCH=$$(go env GOARCH) ARTIFACTS_DIR=bin

test: tools unit controlplane end-to-end slowest ## Run all tests: unit tests, then tests on a real control plane

# Prints one line per package, and the output of failed tests. `make slowest` reads the JSON files.
GOTESTSUM := gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --hide-summary skipped --jsonfile
JSON := $(CURDIR)/test/bin

unit: tools ## Run the unit tests
	@echo "compiling the unit tests (3 minutes the first time)"
	@$(GOTESTSUM) $(JSON)/unit.json -- -vet=off -timeout 5m ./...

# The AWS SDK is compiled without race detection: its EC2 package would take minutes and gigabytes.
# crypto/tls shares parsed certificates between connections through weak pointers. The race detector reports that in
# TestSelfCheckOfTheNetwork, where both sides of the race are in crypto/tls.
race: ## Run the unit tests with the race detector, which needs a C compiler
	CGO_ENABLED=1 go test -race '-gcflags=github.com/aws/...=-dwarf=false -race=false' -skip '^TestSelfCheckOfTheNetwork$$' \
		-vet=off -timeout 10m ./...

slowest: # Print the ten slowest tests of the last run
	@printf '\nten slowest tests\n'
	@cd $(JSON) && cat unit.json cluster.json other.json timed.json | gotestsum tool slowest --num 10

generate: ## Generate the role in template.yaml, docs/settings.md, docs/*.schema.json and docs/cli
	go test ./iam ./internal/app ./cmd/kops-spot -run 'TestRoleInTemplate|TestSettingsPage|TestReference' -update
	go run ./tools/schema internal/spot Outcome > docs/outcome.schema.json
	go run ./tools/schema internal/spot Notification > docs/notification.schema.json

# `make tools` does not install Node.js. Without it, the tests of IAM policies are skipped.
NODE := $(shell command -v node >/dev/null && command -v npm >/dev/null && echo yes)

tools: .venv/installed ## Install the test tools in .venv and test/bin: Python packages, AWS CLI, kubectl, gotestsum
	@echo "compiling kubectl and gotestsum (2 minutes the first time)"
	@cd test && $(COMPILE) go build -o bin/ gotest.tools/gotestsum k8s.io/kubernetes/cmd/kubectl

.venv/installed: tools/python/requirements.txt tools/python/install
	@tools/python/install

simulator: test/iam/node_modules/.package-lock.json ## Install the IAM policy simulator with npm

test/iam/node_modules/.package-lock.json: test/iam/package-lock.json
	npm ci --prefix test/iam --no-audit --no-fund
	@touch $@

controlplane: ## Build the control plane for the tests and the demo
	@echo "compiling the control plane (9 minutes the first time)"
	@cd test && $(COMPILE) go run ./cmd/prepare -authenticator

# -count=1: Go's test cache does not see the programs that these tests start, nor the root module.
# -vet=off: `make lint` runs vet.
END_TO_END := -count=1 -vet=off -timeout 20m

# Only packages with tests are listed: for the others, `go test ./...` would compile Kubernetes a second time.
OTHER = $$(go list -f '{{if and (or .TestGoFiles .XTestGoFiles) $(if $(NODE),,(ne .Name "iam"))}}{{.ImportPath}}{{end}}' ./... | \
	grep -vE '/(operator|bench|local|demo|e2e|testenv)$$')

# The tests of operator mostly wait, so they run in two processes, beside other packages. Then, one after another, the
# packages that measure time and the one that runs `make local`.
end-to-end: tools controlplane $(if $(NODE),simulator) ## Run the tests of the test module
	@$(if $(NODE),,echo "skipping the tests of IAM policies (test/iam): install Node.js 20 or later, with npm, to run them")
	@cd test && printf '%s\n' \
		"$(JSON)/cluster.json -- $(END_TO_END) -run TestInTheCluster/first ./operator" \
		"$(JSON)/other.json -- $(END_TO_END) -skip TestInTheCluster/first ./operator $$(echo $(OTHER))" | \
		xargs -P 2 -L 1 $(GOTESTSUM)
	@cd test && $(GOTESTSUM) $(JSON)/timed.json -- $(END_TO_END) -p 1 ./bench ./cmd/local ./demo ./e2e ./testenv

lint: .venv/installed ## Run gofmt, go vet, staticcheck and cfn-lint
	@echo gofmt; found=$$(gofmt -l .); [ -z "$$found" ] || { printf 'run gofmt -w on:\n%s\n' "$$found" >&2; exit 1; }
	go vet ./...
	cd test && go vet $(LIGHT)
	$(STATICCHECK) ./...
	cd test && $(STATICCHECK) $(LIGHT)
	cfn-lint --regions eu-west-1 cn-north-1 --template template.yaml
	if command -v terraform >/dev/null; then terraform fmt -check -diff deploy/terraform; fi

demo: ## Interrupt a node on a real control plane, live. The first run shows an in-memory preview while it compiles
	@cd test && $(COMPILE) go build -o bin/ ./demo/preview && $(COMPILE) bin/preview go run ./cmd/prepare
	@cd test && go run ./demo

# Uses the AWS credentials in the environment. To set them:
# eval "$$(aws configure export-credentials --format env)"
EVENTS_ENV ?= events/env.json
PORT ?= 3001
local: bootstrap ## Run the function in the AWS Lambda runtime interface emulator; set EVENTS_ENV (settings file) and PORT
	@cd test && go build -o bin/ ./cmd/local github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie
	@EVENTS_ENV="$(EVENTS_ENV)" PORT="$(PORT)" test/bin/local

bench: controlplane ## Run the benchmarks (20 minutes); BENCH='-only growth' or BENCH='-write ../docs/benchmarks.md'
	go test -run '^$$' -bench . -benchmem ./...
	cd test && go run ./bench $(BENCH)

dist: ## Build the function's zip files for Lambda, reproducibly: dist/
	@rm -rf dist
	@for arch in amd64 arm64; do \
		$(SHIPPED) GOOS=linux GOARCH=$$arch go build -trimpath -buildvcs=false $(LAMBDA) -o dist/$$arch/bootstrap ./lambda; \
		go run ./tools/zip dist/kops-spot-$(VERSION)-lambda-$$arch.zip dist/$$arch/bootstrap LICENSE; \
	done

# Lambda and Go use different names for the architectures.
cli: dist ## Build the command with the function's zip files in it: dist/kops-spot
	@mkdir -p deploy/code
	@cp dist/kops-spot-$(VERSION)-lambda-arm64.zip deploy/code/arm64.zip
	@cp dist/kops-spot-$(VERSION)-lambda-amd64.zip deploy/code/x86_64.zip
	@$(MAKE) --no-print-directory command OUT=dist/kops-spot

command: # Build the command for GOOS and GOARCH, with the zip files in deploy/code
	$(SHIPPED) go build -trimpath -buildvcs=false -tags shipped -ldflags '-s -w -buildid= -X main.version=$(VERSION)' \
		-o "$(OUT)" ./cmd/kops-spot

TARGETS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
release: ## Build a release reproducibly: dist/release; set VERSION to check it, TARGETS to build fewer archives
	@tools/release "$(VERSION)" $(TARGETS)

recording: controlplane ## Record the demo for README.md: docs/demo.svg
	@tools/recording

# `sam build` runs this target in a copy of this directory. ARCH is arm64 or amd64 and must match the template's
# Architecture parameter.
ARCH ?= arm64
build-SpotHandlerFunction:
	@[ -n "$(ARTIFACTS_DIR)" ] || { echo "ARTIFACTS_DIR is not set: run sam build, or set it to the output directory" >&2; exit 1; }
	@case "$(ARCH)" in arm64|amd64) ;; *) echo "ARCH=$(ARCH) is not supported: use arm64 or amd64" >&2; exit 1;; esac
	mkdir -p "$(ARTIFACTS_DIR)"
	$(SHIPPED) GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false $(LAMBDA) -o "$(ARTIFACTS_DIR)/bootstrap" ./lambda
	cp LICENSE "$(ARTIFACTS_DIR)/"

reproducible: ## Check that release builds the same bytes in another environment
	@tools/reproducible

clean: ## Remove everything built in this directory (keeps Go's caches)
	rm -rf bin dist deploy/code test/bin test/iam/node_modules .venv
