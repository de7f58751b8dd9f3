"""ContentHeader: what test doubles of deliveries are made with."""

from __future__ import annotations

from evamqp.compat.aio_pika.pamqp.commands import Basic


class ContentHeader:
    """The properties of a message, and the size of its body.

    Args:
        weight: Means nothing.
        body_size: Bytes.
        properties: None means none set.
    """

    __slots__ = ("body_size", "properties", "weight")

    def __init__(
        self, weight: int = 0, body_size: int = 0, properties: Basic.Properties | None = None
    ) -> None:
        self.weight: int = weight
        self.body_size: int = body_size
        self.properties: Basic.Properties = Basic.Properties() if properties is None else properties
