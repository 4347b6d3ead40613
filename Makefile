# Everything a contributor runs, and everything CI runs (.ci/run: infra-check, cloud-test, check). Needs Python 3.11 or
# newer and make, nothing else: each target first builds what it needs from the hashed locks in requirements/, most of
# them in .venv.

PYTHON ?= python3
LOCK_PYTHON ?= python3.11
ARGS ?=
SEEDS ?= 500
NAME ?=

PY := .venv/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check --no-input install
TYPED = $(wildcard src orchestrators activities demo benchmarks tests)
SAM := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam
STORY_LOCK = $(patsubst requirements/%.txt,.venv/.%,$(wildcard requirements/story-$(NAME).txt))
TEMPLATES := $(filter-out infra/checkov.yaml,$(wildcard infra/*.yaml))
# Of the stories, what template.yaml holds; orders are booked in a file, which no two functions share.
DEPLOYED := activities/greetings.py activities/pokemon_capture.py activities/routing.py \
	activities/user_onboarding.py orchestrators/user_onboarding_triggers.py
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= \
	.venv-lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.DEFAULT_GOAL := help
.PHONY: help demo story test check format lint types imports simulate sweep bench lock clean \
	infra-check cloud cloud-test sam-local

help: ## List the targets (needs nothing)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/.project ## Run the packet-routing story for real: ARGS="--packets 20 --seed 7 --kill" (needs the core lock)
	@$(PY) -m demo.packet_routing $(ARGS)

story: .venv/.project $(STORY_LOCK) ## Run a story for real: NAME=greetings; without a name, list them (needs the core lock)
	@$(PY) -m demo.story $(NAME) $(ARGS)

test: .venv/.dev ## Run the tests: ARGS="-k replay" (needs the dev lock)
	@$(PY) -m pytest $(ARGS)

check: .venv/.dev ## Format, lint, types, imports, then the tests (needs the dev lock)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m durably.cli lint orchestrators
	$(PY) -m mypy $(TYPED)
	$(PY) -m pyright --pythonpath $(PY)
	.venv/bin/lint-imports --no-logo
	$(PY) -m pytest $(ARGS)

format: .venv/.dev ## Format the code and sort its imports (needs the dev lock)
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

lint: .venv/.dev ## Lint, and check that orchestrators are deterministic: ARGS="--fix" (needs the dev lock)
	$(PY) -m ruff check $(ARGS) .
	$(PY) -m durably.cli lint orchestrators

types: .venv/.dev ## Check types, mypy strict and pyright (needs the dev lock)
	$(PY) -m mypy $(TYPED)
	$(PY) -m pyright --pythonpath $(PY)

imports: .venv/.dev ## Check that imports keep to the layers (needs the dev lock)
	.venv/bin/lint-imports --no-logo

simulate: .venv/.dev ## Run SEEDS=500 seeded simulations: ARGS="--first-seed 1000" (needs the dev lock)
	@$(PY) -m tests.simulation --seeds $(SEEDS) $(ARGS)

sweep: .venv/.dev ## Die and sleep at every call of every AWS handler, and count them: ARGS="-k callback" (needs the dev lock)
	@DURABLY_SWEEP=full $(PY) -m pytest tests/aws/test_crashes.py tests/aws/test_zombies.py $(ARGS)

bench: .venv/.project ## Measure: one JSON object a line (needs the core lock)
	@$(PY) -m benchmarks $(ARGS)

infra-check: .venv/.dev .venv-sam/.done .venv-checkov/.done ## Check what is deployed: SAM, cfn-lint, checkov (needs the sam and checkov locks)
	$(SAM) validate --lint
	.venv-sam/bin/cfn-lint template.yaml $(TEMPLATES)
	.venv-checkov/bin/checkov --config-file infra/checkov.yaml -f template.yaml $(TEMPLATES)
	$(PY) -m durably.cli template --check $(DEPLOYED)

cloud: .venv/.dev .venv-sam/.done .venv-cloud/.done ## Deploy to a small AWS on this machine until Ctrl-C (needs the sam and cloud locks)
	@$(PY) -m tests.cloud $(ARGS)

cloud-test: .venv/.dev .venv-sam/.done .venv-cloud/.done ## Deploy there and run the stories: ARGS="-k routing" (needs the sam and cloud locks)
	@DURABLY_CLOUD_TESTS=1 $(PY) -m pytest tests/cloud -o faulthandler_timeout=600 $(ARGS)

sam-local: .venv/.dev .venv-sam/.done .venv-cloud/.done ## Run every function in a container, as root on Debian (needs the sam, cloud and lambda locks)
	@$(PY) -m tests.sam_local

lock: .venv-lock/.done ## Bring requirements/*.txt up to date (needs Python 3.11 itself and the package index)
	@for lock in core aws story-user_onboarding dev sam cloud lambda checkov lock; do \
		echo "Locking requirements/$$lock.txt" >&2; \
		$(COMPILE) --output-file requirements/$$lock.txt requirements/$$lock.in || exit 1; \
	done

clean: ## Remove what these targets made (needs nothing)
	rm -rf .venv .venv-lock .venv-sam .venv-cloud .venv-checkov .aws-sam .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up: each stamp is newer than what it was made from --------------------------------------------

# A .venv whose Python was upgraded away is rubble.
$(shell if [ -L $(PY) ] && [ ! -x $(PY) ]; then rm -rf .venv; fi)

# The first Python that runs and is new enough; a pyenv shim on the path need not be either.
$(PY):
	@for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Setting up .venv with $$($$python --version)" >&2; \
			$$python -m venv --clear .venv || { rm -rf .venv; exit 1; }; \
			exit 0; \
		fi; \
	done; \
	echo "durably needs Python 3.11 or newer, and found none on the path. Install it, or say where it is:" \
		"make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
	exit 1

.venv/.core: requirements/core.txt $(PY)
	@echo "Installing what $< locks" >&2
	@$(PIP) --require-hashes -r $<
	@touch $@

.venv/.project: pyproject.toml .venv/.core
	@$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.project
	@echo "Installing what $< locks" >&2
	@$(PIP) --require-hashes -r $<
	@touch $@

# What a story needs beyond the core lock.
.venv/.story-%: requirements/story-%.txt .venv/.project
	@echo "Installing what $< locks" >&2
	@$(PIP) --require-hashes -r $<
	@touch $@

# Tools whose pins exclude each other's and the project's. The locks are complete, so nothing is resolved here.
.venv-%/.done: requirements/%.txt $(PY)
	@echo "Installing what $< locks in .venv-$*" >&2
	@$(PY) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip --quiet --disable-pip-version-check --no-input install --no-deps --require-hashes -r $<
	@touch $@

# Locks are made under the oldest supported Python; tests/house proves them complete for the others.
.venv-lock/.done: requirements/lock.txt
	$(LOCK_PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/python -m pip --quiet --disable-pip-version-check --no-input install --require-hashes -r $<
	@touch $@
