# `make demo` and `make test` do all the set-up themselves; they need Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(QUIET)
QUIET := NO_ALBUMENTATIONS_UPDATE=1 MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0 DO_NOT_TRACK=1

.PHONY: demo showcase test test-slow bench lint lock setup clean

demo: setup ## the main job on real photographs: shards, three generators, evaluation, report
	@$(RUN) dvc repro
	@$(RUN) python -m pipeline where

# It writes its choice into params.yaml. `git checkout params.yaml dvc.lock` brings the demo back.
showcase: setup ## the demo at 128 pixels: a night on two CPU cores; PICTURES=folder trains on your own
	@$(RUN) python -m pipeline configure scale=small generators=partial_conv,unet $(OWN_PICTURES)
	@$(RUN) dvc repro
	@$(RUN) python -m pipeline where
OWN_PICTURES = $(if $(PICTURES),dataset=folder "dataset.root=$(PICTURES)")

# One thread per process: the tests' networks are small, and threads of two processes on two cores wait for each other.
# One process more than cores, since some tests wait for time limits.
test: setup ## all tests except those marked slow
	@OMP_NUM_THREADS=1 $(RUN) pytest -q --dist loadscope --no-loadscope-reorder \
		--numprocesses "$$($(VENV)/bin/python -c 'import os; print(min(os.cpu_count() + 1, 8))')"

test-slow: setup ## real Ray, real clusters
	@$(RUN) pytest -q -m slow

bench: setup ## all benchmarks, with their limits; JSON in benchmarks/results
	@$(RUN) python -m benchmarks.start --stages
	@$(RUN) python -m benchmarks.ingest
	@$(RUN) python -m benchmarks.masks
	@$(RUN) python -m benchmarks.reading
	@$(RUN) python -m benchmarks.feeding
	@$(RUN) python -m benchmarks.plan
	@$(RUN) python -m benchmarks.lineage
	@$(RUN) python -m benchmarks.training
	@$(RUN) python -m benchmarks.evaluation
	@$(RUN) python -m benchmarks.steps
	@$(RUN) python -m benchmarks.generators

lint: setup
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .

# The environment is updated whenever the lock changes. $(VENV)/lock is a copy of the lock that it was made from.
setup: $(VENV)/lock
$(VENV)/lock: requirements.lock
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(VENV)/bin/uv pip sync --quiet --require-hashes requirements.lock
	@cp requirements.lock $@

lock: ## update all packages to their newest versions; writes names, versions and hashes only
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean: ## remove everything but the sources
	@rm -rf $(VENV) shards models curves results metrics report reports suites provenance lineage runs mlflow.db mlartifacts .dvc/cache .dvc/tmp
