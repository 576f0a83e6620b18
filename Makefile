# `make help` lists what there is. VENV=/path uses an environment that is there already, and leaves it as it is.
PYTHON ?= python3
VENV ?= .venv
COMPOSE ?= $(or $(shell docker compose version >/dev/null 2>&1 && echo docker compose || command -v docker-compose), \
  $(error Docker Compose is not installed; `make migrate` needs no Docker))
SYNTEGRA_DB = $(VENV)/bin/syntegra-db
ENVIRONMENT = $(if $(filter .venv,$(VENV)),.venv/installed)

# Each with a server of its own; with more, tests that watch a clock would watch the others.
TWO_AT_ONCE = --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help .venv migrate status verify demo migrate-003 verify-analytics-tables rollback-003 vectors-status \
  vectors-rebuild backup backups restore local-stop up down psql logs test test-all lint format sql manifests docs \
  build clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9.-]+:.*## / { printf "  %-24s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ The database, embedded unless the environment or .env names another

migrate: $(ENVIRONMENT) ## Start the embedded server if needed, upgrade to the newest revision, show what stands
	@$(SYNTEGRA_DB) local start --unless-configured
	@$(SYNTEGRA_DB) upgrade head
	@$(SYNTEGRA_DB) status

status: $(ENVIRONMENT) ## Show the revision, the tables and their sizes
	@$(SYNTEGRA_DB) status

verify: $(ENVIRONMENT) ## Compare the whole database with what its revision makes
	@$(SYNTEGRA_DB) verify

demo: migrate ## Load a small data set and answer three questions with it
	@$(VENV)/bin/python -m demo

local-stop: $(ENVIRONMENT) ## Stop the embedded server; its data stays in .postgres/
	@$(SYNTEGRA_DB) local stop

##@ Revision 003, the analytics tables

migrate-003: $(ENVIRONMENT) ## Apply revision 003, and those before it that are missing
	@$(SYNTEGRA_DB) local start --unless-configured
	@$(SYNTEGRA_DB) upgrade 003

verify-analytics-tables: $(ENVIRONMENT) ## Compare the analytics tables with what revision 003 makes
	@$(SYNTEGRA_DB) psql -f scripts/verify_analytics_tables.sql

rollback-003: $(ENVIRONMENT) ## Take revision 003 back after a backup, and say how to restore its rows
	@$(SYNTEGRA_DB) rollback 002

##@ The index that searches by meaning use

vectors-status: $(ENVIRONMENT) ## Measure what it finds and how fast, and say whether to rebuild it
	@$(SYNTEGRA_DB) vectors status

vectors-rebuild: $(ENVIRONMENT) ## Build it on the rows that are there, while services go on
	@$(SYNTEGRA_DB) vectors rebuild

##@ Backups, in backups/

backup: $(ENVIRONMENT) ## Save the rows of all tables and their revision
	@$(SYNTEGRA_DB) backup

backups: $(ENVIRONMENT) ## List them, and check every byte
	@$(SYNTEGRA_DB) backups

restore: $(ENVIRONMENT) ## Restore FILE=…; where tables hold rows, with OPTION=--replace or OPTION=--keep
	@$(SYNTEGRA_DB) restore '$(or $(FILE),$(error Name the file: make restore FILE=backups/…))' $(OPTION)

##@ PostgreSQL in Docker

up: .env ## Start it and wait until it is healthy; makes .env with a password if there is none
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
	echo 'PostgreSQL did not become healthy; the end of its log stands above.' >&2; \
	exit 1

down: ## Stop it; its data stays in the volume
	@$(COMPOSE) down

psql: ## Open psql in its container
	@$(COMPOSE) exec $$(test -t 0 || echo -T) postgres sh -c 'psql -U "$$POSTGRES_USER" -d "$$POSTGRES_DB"'

logs: ## Follow its log
	@$(COMPOSE) logs --follow postgres

.env:
	@umask 077 && { \
	  sed '/^POSTGRES_PASSWORD=/d' .env.example && \
	  echo "POSTGRES_PASSWORD=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; \
	} >$@
	@echo 'Made .env with a password of its own.'

##@ Development

.venv: $(ENVIRONMENT) ## Make the environment in .venv, again when what it holds has changed

.venv/installed: pyproject.toml constraints.txt
	@echo 'Making the environment in .venv; the first time takes a minute.'
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: $(ENVIRONMENT) ## Run the tests on an embedded PostgreSQL 18
	@$(VENV)/bin/pytest

test-all: $(ENVIRONMENT) ## Run them on embedded PostgreSQL 16, embedded 18, and Docker
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) --postgres 16 -m 'not docker and not slow'
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) --postgres 18 -m 'not docker'
	@$(VENV)/bin/pytest $(TWO_AT_ONCE) --database docker -m 'not slow and not embedded'

lint: $(ENVIRONMENT) ## Run ruff and mypy
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy

format: $(ENVIRONMENT) ## Format the code
	@$(VENV)/bin/ruff format

sql: $(ENVIRONMENT) ## Write migrations/*.sql from the revisions
	@$(SYNTEGRA_DB) sql --write migrations

manifests: $(ENVIRONMENT) ## Write what each revision makes, for verify, from the revisions
	@$(SYNTEGRA_DB) manifests

docs: $(ENVIRONMENT) ## Write docs/schema.md from the models
	@$(VENV)/bin/python docs/build_schema.py

build: $(ENVIRONMENT) ## Build the wheel and the source archive in dist/
	@$(VENV)/bin/python -m build

clean: ## Remove what was built and the tools' caches; databases and .venv stay
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
