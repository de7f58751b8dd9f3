"""BlockingConnection on a RabbitMQ that dies or raises its memory alarm, as programs meet it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import evamqp.compat.pika as pika
from evamqp.compat.pika import exceptions
from rabbitmq_node import RabbitNode

pytestmark = pytest.mark.rabbitmq

KILLS = 2
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def node(rabbit: RabbitNode) -> Iterator[RabbitNode]:
    """A node of its own, since it is killed."""
    with RabbitNode() as node:
        yield node


class Publisher:
    """Publishes with confirms, and reconnects as pika's documentation says."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self.confirmed: set[int] = set()
        self.losses: list[BaseException] = []
        self.is_over = False
        self._number = 0

    def run(self) -> None:
        while not self.is_over:
            try:
                with pika.BlockingConnection(self._parameters) as connection:
                    self._publish(connection)
            except exceptions.AMQPConnectionError as error:
                self.losses.append(error)
                time.sleep(0.05)

    def _publish(self, connection: pika.BlockingConnection) -> None:
        channel = connection.channel()
        channel.queue_declare("ledger", durable=True)
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        while not self.is_over:
            self._number += 1
            channel.basic_publish("", "ledger", str(self._number), properties, mandatory=True)
            self.confirmed.add(self._number)


def received(url: str) -> set[int]:
    """Everything in the queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        messages = connection.channel().consume("ledger", auto_ack=True, inactivity_timeout=1.0)
        numbers: set[int] = set()
        for _, _, body in messages:
            if body is None:
                return numbers
            numbers.add(int(body))
    return numbers


def test_every_confirmed_message_outlives_a_killed_broker(node: RabbitNode) -> None:
    publisher = Publisher(node.url)
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        for _ in range(KILLS):
            reached, deadline = len(publisher.confirmed) + 50, time.monotonic() + TIMEOUT
            while len(publisher.confirmed) < reached:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            node.kill()
            node.start()
        reached, deadline = len(publisher.confirmed) + 50, time.monotonic() + TIMEOUT
        while len(publisher.confirmed) < reached:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        publisher.is_over = True
        thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert {type(error) for error in publisher.losses} <= {
        exceptions.StreamLostError,
        exceptions.AMQPConnectionError,
        exceptions.IncompatibleProtocolError,
    }
    assert any(isinstance(error, exceptions.StreamLostError) for error in publisher.losses)
    assert publisher.confirmed <= received(node.url)


def test_memory_alarm_ends_a_connection_whose_blocked_timeout_passes(node: RabbitNode) -> None:
    parameters = pika.URLParameters(node.url)
    parameters.blocked_connection_timeout = 0.3
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare("ledger", durable=True)
    channel.confirm_delivery()
    node.set_memory_alarm(True)
    try:
        with pytest.raises(exceptions.ConnectionBlockedTimeout):
            channel.basic_publish("", "ledger", "1")
    finally:
        node.set_memory_alarm(False)
    assert connection.is_closed
    assert channel.is_closed


def test_memory_alarm_without_a_timeout_holds_the_publish_until_it_is_over(
    node: RabbitNode,
) -> None:
    told: list[str] = []
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
        channel = connection.channel()
        channel.queue_declare("held", exclusive=True)
        channel.confirm_delivery()
        node.set_memory_alarm(True)
        over = threading.Timer(0.5, node.set_memory_alarm, [False])
        over.start()
        channel.basic_publish("", "held", "1")
        over.join()
        connection.process_data_events(1.0)
        connection.process_data_events(0.2)
        assert told == ["blocked", "unblocked"]
        assert channel.queue_declare("held", passive=True).method.message_count == 1
