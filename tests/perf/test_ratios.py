"""What a message costs beside plain reference code in the same process: ratios, never times.

Both are run in turns and each is judged by its best turn, so that a busy machine slows both or
neither.  The bounds are generous: they are for what counts of calls do not show, such as copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from struct import Struct

from tests.perf.steady import (
    BODY,
    FRAME_MAX,
    PROPERTIES,
    consume,
    delivery,
    open_channels,
    open_connection,
    publish_all,
)

TURNS = 25
MESSAGES = 2000

_pack_header = Struct(">BHIHHQ").pack
_pack_body = Struct(">BHI").pack
_unpack_head = Struct(">BHI").unpack_from


def ratio(work: Callable[[], object], reference: Callable[[], object]) -> float:
    """How much longer ``work`` takes than ``reference``, each at its best."""
    best = {work: float("inf"), reference: float("inf")}
    for _ in range(TURNS):
        for each in best:
            started = time.perf_counter()
            each()
            best[each] = min(best[each], time.perf_counter() - started)
    return best[work] / best[reference]


def publish_plainly(pieces: list[bytes], head: bytes, body: bytes) -> None:
    """The least that a publish takes: three frames packed and joined."""
    raw = PROPERTIES.raw
    header = _pack_header(2, 1, 12 + len(raw), 60, 0, len(body))
    pieces.append(
        b"".join((head, header, raw, b"\xce", _pack_body(3, 1, len(body)), body, b"\xce"))
    )


def test_a_publish_takes_no_more_than_three_times_what_packing_its_frames_takes() -> None:
    (channel,) = open_channels(open_connection())
    messages = [("queue", BODY)] * MESSAGES

    def reference() -> None:
        pieces: list[bytes] = []
        for _ in range(MESSAGES):
            publish_plainly(pieces, b"head", BODY)
        b"".join(pieces)

    assert ratio(lambda: publish_all(channel, messages), reference) <= 3


def test_a_delivery_takes_no_more_than_three_times_what_cutting_its_frames_takes() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    consume(channel, lambda message: len(message.body), auto_ack=True)
    data = b"".join(delivery(1, tag) for tag in range(1, MESSAGES + 1))

    def reference() -> None:
        at = 0
        while at < len(data):
            body = b""
            for _ in range(3):
                size = _unpack_head(data, at)[2]
                body = data[at + 7 : at + 7 + size]
                at += size + 8
            len(body)

    assert ratio(lambda: connection.receive_data(data), reference) <= 3


def test_a_big_body_is_copied_once_from_the_call_to_the_transport() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    body = bytes(1024 * 1024)
    count = len(body) // (FRAME_MAX - 8) + 1

    def publish() -> None:
        channel.basic_publish("", "queue", body, PROPERTIES)
        connection.data_to_send()

    def reference() -> None:
        view = memoryview(body)
        b"".join(view[number * 131064 : (number + 1) * 131064] for number in range(count))

    assert ratio(publish, reference) <= 2


def test_a_big_body_is_gathered_in_time_that_grows_with_its_size_alone() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    sizes: list[int] = []
    consume(channel, lambda message: sizes.append(len(message.body)), auto_ack=True)

    def feed(size: int, copies: int) -> Callable[[], None]:
        data = delivery(1, 1, "queue", bytes(size)) * copies
        chunks = [data[at : at + 16384] for at in range(0, len(data), 16384)]

        def work() -> None:
            for chunk in chunks:
                connection.receive_data(chunk)

        return work

    assert ratio(feed(8 * 1024 * 1024, 1), feed(1024 * 1024, 8)) <= 3
    assert set(sizes) == {8 * 1024 * 1024, 1024 * 1024}
