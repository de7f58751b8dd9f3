"""The faults that a test can ask for: of the wire, of the broker's answers, of the broker itself.

Each method says what a client sees.  Nothing here happens unless a test calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from evamqp.abc import Handle
from evamqp.errors import BadArgument
from evamqp.testing.broker.loops import Loop, on_loop
from evamqp.testing.broker.refusal import Refusal
from evamqp.testing.broker.wire import Direction, Unit, Wire

if TYPE_CHECKING:
    from evamqp.testing.broker.base_channel import BaseServerChannel
    from evamqp.testing.broker.channel import ServerChannel
    from evamqp.testing.broker.virtual_host import VirtualHost

SHUTDOWN = "broker forced connection closure with reason 'shutdown'"


class FaultTarget(Protocol):
    """What faults need of the broker they befall."""

    alarm: str | None
    wires: dict[int, Wire]
    virtual_hosts: dict[str, VirtualHost]

    @property
    def loop(self) -> Loop: ...
    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle: ...
    def start_listening(self) -> None: ...
    def stop_listening(self) -> None: ...


class Faults:
    """What can go wrong; ``broker.faults``.

    Where ``only`` is an argument, it is the number of a connection (see ``broker.connections``);
    None means all that are open.
    """

    def __init__(self, target: FaultTarget) -> None:
        self._target = target
        self._publish_faults: deque[str] = deque()
        self._held: list[BaseServerChannel] = []
        self._confirm_delay: float | None = None
        self._holds = False
        self._channel_delay: float | None = 0.0
        self._unanswered: list[ServerChannel] = []
        #: Whether consumers' limits are ignored.
        self.ignores_prefetch: bool = False
        self._next_cut: tuple[Direction, Unit, int, bool] | None = None

    @property
    def loop(self) -> Loop:
        return self._target.loop

    # The wire

    @on_loop
    def drop_connections(self, *, reset: bool = False, only: int | None = None) -> None:
        """End connections without a word of AMQP: an end of file, or with ``reset`` an RST."""
        for wire in self._wires(only):
            wire.reset() if reset else wire.hang_up()

    @on_loop
    def cut_after(
        self,
        *,
        frames: int | None = None,
        bytes: int | None = None,
        direction: Direction = "sent",
        reset: bool = True,
        only: int | None = None,
    ) -> None:
        """End a connection after so many frames, or in the middle of one after so many bytes.

        Args:
            frames: Frames that still pass; the rest is lost.
            bytes: Bytes that still pass.  Exactly one of the two is given.
            direction: What is counted: what the broker has ``"sent"``, or ``"received"``.  What
                it received it has carried out, but its answers to the last bytes are lost.
            reset: End with an RST rather than an end of file.
            only: None means the next connection to come, from its first byte on.
        """
        if (frames is None) is (bytes is None):
            raise BadArgument("cut_after() takes either frames or bytes")
        unit: Unit = "bytes" if frames is None else "frames"
        count = bytes if frames is None else frames
        assert count is not None
        if only is None:
            self._next_cut = direction, unit, count, reset
        else:
            self._target.wires[only].cut(direction, unit, count, reset=reset)

    def admit(self, wire: Wire) -> None:
        """A connection came: the next cut is for it."""
        if self._next_cut is not None:
            (direction, unit, count, reset), self._next_cut = self._next_cut, None
            wire.cut(direction, unit, count, reset=reset)

    @on_loop
    def refuse_connections(self) -> None:
        """Listen no more; connections that are open stay."""
        self._target.stop_listening()

    @on_loop
    def accept_connections(self) -> None:
        """Listen again at the same places."""
        self._target.start_listening()

    @on_loop
    def stall(self, *, only: int | None = None) -> None:
        """Freeze: connections stay, nothing is read and nothing sent, heartbeats included."""
        for wire in self._wires(only):
            wire.connection.is_stalled = True
            wire.connection.resume()

    @on_loop
    def resume(self, *, only: int | None = None) -> None:
        """End stall()."""
        for wire in self._wires(only):
            wire.connection.is_stalled = False
            wire.connection.resume()

    # The broker's word

    @on_loop
    def close_connections(
        self, code: int = 320, text: str = "closed by the operator", *, only: int | None = None
    ) -> None:
        """Close connections with connection.close."""
        for wire in self._wires(only):
            wire.connection.refuse(Refusal(code, text))

    @on_loop
    def close_channels(self, code: int, text: str, *, only: int | None = None) -> None:
        """Close every channel with channel.close, blaming no method."""
        for wire in self._wires(only):
            for channel in list(wire.connection.channels.values()):
                if channel.is_open:
                    channel.refuse(Refusal(code, text))

    @on_loop
    def block(self, reason: str = "low on memory") -> None:
        """Raise an alarm: publishers are sent connection.blocked, and are no longer read from."""
        self._target.alarm = reason

    @on_loop
    def unblock(self) -> None:
        """End the alarm."""
        self._target.alarm = None
        for wire in self._wires(None):
            wire.connection.unblock()

    @on_loop
    def cancel_consumers(self, queue: str, *, vhost: str = "/") -> None:
        """Cancel a queue's consumers, as RabbitMQ does when a queue fails over."""
        found = self._target.virtual_hosts[vhost].queues[queue]
        for consumer in found.take_consumers():
            consumer.channel.lose_consumer(consumer)

    @on_loop
    def delete_queue(self, queue: str, *, vhost: str = "/") -> None:
        """Delete a queue and what it holds; its consumers are cancelled."""
        host = self._target.virtual_hosts[vhost]
        host.remove_queue(host.queues[queue])

    @on_loop
    def replay_deliveries(self, count: int = 32, *, only: int | None = None) -> None:
        """Send the last deliveries once more, whatever has become of their channels.

        RabbitMQ sends such late frames after it has closed a channel, even when the client has
        opened another one of the same number since.
        """
        for wire in self._wires(only):
            wire.connection.replay(count)

    # Channels

    @on_loop
    def delay_channels(self, seconds: float | None) -> None:
        """Answer channel.open so much later, by the loop's clock; None never does."""
        self._channel_delay = seconds

    @on_loop
    def admit_channels(self) -> None:
        """Answer channel.open at once again, and what was never answered."""
        self._channel_delay = 0.0
        unanswered, self._unanswered = self._unanswered, []
        for channel in unanswered:
            self._confirm_open(channel)

    def open_channel(self, channel: ServerChannel) -> None:
        """A channel was opened: answer it now, later, or not yet."""
        if self._channel_delay != 0:
            channel.waiting = []  # a broker answers in order
        if self._channel_delay is None:
            self._unanswered.append(channel)
        elif self._channel_delay:
            self._target.call_later(self._channel_delay, partial(self._confirm_open, channel))
        else:
            channel.confirm_open()

    @staticmethod
    def _confirm_open(channel: ServerChannel) -> None:
        if channel.is_open:
            channel.confirm_open()

    # Consumers

    @on_loop
    def ignore_prefetch(self, ignored: bool = True) -> None:
        """Deliver whatever is ready, however much a consumer holds and whatever its limits."""
        self.ignores_prefetch = ignored
        for wire in self._wires(None):
            for channel in list(wire.connection.channels.values()):
                channel.serve_consumers()

    # Confirms

    @on_loop
    def hold_confirms(self) -> None:
        """Take what is published, and confirm nothing until release_confirms()."""
        self._holds = True

    @on_loop
    def release_confirms(self) -> None:
        """Send the confirms held back, and hold back none from now on."""
        self._holds = False
        self._confirm_delay = None
        held, self._held = self._held, []
        for channel in held:
            channel.flush_confirms()

    @on_loop
    def delay_confirms(self, seconds: float) -> None:
        """Send confirms so much later, by the loop's clock; release_confirms() ends it."""
        self._confirm_delay = seconds

    @on_loop
    def repeat_confirms(self, *, only: int | None = None) -> None:
        """Send the last confirms of every channel once more."""
        for wire in self._wires(only):
            for channel in wire.connection.channels.values():
                channel.repeat_confirms()

    @on_loop
    def nack_next(self, count: int = 1) -> None:
        """Refuse the next publishes: no queue gets them, and they are nacked."""
        self._publish_faults.extend(["nack"] * count)

    @on_loop
    def return_next(self, count: int = 1) -> None:
        """Find no queue for the next publishes: mandatory ones are returned, all are acked."""
        self._publish_faults.extend(["return"] * count)

    @on_loop
    def lose_next(self, count: int = 1) -> None:
        """Drop the next publishes without a confirm, as a broker that crashes does."""
        self._publish_faults.extend(["lose"] * count)

    @on_loop
    def lose_confirms(self, count: int = 1) -> None:
        """Bring the next publishes to their queues, and never confirm them."""
        self._publish_faults.extend(["unconfirmed"] * count)

    @property
    def holds_confirms(self) -> bool:
        return self._holds or self._confirm_delay is not None

    def publish_fault(self) -> str | None:
        """What becomes of a publish that came just now."""
        return self._publish_faults.popleft() if self._publish_faults else None

    def confirm_later(self, channel: BaseServerChannel) -> None:
        """A channel owes confirms that are held back."""
        if self._holds or self._confirm_delay is None:
            self._held.append(channel)
        else:
            self._target.call_later(self._confirm_delay, channel.flush_confirms)

    # The broker as a whole

    @on_loop
    def stop(self, *, graceful: bool = True) -> None:
        """Shut down: durable things and persistent messages are what start() finds.

        Args:
            graceful: Connections are closed with 320; else they end with an RST, as in a crash.
        """
        self._target.stop_listening()
        for wire in self._wires(None):
            if graceful:
                wire.connection.refuse(Refusal(320, SHUTDOWN))
                wire.connection.hang_up()
            else:
                wire.connection.abort()
        self._target.alarm = None
        self._held.clear()
        self._unanswered.clear()
        for host in self._target.virtual_hosts.values():
            host.restart()

    @on_loop
    def start(self) -> None:
        """Come back after stop()."""
        self._target.start_listening()

    @on_loop
    def restart(self, *, down: float = 0.0, graceful: bool = True) -> None:
        """stop(), and start() so many seconds later by the loop's clock.  Returns at once."""
        self.stop(graceful=graceful)
        if down:
            self._target.call_later(down, self._target.start_listening)
        else:
            self._target.start_listening()

    def repair(self) -> None:
        """End every fault that lasts."""
        self._publish_faults.clear()
        self._next_cut = None
        self.ignores_prefetch = False
        self.admit_channels()
        self.release_confirms()
        self.resume()
        self.unblock()

    def _wires(self, only: int | None) -> Iterable[Wire]:
        if only is None:
            return list(self._target.wires.values())
        return [self._target.wires[only]]
