# `make help` lists all targets. The only requirements are Python 3.11+ (with venv) and make.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
ASPENCLI := $(BIN)/aspencli
# The first Python that is recent enough and can create virtual environments; override with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := aspencli api db local migrations workflows tests benchmarks docs scripts
# Number of parallel test workers: two more than cores, because many tests wait for a subprocess.
WORKERS ?= $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 2)')
# The tests of a module share servers, so one worker runs all of them; the longest start first.
SPREAD := --dist loadscope --no-loadscope-reorder

##@ Getting started

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } \
	/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	/^[a-zA-Z0-9_-]+:.*## / { printf "  %-32s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.local ## Create .venv and install everything that aspencli needs

.PHONY: workflows
workflows: $(VENV)/.workflows ## Also install what compute jobs need (760 MB), so that trees are built here

.PHONY: demo
demo: setup ## Demo: rename samples in a local PostgreSQL, then undo it
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh

.PHONY: test
test: $(VENV)/.dev ## Run the tests (limit with TESTS=path and ARGS=...)
	@$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(ARGS) $(TESTS)

# Tests whose results can depend on the PostgreSQL version.
DATABASE_TESTS := tests/database tests/migrations tests/copies tests/cli/console/test_script.py \
	tests/cli/assistant/test_statements.py \
	$(addprefix tests/cli/commands/,test_bulk_update.py test_samples_undo.py test_users_import.py \
	test_db_activity.py test_db_admin.py test_db_diagnostics.py test_db_doctor.py test_db_interact.py \
	test_db_profile.py test_db_psql.py test_db_schema.py test_standbys.py test_unusual_databases.py)

.PHONY: test-postgres
test-postgres: $(VENV)/.dev ## Run the database tests on another PostgreSQL version (BINDIR=its bin folder)
	@test -x "$(BINDIR)/initdb" || { echo "Set BINDIR to the folder that contains initdb and postgres"; exit 2; }
	@ASPEN_PG_BINDIR="$(BINDIR)" $(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(ARGS) $(DATABASE_TESTS)

##@ Local deployment

.PHONY: local-init
local-init: setup ## Start the local deployment, and fill its database with test data
	@$(ASPENCLI) --local local up
	@$(ASPENCLI) --local local seed --roles --yes

.PHONY: local-start
local-start: setup ## Start the local deployment
	@$(ASPENCLI) --local local up

.PHONY: local-stop
local-stop: setup ## Stop the local deployment; data is kept
	@$(ASPENCLI) --local local down

.PHONY: local-status
local-status: setup ## Show the state of each part
	@$(ASPENCLI) --local local status

.PHONY: local-logs
local-logs: setup ## Show the logs of all parts
	@$(ASPENCLI) --local local logs

.PHONY: local-rebuild
local-rebuild: ## Reinstall all packages, and restart the local deployment
	@rm -f $(VENV)/.local $(VENV)/.dev
	@$(MAKE) --no-print-directory setup local-stop local-start

.PHONY: local-clean
local-clean: setup ## Delete the local deployment and all of its data (asks first)
	@$(ASPENCLI) --local local reset

##@ Database

.PHONY: local-pgconsole pg-console
local-pgconsole: setup ## Open psql on the local database
	@$(ASPENCLI) --local db psql
pg-console: local-pgconsole ## Same as local-pgconsole

.PHONY: local-dbconsole db-console
local-dbconsole: setup ## Open the Python console on the local database
	@$(ASPENCLI) --local db interact
db-console: local-dbconsole ## Same as local-dbconsole

.PHONY: local-dbconsole-profile
local-dbconsole-profile: setup ## Open the Python console, printing and timing each query
	@$(ASPENCLI) --local db interact --profile

# ENV is rdev unless it is given; there, DB is the stack, whose database has the same name.
REMOTE = $(if $(filter-out rdev,$(ENV)),--env "$(ENV)",--env rdev $(if $(DB),--stack "$(DB)"))
remote-pgconsole remote-dbconsole: export ASPEN_DATABASE_NAME_STAGING := $(DB)
remote-pgconsole remote-dbconsole: export ASPEN_DATABASE_NAME_PROD := $(DB)

.PHONY: remote-pgconsole
remote-pgconsole: setup ## Open psql on a remote database: ENV=staging|prod DB=aspen_db, or DB=stack
	@$(ASPENCLI) $(REMOTE) db psql

.PHONY: remote-dbconsole
remote-dbconsole: setup ## Open the Python console on a remote database: the same
	@$(ASPENCLI) $(REMOTE) db interact

.PHONY: backend-alembic-autogenerate
backend-alembic-autogenerate: export MESSAGE := $(MESSAGE)
backend-alembic-autogenerate: setup ## Generate a migration from the models: MESSAGE="summary"
	@test -n "$$MESSAGE" || { echo 'Set MESSAGE: make backend-alembic-autogenerate MESSAGE="..."' >&2; exit 2; }
	@$(ASPENCLI) --local db revision --message "$$MESSAGE"

.PHONY: backend-alembic-upgrade-head
backend-alembic-upgrade-head: setup ## Upgrade the local database to the newest schema
	@$(ASPENCLI) --local db upgrade --yes

##@ Development

.PHONY: check
check: $(VENV)/.dev ## Check formatting, lint, types, import rules, and generated documentation
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "Fix with: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/mypy scripts/demo_token.py
	@found=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$found"; exit 1; }
	@$(BIN)/python -m docs.reference --check
	@$(BIN)/python -m docs.manual --check
	@$(BIN)/python -m docs.runbook --check

.PHONY: format
format: $(VENV)/.dev ## Format the code, and apply automatic lint fixes
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/ruff check --fix --quiet $(SOURCES)

.PHONY: docs
docs: $(VENV)/.dev man ## Regenerate the command reference, the names that completion knows, and the man pages
	@$(BIN)/python -m docs.reference
	@$(BIN)/python -m docs.runbook

.PHONY: site
site: $(VENV)/.docs ## Build the documentation as a web site in build/site, which needs no network
	@$(BIN)/python -m docs.site

.PHONY: man
man: $(VENV)/.dev ## Regenerate the man pages in docs/man
	@$(BIN)/python -m docs.manual

.PHONY: coverage
coverage: $(VENV)/.dev ## Run the tests, and show branches that are not covered
	@$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) --cov --cov-report=term $(ARGS) $(TESTS)

