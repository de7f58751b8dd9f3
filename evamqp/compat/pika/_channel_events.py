"""The events of one channel, as pika's callbacks get them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import evamqp

from . import spec
from ._properties import from_wire
from .frame import Method

if TYPE_CHECKING:
    from .channel import Channel

_new: Any = object.__new__
_Ack, _Nack = spec.Basic.Ack, spec.Basic.Nack


def confirmation(tags: Sequence[int], acked: bool) -> Any:
    """The ``Basic.Ack`` or ``Basic.Nack`` that settles these tags, and none besides."""
    # By hand, since there may be one for each publish.
    method = _new(_Ack if acked else _Nack)
    method.delivery_tag = tags[-1]
    method.multiple = len(tags) > 1
    if not acked:
        method.requeue = False
    return method


class ChannelEvents(evamqp.Handler):
    """Passes the events of one channel on in pika's terms."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def confirm_to(self, callback: Callable[[Method], object]) -> None:
        """Report confirms to ``callback``, one frame for each of the broker's."""
        number = self._channel.channel_number
        callbacks = self._channel.callbacks

        def confirmed(core: evamqp.Channel, tags: Sequence[int], acked: bool) -> None:
            method = confirmation(tags, acked)
            frame = _new(Method)
            frame.frame_type = 1
            frame.channel_number = number
            frame.method = method
            callback(frame)
            if callbacks.pending(number, method) is not None:
                callbacks.process(number, method, self._channel, frame)

        # An attribute of its own, so that nothing stands between evamqp and this function.
        vars(self)["on_delivery_confirmation"] = confirmed

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Sequence[int], acked: bool
    ) -> None:
        self._channel._process(confirmation(tags, acked))

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self._channel._opened()

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self._channel._ended(reason)

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        own = self._channel
        method = spec.Basic.Return(
            returned.code, returned.text, returned.exchange, returned.routing_key
        )
        own.callbacks.process(
            own.channel_number,
            "_on_return",
            own,
            own,
            method,
            from_wire(returned.properties),
            returned.body,
        )
        own._process(method)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        own = self._channel
        own._consumers.pop(consumer_tag, None)
        own._process(spec.Basic.Cancel(consumer_tag, True))  # so brokers send it

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self._channel.connection._callback_failed(context, error)
