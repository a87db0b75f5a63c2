# make reproduce | make test | make lint | make bench | make clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Test processes: one per core, at most four; each takes whole files.
PYTEST_JOBS ?= -n auto --maxprocesses 4 --dist loadfile
# Two cores and many small programs: one thread per BLAS call keeps the timings honest.
export OPENBLAS_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: reproduce test test-slow lint bench setup clean clear-cache

reproduce: $(STAMP)
	@$(BIN)/python -m experiments reproduce

test: $(STAMP)
	@$(BIN)/python -m pytest $(PYTEST_JOBS) $(PYTEST_ARGS)

test-slow: $(STAMP)
	@$(BIN)/python -m pytest --slow $(PYTEST_JOBS) $(PYTEST_ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: $(STAMP)
	@$(BIN)/python -m experiments.benchmarks.planning
	@$(BIN)/python -m experiments.benchmarks.nash
	@$(BIN)/python -m experiments.benchmarks.robust
	@$(BIN)/python -m experiments.benchmarks.lsd
	@$(BIN)/python -m experiments.benchmarks.distributional
	@$(BIN)/python -m experiments.benchmarks.sqirl

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a minute or two, once) ..."
	@( set -e; \
	   if command -v uv >/dev/null 2>&1; then \
	     uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV); \
	     uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[test]"; \
	   else \
	     $(PYTHON) -m venv $(VENV); \
	     $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"; \
	   fi ) > $(VENV).log 2>&1 || \
	  { echo "set-up failed; the end of $(VENV).log:"; tail -n 25 $(VENV).log; exit 1; }
	@touch $@

clear-cache:
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/rlcore"

clean:
	rm -rf $(VENV) $(VENV).log results
