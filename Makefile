# make demo | make test: each does all the set-up it needs, in .venv.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu saves a machine without a GPU the download of the CUDA libraries.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TORCH_INDEX ?=
# each is run, not only looked up: a version manager leaves names behind that start nothing
SUITABLE := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3,\
	$(shell $(name) -c '$(SUITABLE)' 2>/dev/null && command -v $(name))))

.PHONY: setup demo test lint bench

setup: $(READY)

demo: $(READY)
	$(BIN)/python recipes/demo/demo.py

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python tests/perf/bench.py

$(READY): pyproject.toml setup.py lawm_data/nets/_kernels.c constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.12 or 3.11 with venv found;" \
		"install one (apt install python3.12-venv, brew install python@3.12) or name it: make PYTHON=PATH" >&2; exit 2; }
	@echo "setup: $$($(PYTHON) --version) into $(VENV), with PyTorch: minutes"
	@begin=$$(date +%s) && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[test]' && \
	touch $(READY) && \
	echo "setup: done in $$(( $$(date +%s) - begin )) s"
