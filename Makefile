# Everything runs in .venv and node_modules below this folder; each target sets up what it needs and no more.
#   PYTHON=python3.12      the Python that .venv is made with, 3.11 to 3.13
#   TORCH_INDEX=<address>  an extra package index for PyTorch, for example that of its CPU builds
#   PRESET=<name>          the preset that the demo trains
#   TRACE=<file.csv>       your own load for the demo

PYTHON ?= python3
TORCH_INDEX ?=
PRESET ?=
TRACE ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# The command line rl, which runs the code where it lies.
INSTALL_RL := $(PIP_INSTALL) --quiet --no-deps --editable .
REQUIREMENTS := requirements.txt requirements-dev.txt $(wildcard */requirements.txt)
# Stamps: what each says is installed.
TRAINING := .venv/.training
STACKS := .venv/.stacks
ALL := .venv/.all
NODE := node_modules/.package-lock.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench bench-serving synth clean browser

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

demo: $(TRAINING) ## train a policy, compare it with rules, write a report (TRACE=path.csv for your own load, PRESET=name)
	$(BIN)/python -m launcher.demo $(if $(PRESET),--preset "$(PRESET)") $(if $(TRACE),--trace "$(TRACE)")

test: check $(NODE) browser ## set up everything, then check, unit tests, infrastructure tests, integration tests
	$(BIN)/python -m pytest -n 2 tests/unit tests/infrastructure
	$(BIN)/python -m pytest tests/integration

check: $(ALL) ## lint, format, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(ALL) ## measure the simulator, training and decisions
	$(BIN)/python -m training_src.benchmark.workflow

bench-serving: $(ALL) ## measure the endpoint next to FastAPI and AWS's multi-model-server (needs wrk; the latter Java)
	$(BIN)/python -m tests.benchmarks.serving

# The CLI starts app.py with the first python3 and node of the path.
synth: $(STACKS) $(NODE) ## make the CloudFormation templates of dev and prod in build/cdk, without credentials
	@for env in dev prod; do \
		echo "Synthesising $$env to build/cdk/$$env"; \
		PATH="$(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$$PATH" CDK_DISABLE_CLI_TELEMETRY=true \
			cdk synth --quiet --no-notices --context env=$$env --output build/cdk/$$env || exit 1; \
	done

# The report's tests open it in a real browser; without one they are skipped, in continuous integration they fail.
browser:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do command -v "$$name" >/dev/null && exit; done; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing Chromium for the report's tests"; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit; \
		fi; \
		echo "No Chromium for the report's tests: install it (Debian: apt-get install chromium) or set CHROMIUM" >&2

clean: ## remove what was built, keep .venv and node_modules
	rm -rf build cdk.out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -not -path './node_modules/*' -prune -exec rm -rf {} +

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@touch $@

$(TRAINING): .venv/.python pyproject.toml $(wildcard policy_runtime/requirements.txt training_src/requirements.txt serving/requirements.txt)
	@echo "Installing what training and serving need into .venv"
	@$(PIP_INSTALL) -r training_src/requirements.txt -r serving/requirements.txt
	@$(INSTALL_RL)
	@touch $@

$(STACKS): .venv/.python stacks/requirements.txt
	@echo "Installing what the stacks need into .venv"
	@$(PIP_INSTALL) -r stacks/requirements.txt
	@touch $@

$(ALL): .venv/.python pyproject.toml $(REQUIREMENTS)
	@echo "Installing what all parts and their tests need into .venv"
	@$(PIP_INSTALL) -r requirements.txt
	@$(INSTALL_RL)
	@touch $(TRAINING) $(STACKS) $@

$(NODE): package.json package-lock.json .npmrc
	@command -v npm >/dev/null || { echo "npm is needed for the CDK command line: install Node.js" >&2; exit 1; }
	@echo "Installing the CDK command line and its Node.js into node_modules"
	@npm ci --no-audit --no-fund
	@touch $@
