"""From the first byte to on_open: login, negotiation, and every way in which that fails.

A failed handshake ends in exactly one on_open_error whose type and text name the cause.
"""

from __future__ import annotations

from typing import Any

import pytest

from evamqp.codec.frames import PROTOCOL_HEADER, method_frame
from evamqp.core.state import ConnectionState, TransportAction
from evamqp.credentials import Credentials
from evamqp.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionClosed,
    HandshakeTimeout,
    ProtocolError,
    ProtocolMismatch,
    VhostRefused,
    WrongState,
)
from tests.support.client import Client, is_done, opened
from tests.support.frames import (
    OPEN_OK,
    SERVER_PROPERTIES,
    Sent,
    connection_close,
    names,
    start,
    tune,
)


class Rounds:
    """A mechanism with challenges."""

    name = "X-ROUNDS"

    def start(self, credentials: Credentials) -> bytes:
        return credentials.username.encode()

    def respond(self, challenge: bytes) -> bytes:
        if challenge == b"bad":
            raise ValueError("sesam")
        return challenge[::-1]


def started(**parameters: Any) -> Client:
    """A client that has sent start-ok."""
    client = Client(**parameters)
    client.connect()
    client.feed(start("PLAIN AMQPLAIN EXTERNAL ANONYMOUS X-ROUNDS"))
    return client


def tuned(**parameters: Any) -> Client:
    """A client that has sent connection.open."""
    client = started(**parameters)
    client.feed(tune())
    return client


def failure(client: Client) -> Any:
    """The one error that the user was told."""
    assert [name for name, *_ in client.log] == ["on_open_error"]
    return client.log[0][1]


def start_ok(client: Client) -> Sent:
    (sent,) = client.sent()
    assert sent.name == "connection.start-ok"
    return sent


# --- the good way


def test_nothing_but_the_protocol_header_is_sent_before_start() -> None:
    client = Client()
    assert client.stands(ConnectionState.CONNECTING)
    assert client.taken() == b""
    client.connect()
    assert client.taken() == PROTOCOL_HEADER
    assert client.stands(ConnectionState.STARTING)


def test_a_handshake_ends_in_on_open_once() -> None:
    client = Client(virtual_host="shop")
    client.connect()
    client.feed(start())
    assert start_ok(client).arguments[1:] == ("PLAIN", b"\0guest\0guest", "en_US")
    client.feed(tune())
    assert client.sent() == [
        Sent(0, "connection.tune-ok", (2047, 131_072, 60)),
        Sent(0, "connection.open", ("shop",)),
    ]
    assert client.log == []
    client.feed(OPEN_OK)
    assert client.log == [("on_open",)]
    assert client.lives()
    assert client.connection.server_properties == SERVER_PROPERTIES


def test_a_handshake_byte_by_byte_is_the_same_handshake() -> None:
    client = Client()
    client.connect()
    for byte in start() + tune() + OPEN_OK:
        client.feed(bytes((byte,)))
    assert client.log == [("on_open",)]
    assert names(client.sent()) == [
        "connection.start-ok",
        "connection.tune-ok",
        "connection.open",
    ]


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"\0alice\0sesam"),
        ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05alice\x08PASSWORDS\0\0\0\x05sesam"),
        ("EXTERNAL", b""),
        ("ANONYMOUS", b""),
        (Rounds(), b"alice"),
    ],
)
def test_login_by(mechanism: Any, response: bytes) -> None:
    client = started(credentials=Credentials("alice", "sesam"), mechanisms=[mechanism])
    name = mechanism if isinstance(mechanism, str) else mechanism.name
    assert start_ok(client).arguments[1:3] == (name, response)


def test_challenges_are_answered_by_the_mechanism_as_often_as_they_come() -> None:
    client = started(mechanisms=[Rounds()])
    start_ok(client)
    for challenge in (b"abc", b""):
        client.feed(method_frame(0, "connection.secure", challenge))
        assert client.sent() == [Sent(0, "connection.secure-ok", (challenge[::-1],))]
    client.feed(tune(), OPEN_OK)
    assert client.log == [("on_open",)]


