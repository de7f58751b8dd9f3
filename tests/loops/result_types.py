"""What a type checker must know of each request; it is read by mypy and never run.

A result typed ``Any`` would pass no line of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import evamqp

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from evamqp.abc import Adapter


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
