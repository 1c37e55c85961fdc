# make help lists the targets. Nothing but python3 (3.11 or newer, with venv) and make needs to be there before.
VENV ?= .venv
PYTHON ?= python3
PER_CLASS ?= 300
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.claspkit-installed
OLDEST := $(VENV)-oldest
OLDEST_STAMP := $(OLDEST)/.claspkit-installed
ON_EVERY_RELEASE := $(wildcard tests/test_runtime_*.py tests/test_family_*.py tests/test_inputs_*.py)
BENCHMARKS := $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))
OFFLINE := HF_HUB_OFFLINE=1
# Two processes of one thread each are faster than one of two; tests of one file share fixtures, so they stay together.
TWO_AT_A_TIME := $(OFFLINE) OMP_NUM_THREADS=1
XDIST := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup calibrate test test-long test-oldest lint format bench clean
.DELETE_ON_ERROR:

help: ## print this list
	@echo "claspkit: offline calibration of visual-token pruning"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	  printf '  make %-10s %s\n' "$$target" "$$text"; done
	@echo "settings: VENV=$(VENV) PYTHON=$(PYTHON) PER_CLASS=$(PER_CLASS) ARGS='$(ARGS)' (for the command or for pytest)"

# Installed again only when what to install has changed.
$(STAMP): pyproject.toml constraints.txt
$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt
$(STAMP) $(OLDEST_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: claspkit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "       Name another interpreter, for example: make PYTHON=python3.12 test" >&2; exit 1; }
	@echo "setup: installing claspkit and its pinned dependencies into $(@D) (minutes, once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $(lastword $^) setuptools
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $(lastword $^) --no-build-isolation \
	  -e '.[dev]'
	@touch $@

setup: $(STAMP) ## create the environment with the pinned dependencies
	@echo "setup: $(VENV) is ready"

calibrate: $(STAMP) ## calibrate the embedded mini model: PER_CLASS samples per class, a profile and a report
	@echo "calibrate: the embedded mini model, $(PER_CLASS) samples per class"
	@$(BIN)/clasp-calibrate --model mini --per-class $(PER_CLASS) $(ARGS)

test: lint ## lint, then every test that is not marked long
	@echo "test: every test that is not marked long"
	@$(TWO_AT_A_TIME) $(BIN)/python -m pytest -m "not long" $(XDIST) $(ARGS)

# pytest exits with 5 when no test carries the mark.
test-long: $(STAMP) test-oldest ## the tests marked long, and the runtime on the oldest transformers
	@echo "test-long: the tests marked long"
	@$(TWO_AT_A_TIME) $(BIN)/python -m pytest -m long $(XDIST) $(ARGS) || { status=$$?; [ $$status -eq 5 ] || exit $$status; }

test-oldest: $(OLDEST_STAMP) ## the runtime's tests on the oldest supported release of transformers
	@echo "test-oldest: $(words $(ON_EVERY_RELEASE)) files with transformers $$($(OLDEST)/bin/python -c 'import transformers; \
	  print(transformers.__version__)')"
	@$(TWO_AT_A_TIME) $(OLDEST)/bin/python -m pytest -m "not long" $(XDIST) $(ON_EVERY_RELEASE) $(ARGS)

lint: $(STAMP) ## style (ruff), types (mypy, strict), who may import whom (import-linter)
	@echo "lint: style, types, import contracts"
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(STAMP) ## sort imports and mend what ruff can mend by itself
	@echo "format: sorting imports, mending what ruff can mend"
	@$(BIN)/ruff check --fix

bench: $(STAMP) ## every script in benchmarks/, one after the other, on two threads
	@echo "bench: $(words $(BENCHMARKS)) scripts from benchmarks/"
	@failed=; for script in $(BENCHMARKS); do echo "== $$script"; \
	  $(OFFLINE) OMP_NUM_THREADS=2 $(BIN)/python $$script || failed="$$failed $$script"; done; \
	  [ -z "$$failed" ] || { echo "error: failed:$$failed" >&2; exit 1; }

clean: ## remove builds and tool caches; the environment and runs/ stay
	@echo "clean: removing builds and tool caches (the environment and runs/ stay)"
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find profiles router runtime cache calib mini tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
