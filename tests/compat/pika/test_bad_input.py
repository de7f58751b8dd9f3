"""What pika refuses is refused by the same exception, and nothing of it is sent."""

from __future__ import annotations

from typing import Any

import pytest

import evamqp.compat.pika as facade
from tests.compat.pika.rig import Stage, embedded, play_both

LONG = "k" * 300

# Calls of Channel's methods that pika refuses, and stays whole.
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("basic_ack", ("x",), {}),
    ("basic_ack", (-1,), {}),
    ("basic_ack", (2**70,), {}),
    ("basic_nack", ("x",), {}),
    ("basic_reject", ("x",), {}),
    ("basic_reject", (-1,), {}),
    ("basic_publish", (3, "k", b""), {}),
    ("basic_publish", ("", 3, b""), {}),
    ("basic_publish", (None, "k", b""), {}),
    ("basic_publish", ("", "k", 3), {}),
    ("basic_publish", ("", "k", None), {}),
    ("basic_publish", ("", LONG, b""), {}),
    ("basic_consume", (3, print), {}),
    ("basic_consume", ("q", 3), {}),
    ("basic_consume", ("q", None), {}),
    ("basic_consume", ("q", print), {"callback": 3}),
    ("basic_cancel", (3,), {}),
    ("basic_cancel", ("x", 3), {}),
    ("basic_get", (3, print), {}),
    ("basic_get", ("q", 3), {}),
    ("basic_qos", ("x",), {}),
    ("basic_qos", (0, -1), {}),
    ("basic_qos", (0, "x"), {}),
    ("basic_qos", (), {"callback": 3}),
    ("basic_recover", (True, 3), {}),
    ("exchange_declare", (3,), {}),
    ("exchange_declare", ("x", 3), {}),
    ("exchange_declare", (LONG,), {}),
    ("exchange_declare", ("x",), {"callback": 3}),
    ("exchange_declare", ("x",), {"bogus": 3}),
    ("exchange_bind", (3, "x"), {}),
    ("exchange_bind", ("x", 3), {}),
    ("exchange_bind", ("x", "y", 3), {}),
    ("exchange_delete", (3,), {}),
    ("exchange_unbind", (3, "x"), {}),
    ("exchange_unbind", ("x", 3), {}),
    ("queue_declare", (3,), {}),
    ("queue_declare", (LONG,), {}),
    ("queue_declare", ("q",), {"callback": 3}),
    ("queue_declare", ("q",), {"arguments": {LONG: 1}}),
    ("queue_bind", (3, "x"), {}),
    ("queue_bind", ("q", 3), {}),
    ("queue_bind", ("q", "x", 3), {}),
    ("queue_unbind", (3,), {}),
    ("queue_unbind", ("q", 3), {}),
    ("queue_unbind", ("q",), {}),
    ("queue_purge", (3,), {}),
    ("queue_purge", ("q", 3), {}),
    ("queue_delete", (3,), {}),
    ("queue_delete", ("q",), {"callback": 3}),
    ("tx_select", (3,), {}),
    ("tx_commit", (3,), {}),
    ("tx_rollback", (3,), {}),
    ("flow", (True, 3), {}),
]
PROPERTIES: list[dict[str, Any]] = [
    {"content_type": 3},
    {"message_id": LONG},
    {"priority": 300},
    {"priority": "x"},
    {"timestamp": "x"},
    {"headers": {LONG: 1}},
]


def refused(stage: Stage) -> None:
    def ready(channel: Any) -> None:
        for name, args, named in CALLS:
            stage.tried(f"{name}{args}{named}", getattr(channel, name), *args, **named)
        for values in PROPERTIES:
            properties = stage.pika.BasicProperties(**values)
            stage.tried(f"{values}", channel.basic_publish, "", "q", b"", properties)
        stage.tried("secret", stage.connection.update_secret, 3, "x")
        channel.queue_declare("q", exclusive=True, callback=alive)

    def alive(frame: Any) -> None:
        stage.say(frame)
        stage.connection.close()

    stage.tried("early", stage.connection.channel, None, 3)
    stage.connection.channel(on_open_callback=ready)


@embedded
def test_a_channel_refuses_with_the_same_exceptions(url: str) -> None:
    log = play_both(url, refused)
    assert sum(" raised " in line for line in log) == len(CALLS) + len(PROPERTIES) + 2


@embedded
def test_nothing_is_sent_of_what_is_refused(url: str) -> None:
    stage = Stage(facade, url)

    def count(stage: Stage) -> None:
        stage.connection.channel(on_open_callback=ready)

    def ready(channel: Any) -> None:
        core = channel.connection._core
        before = core.output_size
        for name, args, named in CALLS:
            stage.tried(name, getattr(channel, name), *args, **named)
        for values in PROPERTIES:
            properties = facade.BasicProperties(**values)
            stage.tried("publish", channel.basic_publish, "", "q", b"", properties)
        stage.say(core.output_size - before, channel.consumer_tags)
        stage.connection.close()

    assert "0 []" in stage.play(count)


@pytest.mark.parametrize("parameters", [3, "amqp://"])
def test_a_connection_wants_parameters(parameters: Any) -> None:
    with pytest.raises(ValueError, match="Expected instance of Parameters"):
        facade.SelectConnection(parameters)


def test_a_connection_wants_callbacks_that_can_be_called() -> None:
    with pytest.raises(TypeError, match="must be callable, but got 3"):
        facade.SelectConnection(facade.ConnectionParameters(), 3)
