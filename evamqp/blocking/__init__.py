"""AMQP for programs that block: every call waits for its outcome, in the thread that makes it.

Nothing but names lives here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import evamqp
from evamqp.blocking.channel import Channel
from evamqp.blocking.connection import Connection, Timer
from evamqp.blocking.loop import SharedLoop
from evamqp.blocking.message import Message
from evamqp.blocking.publishing import Batch
from evamqp.blocking.subscription import Subscription

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from evamqp.blocking._callbacks import ConnectionCallbacks

__all__ = [
    "Batch",
    "Channel",
    "Connection",
    "Message",
    "SharedLoop",
    "Subscription",
    "Timer",
    "connect",
]


def connect(
    target: str | evamqp.Parameters | Sequence[str | evamqp.Parameters],
    **callbacks: Unpack[ConnectionCallbacks],
) -> Connection:
    """Connect, and wait until the connection is open.

    Args:
        target: A URL, Parameters, or a list of them, tried in order while name, TCP or TLS fail.
            ``stall_warning`` does not apply: the loop rests while the program is away.
        callbacks: ``on_blocked(connection, reason)``, ``on_unblocked(connection)`` and
            ``on_close(connection, reason)``, called in process_events().

    Raises:
        ConnectionClosed: It could not be opened; nothing is left behind.
        BadArgument: A malformed URL or an unknown callback.
    """
    return Connection(target, **callbacks)
