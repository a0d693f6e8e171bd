# aspencli: `make help` lists what can be done. Nothing but Python 3.11+ (with venv) and make is needed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
ASPENCLI := $(BIN)/aspencli
# The first Python that is new enough and can make virtual environments; PYTHON=... names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := aspencli api db local migrations tests benchmarks docs
# How many tests run at once: two more than there are cores, as many tests wait for a process.
WORKERS ?= $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 2)')
# Tests of a module share servers, so one worker runs them all; the long ones come first.
SPREAD := --dist loadscope --no-loadscope-reorder

##@ First steps

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	/^[a-zA-Z0-9_-]+:.*## / { printf "  %-32s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.local ## Make .venv with everything that the program needs

.PHONY: demo
demo: setup ## Rename samples in a real PostgreSQL on this machine, and undo it
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh

.PHONY: test
test: $(VENV)/.dev ## Run the tests (TESTS=path and ARGS=... narrow it down)
	@$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(ARGS) $(TESTS)

# What differs between versions of PostgreSQL: the schema, bulk, undo, diagnostics, profiles, console.
DATABASE_TESTS := tests/database tests/migrations tests/cli/console/test_script.py \
	$(addprefix tests/cli/commands/,test_bulk_update.py test_samples_undo.py test_users_import.py \
	test_db_activity.py test_db_admin.py test_db_diagnostics.py test_db_doctor.py test_db_interact.py \
	test_db_profile.py test_db_psql.py test_db_schema.py test_standbys.py test_unusual_databases.py)

.PHONY: test-postgres
test-postgres: $(VENV)/.dev ## Run the database tests on another PostgreSQL (BINDIR=its folder of programs)
	@test -x "$(BINDIR)/initdb" || { echo "BINDIR must name the folder with initdb and postgres"; exit 2; }
	@ASPEN_PG_BINDIR="$(BINDIR)" $(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(ARGS) $(DATABASE_TESTS)

##@ The deployment on this machine

.PHONY: local-init
local-init: setup ## Start it, with groups, users, samples and trees of every kind in its database
	@$(ASPENCLI) --local local up
	@$(ASPENCLI) --local local seed --roles --yes

.PHONY: local-start
local-start: setup ## Start it
	@$(ASPENCLI) --local local up

.PHONY: local-stop
local-stop: setup ## Stop it; the data stay
	@$(ASPENCLI) --local local down

.PHONY: local-status
local-status: setup ## Show how each part is
	@$(ASPENCLI) --local local status

.PHONY: local-logs
local-logs: setup ## Show what its parts say
	@$(ASPENCLI) --local local logs

.PHONY: local-rebuild
local-rebuild: ## Install everything anew, and restart it
	@rm -f $(VENV)/.local $(VENV)/.dev
	@$(MAKE) --no-print-directory setup local-stop local-start

.PHONY: local-clean
local-clean: setup ## Delete it with all its data (asks first)
	@$(ASPENCLI) --local local reset

##@ The database

.PHONY: local-pgconsole pg-console
local-pgconsole: setup ## psql on the local database
	@$(ASPENCLI) --local db psql
pg-console: local-pgconsole ## The same

.PHONY: local-dbconsole db-console
local-dbconsole: setup ## IPython on the local database
	@$(ASPENCLI) --local db interact
db-console: local-dbconsole ## The same

.PHONY: local-dbconsole-profile
local-dbconsole-profile: setup ## IPython on the local database, each query printed and timed
	@$(ASPENCLI) --local db interact --profile

.PHONY: remote-pgconsole
remote-pgconsole: setup ## psql on a remote database: ENV=staging|prod DB=aspen_db
	@test -n "$(ENV)" || { echo "Say which: make remote-pgconsole ENV=staging DB=aspen_db" >&2; exit 2; }
	@$(ASPENCLI) --env "$(ENV)" db psql $(if $(DB),-- --dbname="$(DB)")

.PHONY: remote-dbconsole
remote-dbconsole: setup ## IPython on a remote database: ENV=staging|prod
	@test -n "$(ENV)" || { echo "Say which: make remote-dbconsole ENV=staging" >&2; exit 2; }
	@$(ASPENCLI) --env "$(ENV)" db interact

.PHONY: backend-alembic-autogenerate
backend-alembic-autogenerate: export MESSAGE := $(MESSAGE)
backend-alembic-autogenerate: setup ## Write a migration from the models: MESSAGE="what changes"
	@test -n "$$MESSAGE" || { echo 'Say what changes: make backend-alembic-autogenerate MESSAGE="..."' >&2; exit 2; }
	@$(ASPENCLI) --local db revision --message "$$MESSAGE"

.PHONY: backend-alembic-upgrade-head
backend-alembic-upgrade-head: setup ## Bring the local database to the newest schema
	@$(ASPENCLI) --local db upgrade --yes

##@ Development

.PHONY: check
check: $(VENV)/.dev ## Format, lint, types, import rules, documentation: what has to hold
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "Mend it: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy
	@found=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$found"; exit 1; }
	@$(BIN)/python -m docs.reference --check
	@$(BIN)/python -m docs.runbook --check

.PHONY: format
format: $(VENV)/.dev ## Format the code and mend what can be mended by itself
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/ruff check --fix --quiet $(SOURCES)

.PHONY: docs
docs: $(VENV)/.dev ## Write the command reference anew
	@$(BIN)/python -m docs.reference
	@$(BIN)/python -m docs.runbook

.PHONY: coverage
coverage: $(VENV)/.dev ## Run the tests and show which branches none of them takes
	@$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) --cov --cov-report=term $(ARGS) $(TESTS)