.PHONY: guides
guides: $(VENV)/.dev ## Regenerate the program output in the guides and the README
	@$(BIN)/python -m tests.guides
	@ASPEN_REWRITE_GUIDES=1 $(BIN)/python -m pytest -q tests/guides/test_diagnostics_guide.py \
		tests/guides/test_onboarding_guide.py tests/screens/test_readme.py

.PHONY: screens
screens: $(VENV)/.dev $(VENV)/.workflows ## Draw the pictures of screens in docs/screens again, where they have changed (1 minute)
	@$(BIN)/python -m tests.screens $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev ## Compare speed with psql and the ORM (12 minutes; FULL=1: 2,000,000 samples, much longer)
	@$(BIN)/python -m benchmarks.speed $(if $(FULL),--full) $(ARGS)

.PHONY: bench-page
bench-page: $(VENV)/.picture ## Redraw the chart in docs/guides/performance.md
	@$(BIN)/python -m benchmarks.speed.page

.PHONY: accidents
accidents: $(VENV)/.dev ## Inject hundreds of faults into bulk renames: kills, lost connections, full disks (minutes)
	@$(BIN)/python -m benchmarks.accidents $(ARGS)

.PHONY: accidents-api
accidents-api: $(VENV)/.dev ## Inject the same faults into 10,000 renames through the API (10 minutes)
	@$(BIN)/python -m benchmarks.accidents_api $(ARGS)

.PHONY: accidents-identity
accidents-identity: $(VENV)/.dev ## Kill onboarding runs, make each step fail, and onboard 500 people at the limit (15 minutes)
	@$(BIN)/python -m benchmarks.accidents_identity $(ARGS)

.PHONY: accidents-jobs
accidents-jobs: $(VENV)/.dev $(VENV)/.workflows ## Kill the parts of the local deployment while it builds trees (15 minutes)
	@$(BIN)/python -m benchmarks.accidents_jobs $(ARGS)

.PHONY: accidents-remote
accidents-remote: $(VENV)/.dev ## Kill commands that use a tunnel, and look for anything left behind (20 minutes)
	@$(BIN)/python -m benchmarks.accidents_remote $(ARGS)

