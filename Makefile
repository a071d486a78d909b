# Every target does its own set-up: it needs Python 3.11 or newer with venv, and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
NAME ?=
# Half of a test's time goes into waiting for processes, so two workers for each processor pay off.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 4 ? 8 : 2 * n)))
PACKAGES := fleet_protocol edge_agent fleet_server model_pipeline provisioning signing_keys skerry

.PHONY: help documents demo test soak check format bench requirements clean
.DEFAULT_GOAL := help

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

demo: $(VENV)/demo.stamp ## The whole path on this machine (ARGS=--check: unattended, one JSON line)
	@$(BIN)/skerry demo $(ARGS)

# Long tests come first in the order of their folders, and short ones fill the gaps at the end; a
# worker that found a compiled module need not rewrite its assertions again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/dev.stamp $(VENV)/load_generator.stamp ## All tests (ARGS="tests/unit -k outbox" for some, WORKERS=0 for one at a time)
	@$(BIN)/python scripts/debian_packages.py
	@$(BIN)/python -m compileall -q $(PACKAGES) tests # the tests start hundreds of processes
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(VENV)/dev.stamp ## Long campaigns: load on the runtime (SOAK_S=3600 for longer), updates under random I/O faults, rollouts on 200 devices (CAMPAIGN_DEVICES=36 for fewer)
	@$(BIN)/python scripts/debian_packages.py
	SOAK_S=$${SOAK_S:-600} DEATHS=all $(BIN)/pytest -s tests/soak tests/faults/control/test_state_machine.py $(ARGS)

check: $(VENV)/dev.stamp ## Lint, format, types, table of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format the code and apply the safe fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

documents: $(VENV)/dev.stamp ## Write docs/api anew: OpenAPI of the server, AsyncAPI of the topics
	$(BIN)/python -m fleet_server.api_document docs/api

bench: $(VENV)/dev.stamp ## Measurements (NAME=local_call for one), written to benchmarks/results/
	@$(BIN)/python -m compileall -q $(PACKAGES) # as an installation does
	@$(BIN)/python -m benchmarks $(NAME)

requirements: $(VENV)/uv.stamp ## Pin the requirements anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make requirements" \
		--extra onnx --extra server --group build -o requirements/demo.txt pyproject.toml $(UPGRADE)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make requirements" \
		--extra bench --extra grpc --extra hsm --extra litert --extra onnx --extra openvino --extra otel --extra server --group dev -c requirements/demo.txt -o requirements/dev.txt pyproject.toml $(UPGRADE)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make requirements" \
		--group build -c requirements/demo.txt -o requirements/agent.txt pyproject.toml $(UPGRADE)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make requirements" \
		--no-deps -o requirements/load_generator.txt requirements/load_generator.in

clean: ## Remove what the other targets made
	@if [ -x $(BIN)/skerry ]; then $(BIN)/skerry demo --clean; fi
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/uv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Skerry needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# The project itself is installed in place, so that an edit takes effect at once.
$(VENV)/demo.stamp: requirements/demo.txt pyproject.toml | $(VENV)/uv.stamp
	@echo "Installing the pinned requirements into $(VENV)" >&2
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/demo.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/demo.stamp
	@echo "Installing the tools of the tests into $(VENV)" >&2
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/load_generator.stamp: requirements/load_generator.txt | $(VENV)/uv.stamp
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes --target $(VENV)/load_generator -r requirements/load_generator.txt
	@touch $@
