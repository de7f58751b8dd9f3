"""kombu's transport interface: each name that kombu and Celery use, and what it does or raises.

The names are those of kombu.transport.base and of py-amqp's channel, which kombu's entities call.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import amqp.exceptions as kinds
import kombu
import pytest
from kombu.transport import base, pyamqp

from evamqp.integrations.kombu import Channel, Message, TlsTransport, Transport
from evamqp.testing.fixtures import ServedVhost

TIMEOUT = 10.0
#: What only py-amqp's own code calls.
INTERNAL = {
    "Message",
    "auto_decode",
    "basic_recover_async",
    "channel_id",
    "connection",
    "dispatch_method",
    "is_closing",
    "method_queue",
    "open",
    "send_method",
    "then",
    "wait",
}
VERBS = sorted(
    name for name in dir(pyamqp.Channel) if not name.startswith("_") and name not in INTERNAL
)


@pytest.fixture
def connection(amqp_broker: ServedVhost) -> Iterator[kombu.Connection]:
    with kombu.Connection(amqp_broker.url.replace("amqp", "evamqp", 1)) as connection:
        yield connection


@pytest.fixture
def channel(connection: kombu.Connection) -> Any:
    return connection.channel()


def names_of(function: Callable[..., object]) -> list[str]:
    """The parameters that a caller may give by place or name."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind not in open_ended]


class TestNames:
    @pytest.mark.parametrize("name", [name for name in VERBS if name != "basic_publish_confirm"])
    def test_verb_takes_what_pyamqps_takes(self, name: str) -> None:
        theirs, ours = getattr(pyamqp.Channel, name), getattr(Channel, name)
        if callable(theirs):
            internal = {"argsig", "_Message", "reply_code", "reply_text", "method_sig"}
            expected = [each for each in names_of(theirs) if each not in internal]
            assert names_of(ours)[: len(expected)] == expected

    @pytest.mark.parametrize(
        "name", sorted(name for name in dir(base.Transport) if not name.startswith("_"))
    )
    def test_transport_has_what_the_base_class_documents(self, name: str) -> None:
        theirs, ours = getattr(base.Transport, name), getattr(Transport, name)
        source = inspect.getsource(theirs) if inspect.isfunction(theirs) else ""
        if "_LeftBlank" in source:
            assert ours is not theirs

    def test_one_import_makes_the_schemes_known(self) -> None:
        program = (
            "import kombu\n"
            "try:\n"
            "    kombu.Connection('evamqp://').transport\n"
            "except KeyError:\n"
            "    print('unknown')\n"
            "import evamqp.integrations.kombu\n"
            "print(kombu.Connection('evamqp://').transport_cls)\n"
            "for scheme in ('evamqp', 'evamqps'):\n"
            "    print(type(kombu.Connection(scheme + '://').transport).__name__)\n"
        )
        assert run(program) == ["unknown", "evamqp", "Transport", "TlsTransport"]

    def test_the_class_by_its_path_needs_no_import(self) -> None:
        program = (
            "import sys, kombu\n"
            "name = 'evamqp.integrations.kombu:Transport'\n"
            "connection = kombu.Connection('amqp://a:b@c:1/d', transport=name)\n"
            "print(connection.transport.driver_name, connection.host, connection.virtual_host)\n"
        )
        assert run(program) == ["evamqp c:1 d"]

    def test_capabilities(self) -> None:
        assert Transport.implements.asynchronous
        assert Transport.implements.heartbeats
        assert not Transport.implements.batch_publish
        assert Transport.implements.exchange_type == {"direct", "topic", "fanout", "headers"}
        for each in (Transport, TlsTransport):
            assert (each.default_port, each.default_ssl_port) == (5672, 5671)
            assert each.recoverable_connection_errors
            assert set(each.connection_errors) >= {kinds.ConnectionError, OSError}


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


