# The two commands are `make book` and `make test`. `make` alone lists all.
PYTHON ?= python3
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(SCRIPTS)
PORT ?= 8000
# What the lowest environment tries: the library, and what draws and shows.
CORE := $(filter-out tests/test_project.py tests/test_publishing.py tests/test_house.py,$(wildcard tests/test_*.py))
PAST := chapters/01_maths.ipynb chapters/02_quantizer.ipynb chapters/05_training.ipynb

.DEFAULT_GOAL := help
.PHONY: help env book check-site speed serve test units quick chapters lint format clean colab-check past lowest runs sweep \
	pretrained verify-runs bench quality mutants requirements

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env:  ## make or update .venv, the book's environment
	@$(PYTHON) tools/environment.py book

book: env  ## execute what changed, build the site into _build/html, and print it as one PDF
	@$(BIN)/python tools/build.py site

check-site: env  ## check every page of the built site in Chromium: links, contrast, weight … (LIGHTHOUSE=4: Lighthouse on four only)
	@$(BIN)/python tools/check_site.py --lighthouse $(or $(LIGHTHOUSE),-1)

speed: env  ## measure how fast each page of the built site opens on a slow phone: medians of five visits; needs an idle machine
	@$(BIN)/python tools/check_site.py --speed 5

serve:  ## show the site on http://127.0.0.1:8000 (PORT=… for another port); pages update when prose is edited
	@test -f _build/html/index.html || { echo "There is no site yet. Remedy: make book"; exit 1; }
	@$(BIN)/python tools/build.py serve --port $(PORT)

test: units chapters  ## run unit tests, browser tests, then every chapter

units: env  ## run unit tests with coverage (at least 95%, with branches), then tests in a browser
	@$(BIN)/python -m pytest -n 2 --ignore=tests/browser --cov --cov-report=term
	@echo "==> tests in a browser"
	@$(BIN)/python tools/vendor.py || { test -z "$$VQVAE_BROWSER" && echo "==> tests that need them are skipped and listed"; }
	@$(BIN)/python -m pytest tests/browser

quick: env  ## run the unit tests that are not slow, two at a time, without a browser: under a minute
	@$(BIN)/python -m pytest -n 2 --ignore=tests/browser -m "not slow"

chapters: env  ## execute every chapter
	@$(BIN)/python tools/build.py test

mutants: env  ## change the library one thing at a time: tests must notice nine in ten (takes hours; MUTANTS="trainer --sample 20")
	@$(BIN)/python tools/mutants.py $(MUTANTS)

lint: env  ## check code style, the stored form of notebooks, spelling, workflows
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python tools/notebooks.py check
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.citation-file-format CITATION.cff
	@$(BIN)/typos --format brief
	@! git grep -niEI -f tools/turns.txt -- ':!tools' ':!tests' ':!*.svg'
	@$(BIN)/zizmor -q --offline --no-progress .github/workflows

format: env  ## put code and notebooks into the form that lint asks for
	@$(BIN)/python -m ruff check --fix-only --quiet
	@$(BIN)/python -m ruff format
	@$(BIN)/python tools/notebooks.py format

colab-check: env  ## run each notebook, or NOTEBOOKS, alone, as Colab would (needs Python 3.13; WITHIN=600: start none after so many seconds)
	@$(PYTHON) tools/environment.py colab
	@$(BIN)/python tools/colab_check.py $(NOTEBOOKS)
	@echo "==> the widgets, under Colab's ipywidgets 7"
	@PYTHONPATH=. .venv-colab/$(SCRIPTS)/python -m pytest -p no:cacheprovider tests/test_widgets.py

past:  ## run three chapters, in quick mode, with Colab's past versions: Python 3.12, numpy 2.0
	@$(PYTHON) tools/environment.py past
	@rm -rf executed/past && mkdir -p executed/past && cp $(PAST) executed/past
	@VQVAE_QUICK=1 .venv-past/$(SCRIPTS)/python -m pytest -n 2 --nbmake --nbmake-timeout=600 executed/past

lowest:  ## run the core tests with the lowest versions that pyproject.toml allows (Python 3.11)
	@$(PYTHON) tools/environment.py lowest
	@OMP_NUM_THREADS=1 .venv-lowest/$(SCRIPTS)/python -m pytest -n 2 $(CORE)

runs: env  ## train the stored runs that are missing (needs MNIST; resumes if it was stopped)
	@$(BIN)/python -m vqvae_book.experiments

sweep: env  ## train only the runs of the sweep over K and beta, two at a time
	@$(BIN)/python -m vqvae_book.experiments --list sweep- | xargs -r -n 1 -P 2 $(BIN)/python -m vqvae_book.experiments

pretrained: env  ## train the shipped models that are missing (needs MNIST; an hour and a half on one core)
	@$(BIN)/python -m vqvae_book.pretrained

verify-runs: env  ## train one stored run again and compare: make verify-runs RUN=ema-468-seed0
	@$(BIN)/python -m vqvae_book.experiments --verify $(RUN)

bench: ## compare speed with other libraries, in a separate environment
	@$(PYTHON) tools/environment.py bench
	.venv-bench/$(SCRIPTS)/python benchmarks/speed.py

quality:  ## compare test error with other libraries (takes hours; resumes if it was stopped), in the same environment
	@$(PYTHON) tools/environment.py bench
	.venv-bench/$(SCRIPTS)/python benchmarks/quality.py

requirements:  ## recompile requirements*.txt (needs uv)
	uv pip compile --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header -q \
		requirements.in -o requirements.txt
	uv pip compile --python-version 3.13 --no-annotate --no-header -q requirements-colab.in -o requirements-colab.txt
	uv pip compile --python-version 3.12 --no-annotate --no-header -q requirements-past.in -o requirements-past.txt

clean:  ## remove what was built; environments, data and trained models stay
	rm -rf _build executed .pytest_cache .ruff_cache .hypothesis