.PHONY: guides
guides: $(VENV)/.dev ## Write the outputs that guides show anew
	@$(BIN)/python -m tests.guides
	@ASPEN_REWRITE_GUIDES=1 $(BIN)/python -m pytest -q tests/guides/test_diagnostics_guide.py

.PHONY: bench
bench: $(VENV)/.dev ## Measure beside psql and the ORM (a minute or two; FULL=1: 2,000,000 samples, half an hour)
	@$(BIN)/python -m benchmarks.speed $(if $(FULL),--full) $(ARGS)

.PHONY: bench-page
bench-page: $(VENV)/.picture ## Draw the picture of docs/guides/performance.md from its figures
	@$(BIN)/python -m benchmarks.speed.page

.PHONY: accidents
accidents: $(VENV)/.dev ## Kill, cut and fill up what a bulk rename needs, by the hundred (minutes)
	@$(BIN)/python -m benchmarks.accidents $(ARGS)

.PHONY: accidents-api
accidents-api: $(VENV)/.dev ## The same to 10,000 renames through the API (ten minutes)
	@$(BIN)/python -m benchmarks.accidents_api $(ARGS)

.PHONY: broken-settings
broken-settings: $(VENV)/.dev ## Run every command with over 150 broken settings (half an hour; ARGS=--few: minutes)
	@$(BIN)/python -m benchmarks.broken_settings $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## Try 20,000 made-up mappings, and as many odd files (minutes)
	@$(BIN)/python -m benchmarks.fuzz $(ARGS)

.PHONY: requests
requests: $(VENV)/.dev ## Ask the service on every path, as every role, and compare the answers
	@$(BIN)/python -m tests.contract.requests $(ARGS)

.PHONY: answers
answers: $(VENV)/.dev ## Compare the answers of the service with those recorded of the live one
	@$(BIN)/python -m tests.contract.answers $(ARGS)

.PHONY: madeup
madeup: $(VENV)/.dev ## Make up 5,000 requests to the service (minutes)
	@$(BIN)/python -m tests.contract.madeup $(ARGS)

.PHONY: attacks
attacks: $(VENV)/.dev ## Attack the service from this machine, and measure what others notice (minutes)
	@$(BIN)/python -m benchmarks.attacks $(ARGS)

.PHONY: update-deps
update-deps: $(VENV)/.dev ## Lock the newest versions that pyproject.toml allows
	@sh scripts/update-deps.sh $(BIN)/uv

.PHONY: clean
clean: ## Remove what was built here (the local deployment stays)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.local: requirements/local.txt pyproject.toml
	@$(call install,local)

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.local
	@$(call install,dev)

$(VENV)/.picture: requirements/picture.txt | $(VENV)/.dev
	@echo "Installing what requirements/picture.txt names ..."
	@$(PIP) install --require-hashes --requirement $<
	@touch $@

# $(1): which lock file. The build tools are in it, so that nothing is fetched without a hash.
define install
set -e; test -n "$(PYTHON)" || { \
	echo "aspencli needs Python 3.11 or newer with venv, and none was found on PATH." >&2; \
	echo "Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=..." >&2; \
	exit 1; }; \
test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON) ..."; "$(PYTHON)" -m venv $(VENV); }; \
echo "Installing what requirements/$(1).txt names ..."; \
$(PIP) install --require-hashes --requirement requirements/$(1).txt; \
$(PIP) install --no-deps --no-build-isolation --editable .; \
touch $@
endef
