"""The table of methods against the specification's own numbers."""

from __future__ import annotations

import pytest

from evamqp.codec.spec import BY_KEY, BY_NAME, Method

# Class and method ids as the specification and RabbitMQ's extension pages list them.
IDS = {
    "connection": (10, {
        "start": 10, "start-ok": 11, "secure": 20, "secure-ok": 21, "tune": 30, "tune-ok": 31,
        "open": 40, "open-ok": 41, "close": 50, "close-ok": 51, "blocked": 60, "unblocked": 61,
        "update-secret": 70, "update-secret-ok": 71,
    }),
    "channel": (20, {
        "open": 10, "open-ok": 11, "flow": 20, "flow-ok": 21, "close": 40, "close-ok": 41,
    }),
    "exchange": (40, {
        "declare": 10, "declare-ok": 11, "delete": 20, "delete-ok": 21, "bind": 30, "bind-ok": 31,
        "unbind": 40, "unbind-ok": 51,
    }),
    "queue": (50, {
        "declare": 10, "declare-ok": 11, "bind": 20, "bind-ok": 21, "purge": 30, "purge-ok": 31,
        "delete": 40, "delete-ok": 41, "unbind": 50, "unbind-ok": 51,
    }),
    "basic": (60, {
        "qos": 10, "qos-ok": 11, "consume": 20, "consume-ok": 21, "cancel": 30, "cancel-ok": 31,
        "publish": 40, "return": 50, "deliver": 60, "get": 70, "get-ok": 71, "get-empty": 72,
        "ack": 80, "reject": 90, "recover-async": 100, "recover": 110, "recover-ok": 111,
        "nack": 120,
    }),
    "confirm": (85, {"select": 10, "select-ok": 11}),
    "tx": (90, {
        "select": 10, "select-ok": 11, "commit": 20, "commit-ok": 21, "rollback": 30,
        "rollback-ok": 31,
    }),
}  # fmt: skip

every_method = pytest.mark.parametrize("method", BY_NAME.values(), ids=BY_NAME.keys())


def test_every_method_has_the_ids_of_the_specification() -> None:
    listed = {
        f"{class_name}.{name}": (class_id, method_id)
        for class_name, (class_id, methods) in IDS.items()
        for name, method_id in methods.items()
    }
    assert {name: (m.class_id, m.method_id) for name, m in BY_NAME.items()} == listed


def test_both_indexes_hold_the_same_methods() -> None:
    assert list(BY_KEY.values()) == list(BY_NAME.values())
    assert len(BY_KEY) == 64


@every_method
def test_key_is_the_first_four_bytes_of_the_payload(method: Method) -> None:
    assert method.key == method.class_id * 65536 + method.method_id
    assert BY_KEY[method.key] is BY_NAME[method.name] is method


@every_method
def test_replies_exist_and_come_from_the_other_side(method: Method) -> None:
    for name in method.replies:
        reply = BY_NAME[name]
        assert reply.name.startswith(method.name + "-") or method.name == "basic.get"
        assert {method.sender, reply.sender} in ({"client", "server"}, {"both"})


@every_method
def test_every_ok_is_the_reply_to_something(method: Method) -> None:
    answered = {name for other in BY_NAME.values() for name in other.replies}
    assert method.name.endswith(("-ok", "-empty")) == (method.name in answered)


def test_content_follows_what_carries_a_message() -> None:
    carriers = {method.name for method in BY_NAME.values() if method.has_content}
    assert carriers == {"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"}


def test_both_sides_send_what_the_specification_and_rabbitmq_let_them() -> None:
    assert {method.name for method in BY_NAME.values() if method.sender == "both"} == {
        "connection.close",
        "connection.close-ok",
        "channel.flow",
        "channel.flow-ok",
        "channel.close",
        "channel.close-ok",
        "basic.cancel",
        "basic.cancel-ok",
        "basic.ack",
        "basic.nack",
    }


@every_method
def test_arguments_are_those_of_the_wire_without_the_reserved(method: Method) -> None:
    assert [pair for pair in method.wire if pair[0] != "_"] == list(method.arguments)
    names = [name for name, _ in method.arguments]
    assert len(set(names)) == len(names)


@every_method
def test_bits_in_a_row_fit_one_octet(method: Method) -> None:
    assert sum(kind == "bit" for _, kind in method.wire) <= 8


def test_arguments_of_a_method_are_spelled_as_in_the_specification() -> None:
    assert BY_NAME["queue.declare"].wire == (
        ("_", "short"),
        ("queue", "shortstr"),
        ("passive", "bit"),
        ("durable", "bit"),
        ("exclusive", "bit"),
        ("auto_delete", "bit"),
        ("no_wait", "bit"),
        ("arguments", "table"),
    )
    assert BY_NAME["basic.get"].replies == ("basic.get-ok", "basic.get-empty")
    assert repr(BY_NAME["basic.ack"]) == "<Method basic.ack (60, 80)>"
