# The two commands are `make book` and `make test`. `make` alone lists all.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PORT ?= 8000
PART ?= 1/1

.DEFAULT_GOAL := help
.PHONY: help env book pdf check-site serve test quick lint format clean colab-check runs sweep verify-runs bench quality coverage mutants repository requirements

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env:  ## make or update .venv, the book's environment
	@$(PYTHON) tools/environment.py book

book: env  ## execute what changed and build the site into _build/html
	@$(BIN)/python tools/build.py site

pdf: env  ## print the built site as one PDF (needs Chromium; `make book` does it too)
	@$(BIN)/python tools/pdf.py

check-site: env  ## open every page of the built site in Chromium: links, contrast, weight … (LIGHTHOUSE=4: on four alone)
	@$(BIN)/python tools/check_site.py $(if $(LIGHTHOUSE),--lighthouse $(LIGHTHOUSE))

serve:  ## show the built site on http://127.0.0.1:8000 (PORT=… for another port)
	@test -f _build/html/index.html || { echo "There is no site yet. Remedy: make book"; exit 1; }
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: env  ## unit tests, then every chapter
	@$(BIN)/python tools/vendor.py || { test -z "$$VQVAE_BROWSER" && echo "==> tests that need these scripts are left out, and named"; }
	@echo "==> unit tests"
	@$(BIN)/python -m pytest -n 2 --ignore=tests/browser
	@echo "==> tests in a browser"
	@$(BIN)/python -m pytest tests/browser
	@$(BIN)/python tools/build.py test

quick: env  ## unit tests alone, two at a time and without a browser: under a minute
	@$(BIN)/python -m pytest -n 2 --ignore=tests/browser

coverage: env  ## unit tests, and how much of the library they run: at least 95 %, branches counted
	@$(BIN)/python -m coverage run -m pytest --ignore=tests/browser
	@$(BIN)/python -m coverage report

mutants: env  ## change the library one thing at a time; tests notice nine in ten (hours; MUTANTS="training --sample 20")
	@$(BIN)/python tools/mutants.py $(MUTANTS)

lint: env  ## code style, notebooks in their stored form, workflows
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python tools/notebooks.py check
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)
	@$(BIN)/zizmor -q --offline --no-progress .github/workflows

format: env  ## put code and notebooks into the form that lint asks for
	@$(BIN)/python -m ruff check --fix-only --quiet
	@$(BIN)/python -m ruff format
	@$(BIN)/python tools/notebooks.py format

colab-check: env  ## run each notebook alone, as Colab would (needs Python 3.13)
	@$(PYTHON) tools/environment.py colab
	@$(BIN)/python tools/colab_check.py

runs: env  ## train the stored runs that are missing (needs MNIST; goes on where it was stopped)
	@$(BIN)/python tools/runs.py

sweep: env  ## those of the sweep over K and beta alone (PART=1/2 and PART=2/2: two processes share the work)
	@$(BIN)/python tools/runs.py sweep- --part $(PART)

verify-runs: env  ## train one stored run again and compare: make verify-runs RUN=ema-468-seed0
	@$(BIN)/python tools/runs.py --verify $(RUN)

bench: ## speed against peers, in an environment of its own
	@$(PYTHON) tools/environment.py bench
	.venv-bench/$(notdir $(BIN))/python benchmarks/speed.py

quality:  ## test error against peers, hours (goes on where it was stopped); the same environment
	@$(PYTHON) tools/environment.py bench
	.venv-bench/$(notdir $(BIN))/python benchmarks/quality.py

repository: env  ## say where the repository lives: make repository URL=https://github.com/OWNER/NAME
	@$(BIN)/python tools/repository.py $(URL)

requirements:  ## compile requirements*.txt anew (needs uv)
	uv pip compile --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header -q \
		requirements.in -o requirements.txt
	uv pip compile --python-version 3.13 --no-annotate --no-header -q requirements-colab.in -o requirements-colab.txt

clean:  ## remove what was built; environments, data and trained models stay
	rm -rf _build executed .pytest_cache .ruff_cache .hypothesis
