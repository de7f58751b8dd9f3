"""A marked secret is driven through everything that sees one, and all that comes out is searched.

And the other way round: what a peer says is in no log but escaped and cut.
"""

from __future__ import annotations

import copy
import io
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import evamqp
from evamqp import Credentials, Handler, Parameters
from evamqp.adapters.memory import MemoryAdapter, Peer
from evamqp.codec.frames import method_frame
from evamqp.errors import (
    AmqpError,
    AuthenticationFailed,
    BadArgument,
    BadType,
    ChannelClosed,
    Closed,
    ConnectFailed,
    ConnectionClosed,
    MalformedData,
    NotExecuted,
    shown,
)
from tests.support.client import Client, opened, outcome
from tests.support.frames import (
    OPEN_OK,
    channel_close,
    connection_close,
    deliver,
    returned,
    start,
    tune,
)

SECRET = "hunter2-Zwölf"
MECHANISMS = ("PLAIN", "AMQPLAIN", "EXTERNAL", "ANONYMOUS")


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Iterator[Output]:
    """All that evamqp says while a test runs, at every level."""
    loggers = [
        logging.getLogger(name)
        for name in ["evamqp", *logging.root.manager.loggerDict]
        if name.split(".")[0] == "evamqp"
    ]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield Output(caplog)
    for logger, level in levels:
        logger.setLevel(level)


class Output:
    """Collects text, and what objects can be made to say."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._said: list[str] = []
        self._seen: set[int] = set()

    def add(self, *objects: object) -> None:
        for value in objects:
            self._said += [repr(value), str(value), f"{value}"]
            if isinstance(value, BaseException):
                self._add_error(value)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                try:
                    self._said.append(repr(pickle.dumps(value, protocol)))
                except Exception as error:
                    self._said.append(f"{error} {error.args}")

    def _add_error(self, error: BaseException) -> None:
        """An exception with all that hangs on it, as logs and debuggers show it."""
        if id(error) in self._seen:
            return
        self._seen.add(id(error))
        self._said += traceback.format_exception(error)
        self._said += [repr(error.args), repr(vars(error))]
        for linked in (error.__cause__, error.__context__):
            if linked is not None:
                self._said += [repr(linked), repr(linked.args)]
                self._add_error(linked)

    def check(self, secret: str = SECRET) -> None:
        """No piece of all this shows the secret, in whatever encoding."""
        records = self._caplog.records
        said = [*self._said, self._caplog.text, *(repr(vars(record)) for record in records)]
        forms = {secret, repr(secret)[1:-1], repr(secret.encode())[2:-1], ascii(secret)[1:-1]}
        for text in said:
            assert not [form for form in forms if form in text], text
        assert said


class Sink(Handler):
    """The base handler's logging, and all that it is told."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def on_close(self, connection: evamqp.Connection, reason: ConnectionClosed) -> None:
        super().on_close(connection, reason)
        self.output.add(connection, reason)

    def on_channel_close(self, channel: evamqp.Channel, reason: ChannelClosed) -> None:
        super().on_channel_close(channel, reason)
        self.output.add(channel, reason)


CREDENTIALS: dict[str, Any] = {
    "an object": Credentials("user", SECRET),
    "a function": lambda: Credentials("user", SECRET),
}


class Token:
    """A mechanism that holds a secret."""

    name = "PLAIN"

    def __init__(self) -> None:
        self._secret = SECRET

    def start(self, credentials: Credentials) -> bytes:
        return self._secret.encode()

    def respond(self, challenge: bytes) -> bytes:
        return self._secret.encode()


def everything_of(client: Client) -> list[object]:
    """Every object that a user can get hold of."""
    connection = client.connection
    found: list[object] = [
        connection,
        connection.parameters,
        connection.server_properties,
        connection.stats,
        connection.reason,
        connection._control.handshake,
        connection.wait_closed(),
        *client.log,
        *client.recorder.messages,
    ]
    if connection.is_open:
        channel = connection.channel()
        found += [channel, channel.queue_declare("q"), channel.wait_closed()]
    return found


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("credentials", CREDENTIALS)
def test_a_session_shows_no_secret(output: Output, credentials: str, mechanism: str) -> None:
    client = Client(credentials=CREDENTIALS[credentials], mechanisms=[mechanism])
    output.add(*everything_of(client))
    client.connect()
    client.feed(start(mechanism))
    output.add(*everything_of(client))
    client.feed(tune(), OPEN_OK)
    output.add(*everything_of(client))
    client.connection.update_secret(SECRET, "expired")
    request = client.connection.update_secret(SECRET)
    output.add(request, *everything_of(client))
    assert SECRET.encode() in client.taken()
    client.feed(connection_close())
    output.add(*everything_of(client))
    client.lose()
    output.add(outcome(request), *everything_of(client))
    output.check()


