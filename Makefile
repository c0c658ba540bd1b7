# `make demo` and `make test` need only Python 3.11+ and make. Settings, on the command line:
#   ACCELERATOR=cpu|cuda|rocm   what to install for, instead of what is detected
#   PYTHON=/path/to/python      the interpreter that makes .venv, instead of the first that fits
#   EXTRA=kquants               an extra of pyproject.toml to install besides (make setup)
#   ARGS="..."                  more arguments for pytest (make test) or deepred run (make demo)

ACCELERATOR ?= auto
PYTHON ?=
EXTRA ?=
ARGS ?=

# Ray's socket paths must stay under 107 characters, and its folder belongs to one user.
export RAY_TMPDIR ?= /tmp/deepred-$(shell id -u)

BOOTSTRAP = python=$$(sh scripts/find-python $(PYTHON)) && "$$python" scripts/bootstrap.py --accelerator $(ACCELERATOR)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test nightly lint types audit docs doctor clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo "  with          ACCELERATOR=cpu|cuda|rocm  PYTHON=python3.12  ARGS=\"more arguments for demo or test\""

setup:
	@$(BOOTSTRAP) $(addprefix --extra ,$(EXTRA))

setup-dev:
	@$(BOOTSTRAP) --extra dev

demo: setup ## all stages on the sample books: dataset, adapter, GGUF, evaluation
	.venv/bin/deepred run --config jobs/configs/demo.toml $(ARGS)

test: setup-dev ## all tests: unit, then Ray and end to end
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n 2 tests/unit $(ARGS)
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest tests/ray tests/e2e $(ARGS)

nightly: setup-dev ## the long tests: a run killed in every stage
	HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -m nightly $(ARGS)

lint: setup-dev ## ruff: rules and formatting
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup-dev ## mypy: strict on deepred_ray/text
	.venv/bin/mypy

audit: setup-dev ## known vulnerabilities of the installed packages; $OSV_URL asks another service than OSV
	.venv/bin/python scripts/audit.py

docs: ## the documentation, as HTML in docs/_build/html
	@$(BOOTSTRAP) --extra docs
	.venv/bin/sphinx-build -W --keep-going -q docs docs/_build/html

doctor: setup ## check the installation and this machine
	.venv/bin/deepred doctor

clean: ## remove .venv and caches; runs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info docs/_build
