# From a fresh clone, with Python 3.11 and make:
#   make demo    set up and quantize a pretrained network
#   make test    set up and run the tests
#   make lint    ruff, mypy --strict, layers
#   make bench   measure against the bounds (not part of CI)
# PIP_FLAGS lets you point pip elsewhere: make test PIP_FLAGS="--index-url ..."
PYTHON ?= python3.11
PIP_FLAGS ?=
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?=

.PHONY: demo test lint types bench clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The constraints pin torch to a CPU build; without them pip may resolve one of several gigabytes.
$(STAMP): $(VENV)/bin/python pyproject.toml setup.py constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch setuptools wheel
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e '.[dev,bench]'
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/01_quantize_efficientnet.py

test: $(STAMP)
	$(BIN)/pytest -q -n 2 $(TESTS)

lint: $(STAMP) types
	$(BIN)/ruff check qfx passes patterns tests benchmarks examples setup.py
	$(BIN)/pytest -q tests/test_layers.py

# mypy run from the root would silently skip passes/ and patterns/, so it checks a tree of links with the import names.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types/qfx
	ln -s $(CURDIR)/qfx/* $(CURDIR)/passes $(CURDIR)/patterns build/types/qfx/
	cd build/types && $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p qfx

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
