# Two commands on a fresh machine (Python 3.11+, git, make): `make run` and `make test`.
# Neither needs root, an installed PostgreSQL, or the internet beyond PyPI.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Unlike a date, the stamp is only there when the whole installation went well.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run revisit psql test test-all test-faults bench check clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: $(READY) ## crawl four sites into a PostgreSQL, all on this machine
	@$(BIN)/python -m demo

revisit: $(READY) ## the same again, asking each page only whether it has changed
	@$(BIN)/python -m demo --revisit

psql: $(READY) ## look into what `make run` stored
	@$(BIN)/python -m demo --psql

test: $(READY) ## the tests that take seconds
	@$(BIN)/python -m pytest -m "not slow"

test-all: $(READY) ## every test
	@$(BIN)/python -m pytest

test-faults: $(READY) ## every fault in its full form, and docs/fault-report.md (half an hour)
	@$(BIN)/python -m pytest tests/faults --full --fault-report=docs/fault-report.md

bench: $(READY) ## what it costs, as ratios, and docs/benchmarks.md (half an hour; leave the machine alone)
	@$(BIN)/python -m bench

check: $(READY) ## style, types, layers, and the rules every source is held to
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/scrapy-lint
	$(BIN)/scrapy sources --check

clean: ## remove what was made here: the environment, the demonstration's data, caches
	rm -rf $(VENV) .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "make: no '$(PYTHON)' on PATH. Install Python 3.11 or newer," \
			"or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: '$(PYTHON)' is $$($(PYTHON) -V 2>&1); needed is Python 3.11 or newer." \
			"Install one and name it: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: '$(PYTHON)' cannot make virtual environments." \
			"On Debian and its kin: apt install python3-venv"; exit 2; }
	@echo "Installing the pinned requirements into $(VENV) (once; about a minute)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
