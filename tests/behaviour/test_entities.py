"""Declaring, binding and deleting: what is refused, with which code and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.behaviour.client import Refused
from tests.behaviour.rig import Rig

DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"
LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '{}'. It could"
    " be originally declared on another connection or the exclusive property value does not match"
    " that of the original declaration."
)
OF_ANOTHER_TYPE = (
    "PRECONDITION_FAILED - invalid arg '{}' for queue 'q' in vhost '{}' of queue type"
    " rabbit_classic_queue"
)
MASTERS_ARE_GONE = (
    "INTERNAL_ERROR - Feature `queue_master_locator` is deprecated.\n"
    "By default, this feature is not permitted anymore.\n"
    "The feature will be removed from a future major RabbitMQ version, regardless of the"
    " configuration; actual version to be determined.\nTo con..."
)
TRANSIENTS_ARE_GONE = (
    "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.\n"
    "Its use is not permitted per the configuration (overriding the default, which is permitted):\n"
    '    "deprecated_features.permit.transient_nonexcl_queues = false"\n'
    "Its use will not be permit..."
)
# How a queue or exchange that does not exist is asked for, and what is blamed for it.
MISSING: dict[str, tuple[str, tuple[Any, ...], tuple[int, int]]] = {
    "get": ("basic.get", ("nope", True), (60, 70)),
    "consume": ("basic.consume", ("nope", "", False, False, False, False, {}), (60, 20)),
    "passive queue": ("queue.declare", ("nope", True, False, False, False, False, {}), (50, 10)),
    "purge": ("queue.purge", ("nope", False), (50, 30)),
    "bind": ("queue.bind", ("nope", "amq.direct", "", False, {}), (50, 20)),
    "passive exchange": (
        "exchange.declare",
        ("nope", "direct", True, False, False, False, False, {}),
        (40, 10),
    ),
    "bind exchange": ("exchange.bind", ("nope", "amq.direct", "", False, {}), (40, 30)),
    "bind to exchange": ("exchange.bind", ("amq.direct", "nope", "", False, {}), (40, 30)),
}
# A first declaration, a second one that differs, and what RabbitMQ says of it.
QUEUES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"durable": False}, "'durable' for {}: received 'false' but current is 'true'"),
    ({}, {"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
    (
        {},
        {"arguments": {"x-message-ttl": 5}},
        "'x-message-ttl' for {}: received the value '5' of type 'signedint' but current is none",
    ),
    (
        {"arguments": {"x-message-ttl": 5}},
        {"arguments": {"x-message-ttl": 6}},
        "'x-message-ttl' for {}: received '6' but current is '5'",
    ),
    (
        {"arguments": {"x-dead-letter-exchange": "foo"}},
        {},
        (
            "'x-dead-letter-exchange' for {}: received none but current is the value 'foo' of type"
            " 'longstr'"
        ),
    ),
]
EXCHANGES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "fanout"}, "'type' for {}: received 'fanout' but current is 'direct'"),
    ({"durable": True}, "'durable' for {}: received 'true' but current is 'false'"),
    ({"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
    ({"internal": True}, "'internal' for {}: received 'true' but current is 'false'"),
    (
        {"arguments": {"alternate-exchange": "foo"}},
        (
            "'alternate-exchange' for {}: received the value 'foo' of type 'longstr' but current is"
            " none"
        ),
    ),
]
NOT_AN_INTEGER: Mapping[str, str | None] = {
    "3.8": "{unacceptable_type,longstr}",
    "3.10": '"expected integer, got longstr"',
}
# What is wrong with an argument; by release, and None, where some do not look at it.
BAD_ARGUMENTS: list[tuple[str, Any, str | Mapping[str, str | None]]] = [
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-message-ttl", "a", NOT_AN_INTEGER),
    ("x-message-ttl", 2**40, {"3.8": None, "3.10": "{value_too_large,1099511627776}"}),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-expires", -4, "{value_negative,-4}"),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length", "s", NOT_AN_INTEGER),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-overflow", "foo", "invalid_overflow"),
    ("x-overflow", 5, "{unacceptable_type,signedint}"),
    ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
    (
        "x-queue-type",
        "foo",
        {"3.8": "invalid_queue_type", "3.10": "\"unsupported queue type 'foo'\""},
    ),
    (
        "x-queue-mode",
        "foo",
        {"3.8": "invalid_queue_mode", "3.10": "\"unsupported queue mode 'foo'\"", "4.3": None},
    ),
    ("x-queue-mode", 5, {"3.8": "{unacceptable_type,signedint}", "4.3": None}),
    ("x-queue-type", 5, "{unacceptable_type,signedint}"),
    ("x-queue-version", 3, {"3.8": None, "3.10": "\"unsupported queue version '3'\""}),
    ("x-queue-version", 0, {"3.8": None, "3.10": "\"unsupported queue version '0'\""}),
    ("x-queue-version", -1, {"3.8": None, "3.10": "{value_negative,-1}"}),
    ("x-queue-version", "2", {"3.8": None, "3.10": NOT_AN_INTEGER["3.10"]}),
    ("x-queue-version", True, {"3.8": None, "3.10": '"expected integer, got bool"'}),
    ("x-queue-version", 1, {"3.8": None, "4.3": "\"unsupported queue version '1'\""}),
    ("x-max-priority", 300, "{max_value_exceeded,300}"),
    ("x-max-priority", "s", NOT_AN_INTEGER),
    ("x-single-active-consumer", 5, "{unacceptable_type,signedint}"),
]


@pytest.mark.parametrize("how", MISSING)
def test_what_does_not_exist_is_404(rig: Rig, how: str) -> None:
    method, arguments, ids = MISSING[how]
    refused = rig.open().refused(1, method, *arguments)
    kind = "exchange" if method.startswith("exchange") else "queue"
    assert refused.args == (404, f"NOT_FOUND - no {kind} 'nope' in vhost '{rig.vhost}'")
    assert refused.ids == ids
    assert not refused.is_hard


def test_binding_to_a_missing_exchange_is_404(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    refused = client.refused(1, "queue.bind", "q", "nope", "", False, {})
    assert refused.args == (404, f"NOT_FOUND - no exchange 'nope' in vhost '{rig.vhost}'")


def test_deleting_and_unbinding_what_does_not_exist_is_no_error(rig: Rig) -> None:
    client = rig.open()
    assert client.delete_queue("nope")["message_count"] == 0
    client.call(1, "exchange.delete", "nope", False, False)
    client.unbind("nope", "amq.direct")
    client.declare_queue("q")
    client.unbind("q", "nope")
    client.unbind("q", "amq.direct", "never bound")


@pytest.mark.parametrize(("first", "second", "text"), QUEUES)
def test_queue_declared_otherwise_is_406(
    rig: Rig, first: dict[str, Any], second: dict[str, Any], text: str
) -> None:
    client = rig.open()
    client.declare_queue("q", **first)
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", **second)
    what = text.format(f"queue 'q' in vhost '{rig.vhost}'")
    assert refused.value.args == (406, f"PRECONDITION_FAILED - inequivalent arg {what}")
    assert refused.value.ids == (50, 10)


def test_queue_declared_the_same_is_no_error(rig: Rig) -> None:
    client = rig.open()
    arguments = {"x-message-ttl": 60_000, "x-unknown": 1}
    client.declare_queue("q", durable=True, arguments=arguments)
    client.put("q")
    assert client.holds("q", 1)
    arguments["x-unknown"] = 2
    again = client.declare_queue("q", durable=True, arguments=arguments)
    assert again.arguments == ("q", 1, 0)


@pytest.mark.parametrize(("second", "text"), EXCHANGES)
def test_exchange_declared_otherwise_is_406(rig: Rig, second: dict[str, Any], text: str) -> None:
    client = rig.open()
    client.declare_exchange("x")
    with pytest.raises(Refused) as refused:
        client.declare_exchange("x", **second)
    what = text.format(f"exchange 'x' in vhost '{rig.vhost}'")
    assert refused.value.args == (406, f"PRECONDITION_FAILED - inequivalent arg {what}")
    assert refused.value.ids == (40, 10)


@pytest.mark.parametrize(("name", "value", "fault"), BAD_ARGUMENTS)
def test_bad_queue_argument_is_406(
    rig: Rig, name: str, value: Any, fault: str | Mapping[str, str | None]
) -> None:
    client = rig.open()
    told = fault if isinstance(fault, str) else rig.answer(fault)
    if told is None:
        client.declare_queue("q", arguments={name: value})
        return
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", arguments={name: value})
    text = f"PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '{rig.vhost}': "
    assert refused.value.args == (406, text + told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-delivery-limit", 3),
        ("x-max-age", "1h"),
        ("x-max-in-memory-length", 3),
        ("x-quorum-initial-group-size", 3),
    ],
)
def test_argument_of_another_queue_type_is_406(rig: Rig, name: str, value: Any) -> None:
    client = rig.open()
    if rig.answer({"3.8": True, "3.10": False}):  # whether every type takes every argument
        client.declare_queue("q", arguments={name: value})
        return
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", arguments={name: value})
    assert refused.value.args == (406, OF_ANOTHER_TYPE.format(name, rig.vhost))


def test_classic_queues_have_leaders_since_4_0(rig: Rig) -> None:
    client = rig.open()
    text = rig.answer(
        {
            "3.8": None,
            "3.10": OF_ANOTHER_TYPE,
            "4.0": (
                "PRECONDITION_FAILED - invalid arg '{}' for queue 'q' in vhost '{}':"
                " invalid_queue_locator_arg"
            ),
        }
    )
    name = "x-queue-leader-locator"
    if text is None:
        client.declare_queue("q", arguments={name: "local"})
        return
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", arguments={name: "local"})
    assert refused.value.args == (406, text.format(name, rig.vhost))


def test_alternate_exchange_that_is_no_string_is_406(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        rig.open().declare_exchange("x", arguments={"alternate-exchange": 5})
    text = (
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange"
        f" 'x' in vhost '{rig.vhost}'"
    )
    assert refused.value.args == (406, text)


def test_arguments_that_say_where_and_how_to_store_are_accepted(rig: Rig) -> None:
    arguments = {"x-queue-mode": "lazy", "x-queue-version": 2}
    rig.open().declare_queue("q", durable=True, arguments=arguments)


def test_place_of_the_master_is_accepted_until_4_3(rig: Rig) -> None:
    client = rig.open()
    arguments = {"x-queue-master-locator": "min-masters"}
    refusal = rig.answer({"3.8": None, "4.3": MASTERS_ARE_GONE})
    if refusal is None:
        client.declare_queue("q", durable=True, arguments=arguments)
        return
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", durable=True, arguments=arguments)
    assert refused.value.args == (541, refusal)
    assert refused.value.is_hard


def test_dead_letter_exchange_that_is_no_string_is_406(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        rig.open().declare_queue("q", arguments={"x-dead-letter-exchange": 5})
    text = (
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue"
        f" 'q' in vhost '{rig.vhost}'"
    )
    assert refused.value.args == (406, text)


def test_unknown_exchange_type_ends_the_connection_or_the_channel(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        rig.open().declare_exchange("x", "nope")
    code, text, is_hard = rig.answer(
        {"3.8": (503, "COMMAND_INVALID", True), "4.0": (406, "PRECONDITION_FAILED", False)}
    )
    assert refused.value.args == (code, f"{text} - unknown exchange type 'nope'")
    assert refused.value.is_hard is is_hard


def test_reserved_names_are_403(rig: Rig) -> None:
    client = rig.open()
    declare: tuple[Any, ...]
    for number, kind in enumerate(("queue", "exchange"), start=2):
        client.call(number, "channel.open")
        declare = ("amq.foo", False, False, False, False, False, {})
        if kind == "exchange":
            declare = ("amq.foo", "direct", *declare[1:])
        refused = client.refused(number, f"{kind}.declare", *declare)
        text = f"ACCESS_REFUSED - {kind} name 'amq.foo' contains reserved prefix 'amq.*'"
        assert refused.args == (403, text)


def test_system_exchange_cannot_be_deleted(rig: Rig) -> None:
    refused = rig.open().refused(1, "exchange.delete", "amq.direct", False, False)
    text = (
        f"ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '{rig.vhost}' not"
        " allowed"
    )
    assert refused.args == (403, text)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("queue.bind", ("q", "", "k", False, {})),
        ("queue.unbind", ("q", "", "k", {})),
        ("exchange.declare", ("", "direct", False, False, False, False, False, {})),
        ("exchange.delete", ("", False, False)),
        ("exchange.bind", ("", "amq.direct", "", False, {})),
    ],
)
def test_default_exchange_is_not_to_be_touched(
    rig: Rig, method: str, arguments: tuple[Any, ...]
) -> None:
    client = rig.open()
    client.declare_queue("q")
    assert client.refused(1, method, *arguments).args == (403, DEFAULT_EXCHANGE)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("queue.declare", ("q", True, False, False, False, False, {})),
        ("queue.declare", ("q", False, False, True, False, False, {})),
        ("queue.bind", ("q", "amq.direct", "", False, {})),
        ("queue.purge", ("q", False)),
        ("queue.delete", ("q", False, False, False)),
        ("basic.get", ("q", True)),
        ("basic.consume", ("q", "", False, False, False, False, {})),
    ],
)
def test_exclusive_queue_of_another_connection_is_405(
    rig: Rig, method: str, arguments: tuple[Any, ...]
) -> None:
    rig.open().declare_queue("q", exclusive=True)
    refused = rig.open().refused(1, method, *arguments)
    assert refused.args == (405, LOCKED.format(rig.vhost)[:255])


def test_exclusive_declaration_of_a_shared_queue_is_405(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", exclusive=True)
    assert refused.value.code == 405


def test_exclusive_queue_ends_with_its_connection(rig: Rig) -> None:
    first, second = rig.open(), rig.open()
    first.declare_queue("q", exclusive=True)
    first.close()
    # RabbitMQ says close-ok before the queue is gone, and 405 for a moment.
    rig.broker.sleep(0.2)
    with pytest.raises(Refused) as refused:
        second.declare_queue("q", passive=True)
    assert refused.value.code == 404


def test_server_named_queue_is_the_last_declared(rig: Rig) -> None:
    client = rig.open()
    name = client.declare_queue("")["queue"]
    assert name.startswith("amq.gen-")
    assert len(name) == len("amq.gen-1DzEhsrmrxR2TdlCq06tFQ")
    client.put(name, b"one")
    assert client.got("").body == b"one"
    client.bind("", "amq.fanout")
    client.put("", b"two", exchange="amq.fanout")
    assert client.bodies(name) == [b"two"]


def test_binding_without_queue_and_key_uses_the_queue_name_as_key(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.bind("", "amq.direct", "")
    client.put("q", b"found", exchange="amq.direct")
    assert client.bodies("q") == [b"found"]


@pytest.mark.parametrize("method", ["queue.purge", "queue.bind"])
def test_no_queue_declared_yet_is_404(rig: Rig, method: str) -> None:
    arguments: tuple[Any, ...]
    arguments = ("", False) if method == "queue.purge" else ("", "amq.direct", "", False, {})
    refused = rig.open().refused(1, method, *arguments)
    assert refused.args == (404, "NOT_FOUND - no previously declared queue")


def test_delete_if_unused_and_if_empty(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("used")
    client.declare_queue("full")
    client.put("full")
    client.consume("used")
    for number, (queue, if_unused, text) in enumerate(
        (("used", True, "in use"), ("full", False, "not empty")), start=2
    ):
        client.call(number, "channel.open")
        refused = client.refused(number, "queue.delete", queue, if_unused, not if_unused, False)
        what = f"PRECONDITION_FAILED - queue '{queue}' in vhost '{rig.vhost}' {text}"
        assert refused.args == (406, what)
    assert client.delete_queue("full")["message_count"] == 1


def test_exchange_in_use_is_not_deleted_if_unused(rig: Rig) -> None:
    client = rig.open()
    client.declare_exchange("x")
    client.declare_queue("q")
    client.bind("q", "x")
    refused = client.refused(1, "exchange.delete", "x", True, False)
    text = f"PRECONDITION_FAILED - exchange 'x' in vhost '{rig.vhost}' in use"
    assert refused.args == (406, text)


def test_purge_counts_what_is_ready_only(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    for _ in range(3):
        client.put("q")
    client.got("q", no_ack=False)
    assert client.call(1, "queue.purge", "q", False)["message_count"] == 2
    assert client.holds("q", 0)


def test_auto_delete_queue_goes_with_its_last_consumer(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", auto_delete=True)
    tags = [client.consume("q"), client.consume("q")]
    client.cancel(tags[0])
    client.declare_queue("q", passive=True)
    client.cancel(tags[1])
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", passive=True)
    assert refused.value.code == 404


def test_auto_delete_exchange_goes_with_its_last_binding(rig: Rig) -> None:
    client = rig.open()
    client.declare_exchange("x", auto_delete=True)
    client.declare_queue("q")
    client.bind("q", "x", "a")
    client.bind("q", "x", "b")
    client.unbind("q", "x", "a")
    client.declare_exchange("x", passive=True)
    client.delete_queue("q")
    with pytest.raises(Refused) as refused:
        client.declare_exchange("x", passive=True)
    assert refused.value.code == 404


def test_unused_queue_expires(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-expires": 100})
    rig.broker.sleep(0.5)
    with pytest.raises(Refused) as refused:
        client.declare_queue("q", passive=True)
    assert refused.value.code == 404


def test_queue_with_a_consumer_does_not_expire(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-expires": 100})
    client.consume("q")
    rig.broker.sleep(0.3)
    client.declare_queue("q", passive=True)


@pytest.mark.parametrize("name", ["amq.gen-mine", "amq.ctag-x", "amq."])
def test_names_that_the_broker_gives_cannot_be_declared(rig: Rig, name: str) -> None:
    refused = rig.open().refused(1, "queue.declare", name, *[False] * 5, {})
    text = f"queue name '{name}' contains reserved prefix 'amq.*'"
    assert refused.args == (403, f"ACCESS_REFUSED - {text}")


def test_name_that_the_broker_gave_cannot_be_declared_again(rig: Rig) -> None:
    client = rig.open()
    name = client.declare_queue("")["queue"]
    client.declare_queue(name, passive=True)
    refused = client.refused(1, "queue.declare", name, *[False] * 5, {})
    text = f"queue name '{name}' contains reserved prefix 'amq.*'"
    assert refused.args == (403, f"ACCESS_REFUSED - {text}")


# What is wrong with a binding in more than one way, and what is told.
FIRST_FAULTS: list[tuple[str, tuple[Any, ...], tuple[int, str]]] = [
    (
        "queue.bind",
        ("nope", "none", "", False, {}),
        (404, "NOT_FOUND - no exchange 'none' in vhost '{}'"),
    ),
    (
        "exchange.bind",
        ("nope", "none", "", False, {}),
        (404, "NOT_FOUND - no exchange 'none' in vhost '{}'"),
    ),
    ("queue.bind", ("nope", "", "", False, {}), (403, DEFAULT_EXCHANGE)),
    (
        "queue.bind",
        ("nope", "amq.headers", "", False, {"x-match": "foo"}),
        (404, "NOT_FOUND - no queue 'nope' in vhost '{}'"),
    ),
    (
        "queue.bind",
        ("q", "none", "", False, {}),
        (404, "NOT_FOUND - no exchange 'none' in vhost '{}'"),
    ),
    ("queue.unbind", ("nope", "", "", {}), (403, DEFAULT_EXCHANGE)),
]


@pytest.mark.parametrize(("method", "arguments", "answer"), FIRST_FAULTS)
def test_binding_is_refused_for_its_first_fault(
    rig: Rig, method: str, arguments: tuple[Any, ...], answer: tuple[int, str]
) -> None:
    rig.open().declare_queue("q", exclusive=True)  # by another connection
    refused = rig.open().refused(1, method, *arguments)
    assert refused.args == (answer[0], answer[1].format(rig.vhost))


def test_binding_of_another_connections_queue_is_405_only_if_it_exists(rig: Rig) -> None:
    owner, client = rig.open(), rig.open()
    owner.declare_queue("q", exclusive=True)
    owner.bind("q", "amq.direct", "k")
    client.unbind("q", "amq.direct", "another")
    client.unbind("q", "none", "k")
    refused = client.refused(1, "queue.unbind", "q", "amq.direct", "k", {})
    assert refused.args == (405, LOCKED.format(rig.vhost)[:255])


@pytest.mark.parametrize(
    ("first", "second"), [({}, {"x-queue-version": 2}), ({"x-queue-version": 2}, {})]
)
def test_queue_versions_are_compared_since_3_10(
    rig: Rig, first: dict[str, Any], second: dict[str, Any]
) -> None:
    client = rig.open()
    client.declare_queue("q", arguments=first)
    if rig.answer({"3.8": True, "3.10": False}):
        client.declare_queue("q", arguments=second)
        return
    received, current = "the value '2' of type 'signedint'", "none"
    if first:
        received, current = current, received
    refused = client.refused(1, "queue.declare", "q", False, True, *[False] * 3, second)
    text = f"inequivalent arg 'x-queue-version' for queue 'q' in vhost '{rig.vhost}'"
    assert refused.args == (
        406,
        f"PRECONDITION_FAILED - {text}: received {received} but current is {current}",
    )


def test_queue_may_be_neither_durable_nor_exclusive_until_4_3(rig: Rig) -> None:
    client = rig.open()
    if rig.answer({"3.8": True, "4.3": False}):
        client.declare_queue("q", durable=False)
        return
    client.declare_queue("mine", durable=False, exclusive=True)
    refused = client.refused(1, "queue.declare", "q", *[False] * 5, {})
    assert refused.args == (541, TRANSIENTS_ARE_GONE)
    assert refused.ids == (50, 10)
    assert refused.is_hard
