# Every command of the project. It needs make and Python 3.11 or later; uv is used where there is one.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$name && break; done)
COVERAGE ?= $(filter true,$(CI))
MESSAGES ?= 200000
ANSWERS ?= 5000000
SCALE ?= 1
SCHEDULES ?= 1000000
KILLS ?= 300

# Two more than there are processors: many tests wait for what other processes do.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, 2 + (os.cpu_count() or 1)))')

BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-header --no-annotate --no-emit-index-url pyproject.toml

ifdef UV
VENV = uv venv --quiet --allow-existing --no-project --python $(PYTHON) $(1)
INSTALL = uv pip install --quiet --python $(1)/bin/python
else
VENV = $(PYTHON) -m venv $(1)
INSTALL = $(1)/bin/python -m pip -qq --disable-pip-version-check install
endif

# The official SDK for Node.js, with which the emulator is tested; without npm those tests are skipped.
NODE_SDK := if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/interop \
	|| echo "npm cannot install the official SDK for Node.js; see why: npm ci --prefix tests/interop"; fi

# What `make bench` sends to, and what shows how fast anything could.
SINKS := nginx-light libnginx-mod-http-echo wrk

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo bench bench-docs bench-deep test cuts fuzz torture screenshots check format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/run ## See the whole system work on this machine: enqueue, drain, crash, replay
	@$(BIN)/outbox demo

test: .venv/dev ## Run every test (COVERAGE=1 also measures it and gates the core)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(if $(COVERAGE),--cov)

cuts: .venv/dev ## Cut the connection to the broker at every byte of everything (some minute)
	@OUTBOX_TEST_ALL_CUTS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/reliability/test_cuts.py

fuzz: .venv/dev ## Fuzz MESSAGES=200000 and ANSWERS=5000000 (some eight minutes on two cores)
	@OUTBOX_TEST_FUZZ_MESSAGES=$(MESSAGES) OUTBOX_TEST_FUZZ_ANSWERS=$(ANSWERS) \
		$(BIN)/python -m pytest -n logical --dist worksteal tests/reliability/fuzz.py

bench: .venv/dev .venv/bench/installed ## Measure the relay against what else there is (ten minutes; QUICK=1 for two)
	@command -v wrk >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_echo_module.so ] \
		|| { apt-get update -qq && apt-get install -qq -y $(SINKS); } \
		|| echo "Without apt-get install $(SINKS) the sinks are slower, and the limit of this machine is not measured"
	@PYTHONPATH=. $(BIN)/python benchmarks/relay.py $(if $(QUICK),--quick) $(if $(NOTE),--note '$(NOTE)')
	@PYTHONPATH=. $(BIN)/python benchmarks/report.py
	@PYTHONPATH=. .venv/bench/bin/python benchmarks/plots.py

bench-docs: ## Write the results of the last `make bench` into README.md and docs/performance.md
	@PYTHONPATH=. $(PYTHON) benchmarks/report.py --write-docs

bench-deep: .venv/dev .venv/bench/installed ## Measure millions of rows, long transactions, many claimers and memory (some 45 minutes; SCALE=0.02 for eight)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.deep --scale $(SCALE)
	@PYTHONPATH=. .venv/bench/bin/python -m benchmarks.deep.plots

torture: .venv/dev ## Simulate SCHEDULES=1000000 schedules, and kill KILLS=300 processes a database (hours)
	@SIMULATED_SCHEDULES=$(SCHEDULES) OUTBOX_TEST_KILLS=$(KILLS) $(BIN)/python -m pytest -n logical --dist worksteal \
		tests/reliability/test_simulation.py tests/reliability/test_half_kills.py

screenshots: .venv/dev ## Take the pictures of the operators' pages in docs/images again (needs Chromium)
	@PYTHONPATH=. $(BIN)/python docs/screenshots.py

check: .venv/dev ## Check style, types, layers and the compose file
	@echo "ruff"; $(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet
	@echo "mypy"; $(BIN)/mypy --no-error-summary
	@echo "import-linter"; $(BIN)/lint-imports --no-logo > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@echo "check-jsonschema"; $(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml

format: .venv/dev ## Put the code into the project's format
	@$(BIN)/ruff check --quiet --fix && $(BIN)/ruff format --quiet

lock: ## Pin the newest allowed dependencies again (needs uv)
	@$(LOCK) --extra all --group build --output-file requirements/run.txt
	@$(LOCK) --extra all --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@$(filter-out pyproject.toml,$(LOCK)) --group bench --constraint requirements/run.txt --output-file requirements/bench.txt

clean: ## Remove everything that make created
	@rm -rf .venv tests/interop/node_modules .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: .venv/run holds what the product needs, .venv/dev what its tests and checks need besides. The list is whole,
# so nothing is resolved again (pip would look for a newer coverage, since pytest-cov asks for coverage[toml], and fail).
.venv/%: requirements/%.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing $< into .venv with $(if $(UV),uv,pip (some 20 seconds))"
	@$(call VENV,.venv)
	@$(call INSTALL,.venv) --require-hashes --no-deps --requirement $<
	@$(call INSTALL,.venv) --no-build-isolation --no-deps --editable .
	@$(if $(filter dev,$*),$(NODE_SDK))
	@touch $@

# Apart from the product's: what it is compared with must not decide on its versions.
.venv/bench/installed: requirements/bench.txt
	@echo "Installing $< into .venv/bench"
	@$(call VENV,.venv/bench)
	@$(call INSTALL,.venv/bench) --require-hashes --no-deps --requirement $<
	@touch $@
