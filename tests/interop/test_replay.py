"""Sessions recorded against RabbitMQ, replayed into a core alone: byte by byte it is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from evamqp import Message, Properties
from evamqp.abc import Adapter, Endpoint, Handle, Promise, Stream, Transport
from evamqp.adapters.memory import MemoryAdapter
from evamqp.types import T, Tags
from tests.interop.rig import OnEveryLoop, Rig, SharingVhost


class Recording:
    """What went over one connection: the pieces received, and all bytes sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.sent = bytearray()


class Tap:
    """A stream and its transport in one, which notes what passes."""

    def __init__(self, stream: Stream, recording: Recording) -> None:
        self._stream = stream
        self._recording = recording
        self.pause_writing = stream.pause_writing
        self.resume_writing = stream.resume_writing
        self.connection_lost = stream.connection_lost

    def connection_made(self, transport: Transport) -> None:
        self._write = transport.write
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.close = transport.close
        self.abort = transport.abort
        self._stream.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._recording.received.append(bytes(data))
        self._stream.data_received(data)

    def write(self, data: bytes) -> None:
        self._recording.sent += data
        self._write(data)


class TappedAdapter:
    """Another adapter, whose one connection is recorded."""

    def __init__(self, adapter: Adapter, recording: Recording) -> None:
        self._adapter = adapter
        self._recording = recording

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        return self._adapter.connect(endpoint, Tap(stream, self._recording))


class Still:
    """The runtime of a core without a loop: time stands still."""

    adapter: Adapter = MemoryAdapter()

    def time(self) -> float:
        return 0.0

    def create_future(self) -> Promise:
        raise NotImplementedError

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        raise NotImplementedError

    def output_ready(self, waiting: int = 0) -> None:
        """The replay looks by itself."""

    def flush_next_turn(self) -> None:
        raise NotImplementedError

    def perform(self, action: Callable[..., T], *arguments: object) -> T:
        raise NotImplementedError


class Play(evamqp.Handler):
    """A session that touches much of the protocol, and whose steps follow from what comes."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def note(self, *what: object) -> None:
        self.events.append(repr(what))

    def on_open(self, connection: evamqp.Connection) -> None:
        self.note("open", connection.frame_max, connection.server_properties)
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.note("channel open", channel.number)
        if channel.number > 1:
            channel.queue_declare("q", on_error=lambda error: self.note(str(error)))
            return
        channel.confirm_select()
        channel.exchange_declare("e", "topic")
        channel.queue_declare("q", durable=True, callback=self.note)
        channel.queue_bind("q", "e", "#")
        for size in (0, 1, 10, 100_000, 300_000):
            headers: dict[str, object] = {"size": size, "filler": "x" * (size // 3)}
            channel.basic_publish("e", f"key.{size}", b"b" * size, Properties(headers=headers))
        channel.basic_publish("e", "key", b"fails", mandatory=True)
        channel.basic_publish("", "nowhere", b"returned", mandatory=True)
        channel.basic_get("q", callback=self.on_message)
        channel.basic_qos(2)
        channel.basic_consume("q", self.on_message)

    def on_message(self, message: Message | None) -> None:
        assert message is not None
        self.note(message, message.body, message.properties, message.redelivered)
        if message.body == b"b" and not message.redelivered:
            message.nack()
        else:
            message.ack()
        if message.body == b"fails":
            message.channel.connection.channel()

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        self.note("confirmed", list(tags), acked)

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        self.note("returned", returned)

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.note("channel close", channel.number, str(reason), list(channel.unconfirmed))
        if channel.number > 1:
            channel.connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.note("close", str(reason), connection.stats.messages_received)


def replay(parameters: evamqp.Parameters, pieces: list[bytes]) -> tuple[list[str], bytes]:
    """What the same play is told, and says, when it receives these bytes."""
    play = Play()
    core = evamqp.Connection(play, Still())
    sent = bytearray()
    core.connection_made(parameters)
    sent += b"".join(iter(core.data_to_send, b""))
    for piece in pieces:
        core.receive_data(piece)
        while core.next_deadline() == 0.0:
            core.handle_timer()
        sent += b"".join(iter(core.data_to_send, b""))
    core.connection_lost(None)
    while core.next_deadline() == 0.0:
        core.handle_timer()
    return play.events, bytes(sent)


class TestReplay(SharingVhost, OnEveryLoop):
    @pytest.mark.parametrize("size", [1, 7, 4096, 1 << 30])
    def test_recorded_session_replays_identically(self, rig: Rig, size: int) -> None:
        recording = Recording()
        parameters = rig.parameters()
        play = Play()
        adapter = TappedAdapter(rig.loop.adapter, recording)
        connection = evamqp.connect(parameters, play, adapter=adapter)
        rig.wait(connection.wait_closed())
        rig.until(lambda: "'close'" in play.events[-1])

        stream = b"".join(recording.received)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        events, sent = replay(parameters, pieces)
        assert events == play.events
        assert sent == bytes(recording.sent)
