"""What a type checker must know of the API; it is read by mypy and pyright, and never run.

A result typed ``Any`` would pass no line of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import evamqp
import evamqp.blocking
from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.adapters.memory import MemoryAdapter
from evamqp.adapters.select import SelectAdapter
from evamqp.adapters.tornado import TornadoAdapter
from evamqp.adapters.twisted import TwistedAdapter

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from evamqp.abc import Adapter


def adapters() -> list[Adapter]:
    return [
        AsyncioAdapter(),
        MemoryAdapter(),
        SelectAdapter(),
        TornadoAdapter(),
        TwistedAdapter(),
    ]


def callbacks(handler: evamqp.Handler) -> None:
    channel = evamqp.connect(
        "amqp://localhost",
        on_open=handler.on_open,
        on_open_error=handler.on_open_error,
        on_close=lambda connection, reason: assert_type(reason, evamqp.ConnectionClosed),
        on_blocked=handler.on_blocked,
        on_unblocked=handler.on_unblocked,
        on_writable=lambda connection, writable: assert_type(writable, bool),
    ).channel(
        on_channel_open=lambda channel: assert_type(channel, evamqp.Channel),
        on_channel_close=handler.on_channel_close,
        on_delivery_confirmation=handler.on_delivery_confirmation,
        on_return=lambda channel, returned: assert_type(returned, evamqp.Returned),
        on_consumer_cancel=handler.on_consumer_cancel,
        on_callback_error=handler.on_callback_error,
    )
    assert_type(channel, evamqp.Channel)


def blocking_callbacks() -> None:
    connection = evamqp.blocking.connect(
        "amqp://localhost",
        on_blocked=lambda connection, reason: assert_type(reason, str),
        on_unblocked=lambda connection: assert_type(connection, evamqp.blocking.Connection),
        on_close=lambda connection, reason: assert_type(reason, evamqp.ConnectionClosed),
    )
    connection.channel(
        on_channel_close=lambda channel, reason: assert_type(reason, evamqp.ChannelClosed),
        on_return=lambda channel, returned: assert_type(channel, evamqp.blocking.Channel),
        on_delivery_confirmation=lambda channel, tags, acked: assert_type(acked, bool),
        on_consumer_cancel=lambda channel, tag: assert_type(tag, str),
    )


async def connection_requests(connection: evamqp.Connection) -> None:
    assert_type(await connection.wait_open(), None)
    assert_type(await connection.wait_writable(), None)
    assert_type(await connection.wait_closed(), evamqp.ConnectionClosed)
    assert_type(await connection.close(), evamqp.ConnectionClosed)
    assert_type(await connection.update_secret("token"), None)
    assert_type(connection.channel(), evamqp.Channel)
    assert_type(connection.adapter, Adapter)


async def channel_requests(channel: evamqp.Channel) -> None:
    assert_type(await channel.exchange_declare("x"), None)
    assert_type(await channel.exchange_delete("x"), None)
    assert_type(await channel.exchange_bind("x", "y"), None)
    assert_type(await channel.exchange_unbind("x", "y"), None)
    assert_type(await channel.queue_declare("q"), evamqp.DeclareOk)
    assert_type((await channel.queue_declare("q")).message_count, int)
    assert_type(await channel.queue_bind("q", "x"), None)
    assert_type(await channel.queue_unbind("q", "x"), None)
    assert_type(await channel.queue_purge("q"), int)
    assert_type(await channel.queue_delete("q"), int)
    assert_type(await channel.confirm_select(), None)
    assert_type(await channel.wait_for_confirms(), list[int])
    assert_type(await channel.basic_consume("q", print), str)
    assert_type(await channel.basic_cancel("tag"), str)
    assert_type(await channel.basic_get("q"), evamqp.Message | None)
    assert_type(await channel.basic_qos(1), None)
    assert_type(await channel.basic_recover(), None)
    assert_type(await channel.tx_select(), None)
    assert_type(await channel.tx_commit(), None)
    assert_type(await channel.tx_rollback(), None)
    assert_type(await channel.flow(True), bool)
    assert_type(await channel.close(), evamqp.ChannelClosed)
    assert_type(await channel.wait_closed(), evamqp.ChannelClosed)


def plain_calls(channel: evamqp.Channel) -> None:
    assert_type(channel.basic_publish("", "q", b"body"), int)
    assert_type(channel.basic_consume("q", print), evamqp.ConsumerTag)
    assert_type(channel.queue_purge("q"), evamqp.Request[int])
    assert_type(channel.queue_purge("q").is_done, bool)
