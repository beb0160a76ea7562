# `make setup` and `make demo` are all it takes on a machine that has git, make and some Python >= 3.12.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-complete
UNFINISHED := $(VENV)/.setup-unfinished
PEERS := $(VENV)/.peers-complete
DEEP := .venv-peers
CHECKED := $(wildcard src tests examples benchmarks)

# Which interpreter makes .venv, for whoever wants a certain one: make setup PYTHON=python3.13
PYTHON ?=
# pyright runs as pinned and asks nobody whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench peers calibrate lock clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 15

setup: $(STAMP) ## make .venv: the pinned packages, and nearopt itself, editable
	@:

# However recent the stamp, it is void when the Python behind it is gone or too old.
ifeq ($(shell PYTHON=$(BIN)/python scripts/find-python 2>/dev/null),)
.PHONY: $(STAMP)
endif

# Sets $$install to what installs packages into .venv.
INSTALL := if command -v uv >/dev/null; then install="uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install -qq --disable-pip-version-check"; fi

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
	$(INSTALL); \
	echo "setup: installing the pinned packages (a minute or two the first time)"; \
	$$install --require-hashes --only-binary :all: -r constraints.txt || { echo "setup: the packages in constraints.txt could not be installed." >&2; exit 1; }; \
	$$install --no-deps --no-build-isolation --editable . || { echo "setup: nearopt itself could not be installed." >&2; exit 1; }; \
	rm -f $(UNFINISHED); touch $(STAMP); \
	echo "setup: done; next: make demo"

demo: $(STAMP) ## a first answer, in a minute
	@JAX_COMPILATION_CACHE_DIR=out/.jax-cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 $(BIN)/python examples/demo.py

test: check ## check, then run the tests
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest # two workers on two cores: threads of theirs would only wait for each other

check: $(STAMP) ## lint, format and types
	@$(BIN)/ruff check --quiet $(CHECKED)
	@$(BIN)/ruff format --quiet --check $(CHECKED) || { echo "check: the files are not formatted; $(BIN)/ruff format mends that." >&2; exit 1; }
	@$(BIN)/pyright $(CHECKED)

bench: $(PEERS) ## run the benchmarks, the peers' too
	@$(BIN)/python -m benchmarks

peers: $(DEEP)/.complete ## the deep peers (SB3, SBX) in .venv-peers: Python 3.11, 2 GB
	@:

$(DEEP)/.complete: benchmarks/deep-peers.txt
	@python3.11 -m venv $(DEEP) && $(DEEP)/bin/python -m pip install -qq --disable-pip-version-check -r $< && touch $@

calibrate: $(STAMP) ## 1,000 simulated data sets: do intervals hold the truth?
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.calibration

# The peers add packages to .venv and change none of its own: --no-deps, and a list made under constraints.txt. One of
# them has no wheel and is built with the pinned setuptools. A peer that does not install is named in its rows.
$(PEERS): $(STAMP) benchmarks/peers.txt benchmarks/source-only.txt
	@$(INSTALL); $$install --no-deps --require-hashes --only-binary :all: -r benchmarks/peers.txt && \
	$$install --no-deps --require-hashes --no-build-isolation -r benchmarks/source-only.txt && \
	touch $(PEERS) || echo "bench: not every peer could be installed; their rows say which." >&2

# Keeps what is pinned as far as pyproject.toml allows; `make lock LOCK=--upgrade` takes the newest of everything.
LOCK ?=
COMPILE = pip compile pyproject.toml --universal --python-version 3.12 --generate-hashes --only-binary :all: \
	--no-emit-index-url --no-emit-find-links --no-header --quiet $(LOCK)
lock: ## resolve pyproject.toml anew into constraints.txt and benchmarks/peers.txt
	@set -e; mkdir -p out; uv=$$(command -v uv) || { \
		"$$(scripts/find-python)" -m venv out/lock; out/lock/bin/python -m pip install -qq --disable-pip-version-check uv; uv=out/lock/bin/uv; }; \
	finish() { \
		if grep -nE '://|[ =]/|^ *--[^h]' out/lock.txt >&2; then echo "lock: those lines would name a machine or a registry." >&2; exit 1; fi; \
		{ echo "# $$2 Written by: make lock"; cat out/lock.txt; } >"$$1.new"; \
		mv "$$1.new" "$$1"; rm out/lock.txt; echo "lock: $$1 pins $$(grep -c '^[a-z]' "$$1") packages"; }; \
	grep -v '^# Every' constraints.txt >out/lock.txt 2>/dev/null || true; \
	$$uv $(COMPILE) --group dev --extra figures --output-file out/lock.txt; \
	finish constraints.txt "Every package with its version and sha256, for Python >= 3.12."; \
	grep -v '^# What' benchmarks/peers.txt >out/lock.txt 2>/dev/null || true; \
	$$uv $(COMPILE) --extra peers --constraint constraints.txt --no-annotate --output-file out/lock.txt \
		$$(sed -n 's/^\([a-z][^=]*\)==.*/--no-emit-package \1/p' constraints.txt); \
	finish benchmarks/peers.txt "What the peers add to constraints.txt, with versions and sha256."

clean: ## remove builds, caches and out/; .venv stays
	@rm -rf build dist out docs/_build docs/jupyter_execute .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
