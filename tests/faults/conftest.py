"""What the fault suite stands on: its options, loops, and a RabbitMQ of its own to be hurt.

No fault is made here.  ``make faults`` sets EVAMQP_FAULTS=all; without it each test takes the part
that fits into a run of all tests, chosen by EVAMQP_SEED, which every failure prints.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.loops import Loop, opened

#: The four adapters.
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
#: Whether everything is to be tried.
ALL = os.environ.get("EVAMQP_FAULTS") == "all"
SEED = int(os.environ.get("EVAMQP_SEED", "1"))
#: Connections cut, by the kind of loop.
CUTS: Counter[str] = Counter()
#: Seconds from "the broker can be reached" to "publishing again", of each fault that cost the
#: publisher its connection.
TIMES: list[float] = []


def pytest_report_header() -> str:
    return f"faults: EVAMQP_SEED={SEED} EVAMQP_FAULTS={'all' if ALL else 'some'}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Every failure tells how to have it again."""
    report = yield
    if report.failed and item.path.parent.name == "faults":  # type: ignore[attr-defined]
        scope = "EVAMQP_FAULTS=all " if ALL else ""
        line = f"{scope}EVAMQP_SEED={SEED} python -m pytest '{item.nodeid}'"
        report.sections.append(("again", line))  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What no test asserts, but somebody may want to know."""
    if CUTS:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(CUTS.items()))
        terminalreporter.write_line(f"faults: {CUTS.total()} connections cut ({kinds})")
    if TIMES:
        terminalreporter.write_line(
            f"faults: publishing again after {statistics.median(TIMES):.3f} s in the median,"
            f" {max(TIMES):.3f} s at worst, of {len(TIMES)}"
        )


@pytest.fixture(params=ADAPTERS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """A loop of each adapter."""
    with opened(request.param) as loop:
        yield loop
