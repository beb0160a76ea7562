# `make setup` and `make demo` are all it takes on a machine that has git, make and some Python >= 3.12.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-complete
UNFINISHED := $(VENV)/.setup-unfinished
CHECKED := $(wildcard src tests examples benchmarks)

# Which interpreter makes .venv, for whoever wants a certain one: make setup PYTHON=python3.13
PYTHON ?=
# pyright runs as pinned and asks nobody whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lock clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 15

setup: $(STAMP) ## make .venv: the pinned packages, and nearopt itself, editable
	@:

# However recent the stamp, it is void when the Python behind it is gone or too old.
ifeq ($(shell PYTHON=$(BIN)/python scripts/find-python 2>/dev/null),)
.PHONY: $(STAMP)
endif

# A .venv that works is kept and updated; one that is broken, too old or left half-installed is made anew.
$(STAMP): constraints.txt pyproject.toml
	@set -e; rm -f $(STAMP); \
	works() { PYTHON=$(BIN)/python scripts/find-python && $(BIN)/python -m pip --version; }; \
	if [ -e $(UNFINISHED) ] || ! works >/dev/null 2>&1; then \
		python=$$(scripts/find-python); \
		echo "setup: making $(VENV) with $$python"; \
		rm -rf $(VENV); mkdir $(VENV); touch $(UNFINISHED); \
		"$$python" -m venv $(VENV) || { echo "setup: $$python could not make $(VENV)." >&2; exit 1; }; \
	fi; \
	touch $(UNFINISHED); \
	if command -v uv >/dev/null; then install="uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install -qq --disable-pip-version-check"; fi; \
	echo "setup: installing the pinned packages (a minute or two the first time)"; \
	$$install --require-hashes --only-binary :all: -r constraints.txt || { echo "setup: the packages in constraints.txt could not be installed." >&2; exit 1; }; \
	$$install --no-deps --no-build-isolation --editable . || { echo "setup: nearopt itself could not be installed." >&2; exit 1; }; \
	rm -f $(UNFINISHED); touch $(STAMP); \
	echo "setup: done; next: make demo"

demo: $(STAMP) ## a first answer, in a minute
	@JAX_COMPILATION_CACHE_DIR=out/.jax-cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 $(BIN)/python examples/demo.py

test: check ## check, then run the tests
	@$(BIN)/python -m pytest

check: $(STAMP) ## lint, format and types
	@$(BIN)/ruff check --quiet $(CHECKED)
	@$(BIN)/ruff format --quiet --check $(CHECKED) || { echo "check: the files are not formatted; $(BIN)/ruff format mends that." >&2; exit 1; }
	@$(BIN)/pyright $(CHECKED)

bench: $(STAMP) ## run the benchmarks
	@$(BIN)/python -m benchmarks

# Keeps what is pinned as far as pyproject.toml allows; `make lock LOCK=--upgrade` takes the newest of everything.
LOCK ?=
lock: ## resolve pyproject.toml anew into constraints.txt
	@set -e; mkdir -p out; uv=$$(command -v uv) || { \
		"$$(scripts/find-python)" -m venv out/lock; out/lock/bin/python -m pip install -qq --disable-pip-version-check uv; uv=out/lock/bin/uv; }; \
	grep -v '^# Every' constraints.txt >out/constraints.txt 2>/dev/null || true; \
	$$uv pip compile pyproject.toml --group dev --extra figures --universal --python-version 3.12 --generate-hashes --only-binary :all: \
		--no-emit-index-url --no-emit-find-links --no-header --quiet $(LOCK) --output-file out/constraints.txt; \
	if grep -nE '://|[ =]/|^ *--[^h]' out/constraints.txt >&2; then echo "lock: those lines would name a machine or a registry." >&2; exit 1; fi; \
	{ echo "# Every package with its version and sha256, for Python >= 3.12. Written by: make lock"; cat out/constraints.txt; } >constraints.txt.new; \
	mv constraints.txt.new constraints.txt; rm out/constraints.txt; \
	echo "lock: constraints.txt pins $$(grep -c '^[a-z]' constraints.txt) packages"

clean: ## remove builds, caches and out/; .venv stays
	@rm -rf build dist out docs/_build docs/jupyter_execute .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
