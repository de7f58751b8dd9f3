"""What is negotiated before a connection is open: client properties, limits, and the peer.

Nothing is sent here; the connection's state machine asks, and sends the answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from evamqp.codec.frames import method_frame
from evamqp.core.sasl import choose
from evamqp.core.secret import failure
from evamqp.core.state import ConnectionState
from evamqp.credentials import Credentials, Mechanism
from evamqp.errors import (
    ACCESS_REFUSED,
    COMMAND_INVALID,
    FRAME_ERROR,
    NOT_ALLOWED,
    AuthenticationFailed,
    ConnectionClosed,
    MalformedData,
    ProtocolMismatch,
    VhostRefused,
)
from evamqp.parameters import FRAME_MIN_SIZE, Parameters
from evamqp.types import Table
from evamqp.version import VERSION

# Bytes; RabbitMQ from 4.1 on hangs up, without a word, on a client that wants fewer.
SMALLEST_FRAME_MAX = 8192
# Bytes of a frame before connection.tune; on a larger one RabbitMQ hangs up, without a word.
FIRST_FRAME_MAX = 4096
FIRST_FRAME_MAX_4_1 = 8192
# All that RabbitMQ knows.  authentication_failure_close makes it say why a login failed;
# consumer_cancel_notify makes it cancel the consumers of a deleted queue.
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


def client_properties(parameters: Parameters) -> dict[str, object]:
    """Our client properties; the user's entries win."""
    properties: dict[str, object] = {
        "product": "evamqp",
        "version": VERSION,
        # Not from the platform module, which imports subprocess, and with it an event loop's parts.
        "platform": f"{sys.implementation.name} {sys.version.split()[0]}",
        "information": "AMQP 0-9-1 for event loops",
    }
    if parameters.name is not None:
        properties["connection_name"] = parameters.name
    properties.update(parameters.client_properties)
    # Capabilities are statements about this code, so the user's are added and ours stay.
    theirs = parameters.client_properties.get("capabilities")
    properties["capabilities"] = {**(theirs if isinstance(theirs, dict) else {}), **CAPABILITIES}
    return properties


class Handshake:
    """Login: what we answer to connection.start and connection.secure.

    Args:
        parameters: Whose mechanisms and client properties.
    """

    __slots__ = ("_answer_max", "_answer_size", "_mechanism", "_parameters")

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._mechanism: Mechanism | None = None
        self._answer_max = FIRST_FRAME_MAX
        self._answer_size = 0

    def recv_start(
        self, major: int, minor: int, properties: Table, mechanisms: bytes, locales: bytes
    ) -> None:
        """Choose the mechanism that connection.start offers.

        Raises:
            MalformedData: Another version of AMQP (503).
            AuthenticationFailed: No common mechanism.
        """
        if (major, minor) != (0, 9):
            raise MalformedData(f"connection.start for AMQP {major}-{minor}", COMMAND_INVALID)
        if release_of(properties) >= (4, 1):
            self._answer_max = FIRST_FRAME_MAX_4_1
        offered = mechanisms.decode("utf-8", "replace")
        self._mechanism = choose(self._parameters.mechanisms, offered)

    def start_ok(self, credentials: Credentials) -> bytes:
        """The frame of connection.start-ok.

        Raises:
            AuthenticationFailed: The user's mechanism failed to answer.
        """
        mechanism = self._mechanism
        assert mechanism is not None
        return self._answer(
            "connection.start-ok",
            client_properties(self._parameters),
            mechanism.name,
            _ask(lambda: mechanism.start(credentials)),
            "en_US",
        )

    def secure_ok(self, challenge: bytes) -> bytes:
        """The frame of connection.secure-ok; raises as ``start_ok``."""
        mechanism = self._mechanism
        assert mechanism is not None
        return self._answer("connection.secure-ok", _ask(lambda: mechanism.respond(challenge)))

    def _answer(self, method: str, *arguments: object) -> bytes:
        frame = method_frame(0, method, *arguments)
        self._answer_size = len(frame)
        return frame

    def refused_by_silence(self, label: str) -> str:
        """What a broker that hangs up after our answer has probably refused, and of whom."""
        if self._answer_size <= self._answer_max:
            return f"the credentials of {label}"
        return (
            f"an answer of {self._answer_size} bytes, because it takes {self._answer_max}: the"
            f" token of {label}, or its client properties, are too long"
        )


def _ask(function: Callable[[], bytes]) -> bytes:
    """Call code of the user's that has to answer; its failure is the login's."""
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, AuthenticationFailed):
        raise
    except BaseException as error:
        raise failure(error) from error