class TestVerbs:
    def test_exchanges(self, channel: Any) -> None:
        channel.exchange_declare("from", "fanout", durable=True, auto_delete=False)
        channel.exchange_declare("to", "topic", nowait=True)
        channel.exchange_declare("from", "fanout", passive=True)
        channel.exchange_bind("to", "from", "k", arguments={"a": 1})
        channel.queue_declare("q")
        channel.queue_bind("q", "to", "#")
        channel.basic_publish(channel.prepare_message("1"), "from", "k")
        channel.exchange_unbind("to", "from", "k", arguments={"a": 1})
        channel.basic_publish(channel.prepare_message("2"), "from", "k")
        assert channel.queue_purge("q") == 1
        channel.exchange_delete("from")
        channel.exchange_delete("to", nowait=True)
        with pytest.raises(kinds.NotFound):
            channel.exchange_declare("from", "fanout", passive=True)

    def test_queues(self, channel: Any) -> None:
        name, messages, consumers = channel.queue_declare(exclusive=True)
        assert name.startswith("amq.gen")
        assert (messages, consumers) == (0, 0)
        assert channel.queue_declare("q", durable=True, auto_delete=False, nowait=True) is None
        channel.queue_bind("q", "amq.direct", "k", arguments={})
        channel.basic_publish(channel.prepare_message("1"), "amq.direct", "k")
        channel.queue_unbind("q", "amq.direct", "k", arguments={})
        channel.basic_publish(channel.prepare_message("2"), "amq.direct", "k")
        assert channel.queue_declare("q", passive=True).message_count == 1
        assert channel.queue_delete("q") == 1
        assert channel.queue_delete("q") == 0
        assert channel.prepare_queue_arguments({"x": 1}, message_ttl=1.5) == {
            "x": 1,
            "x-message-ttl": 1500,
        }

    def test_getting_and_settling(self, channel: Any) -> None:
        channel.queue_declare("q")
        assert channel.basic_get("q") is None
        for body in ("a", "b", "c", "d"):
            channel.basic_publish(channel.prepare_message(body), "", "q")
        first, second, third = (channel.basic_get("q") for _ in range(3))
        assert isinstance(first, Message)
        assert first.delivery_info["message_count"] == 3
        assert channel.message_to_python(first) is first
        channel.basic_ack(first.delivery_tag)
        channel.basic_reject(second.delivery_tag, requeue=False)
        channel.basic_nack(third.delivery_tag)
        assert channel.basic_get("q").body == b"c"
        channel.basic_recover(requeue=True)
        again = channel.basic_get("q", no_ack=True)
        assert (again.body, again.delivery_info["redelivered"]) == (b"c", True)
        assert channel.queue_purge("q") == 1

    def test_messages_without_headers_keep_their_own_properties(self, channel: Any) -> None:
        channel.queue_declare("q")
        for priority, headers in ((1, {}), (1, None), (2, {}), (2, {"h": True}), (2, {"h": 1})):
            message = channel.prepare_message("a", priority, headers=headers)
            channel.basic_publish(message, "", "q")
            got = channel.basic_get("q", no_ack=True).properties
            assert got["priority"] == priority
            assert repr(got.get("application_headers")) == repr(headers)

    def test_consuming(self, connection: kombu.Connection, channel: Any) -> None:
        got: list[Any] = []
        cancelled: list[str] = []
        channel.queue_declare("q", auto_delete=False)
        tag = channel.basic_consume("q", no_ack=True, callback=got.append)
        assert channel.no_ack_consumers == {tag}
        channel.basic_publish(channel.prepare_message("a", headers={"h": 1}, priority=2), "", "q")
        connection.drain_events(timeout=TIMEOUT)
        (message,) = got
        assert message.delivery_info == {
            "consumer_tag": tag,
            "delivery_tag": 1,
            "redelivered": False,
            "exchange": "",
            "routing_key": "q",
        }
        assert (message.headers, message.properties["priority"]) == ({"h": 1}, 2)
        message.ack()  # nothing is sent
        channel.basic_cancel(tag)
        assert channel.no_ack_consumers == set()
        channel.basic_consume("q", "mine", callback=got.append, on_cancel=cancelled.append)
        channel.queue_delete("q")
        connection.drain_events(timeout=TIMEOUT)
        assert cancelled == ["mine"]

    def test_transactions_and_flow(self, channel: Any) -> None:
        channel.queue_declare("q")
        channel.tx_select()
        channel.basic_publish(channel.prepare_message("a"), "", "q")
        channel.tx_rollback()
        channel.basic_publish(channel.prepare_message("b"), "", "q")
        channel.tx_commit()
        assert channel.queue_purge("q") == 1

    def test_confirms(self, channel: Any) -> None:
        channel.confirm_select()
        channel.queue_declare("q")
        channel.basic_publish_confirm(channel.prepare_message("a"), "", "q", timeout=TIMEOUT)
        assert channel.queue_purge("q") == 1

    def test_closing_is_idempotent_and_using_what_is_closed_is_recoverable(
        self, connection: kombu.Connection, channel: Any
    ) -> None:
        assert channel.is_open
        channel.close()
        channel.close()
        assert channel.connection is None
        calls: tuple[Callable[[], object], ...] = (
            lambda: channel.queue_declare("q"),
            lambda: channel.basic_ack(1),
            lambda: channel.basic_consume("q"),
            lambda: channel.basic_publish(channel.prepare_message("a"), "", "q"),
        )
        for call in calls:
            with pytest.raises(connection.recoverable_connection_errors):
                call()
        raw = connection.connection
        connection.close()
        raw.close()
        raw.collect()
        assert not raw.connected
        with pytest.raises(connection.recoverable_connection_errors):
            raw.drain_events(timeout=0)
        with pytest.raises(connection.recoverable_connection_errors):
            raw.heartbeat_tick()


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "call"),
        [
            (kinds.NotFound, lambda it: it.queue_declare("none", passive=True)),
            (kinds.NotFound, lambda it: it.queue_bind("none", "amq.direct")),
            (kinds.NotFound, lambda it: it.basic_consume("none")),
            (kinds.PreconditionFailed, lambda it: it.queue_declare("there", durable=True)),
            (kinds.PreconditionFailed, lambda it: it.exchange_declare("amq.direct", "fanout")),
            (kinds.AccessRefused, lambda it: it.queue_declare("amq.mine")),
            (kinds.AccessRefused, lambda it: it.basic_consume("there", exclusive=True)),
        ],
    )
    def test_what_the_broker_refuses_raises_its_own_error_and_the_channel_opens_anew(
        self,
        connection: kombu.Connection,
        channel: Any,
        kind: type[BaseException],
        call: Callable[[Any], object],
    ) -> None:
        other = connection.channel()
        other.queue_declare("there", durable=False, auto_delete=False)
        other.basic_consume("there")
        with pytest.raises(kind) as caught:
            call(channel)
        assert isinstance(caught.value, connection.channel_errors)
        assert channel.is_open
        assert channel.queue_declare("", exclusive=True).queue
        assert other.is_open
        assert connection.connected

    def test_a_channel_that_has_handed_out_a_message_stays_closed(
        self, connection: kombu.Connection, channel: Any
    ) -> None:
        """Opened anew it would take the message's tag for that of another one."""
        channel.queue_declare("mine", exclusive=True)
        channel.basic_publish(channel.prepare_message("a"), "", "mine")
        message = channel.basic_get("mine")
        with pytest.raises(kinds.NotFound):
            channel.queue_declare("none", passive=True)
        assert not channel.is_open
        for call in (message.ack, lambda: channel.basic_get("mine")):
            with pytest.raises(connection.recoverable_connection_errors):
                call()
        assert connection.channel().basic_get("mine").body == b"a"

    def test_what_rabbitmq_does_not_have_is_refused_here(self, channel: Any) -> None:
        with pytest.raises(kinds.AMQPNotImplementedError, match="immediate"):
            channel.basic_publish(channel.prepare_message("a"), "", "q", immediate=True)
        with pytest.raises(kinds.AMQPNotImplementedError, match="prefetch_size"):
            channel.basic_qos(1, 0, False)
        assert channel.is_open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_nothing_that_a_forked_child_does_reaches_the_parents_connection(
    connection: kombu.Connection, channel: Any
) -> None:
    """Whatever the child calls raises an error after which kombu connects anew, or does nothing."""
    got: list[Any] = []
    channel.queue_declare("q")
    channel.basic_consume("q", callback=got.append)
    raw = connection.connection
    child = os.fork()
    if child == 0:
        try:
            os._exit(in_child(connection, channel, raw))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert raw.connected
    channel.basic_publish(channel.prepare_message("parent"), "", "q")
    raw.drain_events(timeout=TIMEOUT)
    got[0].ack()
    assert channel.queue_declare("q", passive=True).message_count == 0


def in_child(connection: kombu.Connection, channel: Any, raw: Any) -> int:
    """How many calls of a child did what they must not."""
    wrong = int(raw.connected)
    for call in (
        lambda: raw.drain_events(timeout=0),
        raw.heartbeat_tick,
        raw.channel,
        lambda: channel.queue_declare("other"),
        lambda: channel.basic_publish(channel.prepare_message("child"), "", "q"),
        lambda: channel.basic_ack(1),
    ):
        try:
            call()
        except connection.recoverable_connection_errors:
            continue
        wrong += 1
    for harmless in (channel.close, raw.close, raw.collect, connection.close):
        harmless()
    return wrong
