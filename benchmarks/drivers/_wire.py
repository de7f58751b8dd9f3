"""What a client would send, made beforehand, for the drivers that have no client.

The part of a broker's client that these need: a handshake, and the frames of one publish.
"""

from __future__ import annotations

import socket
import ssl

from _measure import Config, check
from evamqp import Properties
from evamqp.codec.frames import PROTOCOL_HEADER, body_frames, content_header_frame, method_frame

FRAME_MAX = 131072
CHUNK = 64 * 1024


def dial(config: Config) -> socket.socket:
    """A socket whose handshake is done: channel 1 is open."""
    dialled = socket.create_connection((config.host, config.port))
    dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if config.ca:
        context = ssl.create_default_context(cafile=config.ca)
        dialled = context.wrap_socket(dialled, server_hostname="localhost")
    login = b"\0guest\0guest"
    for said in (
        PROTOCOL_HEADER,
        method_frame(0, "connection.start-ok", {}, "PLAIN", login, "en_US"),
        method_frame(0, "connection.tune-ok", 2047, FRAME_MAX, 0)
        + method_frame(0, "connection.open", "/"),
        method_frame(1, "channel.open"),
        method_frame(1, "queue.declare", config.queue, False, True, False, False, False, {}),
    ):
        dialled.sendall(said)
        dialled.recv(CHUNK)
    return dialled


class Turns:
    """S5 without a client: each confirm is answered by the next publish.

    Attributes:
        publish: The bytes of one publish.
    """

    def __init__(self, config: Config, dialled: socket.socket) -> None:
        dialled.sendall(method_frame(1, "confirm.select", False))
        dialled.recv(CHUNK)
        self.publish = publish_frames(config)
        self.left = config.n
        self.confirm_size = len(method_frame(1, "basic.ack", 1, False))

    def take(self, data: bytes) -> bytes:
        """What to send next; nothing once all are confirmed."""
        check(len(data) == self.confirm_size, f"{len(data)} bytes came, which are no confirm")
        self.left -= 1
        return self.publish if self.left else b""


def content_frames(config: Config) -> bytes:
    """The content of each message."""
    properties = Properties(content_type="text/plain", delivery_mode=1)
    return content_header_frame(1, properties.raw, config.body) + b"".join(
        body_frames(1, config.payload, FRAME_MAX)
    )


def publish_frames(config: Config) -> bytes:
    """One publish."""
    method = method_frame(1, "basic.publish", "", config.queue, False, False)
    return method + content_frames(config)
