"""What is done on both builds, to be compared.  No test lives here."""

from __future__ import annotations

from typing import Any

from evamqp.codec.properties import Properties
from tests.support.client import Client
from tests.support.frames import ack, deliver

Publish = tuple[str, str, int, "dict[str, Any] | None", bool]


def published(publishes: list[Publish]) -> tuple[list[object], bytes]:
    """What basic_publish returned or raised, and what was sent."""
    client = Client(output_max=64 * 1024 * 1024).open()
    channel = client.confirming_channel()
    returned: list[object] = []
    for exchange, key, size, properties, mandatory in publishes:
        try:
            given = None if properties is None else Properties(**properties)
            tag = channel.basic_publish(exchange, key, b"b" * size, given, mandatory)
        except Exception as error:
            returned.append(f"{type(error).__name__}: {error}")
        else:
            returned.append(tag)
    return returned, client.taken()


def consumed(bodies: list[bytes]) -> tuple[list[object], bytes]:
    """What messages say of themselves, settled in turn in three ways, and what was sent."""
    client = Client().open()
    channel = client.channel()
    told: list[object] = []

    def on_message(message: Any) -> None:
        told.append((repr(message), message.body, message.redelivered, message.properties.app_id))
        settle = (message.ack, message.nack, message.reject)[message.delivery_tag % 3]
        told.append((settle(), message.is_settled))
        try:
            settle()
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")

    channel.basic_consume("queue", on_message, consumer_tag="tag")
    client.serve()
    properties = Properties(app_id="app", headers={"n": 1})
    for tag, body in enumerate(bodies, 1):
        client.feed(deliver(1, "tag", tag, body, properties=properties.raw))
    return told, client.taken()


def steady(rounds: int) -> None:
    """Publish, confirm, deliver and settle, then lose the connection: all of it goes."""
    client = Client().open()
    channel = client.confirming_channel()
    client.consumer(channel)
    for number in range(1, rounds + 1):
        headers = {"number": number, "text": f"text {number}", "at": 1.5, "list": [number]}
        properties = Properties(headers=headers)
        channel.basic_publish("", f"key {number}", b"body", properties)
        client.taken()
        client.feed(ack(1, number), deliver(1, "tag", number, properties=properties.raw))
        message = client.recorder.messages.pop()
        assert message.properties.headers == headers
        message.ack()
        client.taken()
        client.recorder.take()
    client.lose()
