# make test      lint, types, tests (with a private RabbitMQ if the machine has one)
# make demo      a publisher and a consumer for ten seconds, on a private RabbitMQ or on AMQP_URL
# make test-all  the tests on every CPython from 3.10 up that the machine has
# make coverage  the tests with branch coverage
# make clean     remove what the others made

PYTHON ?= python3
VENV ?= .venv
ADAPTER ?= select
DEMO_OPTIONS ?=
STAMP := $(VENV)/.installed

.PHONY: test demo test-all coverage lint types rabbitmq clean

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

$(STAMP): pyproject.toml setup.py
	@tools/quietly.sh "setting up $(VENV)" tools/setup_venv.sh $(PYTHON) $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find evamqp tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +
