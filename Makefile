# What a newcomer types. Every target sets the machine up first, so a fresh clone needs only python3.11, make and git.
#
#   make demo    the standalone deployment with sample data, on http://localhost:8080
#   make test    the whole suite, with a real RabbitMQ and PostgreSQL (found, started or installed: tests/servers/)
#   make check   lint, format, types, import rules
#   make audit    known holes in what we build on, where the lists can be reached
#   make bench   speed and memory, measured;  make soak   the long runs

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
TEST_WORKERS ?= 3
ARGS ?=

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
LOCKED := uv.lock pyproject.toml $(wildcard shared/pyproject.toml services/*/pyproject.toml deploy/*/pyproject.toml)

# The interpreter is the machine's own, never one that uv downloads; an outer virtual environment is not ours to fill.
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
unexport PYTHONPATH
# A test run starts the same Python a hundred times: compiled once, a start takes a third.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check audit bench soak clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP)

$(BIN)/uv:
	@.ci/make-venv "$(PYTHON)" "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

# --inexact: the uv that does the work lives in the same environment, and must survive it.
$(STAMP): $(LOCKED) | $(BIN)/uv
	"$(BIN)/uv" sync --frozen --inexact --all-packages --python "$(BIN)/python"
	@touch "$@"

demo: setup
	"$(BIN)/budkavle" demo $(ARGS)

test: setup
	"$(BIN)/python" -m pytest -n $(TEST_WORKERS) --durations=15 $(ARGS)

check: setup
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

# 0: none known. 1: some are, or the lists could not be reached; the output says which.
audit: setup
	@"$(BIN)/uv" audit --frozen --no-dev --preview-features audit $(ARGS) \
		|| { echo "make audit: known holes above, or the lists of known holes (OSV) cannot be reached from here." >&2; exit 1; }

# Celery, to measure against, and the profiler are the bench's own: no other target installs them.
bench: setup
	"$(BIN)/uv" sync --frozen --inexact --all-packages --group bench --python "$(BIN)/python"
	"$(BIN)/python" -m pytest tests/load -m bench --timeout=0 -s $(ARGS)

soak: setup
	"$(BIN)/python" -m pytest -m soak --timeout=0 $(ARGS)

clean:
	rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
