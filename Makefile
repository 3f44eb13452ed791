# Every target does its own set-up: a virtual environment in the checkout, reused while nothing
# that it is made from has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench docs clean

demo: $(READY)
	$(BIN)/walnut demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

docs: $(READY)
	$(BIN)/python -m walnut.cli.helptext docs/cli.md

# The peers are independent toolkits that some tests compare with. They may fail to install: those
# tests then skip and say so.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[parquet,export,quant,search]" \
	    $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"])')
	$(BIN)/python -m pip install --quiet -c constraints.txt foolbox \
	    || echo "foolbox is not available: its tests will skip"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torchattacks \
	    || echo "torchattacks is not available: its tests will skip"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torch-pruning \
	    || echo "Torch-Pruning is not available: its tests will skip"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[openvino]" \
	    || echo "OpenVINO is not available: its tests will skip"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
