# bench: {"name": "socket-alone", "order": 2, "evamqp": false, "knows": ["tls"]}
"""No client: a blocking socket that moves the bytes that a client would, made beforehand.

Over TLS its row is what the ssl module costs, and the difference to a client's row is the client.
It knows publish without confirms and consume without acks.
"""

from __future__ import annotations

import socket
import ssl

from _measure import Config, Meter, check, main
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
        method_frame(1, "queue.declare", config.queue, False, False, False, False, False, {}),
    ):
        dialled.sendall(said)
        dialled.recv(CHUNK)
    return dialled


def run(config: Config, meter: Meter) -> None:
    """Send, or receive, as many bytes as ``n`` messages have."""
    dialled = dial(config)
    properties = Properties(content_type="text/plain", delivery_mode=1)
    content = content_header_frame(1, properties.raw, config.body) + b"".join(
        body_frames(1, config.payload, FRAME_MAX)
    )
    if config.op == "publish":
        message = method_frame(1, "basic.publish", "", config.queue, False, False) + content
        batch = memoryview(message * max(1, CHUNK // len(message)))
        left = config.n * len(message)
        meter.start()
        while left > 0:
            dialled.sendall(batch[:left])
            left -= len(batch)
        declare = (config.queue, True, False, False, False, False, {})  # passive
        dialled.sendall(method_frame(1, "queue.declare", *declare))
        dialled.recv(CHUNK)
        meter.stop()
    elif config.op == "consume" and config.no_ack:
        head = method_frame(1, "basic.deliver", "sink-1", 1, False, "", "bench")
        left = config.n * (len(head) + len(content))
        consume = (config.queue, "sink-1", False, True, False, False, {})
        into = bytearray(CHUNK)
        meter.start()
        dialled.sendall(method_frame(1, "basic.consume", *consume))
        left += len(method_frame(1, "basic.consume-ok", "sink-1"))
        while left > 0:
            left -= dialled.recv_into(into)
        meter.stop()
        check(left == 0, f"{-left} bytes more came")
    else:
        raise NotImplementedError(f"{config.op} takes a client")
    dialled.sendall(method_frame(0, "connection.close", 200, "", 0, 0))
    dialled.recv(CHUNK)
    dialled.close()


if __name__ == "__main__":
    main(run)
