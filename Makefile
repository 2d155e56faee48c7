# SPDX-License-Identifier: Apache-2.0
# Each target sets up what it needs in a virtual environment; `make help` lists them.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

VERSIONS := 3.11 3.12 3.13

# `make PYTHON=python3.12 test` uses an environment of its own, .venv-3.12.
PYTHON ?=
VENV := .venv
ifneq ($(PYTHON),)
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
RUN := $(VENV)/bin/python -m
# Beam, which `tfds build` imports, and what else is tested want different versions of protobuf.
BEAM_VENV := $(VENV)-beam

.PHONY: help
help:
	@echo "make demo              logs two environments, loads them back, draws demo_data/report.png"
	@echo "make test              format, lint, types and tests"
	@echo "make test-all-pythons  the same on each of Python $(VERSIONS) that is installed"
	@echo "make bench             measures envlogger against its peers"
	@echo "make clean             removes what these targets made, the environments among it"
	@echo
	@echo "PYTHON=python3.12 (any of $(VERSIONS)) says which Python to use."

.PHONY: demo
demo: $(VENV)/.has-demo
	@$(VENV)/bin/python examples/demo.py

.PHONY: test
test:
	@$(MAKE) --jobs=2 $(VENV)/.has-all $(BEAM_VENV)/.has-test-beam
	@$(RUN) ruff format --check --quiet . || \
		{ echo "error: not formatted; run: $(RUN) ruff format ." >&2; exit 1; }
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy --strict --no-error-summary
	@$(RUN) pytest --quiet --numprocesses=2 --dist=worksteal
	@$(BEAM_VENV)/bin/python -m pytest --quiet tests/beam dataset_builders

.PHONY: test-all-pythons
test-all-pythons:
	@failed=; \
	for version in $(VERSIONS); do \
		if python=$$(.ci/find_python $$version); then \
			echo "== Python $$version"; \
			$(MAKE) PYTHON="$$python" test || failed+=" $$version"; \
		else \
			echo "== Python $$version is not installed: left out"; \
		fi; \
	done; \
	if [[ $$failed ]]; then echo "error: failed on Python$$failed" >&2; exit 1; fi

.PHONY: bench
bench: $(VENV)/.has-all
	@$(RUN) benchmarks

.PHONY: clean
clean:
	@rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo_data
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each extra that was installed: as long as it is newer than pyproject.toml, pip is not
# called. `all` contains `demo`.
$(VENV)/.has-all: pyproject.toml
	@.ci/set_up $(VENV) all $(PYTHON)
	@touch $(VENV)/.has-demo $@

$(BEAM_VENV)/.has-test-beam: pyproject.toml
	@.ci/set_up $(BEAM_VENV) test-beam $(PYTHON)
	@touch $@

$(VENV)/.has-demo: pyproject.toml
	@.ci/set_up $(VENV) demo $(PYTHON)
	@touch $@
