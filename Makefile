# `make` lists what there is to do. Everything runs from .venv, which `make setup` makes.

PYTHON ?= python3
BIN := .venv/bin
IMAGE_TOOL ?= $(shell command -v docker || command -v podman)
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' shared/proofloop/version.py)
IMAGE_ARGS = --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) $(ARGS)
ROLES := generator verifier meta_verifier labeler trainer
PACKAGES := shared serving $(addprefix services/,$(ROLES))
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --excludes requirements/left-out.txt $(ARGS)
SERVICE_EXTRAS := --extra cluster --extra sentry --extra tracing
LIGHT_EXTRAS := $(SERVICE_EXTRAS) --extra flower
UNIT = OMP_NUM_THREADS=1 $(BIN)/pytest --hypothesis-profile quick
TORCH_TESTS := tests/unit/trainer tests/unit/serving tests/unit/cli/test_runs_steps.py
NONE_CHOSEN := || test $$? = 5  # ARGS="-k name" may choose tests of one of the two alone

# Images often forbid to write bytecode. Each process of a test run would then compile the code again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit unit-light unit-torch pytest docs site format bench base-model lock images release-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with everything pinned; a second call only looks
	@$(PYTHON) scripts/setup.py

demo: setup ## watch the whole loop learn; report in demo-out/ (ARGS="--seed 1")
	@$(BIN)/proofloop demo --out demo-out $(ARGS)

test: setup lint site pytest ## everything that must pass: setup, lint, site, pytest

lint: setup ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## the unit tests alone: no server, under a minute (ARGS="-k name")
	@$(MAKE) --no-print-directory -j 2 unit-light unit-torch

# Each process of a test run imports all test files. One process alone imports torch, which takes long.
unit-light:
	$(UNIT) -n 3 --dist worksteal tests/unit $(TORCH_TESTS:%=--ignore=%) $(ARGS) $(NONE_CHOSEN)

unit-torch:
	@$(UNIT) --quiet --no-header $(TORCH_TESTS) $(ARGS) $(NONE_CHOSEN)

pytest: setup ## the tests alone, on two cores (ARGS="-k name"); half of the time they wait
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadgroup $(ARGS)

docs: setup ## write the reference pages anew from the code, then build the documentation into site/
	@$(BIN)/python -m scripts.reference
	@$(MAKE) --no-print-directory site

site: setup ## build the documentation into site/; a broken link fails
	@NO_COLOR=1 $(BIN)/zensical build --strict

format: setup ## format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure: make bench NAME=pipeline; SMALL=1 for less than a minute. The last line is JSON
	@test -f "benchmarks/$(NAME).py" || { echo "error: NAME='$(NAME)' names no benchmark; one of: $(basename $(notdir $(wildcard benchmarks/*.py)))" >&2; exit 2; }
	@$(BIN)/python benchmarks/$(NAME).py $(if $(SMALL),--small) $(ARGS)

base-model: setup ## train the nano base model again from nothing (ARGS="--out DIR")
	@$(BIN)/proofloop nano train $(ARGS)

lock: ## compile requirements/*.txt anew from the lower bounds (needs uv; ARGS=--upgrade)
	$(COMPILE) $(addsuffix /pyproject.toml,$(PACKAGES)) --all-extras requirements/pins.in requirements/build.in requirements/test.in -o requirements/test.txt
	$(COMPILE) requirements/build.in -c requirements/test.txt -o requirements/build.txt
	$(COMPILE) $(addsuffix /pyproject.toml,$(filter-out serving %trainer,$(PACKAGES))) $(LIGHT_EXTRAS) -c requirements/test.txt -o requirements/light.txt
	$(COMPILE) $(addsuffix /pyproject.toml,shared serving services/trainer) $(SERVICE_EXTRAS) -c requirements/test.txt -o requirements/trainer.txt
	$(COMPILE) $(addsuffix /pyproject.toml,shared serving) --extra cluster -c requirements/test.txt -o requirements/serving.txt

images: ## build the images of the five services and of Triton for CPUs with docker or podman (ARGS="--build-arg ...")
	@test -n "$(IMAGE_TOOL)" || { echo "error: there is neither docker nor podman" >&2; exit 2; }
	@for role in $(ROLES); do $(IMAGE_TOOL) build $(IMAGE_ARGS) --build-arg ROLE=$$role -t proofloop-$$(echo $$role | tr _ -):$(VERSION) . || exit 1; done
	$(IMAGE_TOOL) build $(IMAGE_ARGS) --build-arg ROLE=serving --target serving -t proofloop-serving:$(VERSION) .

release-check: setup ## rehearse a release: builds, installs, renders and compares (VERSION=0.1.0)
	@$(BIN)/python -m scripts.release check $(VERSION) $(ARGS)

clean: ## remove what the other targets made, .venv and demo-out too
	rm -rf .venv demo-out site .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find shared serving services tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
