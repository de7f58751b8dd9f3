"""aioamqp's names, results and exceptions on evamqp, on the embedded broker and on RabbitMQ."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from evamqp.compat import aioamqp
from evamqp.compat.aioamqp import protocol as states
from evamqp.compat.aioamqp.channel import Channel
from evamqp.testing import Broker
from tests.compat.asyncio_rig import run
from tests.support.broker_url import BROKERS

everywhere = pytest.mark.parametrize("url", BROKERS, indirect=True)
embedded = pytest.mark.parametrize("url", ["embedded"], indirect=True)

Body = Callable[[Channel], Awaitable[None]]


async def forever(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        await call()


def with_channel(url: str, body: Body, **options: Any) -> None:
    """Run ``body`` on a channel of a connection that is closed afterwards."""

    async def scenario() -> None:
        _, protocol = await aioamqp.from_url(url, **options)
        await body(await protocol.channel())
        await protocol.close()

    run(scenario())


@everywhere
def test_requests_answer_as_dicts_and_true(url: str) -> None:
    async def body(channel: Channel) -> None:
        declared = await channel.queue_declare("q", durable=True)
        assert declared == {"queue": "q", "message_count": 0, "consumer_count": 0}
        assert await channel.exchange_declare("e", "fanout") is True
        assert await channel.exchange("e", type_name="fanout") is True
        assert await channel.exchange_declare("f", "fanout", auto_delete=True) is True
        assert await channel.queue_bind("q", "e", "") is True
        assert await channel.exchange_bind("f", "e", "") is True
        assert await channel.exchange_unbind("f", "e", "") is True
        assert await channel.basic_qos(0, 5) is True
        await channel.basic_publish("text", "e", "")
        await channel.publish(b"bytes", "e", "")
        passive = await channel.queue("q", passive=True)
        assert passive is not None
        assert await channel.queue_purge("q") == {"message_count": 2}
        assert await channel.queue_unbind("q", "e", "") is True
        assert await channel.queue_delete("q") is True
        assert await channel.exchange_delete("e", if_unused=True) is True
        assert await channel.exchange_declare("g", "direct", no_wait=True) is None
        assert await channel.exchange_declare("g", "direct", passive=True) is True
        assert await channel.flow(True) == {"active": True}
        assert await channel.close() is True

    with_channel(url, body)


@everywhere
def test_broker_names_a_queue(url: str) -> None:
    async def body(channel: Channel) -> None:
        first, second = (
            await channel.queue_declare(exclusive=True),
            await channel.queue_declare("", exclusive=True),
        )
        assert first is not None
        assert second is not None
        assert first["queue"] != second["queue"]

    with_channel(url, body)


@everywhere
def test_get_tells_all_of_a_message(url: str) -> None:
    async def body(channel: Channel) -> None:
        await channel.queue_declare("q", durable=True)
        sent = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)
        properties = {
            "content_type": "text/plain", "headers": {"a": 1}, "delivery_mode": 2, "priority": 3,
            "correlation_id": "c", "reply_to": "r", "expiration": "60000", "message_id": "m",
            "timestamp": sent.replace(tzinfo=None), "message_type": "t", "app_id": "app",
        }  # fmt: skip
        await channel.confirm_select()  # a get may overtake a publish that is not confirmed
        for _ in range(2):
            await channel.publish(b"body", "", "q", properties=properties)
        got = await channel.basic_get("q")
        assert (got["message"], got["exchange_name"], got["routing_key"]) == (b"body", "", "q")
        assert (got["redelivered"], got["message_count"]) == (False, 1)
        for name, value in properties.items():
            expected = sent if name == "timestamp" else value
            assert getattr(got["properties"], name) == expected
        got["properties"].headers["b"] = 2  # a dict of the program's own, as in aioamqp
        assert got["properties"].headers == {"a": 1, "b": 2}
        assert got["properties"].type == "t"
        assert got["properties"].user_id is None
        await channel.basic_client_ack(got["delivery_tag"])
        assert (await channel.basic_get("q", no_ack=True))["message_count"] == 0
        with pytest.raises(aioamqp.EmptyQueue):
            await channel.basic_get("q")

    with_channel(url, body)


@everywhere
@pytest.mark.parametrize("kind", ["coroutine", "function", "older"])
def test_consumer_gets_messages_in_order_one_at_a_time(url: str, kind: str) -> None:
    async def body(channel: Channel) -> None:
        seen: list[tuple[bytes, str, bool]] = []
        running = 0
        done = asyncio.Event()

        def take(body: bytes, envelope: Any, properties: Any) -> None:
            assert properties.headers is None
            assert envelope.consumer_tag == "tag"
            assert envelope.delivery_tag == len(seen) + 1
            assert envelope.exchange_name == ""
            seen.append((body, envelope.routing_key, envelope.is_redeliver))
            if len(seen) == 20:
                done.set()

        async def coroutine(of: Channel, body: bytes, envelope: Any, properties: Any) -> None:
            nonlocal running
            assert of is channel
            running += 1
            await asyncio.sleep(0)
            # A request within the callback is answered.
            await of.queue_declare("q", passive=True)
            assert running == 1
            running -= 1
            take(body, envelope, properties)

        def function(of: Channel, body: bytes, envelope: Any, properties: Any) -> None:
            take(body, envelope, properties)

        async def older(body: bytes, envelope: Any, properties: Any) -> None:
            take(body, envelope, properties)

        kinds: dict[str, Any] = {"coroutine": coroutine, "function": function, "older": older}
        await channel.queue_declare("q", durable=True)
        for number in range(20):
            await channel.basic_publish(str(number), "", "q")
        started = await channel.basic_consume(
            kinds[kind], queue_name="q", no_ack=True, consumer_tag="tag"
        )
        assert started == {"consumer_tag": "tag"}
        await done.wait()
        assert seen == [(str(number).encode(), "q", False) for number in range(20)]
        with pytest.raises(aioamqp.DuplicateConsumerTag):
            await channel.basic_consume(print, "q", consumer_tag="tag")
        assert await channel.basic_cancel("tag") == {"consumer_tag": "tag"}

    with_channel(url, body)


@embedded
def test_callback_that_raises_is_logged_and_the_next_message_comes(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(channel: Channel) -> None:
        done = asyncio.Event()

        async def take(of: Channel, body: bytes, envelope: Any, properties: Any) -> None:
            if body == b"bad":
                raise LookupError("bad")
            done.set()

        await channel.queue_declare("q", durable=True)
        await channel.basic_consume(take, "q", no_ack=True)
        await channel.basic_publish("bad", "", "q")
        await channel.basic_publish("good", "", "q")
        await done.wait()

    with_channel(url, body)
    assert "LookupError: bad" in caplog.text


@everywhere
def test_channel_that_the_broker_closes_tells_its_code(url: str) -> None:
    async def scenario() -> None:
        _, protocol = await aioamqp.from_url(url)
        channel = await protocol.channel()
        with pytest.raises(aioamqp.ChannelClosed) as caught:
            await channel.queue_declare("missing", passive=True)
        assert caught.value.code == 404
        assert not channel.is_open
        for call in (channel.queue_declare("q", durable=True), channel.basic_publish(b"", "", "q"),
                     channel.basic_client_ack(1), channel.close()):  # fmt: skip
            with pytest.raises(aioamqp.ChannelClosed):
                await call
        assert (await protocol.channel()).is_open
        await protocol.close()

    run(scenario())


@everywhere
def test_publish_after_confirm_select_waits_for_its_confirm(url: str) -> None:
    async def body(channel: Channel) -> None:
        await channel.queue_declare(
            "q", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        assert await channel.confirm_select() is True
        with pytest.raises(ValueError, match="already"):
            await channel.confirm_select()
        await channel.publish(b"first", "", "q")
        with pytest.raises(aioamqp.PublishFailed) as caught:
            await channel.publish(b"second", "", "q")
        assert caught.value.delivery_tag == 2
        assert (await channel.basic_get("q", no_ack=True))["message"] == b"first"
        publishes = [channel.publish(b"", "amq.fanout", str(number)) for number in range(50)]
        await asyncio.gather(*publishes)

    with_channel(url, body)


@everywhere
def test_returned_message_goes_to_the_return_callback(url: str) -> None:
    async def scenario() -> None:
        came: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()

        async def back(*arguments: Any) -> None:
            came.set_result(arguments)

        _, protocol = await aioamqp.from_url(url)
        channel = await protocol.channel(return_callback=back)
        await channel.basic_publish("lost", "", "nowhere", {"type": "t"}, mandatory=True)
        of, body, envelope, properties = await came
        assert (of, body, properties.type) == (channel, b"lost", "t")
        assert (envelope.reply_code, envelope.reply_text) == (312, "NO_ROUTE")
        assert (envelope.exchange_name, envelope.routing_key) == ("", "nowhere")
        await protocol.close()

    run(scenario())


@everywhere
def test_cancel_by_the_broker_calls_the_cancellation_callbacks(url: str) -> None:
    async def body(channel: Channel) -> None:
        told: list[tuple[Channel, str]] = []
        both = asyncio.Event()

        def plain(of: Channel, tag: str) -> None:
            told.append((of, tag))

        async def coroutine(of: Channel, tag: str) -> None:
            plain(of, tag)
            both.set()

        await channel.queue_declare("q", durable=True)
        channel.add_cancellation_callback(plain)
        channel.add_cancellation_callback(coroutine)
        await channel.basic_consume(print, "q", consumer_tag="tag")
        await channel.queue_delete("q")
        await both.wait()
        assert told == [(channel, "tag")] * 2
        assert channel.cancelled_consumers == {"tag"}

    with_channel(url, body)


@everywhere
def test_what_is_rejected_or_nacked_comes_again(url: str) -> None:
    async def body(channel: Channel) -> None:
        await channel.queue_declare("q", durable=True)
        await channel.basic_publish("m", "", "q")
        for settle in (channel.basic_client_nack, channel.basic_reject):
            got = await channel.basic_get("q")
            await settle(got["delivery_tag"], requeue=True)
        got = await channel.basic_get("q")
        assert got["redelivered"]
        assert await channel.basic_recover() is True
        await channel.basic_reject((await channel.basic_get("q"))["delivery_tag"])
        with pytest.raises(aioamqp.EmptyQueue):
            await channel.basic_get("q")

    with_channel(url, body)


def test_end_of_the_connection_is_told_once() -> None:
    told: list[Exception] = []
    lost: list[Exception | None] = []

    class Mine(aioamqp.AmqpProtocol):
        class CHANNEL_FACTORY(Channel):
            def connection_closed(self, *arguments: Any, **named: Any) -> None:
                told.append(LookupError("the channel"))
                super().connection_closed(*arguments, **named)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)
            super().connection_lost(exc)

    async def on_error(error: Exception) -> None:
        told.append(error)

    async def scenario(broker: Broker) -> None:
        transport, protocol = await aioamqp.from_url(
            broker.url, protocol_factory=Mine, on_error=on_error, heartbeat=7
        )
        assert isinstance(protocol, Mine)
        assert (protocol.state, protocol.server_heartbeat) == (states.OPEN, 7)
        channel = await protocol.channel()
        assert isinstance(channel, Mine.CHANNEL_FACTORY)
        await channel.queue_declare("q", durable=True)
        waits = asyncio.ensure_future(channel.basic_get("q"))
        await asyncio.sleep(0)
        broker.faults.drop_connections()
        await asyncio.gather(waits, return_exceptions=True)
        with pytest.raises(aioamqp.AmqpClosedConnection):
            await forever(channel.queue_declare)
        await protocol.wait_closed(5)
        assert protocol.state == states.CLOSED
        with pytest.raises(aioamqp.AmqpClosedConnection):
            await protocol.close()
        with pytest.raises(aioamqp.AmqpClosedConnection):
            await protocol.channel()
        transport.close()

    with Broker().serve() as broker:
        run(scenario(broker))
    assert [type(error) for error in told] == [LookupError, aioamqp.AmqpClosedConnection]
    assert [type(error) for error in lost] == [aioamqp.AmqpClosedConnection]


def test_connections_that_cannot_be_made() -> None:
    async def scenario(broker: Broker) -> None:
        with pytest.raises(aioamqp.AmqpClosedConnection):
            await aioamqp.connect("127.0.0.1", broker.port, password="wrong")
        with pytest.raises(aioamqp.AmqpClosedConnection):
            await aioamqp.connect("127.0.0.1", broker.port, virtualhost="missing")
        with pytest.raises(OSError, match=r"refused|failed"):
            await aioamqp.connect("127.0.0.1", unheard)
        with pytest.raises(socket.gaierror):
            await aioamqp.connect("no-such-host.invalid")
        with pytest.raises(ValueError, match="http"):
            await aioamqp.from_url("http://localhost")

    with Broker().serve() as broker, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        unheard = holder.getsockname()[1]
        run(scenario(broker))


@embedded
def test_what_no_broker_implements_is_refused_and_the_channel_lives(url: str) -> None:
    async def body(channel: Channel) -> None:
        with pytest.raises(aioamqp.AioamqpException, match="prefetch_size"):
            await channel.basic_qos(prefetch_size=1)
        with pytest.raises(aioamqp.AioamqpException, match="immediate"):
            await channel.basic_publish(b"", "", "q", immediate=True)
        with pytest.raises(ValueError, match="bytes"):
            await channel.basic_publish(1, "", "q")  # type: ignore[arg-type]
        assert channel.is_open

    with_channel(url, body)


@embedded
def test_cancelled_await_leaves_the_channel_usable(url: str) -> None:
    async def body(channel: Channel) -> None:
        await channel.queue_declare("q", durable=True)
        await channel.queue_declare("one", durable=True)
        await channel.basic_publish("m", "", "one")
        await channel.confirm_select()

        def calls() -> list[Any]:
            return [
                channel.basic_get("one"),
                channel.queue_declare("q", durable=True),
                channel.basic_publish(b"m", "", "q"),
                channel.basic_consume(print, "q"),
                channel.basic_qos(0, 1),
                channel.protocol.channel(),
            ]

        for turns in range(6):
            for call in calls():
                task = asyncio.ensure_future(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                result: Any = (await asyncio.gather(task, return_exceptions=True))[0]
                if isinstance(result, dict) and "message" in result:  # done before the cancel
                    await channel.basic_client_nack(result["delivery_tag"])
                elif isinstance(result, dict) and "consumer_tag" in result:
                    await channel.basic_cancel(result["consumer_tag"])
        declared = await channel.queue_declare("q", passive=True)
        assert declared is not None
        assert declared["consumer_count"] == 0
        assert (await channel.basic_get("one"))["message"] == b"m"
        await channel.publish(b"m", "", "q")

    with_channel(url, body)


@embedded
@pytest.mark.parametrize("asks", [False, True])
def test_flood_without_acks_does_not_pile_up(
    url: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "BACKLOG", 20_000)

    async def body(channel: Channel) -> None:
        count = 0
        highest = 0
        done = asyncio.Event()

        async def take(of: Channel, body: bytes, envelope: Any, properties: Any) -> None:
            nonlocal count, highest
            highest = max(highest, of.protocol._backlog)
            await asyncio.sleep(0)
            if asks and not count % 100:  # the answer comes behind what waits already
                await of.queue_declare("q", passive=True)
            count += 1
            if count == 2000:
                done.set()

        await channel.queue_declare("q", durable=True)
        for _ in range(2000):
            await channel.basic_publish(bytes(1000), "", "q")
        await channel.basic_consume(take, "q", no_ack=True)
        await done.wait()
        assert asks or highest < 2_000_000

    with_channel(url, body)
