"""aio-pika's programs on evamqp: change the import, or run them by ``python -m evamqp.compat``.

Only names live here; docs/migrating-from-aio-pika.md says what is better.
"""

from __future__ import annotations

from evamqp.compat.aio_pika import abc, exceptions, patterns, pool
from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.connection import Connection, connect, connect_url
from evamqp.compat.aio_pika.exceptions import AMQPException, MessageProcessError
from evamqp.compat.aio_pika.exchange import Exchange, ExchangeType
from evamqp.compat.aio_pika.log import logger
from evamqp.compat.aio_pika.message import DeliveryMode, IncomingMessage, Message
from evamqp.compat.aio_pika.queue import Queue
from evamqp.compat.aio_pika.robust_channel import RobustChannel
from evamqp.compat.aio_pika.robust_connection import RobustConnection, connect_robust
from evamqp.compat.aio_pika.robust_exchange import RobustExchange
from evamqp.compat.aio_pika.robust_queue import RobustQueue

#: What else programs of aio-pika import, and which module stands in for it.
ANSWERS = {
    "aiormq": "evamqp.compat.aio_pika.aiormq",
    "pamqp": "evamqp.compat.aio_pika.pamqp",
}

#: The release of aio-pika that this is modelled on.
__version__ = "10.2.1"

__all__ = [
    "AMQPException",
    "Channel",
    "Connection",
    "DeliveryMode",
    "Exchange",
    "ExchangeType",
    "IncomingMessage",
    "Message",
    "MessageProcessError",
    "Queue",
    "RobustChannel",
    "RobustConnection",
    "RobustExchange",
    "RobustQueue",
    "__version__",
    "abc",
    "connect",
    "connect_robust",
    "connect_url",
    "exceptions",
    "logger",
    "patterns",
    "pool",
]
