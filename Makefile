# `make demo` and `make test` need git, Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test fast check format docs sbom clean

demo: $(INSTALLED)  ## train, compress, compile and measure the quickstart recipe
	$(BIN)/edgecv run recipes/quickstart.yaml

test: $(INSTALLED)  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile  # two threads of BLAS may wait for each other for ever

fast: $(INSTALLED)  ## the tests that a change touches, two minutes at most
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fast_tests.py

check: $(INSTALLED)  ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the generated pages, then the site: site/index.html
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_keys.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Its own environment: what writes the list is not on it.
sbom: $(INSTALLED)  ## dist/edgecv.cdx.json: what is installed here, CycloneDX
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	mkdir -p dist
	build/sbom/bin/cyclonedx-py environment $(VENV) --pyproject pyproject.toml --output-reproducible -o dist/edgecv.cdx.json

clean:
	rm -rf $(VENV) runs build dist site

# torch is pinned in constraints.txt; an unpinned one may bring gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard edgecv/binary/c/*)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "edgecv needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
