# What a developer needs; `make` alone runs what CI runs.
.PHONY: check test parity lint types fix clean
PYTHON ?= .venv/bin/python

check: lint types test

test:  ## everything that needs no reference implementation
	$(PYTHON) -m pytest

parity:  ## against transformers; needs the [parity] extra
	$(PYTHON) -m pytest -m parity

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:  ## on the installed layout, where export/ and quantize/ are inside the package
	rm -rf build/types
	$(PYTHON) -m pip install --quiet --no-deps --target build/types .
	MYPYPATH=build/types $(PYTHON) -m mypy -p smolvlm_edge

fix:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

clean:
	rm -rf build dist *.egg-info .*_cache
