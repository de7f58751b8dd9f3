"""What an operator reads: who it is about, what happened, and not too much of it."""

from __future__ import annotations

import logging

import pytest

from evamqp import Outcome
from evamqp.core.log_limit import LogLimit
from tests.recovery.stage import HOUR, Stage
from tests.support.scripted_broker import Publish

LINES_PER_HOUR = 60


def texts(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "evamqp")


def test_every_line_names_the_connection_and_who_speaks(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    url = "amqp://shop:secret@broker:5672/?heartbeat=0&name=orders"
    stage.server.refuse("basic.consume", 404, "NOT_FOUND")
    consumer = stage.consumer(lambda message: None, url)
    stage.turn()
    consumer.close()
    stage.turn()
    assert texts(caplog)[0].startswith("orders: shop@broker:5672 vhost /: connected to ")
    assert texts(caplog)[1].startswith("orders: shop@broker:5672 vhost / queue work: its channel")
    assert texts(caplog)[-1].startswith("orders: shop@broker:5672 vhost /: closed: ")
    assert "secret" not in caplog.text


def test_connect_is_the_word_until_a_connection_was_open(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.down()
    stage.reconnector()
    stage.advance(10)
    assert "attempt 1 to connect in" in texts(caplog)[0]
    stage.server.up()
    stage.advance(60)
    stage.wire.cut()
    stage.turn()
    assert not [text for text in texts(caplog)[:-2] if "reconnect" in text]
    assert "connection lost: " in caplog.text
    assert "attempt 1 to reconnect in" in caplog.text
    assert "connected again to" in texts(caplog)[-1]


def test_a_loss_is_told_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    publisher = stage.publisher()
    stage.consumer(lambda message: None, publisher.reconnector)
    stage.turn()
    caplog.clear()
    stage.server.down()
    stage.turn()
    assert len([text for text in texts(caplog) if "connection lost: " in text]) == 1
    assert len(texts(caplog)) == 2  # and that nobody answers any more


def test_an_alarm_and_its_end_are_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.reconnector()
    stage.turn()
    stage.wire.block()
    stage.turn()
    stage.wire.unblock()
    stage.turn()
    assert texts(caplog)[1:] == [
        "guest@broker:5672 vhost /: the broker takes no publishes: low on memory",
        "guest@broker:5672 vhost /: the broker takes publishes again",
    ]


def test_an_hour_without_a_broker_is_a_line_a_minute_at_most(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.publisher()
    stage.turn()
    stage.server.down()
    stage.advance(HOUR)
    assert 10 <= len(texts(caplog)) <= LINES_PER_HOUR


@pytest.mark.parametrize("period", [2.0, 7.0, 61.0])
def test_an_hour_of_outages_is_told_whole_and_in_sixty_lines_per_client(
    stage: Stage, caplog: pytest.LogCaptureFixture, period: float
) -> None:
    stage.server.refuse("basic.consume", 404, "NOT_FOUND")
    publisher = stage.publisher()
    consumer = stage.consumer(lambda message: None)
    while stage.adapter.time() < HOUR:
        stage.advance(period / 2)
        stage.server.down()
        stage.advance(period / 2)
        stage.server.up()
    assert len(texts(caplog)) <= 2 * LINES_PER_HOUR  # of two clients
    stage.advance(2 * HOUR)
    lines = texts(caplog)
    losses = sum(text.count("connection lost") > 0 for text in lines)
    for text in lines:
        for part in text.partition("; before: ")[2].split(", "):
            count, _, kind = part.partition(" x ")
            losses += int(count) if kind == "connection lost" else 0
    assert losses >= len(stage.server.wires) - 2 * 2
    assert publisher.reconnector.is_ready
    assert consumer.reconnector.is_ready


def test_the_last_of_many_is_told_late(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.reconnector()
    for _ in range(30):
        stage.advance(10)
        stage.wire.cut()
    stage.advance(HOUR)
    assert "connected again" in texts(caplog)[-1]


def test_returned_messages_that_nobody_asks_for_are_warnings(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.on_publish = lambda publish: publish.route()
    publisher = stage.publisher()
    stage.turn()
    for _ in range(100):
        publisher.publish("", "nowhere", b"x")
    heard = publisher.publish("", "told", b"x", callback=lambda publication: None)
    stage.advance(HOUR)
    returned = [text for text in texts(caplog, logging.WARNING) if "was returned" in text]
    assert 1 <= len(returned) <= 8
    assert "312 NO_ROUTE: exchange '', routing key 'nowhere'" in returned[0]
    assert "x return" in returned[-1]
    assert heard.is_done
    assert "told" not in caplog.text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.NACKED, "a message was nacked, and is given up"),
        (Outcome.EXPIRED, "a message expired: it was published, and the broker has not confirmed"),
        (Outcome.REFUSED, "a message was refused: 404 NOT_FOUND"),
        (Outcome.ABANDONED, "a message is abandoned: it was published"),
    ],
)
def test_what_becomes_of_messages_that_nobody_asks_for_is_an_error(
    stage: Stage, caplog: pytest.LogCaptureFixture, outcome: Outcome, words: str
) -> None:
    answers = {
        Outcome.NACKED: Publish.nack,
        Outcome.REFUSED: lambda publish: publish.refuse(404, "NOT_FOUND"),
    }
    stage.server.on_publish = answers.get(outcome, lambda publish: None)
    publisher = stage.publisher(resends=0)
    stage.turn()
    timeout = 5.0 if outcome is Outcome.EXPIRED else None
    heard = publisher.publish("", "q", b"x", timeout=timeout, callback=lambda publication: None)
    stage.advance(0.1)
    for _ in range(100):
        publisher.publish("", "q", b"x", timeout=timeout)
        stage.turn()
    stage.advance(10)
    publisher.close(0)
    stage.advance(HOUR)
    assert heard.outcome is outcome
    errors = [text for text in texts(caplog, logging.ERROR) if words in text]
    assert 1 <= len(errors) <= 8


def test_a_limit_admits_a_burst_and_then_one_per_interval() -> None:
    limit = LogLimit(3, 10.0)
    assert [limit.admits(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.wait(4.0) == pytest.approx(6.0)
    assert not limit.admits(9.0)
    assert limit.admits(10.0)
    assert limit.suffix() == " (and 3 more of the kind before)"
    assert limit.suffix() == ""
