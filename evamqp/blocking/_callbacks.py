"""Which functions a blocking connection and a blocking channel call, and with what.

When they are called is connection.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict

import evamqp

if TYPE_CHECKING:
    from evamqp.blocking.channel import Channel
    from evamqp.blocking.connection import Connection
    from evamqp.types import Tags


class ConnectionCallbacks(TypedDict, total=False):
    """What ``evamqp.blocking.connect`` takes."""

    on_blocked: Callable[[Connection, str], object]
    on_unblocked: Callable[[Connection], object]
    on_close: Callable[[Connection, evamqp.ConnectionClosed], object]


class ChannelCallbacks(TypedDict, total=False):
    """What ``Connection.channel`` takes."""

    on_channel_close: Callable[[Channel, evamqp.ChannelClosed], object]
    on_return: Callable[[Channel, evamqp.Returned], object]
    on_delivery_confirmation: Callable[[Channel, Tags, bool], object]
    on_consumer_cancel: Callable[[Channel, str], object]


def checked(given: Mapping[str, object], known: type) -> dict[str, Callable[..., object]]:
    """The functions by their names; those that ``known`` annotates are allowed.

    Raises:
        BadArgument: A name is none of them.
        BadType: Something is not callable.
    """
    functions: dict[str, Callable[..., object]] = {}
    for name, function in given.items():
        if name not in known.__annotations__:
            raise evamqp.BadArgument(f"{name} is none of {', '.join(known.__annotations__)}")
        if not callable(function):
            raise evamqp.BadType(f"{name} must be callable, not {type(function).__name__}")
        functions[name] = function
    return functions
