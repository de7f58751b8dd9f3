"""RpcClient and RpcServer: every call has one end, whatever happens to connection and server."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import evamqp
from evamqp import (
    BadArgument,
    BadType,
    ChannelClosed,
    ConnectionClosed,
    OutputFull,
    Properties,
    RequestCancelled,
    RequestTimeout,
    RpcClient,
    RpcError,
    RpcReply,
    RpcServer,
    Topology,
    WrongState,
)
from evamqp.adapters.memory import MemoryAdapter
from evamqp.rpc import REPLY_DELAY, STARTING
from evamqp.testing.broker.broker import Broker
from evamqp.testing.broker.release import RELEASES
from evamqp.testing.fixtures import MemoryBroker


def rpc_queue() -> Topology:
    topology = Topology()
    topology.queue("rpc", durable=True)
    return topology


def upper(message: evamqp.Message) -> bytes:
    return message.body.upper()


class Bench:
    """A broker in virtual time, with a client and servers on it."""

    def __init__(self, memory: MemoryBroker) -> None:
        self.memory = memory
        self.adapter = memory.adapter
        self.broker = memory.broker
        self.handled: list[bytes] = []

    def client(self, **options: Any) -> RpcClient:
        options.setdefault("topology", rpc_queue())
        return RpcClient(self.memory.url, adapter=self.adapter, **options)

    def server(self, handler: Any = upper, **options: Any) -> RpcServer:
        def handle(message: evamqp.Message) -> object:
            self.handled.append(message.body)
            return handler(message)

        options.setdefault("topology", rpc_queue())
        return RpcServer(self.memory.url, "rpc", handle, adapter=self.adapter, **options)

    def run(self, awaitable: Any) -> Any:
        return self.adapter.run_until(awaitable)


@pytest.fixture
def bench(amqp_memory: MemoryBroker) -> Bench:
    return Bench(amqp_memory)


def test_call_gets_the_reply_of_its_own(bench: Bench) -> None:
    client = bench.client()
    bench.server()
    calls = [client.call("rpc", b"call %d" % number) for number in range(20)]
    assert [bench.run(call).body for call in calls] == [b"CALL %d" % n for n in range(20)]
    assert client.pending == 0


def test_handler_may_answer_later_and_out_of_order(bench: Bench) -> None:
    async def answer(message: evamqp.Message) -> bytes:
        promise = bench.adapter.create_future()
        bench.adapter.call_later(3.0 - len(message.body), lambda: promise.resolve(None))
        await promise.future
        return message.body

    client = bench.client()
    bench.server(answer)
    slow = client.call("rpc", b"a")
    fast = client.call("rpc", b"ab")
    assert bench.run(fast).body == b"ab"
    assert not slow.is_done
    assert bench.run(slow).body == b"a"


def test_reply_has_the_properties_that_the_handler_gave(bench: Bench) -> None:
    client = bench.client()
    bench.server(lambda message: RpcReply(b"{}", Properties(content_type="application/json")))
    reply = bench.run(client.call("rpc", b""))
    assert reply.properties.content_type == "application/json"
    assert bench.run(client.call("rpc", b"")).body == b"{}"


def test_none_is_an_empty_reply(bench: Bench) -> None:
    client = bench.client()
    bench.server(lambda message: None)
    assert bench.run(client.call("rpc", b"")).body == b""


def test_rpc_error_of_the_handler_reaches_the_caller_with_kind_and_text(bench: Bench) -> None:
    def refuse(message: evamqp.Message) -> bytes:
        raise RpcError("no such order", "not-found")

    client = bench.client()
    bench.server(refuse)
    with pytest.raises(RpcError, match="not-found: no such order") as caught:
        bench.run(client.call("rpc", b""))
    assert (caught.value.kind, caught.value.text) == ("not-found", "no such order")


@pytest.mark.parametrize("later", [False, True])
def test_other_errors_report_the_caller_their_type_and_no_more(
    bench: Bench, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: evamqp.Message) -> object:
        raise LookupError("password hunter2")

    async def fail_later(message: evamqp.Message) -> object:
        return fail(message)

    client = bench.client()
    bench.server(fail_later if later else fail)
    with pytest.raises(RpcError) as caught:
        bench.run(client.call("rpc", b""))
    assert caught.value.kind == "LookupError"
    assert "hunter2" not in str(caught.value)
    assert "hunter2" in caplog.text


def test_result_that_is_no_body_is_an_error_of_the_server(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = bench.client()
    bench.server(lambda message: 7)
    with pytest.raises(RpcError, match="BadType"):
        bench.run(client.call("rpc", b""))
    assert "raised" in caplog.text


def test_call_that_no_queue_takes_fails_at_once(bench: Bench) -> None:
    client = bench.client()
    with pytest.raises(RpcError, match=r"unroutable: NO_ROUTE.*'nowhere'"):
        bench.run(client.call("nowhere", b""))
    assert bench.adapter.time() < 1.0
    assert client.pending == 0


def test_call_without_a_server_ends_by_its_timeout(bench: Bench) -> None:
    client = bench.client(timeout=7.0)
    with pytest.raises(RequestTimeout, match="no reply in 7 seconds"):
        bench.run(client.call("rpc", b""))
    with pytest.raises(RequestTimeout, match="no reply in 2 seconds"):
        bench.run(client.call("rpc", b"", timeout=2.0))


def test_expired_call_is_never_handled(bench: Bench) -> None:
    client = bench.client(timeout=1.0)
    with pytest.raises(RequestTimeout):
        bench.run(client.call("rpc", b"too late"))
    bench.server()
    assert bench.run(client.call("rpc", b"in time")).body == b"IN TIME"
    assert bench.handled == [b"in time"]


def test_call_survives_a_restart_of_the_broker(bench: Bench) -> None:
    client = bench.client(timeout=300.0)
    first = client.call("rpc", b"before")  # no server yet
    bench.adapter.run_until_idle()
    bench.broker.faults.restart(down=20.0)
    bench.adapter.advance(1.0)
    second = client.call("rpc", b"meanwhile")
    bench.server()
    assert bench.run(first).body == b"BEFORE"
    assert bench.run(second).body == b"MEANWHILE"


def test_call_that_must_not_be_resent_fails_with_the_loss(bench: Bench) -> None:
    client = bench.client(timeout=300.0)
    once = client.call("rpc", b"once", resend=False)
    again = client.call("rpc", b"again")
    bench.adapter.run_until_idle()
    bench.broker.faults.restart(down=5.0)
    with pytest.raises((ConnectionClosed, ChannelClosed)):
        bench.run(once)
    unsent = client.call("rpc", b"unsent", resend=False)
    bench.server()
    assert bench.run(again).body == b"AGAIN"
    assert bench.run(unsent).body == b"UNSENT"


def test_call_that_the_broker_refuses_fails_alone(bench: Bench) -> None:
    client = bench.client()
    bench.server()
    refused = Properties(user_id="somebody-else")
    calls = [client.call("rpc", b"%d" % n, refused if n == 3 else None) for n in range(6)]
    with pytest.raises(ChannelClosed, match="user_id"):
        bench.run(calls[3])
    others = [bench.run(call).body for call in calls if call is not calls[3]]
    assert others == [b"0", b"1", b"2", b"4", b"5"]


def test_cancelled_call_drops_its_reply(bench: Bench) -> None:
    client = bench.client()
    bench.server()
    call = client.call("rpc", b"")
    bench.adapter.run_until_idle()
    again = client.call("rpc", b"x")
    again.cancel()
    with pytest.raises(RequestCancelled):
        bench.run(again)
    assert bench.run(call).body == b""
    bench.adapter.advance(1.0)
    assert client.pending == 0
    assert client.late_replies == 1


def test_calls_are_bounded(bench: Bench) -> None:
    client = bench.client(max_calls=2)
    client.call("rpc", b"")
    client.call("rpc", b"")
    with pytest.raises(OutputFull, match="2 calls"):
        client.call("rpc", b"")
    assert client.pending == 2


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("rpc", "text"), {}, BadType),
        ((7, b""), {}, BadType),
        (("k" * 256, b""), {}, BadArgument),
        (("rpc", b""), {"timeout": 0}, BadArgument),
        (("rpc", b""), {"timeout": "1"}, BadType),
        (("rpc", b""), {"callback": 7}, BadType),
        (("rpc", b""), {"properties": {}}, BadType),
    ],
)
def test_what_cannot_be_sent_is_refused_and_nothing_is_taken(
    bench: Bench, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    client = bench.client()
    with pytest.raises(error):
        client.call(*arguments, **options)
    assert client.pending == 0


def test_callbacks_come_in_place_of_awaiting(bench: Bench) -> None:
    replies: list[bytes] = []
    errors: list[Exception] = []
    client = bench.client()
    bench.server()
    client.call("rpc", b"a", callback=lambda reply: replies.append(reply.body))
    client.call("nowhere", b"a", on_error=errors.append)
    bench.adapter.advance(1.0)
    assert replies == [b"A"]
    assert [type(error) for error in errors] == [RpcError]


def test_close_waits_for_the_replies(bench: Bench) -> None:
    client = bench.client()
    call = client.call("rpc", b"last")
    closing = client.close()
    with pytest.raises(WrongState):
        client.call("rpc", b"")
    bench.server()
    assert bench.run(closing) == 0
    assert bench.run(call).body == b"LAST"


def test_a_bad_timeout_of_a_servers_close_is_refused_and_the_server_goes_on(bench: Bench) -> None:
    server, client = bench.server(), bench.client()
    with pytest.raises(BadType):
        server.close("soon")  # type: ignore[arg-type]
    assert bench.run(client.call("rpc", b"on")).body == b"ON"
    assert bench.run(server.close(1.0)) == 0
    assert bench.run(server.close()) == 0


def test_close_with_a_timeout_fails_what_is_left(bench: Bench) -> None:
    client = bench.client()
    call = client.call("rpc", b"")
    assert bench.run(client.close(timeout=2.0)) == 1
    with pytest.raises(WrongState, match="closed"):
        bench.run(call)


def test_closing_a_server_lets_it_answer_and_takes_nothing_new(bench: Bench) -> None:
    async def slowly(message: evamqp.Message) -> bytes:
        promise = bench.adapter.create_future()
        bench.adapter.call_later(5.0, lambda: promise.resolve(None))
        await promise.future
        return message.body

    client = bench.client()
    server = bench.server(slowly, concurrency=1)
    first = client.call("rpc", b"1")
    second = client.call("rpc", b"2")
    bench.adapter.advance(1.0)
    assert server.at_work == 1
    assert bench.run(server.close()) == 0
    assert bench.run(first).body == b"1"
    assert bench.handled == [b"1"]
    bench.server()
    assert bench.run(second).body == b"2"


def test_call_of_a_server_that_is_closed_amid_work_goes_to_another(bench: Bench) -> None:
    async def never(message: evamqp.Message) -> bytes:
        await bench.adapter.create_future().future
        return b""

    client = bench.client()
    server = bench.server(never)
    call = client.call("rpc", b"work")
    bench.adapter.advance(1.0)
    assert bench.run(server.close(timeout=2.0)) == 1
    bench.server()
    assert bench.run(call).body == b"WORK"
    assert bench.handled == [b"work", b"work"]


@pytest.fixture(params=RELEASES)
def bench_of_release(request: pytest.FixtureRequest) -> Iterator[Bench]:
    adapter = MemoryAdapter()
    with Broker(adapter, release=request.param) as broker:
        broker.listen()
        yield Bench(MemoryBroker(adapter, broker))


def test_reply_is_sent_once_whatever_is_returned(bench_of_release: Bench) -> None:
    """RabbitMQ up to 4.0 returns every reply, and 4.3 none."""
    bench = bench_of_release
    bench.server(concurrency=1)
    client = bench.client()
    assert bench.run(client.call("rpc", b"first")).body == b"FIRST"
    start = bench.adapter.time()
    calls = [client.call("rpc", b"%d" % number) for number in range(50)]
    assert [bench.run(call).body for call in calls] == [b"%d" % n for n in range(50)]
    assert bench.adapter.time() - start < REPLY_DELAY
    bench.adapter.advance(2 * STARTING)
    assert client.late_replies == 0


@pytest.mark.parametrize("bench_of_release", ["4.0", "4.3"], indirect=True)
def test_reply_waits_while_a_starting_broker_does_not_know_the_caller(
    bench_of_release: Bench,
) -> None:
    """RabbitMQ 4.0 loses replies for some tenths of a second."""
    bench = bench_of_release
    (vhost,) = bench.broker.virtual_hosts.values()
    known = vhost.reply_channels

    def answer(message: evamqp.Message) -> bytes:
        hidden = dict(known)
        known.clear()
        bench.adapter.call_later(2 * REPLY_DELAY, lambda: known.update(hidden))
        return upper(message)

    server = bench.server(answer)
    assert bench.run(bench.client().call("rpc", b"x", timeout=5)).body == b"X"
    bench.adapter.advance(STARTING)
    assert (bench.handled, server.answered) == ([b"x"], 1)


@pytest.mark.parametrize("bench_of_release", ["4.0"], indirect=True)
def test_caller_that_is_gone_keeps_its_call_for_the_time_of_a_start(
    bench_of_release: Bench,
) -> None:
    bench = bench_of_release
    client = bench.client()
    client.call("rpc", b"gone")
    bench.adapter.advance(1.0)
    bench.run(client.close(timeout=0))
    server = bench.server()
    bench.adapter.advance(STARTING - REPLY_DELAY)
    assert (bench.handled, server.answered) == ([b"gone"], 0)
    bench.adapter.advance(2 * REPLY_DELAY)
    assert server.answered == 1
    assert bench.broker.queue("rpc").bodies == ()


def test_reply_to_a_queue_that_comes_late_is_sent_again(bench: Bench) -> None:
    bench.server()
    publisher = evamqp.Publisher(bench.memory.url, adapter=bench.adapter)
    bench.run(publisher.publish("", "rpc", b"x", Properties(reply_to="answers")))
    bench.adapter.advance(2 * REPLY_DELAY)
    connection = evamqp.connect(bench.memory.url, adapter=bench.adapter)
    bench.run(connection.wait_open())
    channel = connection.channel()
    bench.run(channel.queue_declare("answers", exclusive=True))
    bench.adapter.advance(STARTING)
    assert bench.broker.queue("answers").bodies == (b"X",)


def test_caller_that_is_gone_harms_no_server(bench: Bench) -> None:
    async def slowly(message: evamqp.Message) -> bytes:
        promise = bench.adapter.create_future()
        bench.adapter.call_later(5.0, lambda: promise.resolve(None))
        await promise.future
        return message.body

    client = bench.client()
    server = bench.server(slowly)
    client.call("rpc", b"gone")
    bench.adapter.advance(1.0)
    bench.run(client.close(timeout=0))
    bench.adapter.advance(10.0)
    assert server.answered == 1
    assert bench.broker.queue("rpc").bodies == ()


def test_client_and_server_may_share_a_reconnector(bench: Bench) -> None:
    reconnector = evamqp.Reconnector(bench.memory.url, adapter=bench.adapter)
    client = RpcClient(reconnector, topology=rpc_queue())
    server = RpcServer(reconnector, "rpc", upper, topology=rpc_queue())
    assert bench.run(client.call("rpc", b"x")).body == b"X"
    assert len(bench.broker.connections()) == 1
    bench.run(client.close())
    bench.run(server.close())
    assert len(bench.broker.connections()) == 1
    bench.run(reconnector.close())


def test_closed_client_and_server_leave_nothing(bench: Bench) -> None:
    client, server = bench.client(), bench.server()
    bench.run(client.call("rpc", b"x"))
    bench.run(client.close())
    bench.run(server.close())
    left: list[weakref.ref[object]] = [weakref.ref(client), weakref.ref(server)]
    del client, server
    bench.adapter.advance(100.0)
    gc.collect()
    assert [ref() for ref in left] == [None, None]
    assert bench.broker.connections() == []