class Limits(NamedTuple):
    """What both sides agreed on: channels, bytes of a frame, seconds between heartbeats."""

    channel_max: int
    frame_max: int
    heartbeat: int


def negotiate(theirs: Limits, parameters: Parameters) -> Limits:
    """Agree on limits: the smaller of each, where 0 means that a side does not care.

    Raises:
        MalformedData: The broker offers frames smaller than the specification allows (501).
        ConnectionClosed: The user's function of the heartbeat failed.
    """
    if 0 < theirs.frame_max < FRAME_MIN_SIZE:
        raise MalformedData(f"frame_max {theirs.frame_max} is below {FRAME_MIN_SIZE}", FRAME_ERROR)
    return Limits(
        _smaller(theirs.channel_max, parameters.channel_max),
        _smaller(theirs.frame_max, parameters.frame_max),
        _negotiate_heartbeat(theirs.heartbeat, parameters),
    )


def _negotiate_heartbeat(theirs: int, parameters: Parameters) -> int:
    ours = parameters.heartbeat
    if not callable(ours):
        return _smaller(theirs, ours)
    try:
        return max(0, min(int(ours(theirs)), 65535))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        text = f"heartbeat({theirs}) failed: {error!r}"
        raise ConnectionClosed(text, by="client") from error


def release_of(server_properties: Table) -> tuple[int, ...]:
    """The release of RabbitMQ, such as (4, 3); () of another broker."""
    version = server_properties.get("version")
    if server_properties.get("product") != "RabbitMQ" or not isinstance(version, str):
        return ()
    numbers = version.split(".")[:2]
    return tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else ()


def _smaller(theirs: int, ours: int) -> int:
    return min(theirs, ours) if theirs and ours else theirs or ours


def wrong_peer(data: bytes) -> ProtocolMismatch:
    """Name the thing that answered with ``data`` instead of connection.start."""
    if data[:4] == b"AMQP" and len(data) >= 8:
        version = "-".join(map(str, data[5:8] if data[4] == 0 else data[4:8]))
        text = f"the broker wants AMQP {version}; this client speaks 0-9-1"
    elif data[:4] == b"HTTP" or data[:1] == b"<":
        text = "an HTTP server answers on this port; RabbitMQ's AMQP port is 5672 (5671 with TLS)"
    elif data[:1] in (b"\x15", b"\x16") and data[1:2] == b"\x03":
        text = "the port speaks TLS; use amqps://, or the plain port, usually 5672"
    elif data[:4] == b"SSH-":
        text = "an SSH server answers on this port; RabbitMQ's AMQP port is 5672"
    else:
        text = f"no AMQP broker: it begins with {data[:16]!r}"
    return ProtocolMismatch(text, by="broker")


def refusal(
    state: ConnectionState,
    label: str,
    text: str,
    code: int,
    method: str | None,
) -> ConnectionClosed:
    """The broker's connection.close as an error that names the cause, and who we are."""
    kind = ConnectionClosed
    if state is ConnectionState.AUTHENTICATING and code == ACCESS_REFUSED:
        kind = AuthenticationFailed
    elif state is ConnectionState.OPENING and code in (NOT_ALLOWED, ACCESS_REFUSED):
        kind = VhostRefused
    if kind is not ConnectionClosed and label:
        text = f"{text or 'no reason given'} (as {label})"
    return kind(text or "no reason given", code=code, method=method, by="broker")


def loss(
    state: ConnectionState,
    parameters: Parameters | None,
    label: str,
    greeting: bytes,
    handshake: Handshake | None,
) -> ConnectionClosed:
    """A lost transport as an error; in the handshake the state suggests the probable cause."""
    if state is ConnectionState.STARTING:
        if greeting:
            return wrong_peer(greeting)
        hint = "" if parameters and parameters.tls else "; is it a TLS port? then use amqps://"
        return ConnectionClosed(f"the peer hung up without a word{hint}", by="network")
    if state is ConnectionState.AUTHENTICATING:
        what = "the credentials" if handshake is None else handshake.refused_by_silence(label)
        text = f"the broker hung up during login; probably it refused {what}"
        return AuthenticationFailed(text, by="network")
    if state is ConnectionState.OPENING:
        text = "the broker hung up before the virtual host was open; probably it refused"
        if parameters and parameters.frame_max < SMALLEST_FRAME_MAX:
            limit = f"RabbitMQ 4.1 and later need {SMALLEST_FRAME_MAX}"
            return ConnectionClosed(
                f"{text} a frame_max of {parameters.frame_max}: {limit}", by="network"
            )
        return ConnectionClosed(f"{text} the negotiated limits", by="network")
    return ConnectionClosed("the connection was lost", by="network")
