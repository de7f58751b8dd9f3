"""Interrupts amid recovery: Ctrl-C in a callback leaves the loop, and nobody without an outcome.

The same law for plain connections is in tests/core/test_laws.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from evamqp import Handler, Outcome
from tests.recovery.stage import LONG, Stage, numbered
from tests.support.scripted_broker import Publish

OUTCOMES = [Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.CONFIRMED]


def interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


def interrupts(run: Callable[[], object]) -> int:
    """Run a loop until it ends by itself; how often it was interrupted."""
    count = 0
    while True:
        try:
            run()
        except KeyboardInterrupt:
            count += 1
        else:
            return count


def three(stage: Stage, **options: Any) -> tuple[evamqp.Publisher, list[evamqp.Publication]]:
    """A publisher with three messages under way; the first one's callback interrupts the loop."""
    publisher = stage.publisher()
    stage.turn()
    first = publisher.publish("", "work", b"first", callback=interrupt, **options)
    rest = [publisher.publish("", "work", body, **options) for body in numbered(2)]
    stage.turn()
    return publisher, [first, *rest]


def outcomes(publications: list[evamqp.Publication]) -> list[Outcome | None]:
    return [publication.outcome for publication in publications]


def test_an_interrupt_amid_confirms_leaves_no_publish_without_its_outcome(stage: Stage) -> None:
    publisher, publications = three(stage)
    stage.server.published[-1].ack(multiple=True)
    assert interrupts(stage.turn) == 1
    assert outcomes(publications) == OUTCOMES
    assert publisher.pending == 0


def test_an_interrupt_amid_deadlines_leaves_no_publish_without_its_outcome(stage: Stage) -> None:
    _, publications = three(stage, timeout=1)
    assert interrupts(lambda: stage.advance(LONG)) == 1
    assert outcomes(publications) == [Outcome.EXPIRED] * 3


def test_an_interrupt_amid_the_end_leaves_no_publish_without_its_outcome(stage: Stage) -> None:
    publisher, publications = three(stage)
    report = publisher.close(timeout=1)
    assert interrupts(lambda: stage.advance(LONG)) == 1
    assert outcomes(publications) == [Outcome.ABANDONED] * 3
    assert stage.ended(report) == publications


def test_an_interrupt_at_a_refusal_does_not_keep_the_publisher_from_coming_back(
    stage: Stage,
) -> None:
    publisher = stage.publisher()
    stage.turn()
    publisher.publish("", "work", b"bad", callback=interrupt)
    stage.turn()
    stage.server.published[-1].refuse()
    assert interrupts(stage.turn) == 1
    stage.server.on_publish = Publish.ack
    publication = publisher.publish("", "work", b"good")
    stage.advance(LONG)
    assert publication.outcome is Outcome.CONFIRMED


class Interrupting(Handler):
    """A handler whose user hits Ctrl-C as soon as the connection is up."""

    def on_open(self, connection: evamqp.Connection) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_in_on_open_does_not_keep_members_from_the_connection(stage: Stage) -> None:
    stage.server.on_publish = Publish.ack
    publisher = stage.publisher(stage.reconnector(handler=Interrupting()))
    publication = publisher.publish("", "work", b"x")
    assert interrupts(stage.turn) == 1
    assert publication.outcome is Outcome.CONFIRMED


@pytest.mark.parametrize("name", ["on_reconnecting", "on_recovered", "on_writable"])
def test_an_interrupt_in_an_event_does_not_stop_recovery(stage: Stage, name: str) -> None:
    stage.server.on_publish = Publish.ack
    publisher = stage.publisher(**{name: interrupt})
    assert interrupts(stage.turn) == (name == "on_writable")
    stage.wire.cut()
    publication = publisher.publish("", "work", b"x")
    assert interrupts(lambda: stage.advance(LONG)) >= 1
    assert publication.outcome is Outcome.CONFIRMED
