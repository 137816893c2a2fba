# make demo   sets up .venv and closes the loop on a virtual fleet (offline once installed, no GPU)
# make test   the test suite         make check   lint, format, types, import contract
# make bench  the published figures  make size    download sizes
# A second run installs nothing. On a machine whose pip knows no CPU build of torch:
#   make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test check bench size clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-demo
	$(BIN)/flyball demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/loop.py $(BENCH_ARGS)

size: $(VENV)/.installed-demo
	$(BIN)/python scripts/download_size.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Flyball needs Python >= 3.11; try: make PYTHON=python3.12 demo' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo 'no virtual environment could be made; on Debian: apt install python3-venv' >&2; exit 2; }

# torch first and alone: the exact pin lets pip take a CPU build (2.13.0+cpu) wherever it has been told of one.
$(VENV)/.installed-demo: $(INPUTS) | $(BIN)/python
	@echo "installing into $(VENV) (about 360 MB the first time)"
	$(PIP) 'torch==2.13.0'
	$(PIP) -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(INPUTS) | $(VENV)/.installed-demo
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .hypothesis .import_linter_cache
