"""What a connection and its channels share, as one object; no state machine and no I/O.

A channel gets this in place of the connection's insides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from evamqp.codec.frames import FRAME_OVERHEAD, method_frame
from evamqp.errors import BadArgument

if TYPE_CHECKING:
    from evamqp.core.backpressure import Backpressure
    from evamqp.core.callbacks import CallbackDispatcher
    from evamqp.core.channel_machine import ChannelMachine
    from evamqp.core.channels import ChannelTable
    from evamqp.core.clock import RequestClock
    from evamqp.core.message import Delivery
    from evamqp.core.output import Output
    from evamqp.core.parser import FrameParser
    from evamqp.core.stats import Stats

#: Called with each request that succeeded: channel, method, values sent, result.
Recorder: TypeAlias = Callable[[int, str, tuple[Any, ...], Any], object]


class Limits:
    """Bytes that frames and bodies may have.

    Attributes:
        frame_max: Of a frame, overhead included, as agreed on; 0 before.
        body_max: Of a body that the broker sends.
    """

    __slots__ = ("body_max", "frame_max")

    def __init__(self) -> None:
        self.frame_max: int = 0
        self.body_max: int = 0

    def check_frame(self, what: str, size: int) -> None:
        """Raise BadArgument for a payload of ``size`` bytes that does not fit a frame."""
        if size > self.frame_max - FRAME_OVERHEAD:
            limit = f"a frame of {self.frame_max} bytes, the frame_max agreed on"
            raise BadArgument(f"{what}: {size} bytes do not fit {limit}")


class Context:
    """The parts of a connection that its channels use.

    Attributes:
        message_type: What a delivery becomes.
        recorder: Called with each request that succeeds; None if nothing records them.
    """

    __slots__ = (
        "backpressure",
        "callbacks",
        "channels",
        "clock",
        "limits",
        "message_type",
        "output",
        "parser",
        "recorder",
        "stats",
    )

    def __init__(
        self,
        callbacks: CallbackDispatcher,
        output: Output,
        parser: FrameParser,
        clock: RequestClock,
        channels: ChannelTable[ChannelMachine],
        backpressure: Backpressure,
        message_type: type[Delivery],
    ) -> None:
        self.callbacks: CallbackDispatcher = callbacks
        self.output: Output = output
        self.parser: FrameParser = parser
        self.clock: RequestClock = clock
        self.channels: ChannelTable[ChannelMachine] = channels
        self.backpressure: Backpressure = backpressure
        self.message_type: type[Delivery] = message_type
        self.stats: Stats = callbacks.stats
        self.limits: Limits = Limits()
        self.recorder: Recorder | None = None

    def send_method(self, output: Output, number: int, name: str, *values: object) -> None:
        """Queue a method that counts against the output cap.

        Raises:
            BadArgument: It does not fit a frame; nothing was queued.
            OutputFull: The cap would be passed; nothing was queued.
        """
        frame = method_frame(number, name, *values)
        self.limits.check_frame(name, len(frame) - FRAME_OVERHEAD)
        output.append(frame)
