"""A fresh virtual host for each example.

No test lives here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitmq_node import RabbitNode, Vhost

FOLDER = Path(__file__).parent
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs RabbitMQ."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.rabbitmq)


@pytest.fixture
def vhost(rabbit: RabbitNode) -> Iterator[Vhost]:
    """A virtual host that no test used before, on a node that is whole again after it."""
    rabbit.repair()
    name = f"example{next(_numbers)}"
    rabbit.add_vhost(name)
    yield Vhost(rabbit, name)
    rabbit.repair()
