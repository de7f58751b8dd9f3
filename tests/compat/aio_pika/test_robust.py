"""Robust connections of the aio_pika facade: what comes back, and that each publish ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from evamqp.compat import aio_pika
from evamqp.compat.aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ConnectionClosed,
)
from evamqp.compat.aio_pika.pamqp.commands import Basic
from evamqp.testing import Broker
from rabbitmq_node import RabbitNode, VhostPool
from tests.compat.aio_pika.test_programs import start
from tests.compat.aio_pika.test_publishing import message
from tests.compat.asyncio_rig import run

Scenario = Callable[[Broker], Awaitable[None]]


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker that a test may hurt."""
    with Broker().serve() as broker:
        yield broker


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something is so; whoever waits for a test bounds it."""
    while not condition():
        await asyncio.sleep(0.005)


async def lost(connection: Any, broker: Broker) -> None:
    """Cut the connection, and wait until that is known."""
    known: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lost(sender: object, error: object) -> None:
        if not known.done():
            known.set_result(None)

    connection.close_callbacks.add(lost)
    broker.faults.drop_connections()
    await known
    connection.close_callbacks.discard(lost)


def test_all_that_was_declared_comes_back_with_qos_and_consumers(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=7)
        exchange = await channel.declare_exchange("e", aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "key.#")
        temporary = await channel.declare_queue("temporary", exclusive=True, robust=False)
        bodies: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(incoming: aio_pika.IncomingMessage) -> None:
            async with incoming.process():
                bodies.put_nowait(incoming.body)

        tag = await queue.consume(take)
        name = queue.name
        for round_ in range(3):
            await exchange.publish(message(str(round_).encode()), "key.x")
            assert await bodies.get() == str(round_).encode()
            consumers = broker.consumers()
            assert [(one.tag, one.queue, one.prefetch) for one in consumers] == [(tag, name, 7)]
            await lost(connection, broker)
            await channel.ready()
        assert queue.name == name
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).get_queue(temporary.name + "x")
        await connection.close()

    run(scenario())


@pytest.mark.parametrize("confirms", [True, False])
def test_what_is_published_without_a_connection_waits_for_one(
    broker: Broker, confirms: bool
) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel(publisher_confirms=confirms)
        await channel.declare_queue("q", durable=True)
        broker.faults.refuse_connections()
        await lost(connection, broker)
        assert channel.is_closed
        assert connection.reconnecting
        publishes = [
            asyncio.ensure_future(channel.default_exchange.publish(message(), "q"))
            for _ in range(5)
        ]
        declare = asyncio.create_task(channel.declare_queue("other", durable=True))
        await asyncio.sleep(0)
        assert not any(publish.done() for publish in publishes)
        broker.faults.accept_connections()
        results = await asyncio.gather(*publishes)
        assert [type(result) for result in results] == [Basic.Ack if confirms else type(None)] * 5
        queue = await declare
        await until(lambda: broker.queue("q").ready == 5)
        assert queue.name == "other"
        await connection.close()

    run(scenario())


def test_loss_of_the_connection_is_a_connection_error_to_what_is_under_way(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect(broker.url)
        channel = await connection.channel()
        reasons: list[BaseException | None] = []
        channel.close_callbacks.add(lambda sender, reason: reasons.append(reason))
        broker.faults.hold_confirms()
        publish = asyncio.ensure_future(channel.default_exchange.publish(message(), "q"))
        await until(lambda: bool(broker.published))
        broker.faults.close_connections(320, "CONNECTION_FORCED - bye")
        with pytest.raises(ConnectionClosed, match="bye"):
            await publish
        assert [type(reason) for reason in reasons] == [ConnectionClosed]

    run(scenario())


def test_what_a_loss_left_unconfirmed_is_published_again(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for _ in range(5):
            broker.faults.hold_confirms()
            publishes = [
                asyncio.ensure_future(
                    channel.default_exchange.publish(message(str(n).encode(), delivery_mode=2), "q")
                )
                for n in range(10)
            ]
            await until(lambda: broker.queue("q").ready >= 10)
            await lost(connection, broker)
            broker.faults.release_confirms()
            acks = await asyncio.gather(*publishes)
            assert all(isinstance(ack, Basic.Ack) for ack in acks)
            queue = await channel.get_queue("q")
            assert (await queue.purge()).message_count == 20  # each came twice
        await connection.close()

    run(scenario())


def test_republishing_can_be_turned_off(broker: Broker) -> None:
    async def scenario() -> None:
        for connection in (
            await aio_pika.connect_robust(broker.url, republish_unconfirmed=False),
            await aio_pika.connect_robust(f"{broker.url}?republish_unconfirmed=0"),
        ):
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            broker.faults.hold_confirms()
            publish = asyncio.ensure_future(channel.default_exchange.publish(message(), "q"))
            await until(lambda: broker.queue("q").ready)
            await lost(connection, broker)
            broker.faults.release_confirms()
            with pytest.raises(AMQPConnectionError):
                await publish
            await channel.default_exchange.publish(message(), "q")
            await queue.purge()
            await connection.close()

    run(scenario())


def test_first_attempt_that_fails_raises_unless_told_otherwise(broker: Broker) -> None:
    async def scenario() -> None:
        broker.faults.refuse_connections()
        with pytest.raises(AMQPConnectionError):
            await aio_pika.connect_robust(broker.url)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                aio_pika.connect_robust(broker.url, fail_fast=False, reconnect_interval=0.01), 0.1
            )
        task = asyncio.create_task(
            aio_pika.connect_robust(broker.url, fail_fast="0", reconnect_interval=0.01)
        )
        await asyncio.sleep(0.05)
        assert not task.done()
        broker.faults.accept_connections()
        connection = await task
        assert connection.fail_fast is False
        await connection.close()

    run(scenario())


def test_close_without_a_connection_ends_all_that_waits(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        plain = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue("q", durable=True)
        broker.faults.refuse_connections()
        await lost(connection, broker)

        async def read() -> list[Any]:
            return [incoming async for incoming in queue]

        waiting = [
            asyncio.ensure_future(call)
            for call in (
                channel.declare_queue("q", durable=True),
                channel.default_exchange.publish(message(), "q"),
                plain.default_exchange.publish(message(), "q"),
                connection.channel().initialize(),
                channel.ready(),
            )
        ]
        reader = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        await connection.close()
        assert await connection.closed() is True
        results = await asyncio.gather(*waiting[:4], return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds[0] is ChannelInvalidStateError
        assert kinds[1] is AMQPConnectionError
        assert kinds[2] in (ChannelInvalidStateError, asyncio.CancelledError)
        assert kinds[3] is ChannelInvalidStateError
        with pytest.raises(ChannelInvalidStateError):
            await waiting[4]
        with pytest.raises(ChannelInvalidStateError):
            await reader
        with pytest.raises(RuntimeError):
            connection.channel()

    run(scenario())


def test_callbacks_tell_of_each_loss_and_return(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        told: list[tuple[str, Any]] = []

        async def reconnected(sender: Any) -> None:
            told.append(("reconnected", sender))

        connection.reconnect_callbacks.add(reconnected)
        connection.close_callbacks.add(lambda sender, error: told.append(("lost", error)))
        channel.close_callbacks.add(lambda sender, error: told.append(("channel", error)))
        channel.reopen_callbacks.add(lambda sender: told.append(("reopened", sender)))
        await lost(connection, broker)
        await channel.ready()
        await until(lambda: len(told) == 4)
        assert [name for name, _ in told] == ["channel", "lost", "reconnected", "reopened"]
        assert isinstance(told[1][1], AMQPConnectionError)
        assert told[2][1] is connection
        told.clear()
        await connection.reconnect()
        await channel.declare_queue("q", durable=True)
        await connection.close()
        assert [name for name, _ in told].count("lost") == 2

    run(scenario())


def test_channel_that_the_broker_closes_comes_back_with_its_consumers(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        queue = await channel.declare_queue("q", durable=True)
        bodies: asyncio.Queue[bytes] = asyncio.Queue()
        await queue.consume(lambda incoming: bodies.put_nowait(incoming.body), no_ack=True)
        with pytest.raises(ChannelNotFoundEntity):
            await channel.declare_queue("missing", passive=True)
        await channel.default_exchange.publish(message(b"again"), "q")
        assert await bodies.get() == b"again"
        broker.faults.delete_queue("q")
        await until(lambda: broker.consumers())
        await channel.default_exchange.publish(message(b"revived"), "q")
        assert await bodies.get() == b"revived"
        await channel.queue_delete("q")
        assert broker.consumers() == []
        await connection.close()

    run(scenario())


def test_consumers_of_before_and_after_a_loss_live_side_by_side(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        queue = await channel.declare_queue("q", durable=True)
        tags = [await queue.consume(print)]
        for _ in range(2):
            await lost(connection, broker)
            tags.append(await queue.consume(print))
        assert {one.tag for one in broker.consumers()} == set(tags)
        assert len(set(tags)) == 3
        await connection.close()

    run(scenario())


def test_iterator_goes_on_over_a_loss(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        queue = await channel.declare_queue("q", durable=True)
        seen: set[bytes] = set()

        async def read() -> None:
            async with queue.iterator() as iterator:
                async for incoming in iterator:
                    await incoming.ack()  # which may be lost, and then it comes again
                    seen.add(incoming.body)
                    if len(seen) == 6:
                        return

        reader = asyncio.create_task(read())
        for number in range(6):
            body = str(number).encode()
            await channel.default_exchange.publish(message(body, delivery_mode=2), "q")
            await until(lambda body=body: body in seen)  # type: ignore[misc]
            if number % 2:
                await lost(connection, broker)
        await reader
        await connection.close()

    run(scenario())


def test_direct_reply_to_is_answered_on_the_channel_that_asked(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect_robust(broker.url)
        channel = await connection.channel()
        server = await channel.declare_queue("server", durable=True)

        async def answer(incoming: aio_pika.IncomingMessage) -> None:
            async with incoming.process():
                assert incoming.reply_to is not None
                await channel.default_exchange.publish(message(b"answer"), incoming.reply_to)

        await server.consume(answer)
        answers = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        came: asyncio.Queue[bytes] = asyncio.Queue()
        await answers.consume(lambda incoming: came.put_nowait(incoming.body), no_ack=True)
        question = message(b"question", reply_to="amq.rabbitmq.reply-to")
        await channel.default_exchange.publish(question, "server")
        assert await came.get() == b"answer"
        await connection.close()

    run(scenario())


def test_renewed_secret_is_used_by_the_next_connection(broker: Broker) -> None:
    async def scenario() -> None:
        broker.add_user("renewing", "old", "/")
        url = broker.url_of("/", "renewing").replace("renewing:guest", "renewing:old")
        connection = await aio_pika.connect_robust(url)
        await connection.update_secret("new", reason="renewed")
        broker.delete_user("renewing")
        broker.add_user("renewing", "new", "/")
        if connection.connected.is_set():
            await lost(connection, broker)
        await connection.connected.wait()
        await connection.close()

    run(scenario())


@pytest.mark.rabbitmq
@pytest.mark.slow
def test_killed_broker_costs_no_message(rabbit: RabbitNode) -> None:
    """EVAMQP_KILLS=20 is the whole."""
    kills = int(os.environ.get("EVAMQP_KILLS", "1"))
    vhost = VhostPool(rabbit, "robust").take()
    count = 2000 * kills
    with start("facade", vhost.url, "robust", str(count)) as program:
        for number in range(kills):
            # Well under way each time; the program prints after each hundred.
            program.until(lambda number=number: program.count("seen") >= 1000 * (number + 1))  # type: ignore[misc]
            rabbit.kill()
            rabbit.start()
        deadline = time.monotonic() + 60 * kills
        program.until_said("published=")
        totals = program.end()
        assert time.monotonic() < deadline
    assert (totals["seen"], totals["failed"], totals["missing"]) == (count, 0, 0)