ENDS: dict[str, bytes] = {
    "403": connection_close(403, "ACCESS_REFUSED"),
    "a challenge": method_frame(0, "connection.secure", b"?"),
    "garbage": b"\xff" * 20,
    "another start": start(),
    "silence": b"",
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
@pytest.mark.parametrize("end", ENDS)
def test_a_failed_login_shows_no_secret(output: Output, end: str, mechanism: str) -> None:
    client = Client(credentials=Credentials("user", SECRET), mechanisms=[mechanism])
    client.connect()
    client.feed(start())
    assert SECRET.encode() in client.taken()
    client.feed(ENDS[end])
    client.advance(60)
    client.lose()
    output.add(*everything_of(client))
    output.check()


def test_a_peer_that_sends_our_secret_back_is_not_quoted_by_us(output: Output) -> None:
    # It cannot be known what of its words is ours; but without them nothing of ours is said.
    client = Client(credentials=Credentials("user", SECRET), mechanisms=[Token()])
    client.connect()
    client.feed(start(), method_frame(0, "connection.secure", SECRET.encode()))
    client.lose()
    output.add(*everything_of(client))
    output.check()


BAD_SECRETS: dict[str, tuple[Any, type[Exception]]] = {
    "a lone surrogate": (f"{SECRET}\ud800", BadArgument),
    "bytes": (SECRET.encode(), BadType),
    "a list": ([SECRET], BadType),
}


@pytest.mark.parametrize("name", BAD_SECRETS)
def test_a_bad_secret_is_refused_without_being_shown(output: Output, name: str) -> None:
    secret, kind = BAD_SECRETS[name]
    client = opened()
    with pytest.raises(kind) as caught:
        client.connection.update_secret(secret)
    output.add(caught.value)
    assert client.taken() == b""
    for call in (
        lambda: Credentials("user", secret),
        lambda: Parameters(credentials=secret),
        lambda: Parameters(tls=True, certfile="c", keyfile_password=secret),
    ):
        with pytest.raises((BadArgument, BadType)) as refused:
            call()
        output.add(refused.value)
    output.check()


def test_a_nul_in_a_password_is_refused_without_being_shown(output: Output) -> None:
    client = Client(credentials=Credentials("user", f"{SECRET}\0"))
    client.connect()
    client.feed(start())
    client.lose()
    output.add(*everything_of(client))
    output.check()
    assert isinstance(client.log[-1][1], AuthenticationFailed)


URLS = (
    "amqp://user:{}@",
    "amqp://user:{}@h:x",
    "amqp://user:{}@h:99999999",
    "amqp://user:{}@h/%zz",
    "amqp://user:{}@h?heartbeat=x",
    "amqp://user:{}@h?unknown=1",
    "amqp://user:{}@[::1",
    "amqp://user:{}@h@h",
    "amqps://user:{}@h?verify=x",
    "http://user:{}@h",
    "{}",
    "amqp:{}@h",
)


@pytest.mark.parametrize("url", URLS)
def test_no_error_of_a_url_shows_its_password(output: Output, url: str) -> None:
    for call in (Parameters.from_url, lambda text: evamqp.connect(text, adapter=MemoryAdapter())):
        try:
            output.add(call(url.format(SECRET)))
        except (BadArgument, BadType) as error:
            output.add(error)
    output.check()


@pytest.mark.parametrize(
    "target", [Credentials("u", SECRET), Parameters("h", 1, "/", Credentials("u", SECRET))]
)
def test_copies_and_comparisons_show_no_secret(output: Output, target: object) -> None:
    output.add(target, copy.copy(target), copy.deepcopy(target), [target], {1: target})
    output.check()


def test_a_connection_that_cannot_be_made_shows_no_secret(output: Output) -> None:
    adapter = MemoryAdapter()
    adapter.unresolvable.add("nowhere")
    urls = [f"amqp://user:{SECRET}@nowhere", f"amqps://user:{SECRET}@127.0.0.1"]
    connection = evamqp.connect(urls, Sink(output), adapter=adapter)
    adapter.run_until_idle()
    adapter.advance(100)
    assert isinstance(connection.reason, ConnectFailed)
    output.add(connection, *connection.reason.attempts)
    output.check()


def test_a_login_through_a_driver_shows_no_secret(output: Output) -> None:
    adapter, peer = MemoryAdapter(), Peer()
    adapter.listen("h", 5672, lambda: peer)
    connection = evamqp.connect(f"amqp://user:{SECRET}@h", Sink(output), adapter=adapter)
    output.add(connection)
    adapter.run_until_idle()
    peer.send(start())
    adapter.run_until_idle()
    assert SECRET.encode() in bytes(peer.received)
    peer.send(connection_close(403, "ACCESS_REFUSED"))
    adapter.run_until_idle()
    adapter.advance(100)
    output.add(connection, connection.reason)
    output.check()


def test_an_exception_that_nobody_catches_shows_no_secret(output: Output) -> None:
    """What the interpreter prints of a failed open, which holds frames of ours."""
    client = Client(credentials=Credentials("user", SECRET))
    client.connect()
    request = client.connection.wait_open()
    client.feed(start(), connection_close(403, "no"))
    client.lose()
    stream = io.StringIO()
    try:
        raise outcome(request)
    except AmqpError:
        traceback.print_exc(file=stream)
        output.add(sys.exc_info()[1])
    output.add(stream.getvalue())
    output.check()


# --- what peers say

EVIL = "bad\r\n2030-01-01 CRITICAL forged\x1b[2J\x00\u202egnp.exe\u2028" + "x" * 300


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain words, ünïcode too", "plain words, ünïcode too"),
        ("a\nb\r\tc\0\x1b[31m", "a\\nb\\r\\tc\\x00\\x1b[31m"),
        ("\u202e\u2028\x85", "\\u202e\\u2028\\x85"),
        ("\udcff", "\\udcff"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
        ("\0" * 60, ("\\x00" * 60)[:197] + "..."),
        ("", ""),
    ],
)
def test_peer_text_is_one_short_line(text: str, line: str) -> None:
    assert shown(text) == line


