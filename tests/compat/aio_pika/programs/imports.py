"""What programs import besides aio_pika itself."""

import aio_pika
import aiormq
import aiormq.exceptions
from aio_pika.abc import AbstractRobustConnection
from aio_pika.exceptions import DeliveryError as Delivery
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

assert DeliveryError is Delivery is aiormq.DeliveryError is aiormq.exceptions.DeliveryError
assert issubclass(DeliveryError, aio_pika.AMQPException)
assert aiormq.spec.Basic.Ack is Basic.Ack
assert AbstractRobustConnection is aio_pika.RobustConnection
table: FieldTable = {"a": 1}
message = aio_pika.IncomingMessage(
    DeliveredMessage(
        Basic.Deliver("tag", 1, False, "", "key"),
        ContentHeader(0, 0, Basic.Properties(headers=table)),
        b"",
        None,  # type: ignore[arg-type]
    )
)
assert message.headers == table
print(aio_pika.__name__, aiormq.__name__, Basic.Ack.__module__)
