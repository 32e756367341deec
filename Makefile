# sat_keras: every command does its own set-up in .venv and needs only Python and a package index.
#
#   make PYTHON=python3.12 test    another Python
#   make VENV=/tmp/venv demo       another place for the virtual environment

VENV ?= .venv
OUT ?= outputs/demo
# What two cores train in about four minutes; the preset's 24 epochs reach the committed scores.
EPOCHS ?= 4
BIN := $(VENV)/bin

# The first supported Python. A name may exist and not run (pyenv's shims), so each is tried.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$name" -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo $$name; exit; }; done; echo python3)

# Tests and demo are sized for a CPU; `make demo CUDA_VISIBLE_DEVICES=0` uses a GPU.
CUDA_VISIBLE_DEVICES ?= -1
TF_CPP_MIN_LOG_LEVEL ?= 3
export CUDA_VISIBLE_DEVICES TF_CPP_MIN_LOG_LEVEL
export MPLBACKEND = Agg
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help venv test unit integration coverage torture demo table1-scenes notebooks bench lab lint clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

venv: $(VENV)/.test-installed  ## create the virtual environment, with the tests' requirements

test: lint unit integration  ## check style, format and types, then run all tests and the notebooks
	"$(BIN)/python" -m pytest -n 2 --dist loadfile --nbval notebooks

unit: $(VENV)/.test-installed  ## run the unit tests on two cores (make unit TESTS=tests/test_search.py)
	"$(BIN)/python" -m pytest -n 2 --dist loadfile -m "not integration" -p no:nbval $(TESTS)

integration: $(VENV)/.test-installed  ## run whole trainings, commands, other backends and programs
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -m integration -p no:nbval

coverage: $(VENV)/.test-installed  ## run all tests and measure the lines and branches they reach
	"$(BIN)/python" -m pytest -n 2 --dist loadfile -p no:nbval \
		--cov=sat_keras --cov-report=term-missing:skip-covered

torture: $(VENV)/.test-installed  ## kill, fill disks, flip bits; write the table of docs/reliability.md
	"$(BIN)/python" -m pip install -qq --editable ".[fuzz]"
	"$(BIN)/python" -m torture --write

lint: $(VENV)/.test-installed  ## check style, format and types
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy

demo: $(VENV)/.installed  ## draw scenes, train on them, evaluate, write a captioned attention figure
	"$(BIN)/sat-keras" train --dataset scenes --no-full-stop --epochs $(EPOCHS) --out "$(OUT)"
	"$(BIN)/sat-keras" evaluate "$(OUT)" --split test
	"$(BIN)/sat-keras" caption --model "$(OUT)" --split test --limit 4 --out "$(OUT)/attention"
	@echo "Four test scenes with their captions and attention are in $(OUT)/attention."

table1-scenes: $(VENV)/.installed  ## train the systems of the paper's Table 1 on scenes, compare them
	"$(BIN)/sat-keras" table1 --dataset scenes --out outputs/table1-scenes/table1-scenes.json

notebooks: $(VENV)/.test-installed  ## run the notebooks again and store their outputs
	"$(BIN)/python" -m ruff format notebooks
	"$(BIN)/python" -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.extra_arguments=--IPKernelApp.capture_fd_output=False notebooks/*.ipynb
	"$(BIN)/nbstripout" --keep-output --keep-count \
		--extra-keys metadata.language_info notebooks/*.ipynb

bench: $(VENV)/.installed  ## measure speed against PyTorch and the machine; needs idle cores
	@echo "Installing PyTorch and JAX ..."
	@"$(BIN)/python" -m pip install -qq --editable ".[bench]"
	"$(BIN)/python" -m benchmarks

lab: $(VENV)/.test-installed  ## open the notebooks in JupyterLab
	env -u MPLBACKEND "$(BIN)/python" -m jupyterlab notebooks

clean:  ## remove the virtual environment, builds and caches; outputs/ and data/ stay
	rm -rf "$(VENV)" build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: an install runs again only after a change of pyproject.toml.
$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo "Installing sat_keras and its dependencies (TensorFlow: about 600 MB) ..."
	@"$(BIN)/python" -m pip install -qq --editable .
	@touch "$@"

$(VENV)/.test-installed: $(VENV)/.installed
	@echo "Installing the tests' requirements ..."
	@"$(BIN)/python" -m pip install -qq --editable ".[test,notebooks]"
	@touch "$@"

$(VENV)/.created:
	@"$(PYTHON)" -c '$(SUPPORTED)' || { \
	echo "sat_keras needs Python 3.10 to 3.13 (TensorFlow has no other wheels). Name one:" >&2; \
	echo "    make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12" >&2; \
	echo "Received: PYTHON=$(PYTHON), $$("$(PYTHON)" --version 2>&1 | head -n 1)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	echo "On Debian and Ubuntu install python3-venv, or name another: make $(or $(MAKECMDGOALS),venv) PYTHON=..." >&2; \
	exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)"
	@touch "$@"
