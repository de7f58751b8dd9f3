"""The Twisted service under twistd, as a process, with the broker restarted under it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest

import evamqp
from evamqp.adapters.select import SelectAdapter
from rabbitmq_node import Vhost, choose_ports
from tests.examples.program import TIMEOUT, Program

Work = Callable[[evamqp.Channel], Awaitable[None]]

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
SOURCE = "evamqp-service.texts"
RESULTS = "evamqp-service.capitals"
PERSISTENT = evamqp.Properties(delivery_mode=evamqp.DeliveryMode.PERSISTENT)

pytest.importorskip("twisted")


class Service(Program):
    """twistd with the service in the foreground."""

    # Once all is shut down, newer twistds end by the signal itself, so that their parent sees it.
    clean = (0, -signal.SIGTERM)

    def __init__(self, url: str) -> None:
        super().__init__(
            "-c", TWISTD, "--pidfile=", "-ny", "examples/twisted_service.py", AMQP_URL=url
        )


class Customer:
    """Puts texts in and takes results out, over a connection of its own each time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._adapter = SelectAdapter()
        self.taken: list[str] = []

    def put(self, texts: list[str]) -> None:
        async def publish(channel: evamqp.Channel) -> None:
            await channel.queue_declare(SOURCE, durable=True)
            await channel.confirm_select()
            for text in texts:
                channel.basic_publish("", SOURCE, text.encode(), PERSISTENT)
            assert await channel.wait_for_confirms() == []

        self._do(publish)

    def take(self) -> list[str]:
        """Take what is there; returns all that was taken so far."""

        async def drain(channel: evamqp.Channel) -> None:
            await channel.queue_declare(RESULTS, durable=True)
            while (message := await channel.basic_get(RESULTS, auto_ack=True)) is not None:
                self.taken.append(message.body.decode())

        self._do(drain)
        return self.taken

    def left(self) -> int:
        """Messages that wait for the service."""
        counts: list[int] = []

        async def count(channel: evamqp.Channel) -> None:
            counts.append((await channel.queue_declare(SOURCE, durable=True)).message_count)

        self._do(count)
        return counts[0]

    def close(self) -> None:
        self._adapter.close()

    def _do(self, work: Work) -> None:
        async def connected() -> None:
            connection = evamqp.connect(self._url, adapter=self._adapter)
            await connection.wait_open()
            await work(connection.channel())
            await connection.close()

        self._adapter.run_until(connected(), TIMEOUT)


@pytest.fixture
def customer(vhost: Vhost) -> Iterator[Customer]:
    customer = Customer(vhost.url)
    yield customer
    customer.close()


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {number}" for number in range(count)]


@pytest.mark.slow
def test_service_loses_nothing_when_the_broker_crashes(vhost: Vhost, customer: Customer) -> None:
    with Service(vhost.url) as service:
        service.until_said("consuming from")
        texts = numbered("before the crash", 500)
        customer.put(texts)
        vhost.node.kill()
        service.until_said("the next attempt is in")
        vhost.node.start()
        texts += numbered("after the crash", 500)
        customer.put(texts[500:])
        expected = {text.upper() for text in texts}
        service.until(lambda: expected.issubset(customer.take()))
        service.stop(signal.SIGTERM)
        assert service.said(r"done=\d+")
    # What it did not finish is there again, and nothing else.
    assert set(customer.take()) == expected


@pytest.mark.slow
def test_stopping_in_mid_work_finishes_what_is_under_way(vhost: Vhost, customer: Customer) -> None:
    texts = numbered("text", 3000)
    customer.put(texts)
    with Service(vhost.url) as service:
        service.until_said("consuming from")
        service.stop(signal.SIGTERM)
        assert service.said(r"done=\d+")
        done = service.count("done")
    # Each text is done once, or not at all: there was no crash, so none twice.
    results = customer.take()
    assert len(results) == len(set(results)) == done
    assert customer.left() == len(texts) - done


@pytest.mark.slow
def test_service_without_a_broker_stops_at_once() -> None:
    (port,) = choose_ports(1)
    with Service(f"amqp://guest:guest@127.0.0.1:{port}/%2F") as service:
        service.until_said("the next attempt is in")
        service.stop(signal.SIGTERM)