def test_credentials_may_be_a_function_that_is_asked_at_login() -> None:
    asked = []

    def credentials() -> Credentials:
        asked.append(True)
        return Credentials("token", "t1")

    client = Client(credentials=credentials)
    client.connect()
    assert not asked
    client.feed(start())
    assert start_ok(client).arguments[2] == b"\0token\0t1"
    assert len(asked) == 1


def test_client_properties_have_name_and_the_six_capabilities() -> None:
    client = started(
        name="billing",
        client_properties={"team": "red", "product": "Shop", "capabilities": {"own": True}},
    )
    properties = start_ok(client).arguments[0]
    assert properties["connection_name"] == "billing"
    assert properties["team"] == "red"
    assert properties["product"] == "Shop"
    assert properties["capabilities"] == {
        "own": True,
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "authentication_failure_close": True,
    }
    assert client.connection.name == "billing"


def test_a_connection_without_a_name_sends_none() -> None:
    client = started()
    assert "connection_name" not in start_ok(client).arguments[0]
    assert client.connection.name is None


def test_capabilities_that_are_no_table_leave_ours() -> None:
    properties = start_ok(started(client_properties={"capabilities": 7})).arguments[0]
    assert properties["capabilities"]["basic.nack"] is True


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        ((2047, 131_072, 60), (2047, 131_072, 60), (2047, 131_072, 60)),
        ((0, 0, 0), (100, 8192, 30), (100, 8192, 30)),
        ((50, 4096, 10), (100, 8192, 30), (50, 4096, 10)),
        ((500, 65_536, 90), (100, 8192, 30), (100, 8192, 30)),
        ((65_535, 2**32 - 1, 65_535), (100, 8192, 0), (100, 8192, 65_535)),
        ((10, 4096, 0), (100, 8192, 0), (10, 4096, 0)),
    ],
)
def test_limits_are_the_smaller_of_each_and_zero_does_not_count(
    theirs: tuple[int, int, int], ours: tuple[int, int, int], agreed: tuple[int, int, int]
) -> None:
    client = Client(channel_max=ours[0], frame_max=ours[1], heartbeat=ours[2])
    client.connect()
    client.feed(start(), tune(*theirs))
    sent = client.sent()
    assert sent[1] == Sent(0, "connection.tune-ok", agreed)
    connection = client.connection
    assert (connection.channel_max, connection.frame_max, connection.heartbeat) == agreed


def test_waiters_for_open_are_reported_before_any_later_callback() -> None:
    client = Client()
    request = client.connection.wait_open()
    client.connect()
    client.feed(start(), tune())
    assert not is_done(request)
    client.feed(OPEN_OK)
    assert is_done(request)
    again = client.connection.wait_open()
    client.turn()
    assert is_done(again)


def test_frames_behind_open_ok_in_the_same_read_are_handled() -> None:
    client = Client()
    client.connect()
    client.feed(start(), tune(), OPEN_OK, method_frame(0, "connection.blocked", "memory"))
    assert client.recorder.names[:2] == ["on_open", "on_blocked"]


# --- refused by the broker


def test_403_at_login_is_authentication_failed() -> None:
    client = started()
    client.sent()
    client.feed(connection_close(403, "ACCESS_REFUSED - login refused"))
    assert client.sent() == [Sent(0, "connection.close-ok")]
    assert client.wants(TransportAction.CLOSE)
    assert client.log == []
    client.lose()
    error = failure(client)
    assert type(error) is AuthenticationFailed
    assert (error.code, error.by) == (403, "broker")
    assert "login refused" in str(error)


@pytest.mark.parametrize("code", [530, 403])
def test_a_refused_vhost_is_vhost_refused(code: int) -> None:
    client = tuned(virtual_host="nowhere")
    client.feed(connection_close(code, "NOT_ALLOWED - vhost nowhere not found", "connection.open"))
    client.lose()
    error = failure(client)
    assert type(error) is VhostRefused
    assert (error.code, error.method, error.by) == (code, "connection.open", "broker")


