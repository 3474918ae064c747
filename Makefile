# `make run` and `make test` build .venv from the pinned lock when it is missing or the lock changed.
# `make test-all` adds the slow checks.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
CONFIG ?= config/config.yaml
VENV := .venv
STAMP := $(VENV)/.complete
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: run test test-all test-browser test-slurm test-conda audit docs docs-serve clean
run: $(STAMP)
	$(BIN)/python -m segbench recover --config $(CONFIG)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores all --workflow-profile workflow/profiles/default --configfile $(CONFIG)
	@$(BIN)/python -m segbench status --config $(CONFIG)

test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_checks.py

test-all: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_checks.py --all

# The committed report pages in a headless Chromium; says so and ends well where there is none. Pictures of a page:
# .venv/bin/python -m tests.browser.screenshots reports/demo/index.html FOLDER
test-browser: $(STAMP)
	$(BIN)/python -m pytest -rs tests/browser

# The small workflow on a SLURM that is started for it; says so and ends well where SLURM is not installed.
test-slurm: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/slurm/run.sh

# The documentation site, into site/; `make docs-serve` shows it at http://127.0.0.1:8000 while pages are edited.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The small workflow by conda and by pip, to equal scores; says so and ends well where there is no conda client.
test-conda: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.conda.run

# Known vulnerabilities of the pinned packages; says so where the advisory database cannot be reached.
audit: $(STAMP)
	$(BIN)/python envs/audit.py

$(STAMP): envs/lock.txt envs/lock-dev.txt envs/lock-no-deps.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/lock.txt -r envs/lock-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r envs/lock-no-deps.txt
	touch $@

clean:
	rm -rf $(VENV) results/*/ site data/preprocessed data/raw .snakemake
