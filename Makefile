# Everything is installed into .venv in this folder; `make` alone says what there is.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
STAMP := .venv/.installed
TESTS ?= tests

.PHONY: help run dev test check quick sim chaos nightly soak fuzz-api http-docs demo conformance bench dist chart fmt clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## Run the server on port 8080 (OJS_PORT) with a Kafka and a Redis of its own
	@exec $(BIN)/ojs-stream dev

dev: $(STAMP) ## The same for developers: the server starts again when a file under ojs_stream/ changes
	@exec $(BIN)/ojs-stream dev --reload

test: $(STAMP) ## Run all tests on servers of their own (TESTS="tests/unit -k word" for some)
	@$(BIN)/python -m pytest $(TESTS)

check: $(STAMP) ## Check format, lint, types and layers
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

quick: check ## Check, then the tests that need no Kafka (under 2 minutes)
	@$(BIN)/python -m pytest $(wildcard tests/unit tests/model tests/simulation)

sim: $(STAMP) ## Simulate 1,000 seeds of faults; SEED=n replays one
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) --verbose,--seeds 1000 --jobs 2)

chaos: $(STAMP) ## Break real workers, Kafka and Redis once in each way (SEED=n, FAULT=name) and audit what is left
	@$(BIN)/python -m tools.chaos $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault $(FAULT))

nightly: $(STAMP) ## The same in 20 rounds with other seeds (half an hour)
	@$(BIN)/python -m tools.chaos --rounds 20 $(if $(SEED),--seed $(SEED))

demo: $(STAMP) ## Watch thousands of real jobs go through
	@$(BIN)/python -m tools.demo

conformance: $(STAMP) ## Run the official conformance cases
	@$(BIN)/python -m tools.conformance

bench: $(STAMP) ## Measure requests per second against a bare aiohttp server
	@$(BIN)/python -m tools.bench

soak: $(STAMP) ## Run a load for 30 minutes (MINUTES=n): memory, files, keys must not grow
	@$(BIN)/python -m tools.soak $(if $(MINUTES),--minutes $(MINUTES))

dist: $(STAMP) ## Build the sdist and the wheel into dist/
	@$(BIN)/python -m hatchling build

chart: $(STAMP) ## Check the Helm chart and render it for its tests (needs helm)
	@$(BIN)/python -m tools.chart

fuzz-api: $(STAMP) ## Ask a running server (URL=...) for everything in openapi.yaml, 200 times each, with a fixed seed
	@$(BIN)/schemathesis run ojs_stream/web/openapi.yaml --url $(or $(URL),http://127.0.0.1:8080) --seed 7 --exclude-path-regex '(/stream|/jobs/\{id\}/events|/queues/\{name\}/events)$$' \
	  --max-examples 200 --checks not_a_server_error,response_schema_conformance,content_type_conformance

http-docs: $(STAMP) ## Write docs/http.md from openapi.yaml
	@$(BIN)/python -m tools.httpdocs

fmt: $(STAMP) ## Format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove what was made here: .venv, .ojs (the data of `make run`), caches
	rm -rf .venv .ojs dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { \
	  for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done || { echo 'Python 3.11 or newer is needed.' >&2; exit 1; }; \
	  echo "Making .venv with $$($$python --version)"; \
	  $$python -m venv .venv; }
	@echo 'Installing ojs-stream and its tools into .venv (a minute the first time)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,test]'
	@touch $@