def reasons() -> Iterator[Closed]:
    for kind in (ConnectionClosed, ChannelClosed, AuthenticationFailed):
        yield kind(EVIL, code=403, method="queue.declare", by="broker")


@pytest.mark.parametrize("reason", list(reasons()), ids=lambda reason: type(reason).__name__)
def test_a_reason_is_one_short_line_and_keeps_its_text(reason: Closed) -> None:
    assert str(reason).isprintable()
    assert len(str(reason)) < 300
    assert reason.text == EVIL
    assert str(NotExecuted("queue.declare on channel 1", reason)).isprintable()


def test_what_a_peer_says_forges_no_log_line(
    output: Output, caplog: pytest.LogCaptureFixture
) -> None:
    words = EVIL.encode()[:255].decode(errors="ignore")

    def drive(*frames: bytes) -> None:
        client = Client(handler=Sink(output))
        client.connect()
        client.feed(start(), tune(), OPEN_OK)
        client.taken()
        channel = client.connection.channel()
        client.serve()
        channel.basic_consume("q", lambda message: 1 / 0, consumer_tag="tag")
        client.serve()
        channel.queue_declare("q", callback=lambda ok: 1 / 0)
        client.taken()
        client.feed(*frames)
        client.lose()

    drive(connection_close(320, words))
    drive(channel_close(1, 404, words, "queue.declare"))
    drive(method_frame(0, "connection.blocked", words), b"\xff" * 8)
    drive(deliver(1, "tag", 1, routing_key=words, exchange=words))
    drive(returned(1, routing_key=words))
    drive(method_frame(1, "queue.declare-ok", words, 0, 0))
    drive(method_frame(1, "basic.cancel", "tag", False))
    client = Client(handler=Sink(output))
    client.connect()
    client.feed(start(mechanisms="X\n" + "Y " * 20_000))
    client.lose()
    client = Client(handler=Sink(output))
    client.connect()
    client.feed(b"HTTP/1.1\r\n\x1b[2J")
    client.lose()
    assert caplog.records
    for record in caplog.records:
        message = record.getMessage()
        assert message.isprintable(), message
        assert len(message) < 400


# --- errors travel between processes

ERRORS: tuple[AmqpError, ...] = (
    BadArgument("x"),
    MalformedData("x", 501),
    ConnectionClosed("x", code=320, by="broker"),
    ChannelClosed("x", code=404, method="queue.declare", by="broker"),
    ConnectFailed("x", [("h:1", OSError(111, "refused"))]),
    AuthenticationFailed("x", code=403, by="broker"),
    NotExecuted("x", ChannelClosed("y", by="network"), is_culprit=True),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_a_pickle(error: AmqpError) -> None:
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin).keys() == vars(error).keys()
    assert copy.copy(error).args == error.args
