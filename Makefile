# Two commands matter: `make demo` and `make test`. Both need only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo fleet test test-matrix lint format types bench soak wheel clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "cachekit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[flask,starlette,django,redis-speedups,speedups,server,embedded,compression,prometheus,otel,zstd,encryption,jinja]" --group dev
	touch $@

demo: $(VENV)/.ready  ## serve the flights dashboard, measure it uncached and cached, go on serving
	$(BIN)/python -m examples.analytics.demo $(ARGS)

fleet: $(VENV)/.ready  ## the shop by several workers, each replaced twice under load: counts lost sessions
	$(BIN)/python -m examples.shop.fleet $(ARGS)

test: $(VENV)/.ready  ## every test, on memory, Redis and Valkey
	$(BIN)/python -m pytest $(ARGS)

test-matrix: $(VENV)/.ready  ## the lowest and newest frameworks, and their own suites through the middleware
	$(BIN)/python -m tests.matrix $(ARGS)

lint: $(VENV)/.ready  ## formatter, linter and both type checkers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready  ## hit paths beside their floors, and beside the peers that are installed
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.ready  ## the long runs: more schedules, more examples, servers killed and frozen
	CACHEKIT_SOAK=1 $(BIN)/python -m pytest -m "soak or not soak" $(ARGS)

wheel: $(VENV)/.ready
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .matrix dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis examples/analytics/data
