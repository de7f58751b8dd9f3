"""Messages of the aio_pika facade: what they hold, how they are sent, what locks them."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta, timezone
from unittest.mock import AsyncMock

import pytest

from evamqp.compat import aio_pika
from evamqp.compat.aio_pika.aiormq.abc import DeliveredMessage
from evamqp.compat.aio_pika.message import (
    decode_expiration,
    encode_expiration,
    encode_timestamp,
)
from evamqp.compat.aio_pika.pamqp.commands import Basic
from evamqp.compat.aio_pika.pamqp.header import ContentHeader
from tests.compat.asyncio_rig import run

NOON = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)


def test_message_holds_what_it_is_given_and_defaults_for_the_rest() -> None:
    message = aio_pika.Message(b"body", headers={"a": 1}, correlation_id=7, timestamp=0)
    assert (message.body, message.body_size, bytes(message)) == (b"body", 4, b"body")
    assert (message.headers, message.headers_raw) == ({"a": 1}, {"a": 1})
    assert message.correlation_id == "7"
    assert message.timestamp == datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert message.delivery_mode is aio_pika.DeliveryMode.NOT_PERSISTENT
    assert message.priority == 0
    assert message.message_id is None
    assert message.info()["type"] == "None"
    assert repr(message).startswith("Message:{")
    assert copy.copy(message).info() == message.info()
    assert message.properties.headers == {"a": 1}
    assert message.properties.delivery_mode == 1


def test_sent_properties_are_those_of_aio_pika_with_an_id() -> None:
    message = aio_pika.Message(b"x", expiration=1.5, type="t", timestamp=NOON)
    sent = message.encode(message.id_to_send())
    assert (sent.headers, sent.priority, sent.delivery_mode) == ({}, 0, 1)
    assert (sent.expiration, sent.type, sent.timestamp) == ("1500", "t", NOON)
    assert sent.message_id
    assert message.id_to_send() != sent.message_id
    naive = aio_pika.Message(b"", timestamp=NOON.replace(tzinfo=None), message_id="mine")
    assert naive.encode(naive.id_to_send()).timestamp == NOON
    assert naive.id_to_send() == "mine"


def test_expirations_and_timestamps_are_of_many_types() -> None:
    assert encode_expiration(2) == "2000"
    assert encode_expiration(timedelta(seconds=1)) == "1000"
    later = encode_expiration(datetime.now(tz=timezone.utc) + timedelta(minutes=1))
    assert later is not None
    assert 50_000 < int(later) <= 60_000
    assert decode_expiration("1500") == 1.5
    assert encode_timestamp(60) == datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc)
    moment = encode_timestamp(timedelta(days=1))
    assert moment is not None
    assert moment > datetime.now(tz=timezone.utc)
    for encode in (encode_expiration, encode_timestamp):
        with pytest.raises(ValueError, match="Invalid"):
            encode("soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3"):
        aio_pika.Message(b"", delivery_mode=3)


def test_locked_message_takes_no_attribute() -> None:
    message = aio_pika.Message(b"")
    message.body = b"other"
    message.lock()
    assert message.locked
    with pytest.raises(ValueError, match="locked"):
        message.body = b"third"


def test_delivery_of_a_tests_own_making_settles_by_its_channel() -> None:
    async def scenario() -> None:
        channel = AsyncMock()
        properties = Basic.Properties(correlation_id="c", headers={"a": 1}, message_type="t")
        delivered = DeliveredMessage(
            Basic.Deliver("tag", 5, False, "ex", "key"),
            ContentHeader(0, 1, properties),
            b"x",
            channel,
        )
        message = aio_pika.IncomingMessage(delivered)
        assert (message.body, message.routing_key, message.consumer_tag) == (b"x", "key", "tag")
        assert (message.correlation_id, message.headers, message.type) == ("c", {"a": 1}, "t")
        assert message.message_count is None
        message.headers["b"] = 2  # a dict of the program's own, as in aio-pika
        assert message.headers == {"a": 1, "b": 2}
        await message.ack()
        channel.basic_ack.assert_awaited_once_with(delivery_tag=5, multiple=False)
        assert message.processed
        with pytest.raises(aio_pika.MessageProcessError):
            await message.reject()

    run(scenario())