.PHONY: accidents-copies
accidents-copies: $(VENV)/.dev ## Kill dumps, restores, and copies, and check the databases (10 minutes)
	@$(BIN)/python -m benchmarks.copies --kills 100 $(ARGS)

.PHONY: bench-copies
bench-copies: $(VENV)/.dev ## Compare a scrubbed copy of 1,000,000 samples with a hand-written pipe (10 minutes)
	@$(BIN)/python -m benchmarks.copies --samples 1000000 $(ARGS)

.PHONY: outages-remote
outages-remote: $(VENV)/.dev ## Stop the bastion during commands, and check what they report (20 minutes)
	@$(BIN)/python -m benchmarks.outages_remote $(ARGS)

.PHONY: broken-settings
broken-settings: $(VENV)/.dev ## Run every command with over 150 broken settings (30 minutes; ARGS=--few: minutes)
	@$(BIN)/python -m benchmarks.broken_settings $(ARGS)

.PHONY: identity-differences
identity-differences: $(VENV)/.dev ## Compare and sync 5,000 users with planted differences, and kill syncs (20 minutes)
	@$(BIN)/python -m benchmarks.identity_differences $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## Fuzz with 20,000 random mappings and 20,000 malformed files (minutes)
	@$(BIN)/python -m benchmarks.fuzz $(ARGS)

.PHONY: requests
requests: $(VENV)/.dev ## Send requests to every path as every role, and compare the responses
	@$(BIN)/python -m tests.contract.requests $(ARGS)

.PHONY: answers
answers: $(VENV)/.dev ## Compare responses with those recorded from the live service
	@$(BIN)/python -m tests.contract.answers $(ARGS)

.PHONY: madeup
madeup: $(VENV)/.dev ## Send 5,000 random requests to the service (minutes)
	@$(BIN)/python -m tests.contract.madeup $(ARGS)

.PHONY: tree-quality
tree-quality: $(VENV)/.dev $(VENV)/.workflows ## Compare the tree of 418 real genomes with that of IQ-TREE 2.0.7
	@$(BIN)/python -m benchmarks.tree_quality $(ARGS)

.PHONY: tree-steps
tree-steps: $(VENV)/.dev $(VENV)/.workflows ## Measure time and memory of each step of a tree (minutes)
	@$(BIN)/python -m benchmarks.tree_steps $(ARGS)

.PHONY: attacks
attacks: $(VENV)/.dev ## Attack the local service, and measure the impact on other users (minutes)
	@$(BIN)/python -m benchmarks.attacks $(ARGS)

.PHONY: update-deps
update-deps: $(VENV)/.dev ## Lock the newest dependency versions that pyproject.toml allows
	@sh scripts/update-deps.sh $(BIN)/uv

.PHONY: clean
clean: ## Remove build artifacts and .venv (keeps the local deployment)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.local: requirements/local.txt pyproject.toml
	@$(call install,local)

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.local
	@$(call install,dev)

$(VENV)/.workflows: requirements/workflows.txt pyproject.toml | $(VENV)/.local
	@$(call install,workflows)

$(VENV)/.picture: requirements/picture.txt | $(VENV)/.dev
	@echo "Installing requirements/picture.txt ..."
	@$(PIP) install --require-hashes --requirement $<
	@touch $@

$(VENV)/.docs: requirements/docs.txt | $(VENV)/.dev
	@echo "Installing requirements/docs.txt ..."
	@$(PIP) install --require-hashes --requirement $<
	@touch $@

# $(1): name of the lock file. It includes the build tools, so that everything is verified by hash.
define install
set -e; test -n "$(PYTHON)" || { \
	echo "aspencli needs Python 3.11 or newer with venv, but none was found on PATH." >&2; \
	echo "Install one (Debian: apt install python3 python3-venv), or set its path: make PYTHON=..." >&2; \
	exit 1; }; \
test -x $(BIN)/python || { echo "Creating $(VENV) with $(PYTHON) ..."; "$(PYTHON)" -m venv $(VENV); }; \
echo "Installing requirements/$(1).txt ..."; \
$(PIP) install --require-hashes --requirement requirements/$(1).txt; \
$(PIP) install --no-deps --no-build-isolation --editable .; \
touch $@
endef
