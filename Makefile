# make test      lint, types, tests (with a private RabbitMQ if the machine has one)
# make demo      a publisher and a consumer for ten seconds, on a private RabbitMQ or on AMQP_URL
# make test-all  the tests on every CPython from 3.10 up that the machine has
# make coverage  the tests with branch coverage
# make bench     what evamqp costs beside other clients; ARGS="--rounds 5 --rabbit", see benchmarks/
# make profile   where one scenario spends its time: SCENARIO=S3 DRIVER=evamqp-select
# make clean     remove what the others made

PYTHON ?= python3
VENV ?= .venv
ADAPTER ?= select
DEMO_OPTIONS ?=
STAMP := $(VENV)/.installed
BENCH_VENV ?= .venvs/bench
BENCH_STAMP := $(BENCH_VENV)/.installed
ARGS ?=
SCENARIO ?= S3
DRIVER ?= evamqp-select

.PHONY: test demo test-all coverage lint types rabbitmq bench profile clean

test: lint types rabbitmq
	@$(VENV)/bin/python -m pytest

lint: $(STAMP)
	@$(VENV)/bin/ruff check --quiet .

types: $(STAMP)
	@$(VENV)/bin/python -m mypy --strict --no-error-summary evamqp tests tools

demo: $(STAMP)
	@test -n "$$AMQP_URL" || EVAMQP_REQUIRE_RABBITMQ=1 tools/ensure_rabbitmq.sh
	@$(VENV)/bin/python tools/demo.py --adapter $(ADAPTER) $(DEMO_OPTIONS)

test-all: rabbitmq
	@$(PYTHON) tools/test_all.py

coverage: $(STAMP) rabbitmq
	@$(VENV)/bin/python -m coverage run -m pytest
	@$(VENV)/bin/python -m coverage report

rabbitmq:
	@tools/ensure_rabbitmq.sh

bench: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python benchmarks/run.py $(ARGS)

profile: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python benchmarks/run.py --profile --scenarios $(SCENARIO) --drivers $(DRIVER) $(ARGS)

$(BENCH_STAMP): benchmarks/setup.sh
	@tools/quietly.sh "setting up $(BENCH_VENV)" benchmarks/setup.sh $(PYTHON) $(BENCH_VENV)
	@touch $@

$(STAMP): pyproject.toml setup.py
	@tools/quietly.sh "setting up $(VENV)" tools/setup_venv.sh $(PYTHON) $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find evamqp tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +
