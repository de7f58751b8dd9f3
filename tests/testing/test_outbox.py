"""The tests of the worked example in docs/testing.md, which quotes them word for word."""

from pathlib import Path

from evamqp.testing.fixtures import MemoryBroker
from tests.testing.outbox import Outbox

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def test_orders_survive_a_restart(amqp_memory: MemoryBroker) -> None:
    outbox = Outbox(amqp_memory.url, amqp_memory.adapter)
    amqp_memory.adapter.run_until_idle()
    outbox.send(b"order 1")
    amqp_memory.adapter.run_until_idle()

    amqp_memory.broker.faults.restart(down=60.0)
    amqp_memory.adapter.advance(1.0)
    outbox.send(b"order 2")
    amqp_memory.adapter.advance(65.0)

    assert amqp_memory.broker.queue("orders").bodies == (b"order 1", b"order 2")
    assert outbox.attempts == 13  # the first, and one every five seconds until the broker is back
    assert not outbox.waiting
    assert not outbox.sent


def test_order_without_a_confirm_is_sent_again(amqp_memory: MemoryBroker) -> None:
    outbox = Outbox(amqp_memory.url, amqp_memory.adapter)
    amqp_memory.adapter.run_until_idle()
    amqp_memory.broker.faults.hold_confirms()
    outbox.send(b"order 1")
    amqp_memory.adapter.run_until_idle()

    # The broker has the order, and crashes before it could say so.
    amqp_memory.broker.faults.restart(graceful=False)
    amqp_memory.broker.faults.release_confirms()
    amqp_memory.adapter.advance(5.0)

    assert amqp_memory.broker.queue("orders").bodies == (b"order 1", b"order 1")


def test_refused_order_is_sent_again(amqp_memory: MemoryBroker) -> None:
    outbox = Outbox(amqp_memory.url, amqp_memory.adapter)
    amqp_memory.broker.faults.nack_next()
    outbox.send(b"order 1")
    amqp_memory.adapter.run_until_idle()

    assert amqp_memory.broker.queue("orders").bodies == (b"order 1",)
    assert [publish.queues for publish in amqp_memory.broker.published] == [(), ("orders",)]


def test_document_quotes_service_and_tests_word_for_word() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    service = Path(__file__).with_name("outbox.py").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    assert service[service.index("class Outbox") :].rstrip() in text
    first, end = tests.index("def test_orders"), tests.index("def test_document")
    assert tests[first:end].rstrip() in text
