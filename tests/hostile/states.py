"""Every state in which a peer may turn hostile, each as a function that brings a victim there.

No attack and no expectation lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.codec.frames import content_header_frame, frame, method_frame
from tests.hostile.victim import Victim
from tests.support.frames import OPEN_OK, ack, channel_close, deliver, returned, start, tune

#: A delivery's method frame, for the consumer ``tag`` of channel 1.
ANNOUNCE = method_frame(1, "basic.deliver", "tag", 1, False, "", "queue")


def header(size: int, channel: int = 1, properties: bytes = b"\x00\x00") -> bytes:
    return content_header_frame(channel, properties, size)


def body(data: bytes, channel: int = 1) -> bytes:
    return frame(3, channel, data)


def starting(**parameters: Any) -> Victim:
    victim = Victim(**parameters)
    victim.connect()
    return victim


def authenticating(**parameters: Any) -> Victim:
    victim = starting(**parameters)
    victim.feed(start())
    return victim


def opening(**parameters: Any) -> Victim:
    victim = authenticating(**parameters)
    victim.feed(tune(heartbeat=60))
    return victim


def opened(**parameters: Any) -> Victim:
    victim = opening(**parameters)
    victim.feed(OPEN_OK)
    assert victim.connection.is_open
    victim.taken()
    return victim


def channel_opening(**parameters: Any) -> Victim:
    victim = opened(**parameters)
    channel = victim.new_channel()
    victim.ask(channel.queue_declare, "queue")
    victim.taken()
    return victim


def channel_open(**parameters: Any) -> Victim:
    victim = opened(**parameters)
    victim.open_channel()
    return victim


def requesting(**parameters: Any) -> Victim:
    victim = channel_open(**parameters)
    channel = victim.channels[0]
    victim.ask(channel.queue_declare, "queue")
    victim.ask(channel.queue_purge, "queue")
    victim.ask(victim.connection.update_secret, "another")
    victim.taken()
    return victim


def getting(**parameters: Any) -> Victim:
    victim = channel_open(**parameters)
    victim.ask(victim.channels[0].basic_get, "queue")
    victim.taken()
    return victim


def consuming(**parameters: Any) -> Victim:
    victim = channel_open(**parameters)
    victim.consume(victim.channels[0])
    # Twice: from here on the fused path knows such deliveries.
    victim.feed(deliver(1, "tag", 1, b"good"), deliver(1, "tag", 2, b"good"))
    return victim


def before_a_header(**parameters: Any) -> Victim:
    victim = consuming(**parameters)
    victim.feed(ANNOUNCE)
    return victim


def amid_a_body(**parameters: Any) -> Victim:
    victim = before_a_header(**parameters)
    victim.feed(header(10), body(b"half "))
    return victim


def amid_a_body_frame(**parameters: Any) -> Victim:
    victim = before_a_header(**parameters)
    victim.feed(header(10), body(b"0123456789")[:12])
    return victim


def confirming(**parameters: Any) -> Victim:
    victim = channel_open(**parameters)
    channel = victim.channels[0]
    channel.confirm_select()
    victim.serve()
    for _ in range(5):
        channel.basic_publish("", "queue", b"x", mandatory=True)
    victim.taken()
    victim.feed(ack(1, 1), returned(1, b"good"), ack(1, 2))
    victim.ask(channel.wait_for_confirms)
    return victim


def channel_closing(**parameters: Any) -> Victim:
    victim = consuming(**parameters)
    victim.channels[0].close()
    victim.taken()
    return victim


def channel_closed(**parameters: Any) -> Victim:
    victim = consuming(**parameters)
    victim.feed(channel_close(1))
    victim.taken()
    return victim


def channel_reopening(**parameters: Any) -> Victim:
    victim = channel_open(channel_max=1, **parameters)
    victim.feed(channel_close(1))
    victim.ask(victim.new_channel(1).queue_declare, "queue")  # which does not let it rest
    victim.taken()
    return victim


def blocked(**parameters: Any) -> Victim:
    victim = requesting(**parameters)
    victim.feed(method_frame(0, "connection.blocked", "memory"))
    return victim


def paused(**parameters: Any) -> Victim:
    victim = consuming(**parameters)
    victim.connection.pause_reading()
    return victim


def closing(**parameters: Any) -> Victim:
    victim = consuming(**parameters)
    victim.ask(victim.channels[0].queue_declare, "queue")
    victim.connection.close()
    victim.taken()
    return victim


STATES: dict[str, Callable[..., Victim]] = {
    function.__name__: function
    for function in (
        starting,
        authenticating,
        opening,
        opened,
        channel_opening,
        channel_open,
        requesting,
        getting,
        consuming,
        before_a_header,
        amid_a_body,
        confirming,
        channel_closing,
        channel_closed,
        channel_reopening,
        blocked,
        paused,
        closing,
    )
}
