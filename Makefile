# Tandem. `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
ENGINE ?= embedded
UV := .venv/uv/bin/uv
# uv does not read pip's configuration: hand over what pip was told by the environment.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export SSL_CERT_FILE ?= $(or $(PIP_CERT),$(shell $(PYTHON) -c 'import ssl; print(ssl.get_default_verify_paths().cafile or "")'))
export UV_LINK_MODE ?= hardlink
INSTALL = $(UV) pip install --require-hashes --python

.PHONY: help run install models test test-vllm check fmt lint types lock bench loadtest eval clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

# --- environments: one per tier, hash-locked -----------------------------------------------------------
$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit("Tandem needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv/uv && .venv/uv/bin/python -m pip install -q --require-hashes -r requirements/uv.txt
	@touch $@

.venv/%/.ready: requirements/%.txt pyproject.toml | $(UV)
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv/$*
	$(INSTALL) .venv/$*/bin/python -r $< --compile-bytecode
	$(UV) pip install -q --no-deps --python .venv/$*/bin/python -e .
	@touch $@

lock: $(UV)  ## resolve requirements/*.in again into hash-locked *.txt
	cd requirements && for tier in uv business llm models dev; do \
	  ../$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header $$tier.in -o $$tier.txt || exit 1; done