def test_any_other_close_during_the_handshake_is_reported_as_it_came() -> None:
    client = Client()
    client.connect()
    client.feed(connection_close(541, ""))
    client.lose(ConnectionResetError("reset"))
    error = failure(client)
    assert type(error) is ConnectionClosed
    assert (error.code, error.by, error.text) == (541, "broker", "no reason given")


def test_frame_max_below_4096_is_refused_with_501() -> None:
    client = started()
    client.sent()
    client.feed(tune(frame_max=4095))
    (close,) = client.sent()
    assert close.arguments[0] == 501
    client.lose()
    error = failure(client)
    assert type(error) is ProtocolError
    assert "4095" in str(error)


def test_another_version_in_start_is_refused_with_503() -> None:
    client = Client()
    client.connect()
    client.feed(start(version=(0, 8)))
    (close,) = client.sent()
    assert (close.name, close.arguments[0]) == ("connection.close", 503)
    client.lose()
    assert isinstance(failure(client), ProtocolError)


# --- refused by ourselves: nothing secret leaves


def test_no_common_mechanism_sends_no_credentials() -> None:
    client = Client(mechanisms=["EXTERNAL"])
    client.connect()
    client.feed(start("PLAIN"))
    assert client.sent() == []
    assert client.wants(TransportAction.ABORT)
    client.lose()
    error = failure(client)
    assert type(error) is AuthenticationFailed
    assert "EXTERNAL" in str(error)
    assert "PLAIN" in str(error)


def test_a_challenge_for_a_mechanism_without_one_fails_the_login() -> None:
    client = started()
    client.sent()
    client.feed(method_frame(0, "connection.secure", b"who?"))
    assert client.sent() == []
    client.lose()
    assert isinstance(failure(client), AuthenticationFailed)


def raising() -> Credentials:
    raise ValueError("sesam")


@pytest.mark.parametrize("credentials", [raising, lambda: "sesam", lambda: None])
def test_credentials_that_fail_end_the_connection_and_show_no_secret(credentials: Any) -> None:
    client = Client(credentials=credentials)
    client.connect()
    client.feed(start())
    client.lose()
    error = failure(client)
    assert type(error) is AuthenticationFailed
    assert error.by == "client"
    assert "sesam" not in str(error)


def test_a_mechanism_that_fails_ends_the_connection_and_shows_no_secret() -> None:
    client = started(mechanisms=[Rounds()])
    client.feed(method_frame(0, "connection.secure", b"bad"))
    client.lose()
    error = failure(client)
    assert type(error) is AuthenticationFailed
    assert "ValueError" in str(error)
    assert "sesam" not in str(error)


class Wordless(Rounds):
    """A mechanism that forgets to answer."""

    def start(self, credentials: Credentials) -> bytes:
        return None  # type: ignore[return-value]


def test_a_mechanism_that_answers_no_bytes_ends_the_connection_with_a_typed_error() -> None:
    client = started(mechanisms=[Wordless()])
    client.lose()
    assert isinstance(failure(client), ConnectionClosed)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_credentials_propagates(raised: type[BaseException]) -> None:
    def credentials() -> Credentials:
        raise raised

    client = Client(credentials=credentials)
    client.connect()
    with pytest.raises(raised):
        client.feed(start())
    client.lose()
    assert client.recorder.names == ["on_open_error"]


# --- the wrong peer


@pytest.mark.parametrize(
    ("greeting", "word"),
    [
        (b"AMQP\x03\x01\x00\x00", "3-1-0-0"),
        (b"AMQP\x00\x00\x09\x01", "0-9-1"),
        (b"AMQP\x00\x01\x00\x00", "1-0-0"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"<html><body>", "HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"\x16\x03\x03\x00\x40aaaaaaaa", "TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"220 smtp.example ESMTP\r\n", "220 smtp"),
    ],
)
@pytest.mark.parametrize("split", [True, False])
def test_a_peer_of_another_protocol_is_named(greeting: bytes, word: str, split: bool) -> None:
    client = Client()
    client.connect()
    client.taken()
    for piece in [greeting[:3], greeting[3:]] if split else [greeting]:
        client.feed(piece)
    client.lose()
    error = failure(client)
    assert type(error) is ProtocolMismatch
    assert word in str(error)
    assert client.sent() == []


