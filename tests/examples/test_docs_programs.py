"""Every block of Python in docs/ runs as it stands there, or is listed here with who runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from rabbitmq_node import Vhost
from tests.examples.program import ROOT
from tests.examples.test_readme import URL, run

#: What each program prints.
OUTPUT = {
    ("async.md", 0): "one\ntwo\nend\n",
    ("async.md", 1): "order 1\n",
    ("async.md", 2): "Outcome.RETURNED\n0\n",
    ("blocking.md", 0): "b'Hello World!'\n",
    ("celery.md", 2): "{'order': 1}\n",
    ("consuming.md", 0): "0 1 2\n3 4 5\n6 7\n",
    ("consuming.md", 1): (
        "attempt 1\nattempt 2\nattempt 3\n"
        "hello failed: ConnectionError('the mail server is away')\n"
    ),
    ("consuming.md", 2): "0 opened\n1 paid\n2 shipped\n",
    ("credentials.md", 0): "Outcome.CONFIRMED\n",
    ("health.md", 0): "WAITING False\nREADY True 0 True\n1 1\n",
    ("migrating-from-pika.md", 1): "Outcome.CONFIRMED\na job\n",
    ("outbox.md", 0): "stored: from here on it survives a crash\nOutcome.CONFIRMED\n",
    ("outbox.md", 1): (
        "b'lost' RETURNED 312 NO_ROUTE: exchange '', routing key 'no-such-queue'\n1 discarded\n"
    ),
    ("outbox.md", 3): "2 published\n",
    ("rpc.md", 0): "b'HELLO'\nempty nothing to do\n",
}
#: Blocks that are no programs: where they run, or why they cannot.
ELSEWHERE = {
    ("celery.md", 0): "tests/integrations/kombu/test_documentation.py: a worker's application",
    ("celery.md", 1): "tests/integrations/kombu/test_documentation.py: settings of it",
    ("celery.md", 3): "tests/integrations/kombu/test_documentation.py: settings of it",
    ("celery.md", 4): "tests/integrations/kombu/test_documentation.py: settings of it",
    ("howto-adapter.md", 0): "the outline of a class",
    ("howto-adapter.md", 1): "the outline of a class",
    ("howto-adapter.md", 2): "a line for the type checker",
    ("howto-adapter.md", 3): "tests/adapters run the contract",
    ("logging.md", 0): "the line that turns logging on",
    ("migrating-from-pika.md", 0): "tests/compat: two ways to import the facade",
    ("outbox.md", 2): "tests/examples/test_outbox_recipes.py",
    ("outbox.md", 4): "tests/examples/test_outbox_recipes.py",
    ("testing.md", 0): "tests/testing/test_outbox.py",
    ("testing.md", 1): "tests/testing/test_outbox.py",
    ("testing.md", 2): "tests/testing/test_documentation.py",
    ("testing.md", 3): "tests/testing/test_documentation.py",
}


class Block(NamedTuple):
    """One block of Python: the page's name, its number on the page, and the code."""

    page: str
    number: int
    code: str


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    codes = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(path.name, number, code) for number, code in enumerate(codes)]


BLOCKS = [block for path in sorted((ROOT / "docs").glob("*.md")) for block in blocks_of(path)]
PROGRAMS = [block for block in BLOCKS if (block.page, block.number) not in ELSEWHERE]


def test_each_block_is_run_or_listed() -> None:
    there = {(block.page, block.number) for block in BLOCKS}
    assert there == OUTPUT.keys() | ELSEWHERE.keys()
    assert not OUTPUT.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"{block.page}-{block.number}")
def test_program_runs_as_printed(vhost: Vhost, block: Block) -> None:
    """Where a consumer prints beside a publisher, either may be first."""
    assert URL in block.code
    printed = run(vhost, block.code).splitlines()
    assert sorted(printed) == sorted(OUTPUT[block.page, block.number].splitlines())
