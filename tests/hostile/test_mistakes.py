"""Every argument of every public call, wrong in every way: refused there, nothing sent or changed.

The calls and their arguments are read off the signatures, so that none can be forgotten.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import evamqp
from evamqp import Channel, Connection, Handler, Message, Properties
from evamqp.adapters.memory import MemoryAdapter
from evamqp.errors import BadArgument, BadType, UsageError, WrongState
from tests.hostile import states
from tests.support.client import Client, opened
from tests.support.frames import deliver, names, start

#: What every argument of some annotation refuses.
NO_CALLBACKS: tuple[object, ...] = (5, "x", object(), [])
NO_NAMES: tuple[object, ...] = (None, 5, 1.5, b"x", [], {}, object(), "\ud800", "x" * 256)
NO_TEXTS: tuple[object, ...] = (None, 5, 1.5, b"x", [], object())
NO_FLAGS: tuple[object, ...] = (None, "yes", "", 2, -1, 1.5, [], object())
NO_NUMBERS: tuple[object, ...] = (None, "1", 1.5, -1, 2**64, True, [], object())
NO_TABLES: tuple[object, ...] = (
    5, "x", b"x", [1], object(), {5: 1}, {"k" * 256: 1}, {"a": object()}, {"a": 2**64},
    {"a": "\ud800"}, {"a": [{"b": {1, 2}}]},
)  # fmt: skip
WRONG: dict[str, tuple[object, ...]] = {
    "str": NO_NAMES,
    "bool": NO_FLAGS,
    "int": NO_NUMBERS,
    "int | None": tuple(each for each in NO_NUMBERS if each is not None),
    "TableLike | None": NO_TABLES,
    "Body": (None, 5, 1.5, "x", [], {}, object()),
    "Properties | None": (5, "x", b"\0\0", {}, [], object(), Properties),
    "ErrorCallback | None": NO_CALLBACKS,
    "Callable[[Message], object]": (None, *NO_CALLBACKS),
    "Callable[[str], object] | None": NO_CALLBACKS,
    "Callable[[], object]": (None, *NO_CALLBACKS),
    "Handler | None": (5, "x", object(), Handler, []),
    "Unpack[ChannelCallbacks]": (None, *NO_CALLBACKS),
    "float": (None, "1", -1, 0, float("nan"), float("inf"), True, [], object()),
}
#: What is told to the broker and may be of any length and sign: it is cut, not refused.
TEXTS = {(Channel, "close", "text"), (Connection, "close", "text")}
#: Not names but text of any length.
LONG = {(Connection, "update_secret", "new_secret")}
#: Called by the library alone.
INNER = {
    "connection_made", "connection_lost", "receive_data", "data_to_send", "set_writable",
    "next_deadline", "handle_timer", "abort", "invoke", "stalled",
}  # fmt: skip
GIVEN: dict[str, Any] = {
    "on_message": lambda message: None,
    "body": b"x",
    "delivery_tag": 1,
    "prefetch_count": 1,
    "active": True,
    "function": lambda: None,
    "new_secret": "token",
}

Case = tuple[type, str, str, object]


def wrong_values(kind: type, method: str, parameter: inspect.Parameter) -> tuple[object, ...]:
    annotation = str(parameter.annotation)
    if annotation.startswith("Callback["):
        return NO_CALLBACKS
    if (kind, method, parameter.name) in TEXTS:
        return NO_TEXTS
    if (kind, method, parameter.name) in LONG:
        return (*NO_TEXTS, "\ud800")
    return WRONG[annotation]


def public_methods(kind: type) -> Iterator[tuple[str, inspect.Signature]]:
    for name, function in inspect.getmembers(kind, inspect.isroutine):
        if not name.startswith("_") and name not in INNER:
            yield name, inspect.signature(function)


def cases() -> Iterator[Case]:
    for kind in (Channel, Connection, Message):
        for method, signature in public_methods(kind):
            for name, parameter in list(signature.parameters.items())[1:]:
                for value in wrong_values(kind, method, parameter):
                    yield kind, method, name, value


def named(case: Case) -> str:
    kind, method, name, value = case
    return f"{kind.__name__}.{method}({name}={value!r:.20})"


def subject(client: Client, kind: type) -> Any:
    if kind is Connection:
        return client.connection
    channel = client.confirming_channel()
    if kind is Channel:
        return channel
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1))
    return client.recorder.messages[0]


def snapshot(client: Client) -> tuple[object, ...]:
    """All that a call could have changed."""
    connection = client.connection
    channels = [
        (
            channel.number,
            channel.state,
            list(channel.requests),
            list(channel.consumers),
            set(channel.cancelling),
            channel.next_tag,
            channel.confirms,
            len(channel._confirm_waiters),
            len(channel._close_waiters),
        )
        for channel in connection.context.channels.all()
    ]
    return (
        channels,
        connection.state,
        connection.output_size,
        connection.context.channels.numbers._next,
        connection.context.channels.consumers_named,
        list(connection._control._requests),
        list(connection.context.callbacks.deferred),
        list(connection._inbox),
        connection.next_deadline(),
        [message._settled for message in client.recorder.messages],
    )


def arguments(signature: inspect.Signature) -> dict[str, Any]:
    """Right ones, for all that have no default."""
    return {
        name: GIVEN.get(name, "name")
        for name, parameter in list(signature.parameters.items())[1:]
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }


@pytest.mark.parametrize("case", list(cases()), ids=named)
def test_a_wrong_argument_is_refused_and_changes_nothing(case: Case) -> None:
    kind, method, name, value = case
    client = opened()
    call = getattr(subject(client, kind), method)
    right = arguments(inspect.signature(getattr(kind, method)))
    client.taken()
    before = snapshot(client)
    if name == "callbacks":
        name = "on_close"
    with pytest.raises(UsageError) as caught:
        call(**{**right, name: value})
    assert isinstance(caught.value, (BadType, BadArgument))
    assert str(caught.value)
    assert snapshot(client) == before
    assert client.sent() == []
    client.turn()
    assert "on_callback_error" not in client.recorder.names
    call(**right)


# --- what is not a method of an open connection

NOT_TARGETS: tuple[object, ...] = (
    None,
    5,
    b"amqp://h",
    [],
    [5],
    [None],
    {},
    object(),
    "h",
    "http://h",
)


@pytest.mark.parametrize("first", [True, False])
def test_publishing_to_nothing_is_refused_whatever_was_published_before(first: bool) -> None:
    nothings: list[tuple[Any, Any]] = [(None, None), ("", None), (None, "q"), (["x"], None)]
    client = opened()
    channel = client.channel()
    if not first:
        channel.basic_publish("", "q", b"x")
    client.taken()
    for exchange, key in nothings:
        for _ in range(2):
            with pytest.raises(BadType):
                channel.basic_publish(exchange, key, b"x")
    assert client.taken() == b""
    channel.basic_publish("", "q", b"x")
    assert names(client.sent()) == ["basic.publish", "header", "body"]


@pytest.mark.parametrize("target", NOT_TARGETS, ids=repr)
def test_connect_refuses_what_is_no_target(target: Any) -> None:
    adapter = MemoryAdapter()
    with pytest.raises(UsageError):
        evamqp.connect(target, adapter=adapter)
    adapter.run_until_idle()


@pytest.mark.parametrize("handler", [5, "x", object(), Handler, lambda: None], ids=repr)
def test_connect_refuses_what_is_no_handler(handler: Any) -> None:
    with pytest.raises(BadType):
        evamqp.connect("amqp://h", handler, adapter=MemoryAdapter())


@pytest.mark.parametrize("adapter", [5, "select", object(), MemoryAdapter], ids=repr)
def test_connect_refuses_what_is_no_adapter(adapter: Any) -> None:
    with pytest.raises(BadType, match="adapter"):
        evamqp.connect("amqp://h", adapter=adapter)


def test_connect_refuses_callbacks_that_do_not_exist_or_cannot_be_called() -> None:
    with pytest.raises(BadArgument, match="on_opne"):
        evamqp.connect("amqp://h", adapter=MemoryAdapter(), on_opne=print)  # type: ignore[call-arg]
    with pytest.raises(BadType, match="on_open"):
        evamqp.connect("amqp://h", adapter=MemoryAdapter(), on_open=5)  # type: ignore[arg-type]


def constructor_cases(kind: Callable[..., object]) -> Iterator[tuple[str, object]]:
    for name in inspect.signature(kind).parameters:
        for value in (object(), [object()], 1.5j, type):
            yield name, value


@pytest.mark.parametrize("kind", [Properties, evamqp.Parameters, evamqp.Credentials])
def test_constructors_refuse_objects_of_any_wrong_type(kind: Any) -> None:
    for name, value in constructor_cases(kind):
        if name in ("credentials", "heartbeat") and value is type:  # may be any callable
            continue
        right = {"username": "u", "password": "p"} if kind is evamqp.Credentials else {}
        with pytest.raises((BadType, BadArgument)):
            kind(**{**right, name: value})


@pytest.mark.parametrize(
    "function", [lambda: None, lambda: "guest", lambda: 1 / 0, lambda: evamqp.Credentials], ids=repr
)
def test_credentials_that_are_none_fail_the_login_and_not_the_loop(function: Any) -> None:
    victim = states.starting(credentials=function)
    victim.feed(start())
    assert type(victim.finish()) is evamqp.AuthenticationFailed


# --- calls after the end


@pytest.mark.parametrize("kind", [Channel, Connection, Message])
def test_after_the_end_every_call_raises_or_changes_nothing(kind: type) -> None:
    for method, signature in public_methods(kind):
        client = opened()
        target = subject(client, kind)
        client.lose()
        before = len(client.log)
        with suppress(UsageError):
            getattr(target, method)(**arguments(signature))
        client.turn()
        assert client.taken() == b""
        assert len(client.log) == before


# --- exceptions in the last callbacks; those in all others are in tests/core/test_laws.py


@pytest.mark.parametrize("callback", ["on_close", "on_open_error"])
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=repr)
def test_an_exception_in_the_last_callback_leaves_nothing_behind(
    callback: str, error: BaseException
) -> None:
    client = Client()
    client.connect()
    if callback == "on_close":
        client.open_from_start()

    def fail(*arguments: object) -> None:
        raise error

    client.recorder.inside(callback, fail)
    waiting = client.connection.wait_closed()
    if isinstance(error, Exception):
        client.lose()
        assert client.recorder.errors == [error]
    else:
        with pytest.raises(KeyboardInterrupt):
            client.lose()
        client.turn()
    assert waiting.is_done
    assert client.recorder.names.count(callback) == 1
    assert client.connection.next_deadline() is None
    with pytest.raises(WrongState):
        client.connection.channel()


CALLS: dict[str, Callable[[Client, Channel], object]] = {
    "close": lambda client, channel: client.connection.close(),
    "close the channel": lambda client, channel: channel.close(),
    "publish": lambda client, channel: channel.basic_publish("", "q", b"x"),
    "cancel": lambda client, channel: channel.basic_cancel("tag"),
    "open": lambda client, channel: client.connection.channel(),
    "pause": lambda client, channel: client.connection.pause_reading(),
    "wait": lambda client, channel: client.connection.wait_open(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("callback", ["on_channel_close", "on_close"])
def test_a_call_inside_a_callback_of_the_end_is_refused_or_harmless(
    callback: str, call: str
) -> None:
    client = opened()
    channel = client.confirming_channel()
    client.consumer(channel)
    channel.basic_publish("", "q", b"x")
    client.taken()
    client.recorder.take()
    client.recorder.inside(callback, lambda *_: CALLS[call](client, channel))
    client.lose()
    client.turn()
    names = [name for name in client.recorder.names if name != "on_callback_error"]
    assert names == ["on_channel_close", "on_close"]
    assert all(isinstance(error, WrongState) for error in client.recorder.errors)
    assert client.taken() == b""
    assert list(channel.unconfirmed) == [1]


#: What takes an adapter.
CLIENTS: dict[str, Any] = {
    "connect": lambda adapter: evamqp.connect("amqp://h", adapter=adapter),
    "Publisher": lambda adapter: evamqp.Publisher("amqp://h", adapter=adapter),
    "Consumer": lambda adapter: evamqp.Consumer("amqp://h", "q", print, adapter=adapter),
    "Reconnector": lambda adapter: evamqp.Reconnector("amqp://h", adapter=adapter),
    "RpcClient": lambda adapter: evamqp.RpcClient("amqp://h", adapter=adapter),
    "RpcServer": lambda adapter: evamqp.RpcServer("amqp://h", "q", print, adapter=adapter),
}


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("adapter", [MemoryAdapter, "select", 5, 0, object()], ids=repr)
def test_what_is_no_adapter_is_refused_in_the_same_words(name: str, adapter: object) -> None:
    with pytest.raises(BadType, match=r"adapter must be one, such as SelectAdapter\(\), not"):
        CLIENTS[name](adapter)