def test_a_wrong_peer_is_left_at_once() -> None:
    client = Client()
    client.connect()
    client.feed(b"HTTP/1.1 200 OK\r\n")
    assert client.wants(TransportAction.ABORT)


# --- the end of the file


def test_end_of_file_before_a_word_hints_at_tls() -> None:
    client = Client()
    client.connect()
    client.lose()
    error = failure(client)
    assert type(error) is ConnectionClosed
    assert "TLS" in str(error)
    assert error.by == "network"


def test_end_of_file_under_tls_does_not_hint_at_tls() -> None:
    client = Client(tls=True)
    client.connect()
    client.lose()
    assert "TLS" not in str(failure(client))


def test_end_of_file_during_login_is_a_probable_refusal() -> None:
    client = started()
    client.lose(ConnectionResetError("reset by peer"))
    error = failure(client)
    assert type(error) is AuthenticationFailed
    assert error.code is None
    assert isinstance(error.__cause__, ConnectionResetError)
    assert "reset by peer" in str(error)


def test_end_of_file_before_open_ok_names_the_limits() -> None:
    client = tuned()
    client.lose()
    error = failure(client)
    assert type(error) is ConnectionClosed
    assert "limits" in str(error)


def test_a_transport_that_never_came_is_reported_as_the_driver_says() -> None:
    client = Client()
    reason = ConnectFailed("no target could be reached", [("broker:5672", OSError("refused"))])
    client.lose(reason)
    assert failure(client) is reason
    assert client.connection.parameters is None


# --- time


@pytest.mark.parametrize("make", [Client, started, tuned])
def test_a_silent_peer_in_the_handshake_times_out_once(make: Any) -> None:
    client = make(handshake_timeout=7)
    if client.stands(ConnectionState.CONNECTING):
        client.connect()
    client.advance(6.9)
    assert client.wants(TransportAction.KEEP)
    client.advance(0.1)
    assert client.wants(TransportAction.ABORT)
    assert client.log == []
    client.lose()
    error = failure(client)
    assert type(error) is HandshakeTimeout
    assert error.by == "network"


def test_the_handshake_clock_ends_with_on_open() -> None:
    client = opened(handshake_timeout=7, heartbeat=0)
    client.connection.wait_open()
    client.advance(100)
    assert client.wants(TransportAction.KEEP)


# --- order


@pytest.mark.parametrize(
    "wrong", [OPEN_OK, tune(), method_frame(0, "connection.close-ok"), start()]
)
def test_a_method_out_of_order_is_503(wrong: bytes) -> None:
    client = Client()
    client.connect()
    client.feed(start())
    client.taken()
    if wrong == tune():
        client.feed(tune())
        client.taken()
    client.feed(wrong)
    (close,) = client.sent()
    assert (close.name, close.arguments[0]) == ("connection.close", 503)
    client.lose()
    assert isinstance(failure(client), ProtocolError)


def test_before_open_nothing_may_be_asked() -> None:
    client = tuned()
    client.taken()
    connection = client.connection
    for call in (
        connection.channel,
        connection.pause_reading,
        connection.resume_reading,
        lambda: connection.update_secret("x"),
    ):
        with pytest.raises(WrongState, match="OPENING"):
            call()
    assert client.sent() == []
    assert not connection.is_writable


def test_a_frame_above_64_kib_before_tune_is_refused_from_its_head() -> None:
    client = Client()
    client.connect()
    client.taken()
    client.feed(b"\x01\x00\x00" + (64 * 1024 - 7).to_bytes(4, "big"))
    assert client.sent()[0].arguments[0] == 501


def test_no_secret_is_in_a_repr() -> None:
    client = started(credentials=Credentials("alice", "sesam"))
    shown = f"{client.connection!r} {client.connection._control.handshake!r} {client.parameters!r}"
    assert "sesam" not in shown
