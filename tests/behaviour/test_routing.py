"""Where a message goes: exchanges of every type, bindings between them, alternates, copies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from evamqp.codec.properties import Properties
from tests.behaviour.client import TYPED_HEADERS, Refused, raw_headers
from tests.behaviour.rig import Rig, Talker

# Pattern, key, and whether they match.
TOPICS = [
    ("a.b.c", "a.b.c", True),
    ("a.b.c", "a.b", False),
    ("a.*.c", "a.b.c", True),
    ("a.*.c", "a.c", False),
    ("a.*.c", "a..c", True),
    ("a.*", "a.b.c", False),
    ("*", "", False),
    ("*", "a", True),
    ("*.*", "a", False),
    ("#", "", True),
    ("#", "a.b.c", True),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("#.c", "a.b.c", True),
    ("#.c", "c", True),
    ("#.c", "a.c.b", False),
    ("a.#.c", "a.c", True),
    ("a.#.c", "a.b.b.c", True),
    ("#.b.#", "a.b.c", True),
    ("#.b.#", "a.c", False),
    ("#.#", "a", True),
    ("*.#", "", False),
    ("*.#", "a.b", True),
    ("#.*", "a", True),
    ("", "", True),
    ("", "a", False),
    ("a", "*", False),
    ("#.#.#.a", "b.b.b.a", True),
]
MATCHES = ("all", "any", "all-with-x", "any-with-x")
# A binding's arguments, a message's headers, and whether they match.
HEADERS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"x-match": "all", "a": 1, "b": "2"}, {"a": 1, "b": "2", "c": 3}, True),
    ({"x-match": "all", "a": 1, "b": "2"}, {"a": 1}, False),
    ({"x-match": "any", "a": 1, "b": "2"}, {"b": "2"}, True),
    ({"x-match": "any", "a": 1}, {"a": 2}, False),
    ({"x-match": "any"}, {"a": 1}, False),
    ({"x-match": "all"}, {}, True),
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1}, {"a": "1"}, False),
    ({"a": None}, {"a": 7}, True),
    ({"a": None}, {}, False),
    ({"a": True}, {"a": True}, True),
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": True}, False),
    ({"a": datetime.fromtimestamp(7, timezone.utc)}, {"a": 7}, True),
    ({"a": Decimal("1.00")}, {"a": 1}, False),
    ({"a": Decimal("1.00")}, {"a": Decimal("1.0")}, False),
    ({"a": Decimal("1.00")}, {"a": Decimal("1.00")}, True),
    ({"a": b"x"}, {"a": "x"}, True),
    ({"a": ""}, {"a": None}, False),
    ({"a": [1]}, {"a": [1]}, True),
    ({"a": [1]}, {"a": [True]}, False),
    ({"a": 1, "x-foo": 5}, {"a": 1}, True),
    ({"x-match": "all-with-x", "a": 1, "x-foo": 5}, {"a": 1}, False),
    ({"x-match": "any-with-x", "x-foo": 5}, {"x-foo": 5}, True),
    ({"x-match": "any", "x-foo": 5}, {"x-foo": 5}, False),
]


@pytest.fixture
def client(rig: Rig) -> Talker:
    """A client with two queues."""
    client = rig.open()
    client.declare_queue("q")
    client.declare_queue("r")
    return client


def test_default_exchange_routes_to_the_queue_of_that_name(client: Talker) -> None:
    client.put("q", b"one")
    client.put("r", b"two")
    client.put("nope", b"three")
    assert client.bodies("q") == [b"one"]
    assert client.bodies("r") == [b"two"]


def test_direct_exchange_routes_by_equal_keys(client: Talker) -> None:
    client.bind("q", "amq.direct", "a")
    client.bind("r", "amq.direct", "a")
    client.bind("r", "amq.direct", "b")
    for key in ("a", "b", "c"):
        client.put(key, key.encode(), exchange="amq.direct")
    assert client.bodies("q") == [b"a"]
    assert client.bodies("r") == [b"a", b"b"]


def test_fanout_exchange_routes_to_every_queue_once(client: Talker) -> None:
    for key in ("a", "b"):
        client.bind("q", "amq.fanout", key)
    client.bind("r", "amq.fanout", "")
    client.put("whatever", b"one", exchange="amq.fanout")
    assert client.bodies("q") == client.bodies("r") == [b"one"]


def test_topic_exchange_matches_words(client: Talker, rig: Rig) -> None:
    wrong = []
    most = rig.answer({"3.8": 10, "4.3": 2})
    for pattern, key, matches in TOPICS:
        if pattern.count("#") > most:
            continue  # the next law is about these
        client.bind("q", "amq.topic", pattern)
        client.put(key, b"m", exchange="amq.topic")
        if bool(client.bodies("q")) is not matches:
            wrong.append((pattern, key))
        client.unbind("q", "amq.topic", pattern)
    assert wrong == []


def test_topic_key_of_three_hashes_is_406_since_4_3(client: Talker, rig: Rig) -> None:
    if rig.answer({"3.8": True, "4.3": False}):
        client.bind("q", "amq.topic", "#.a.#.b.#")
        client.put("b.a.b", b"m", exchange="amq.topic")
        assert client.bodies("q") == [b"m"]
        return
    refused = client.refused(1, "queue.bind", "q", "amq.topic", "#.a.#.b.#", False, {})
    text = "Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}")


def test_topic_exchange_finds_each_queue_once_and_forgets_what_is_unbound(client: Talker) -> None:
    for pattern in ("#", "a.*", "*.b", "a.b"):
        client.bind("q", "amq.topic", pattern)
    client.bind("r", "amq.topic", "a.#")
    client.put("a.b", b"one", exchange="amq.topic")
    for pattern in ("#", "a.*", "*.b"):
        client.unbind("q", "amq.topic", pattern)
    client.put("a.c", b"two", exchange="amq.topic")
    client.put("a.b", b"three", exchange="amq.topic")
    assert client.bodies("q") == [b"one", b"three"]
    assert client.bodies("r") == [b"one", b"two", b"three"]


def test_headers_exchange_matches_headers(client: Talker, rig: Rig) -> None:
    wrong = []
    kinds = rig.answer({"3.8": MATCHES[:2], "3.10": MATCHES})
    for arguments, headers, matches in HEADERS:
        if arguments.get("x-match", "all") not in kinds:
            continue  # the next law is about these
        client.bind("q", "amq.headers", "", arguments)
        client.put("", b"m", Properties(headers=headers), exchange="amq.headers")
        if bool(client.bodies("q")) is not matches:
            wrong.append((arguments, headers))
        client.unbind("q", "amq.headers", "", arguments)
    assert wrong == []


@pytest.mark.parametrize(("wanted", "value"), [(1, 1.0), (2.0**40, 2**40)])
def test_whole_float_matches_the_integer_until_4_0(
    client: Talker, rig: Rig, wanted: float, value: float
) -> None:
    client.bind("q", "amq.headers", "", {"a": wanted})
    client.put("", b"m", Properties(headers={"a": value}), exchange="amq.headers")
    assert bool(client.bodies("q")) is rig.answer({"3.8": True, "4.0": False})


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (
            "foo",
            {
                "3.8": 'Invalid x-match field value <<"foo">>; expected all or any',
                "3.10": (
                    'Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or'
                    " any-with-x"
                ),
            },
        ),
        (
            "any-with-x",
            {
                "3.8": 'Invalid x-match field value <<"any-with-x">>; expected all or any',
                "3.10": None,
            },
        ),
        (5, {"3.8": "Invalid x-match field type signedint (value 5); expected longstr"}),
    ],
)
def test_unknown_match_is_406(
    client: Talker, rig: Rig, value: Any, texts: Mapping[str, str | None]
) -> None:
    text = rig.answer(texts)
    if text is None:
        client.bind("q", "amq.headers", "", {"x-match": value})
        return
    refused = client.refused(1, "queue.bind", "q", "amq.headers", "", False, {"x-match": value})
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}")


def test_binding_twice_delivers_once_and_one_unbind_undoes_it(client: Talker) -> None:
    client.bind("q", "amq.direct", "a")
    client.bind("q", "amq.direct", "a")
    client.put("a", b"one", exchange="amq.direct")
    client.unbind("q", "amq.direct", "a")
    client.put("a", b"two", exchange="amq.direct")
    assert client.bodies("q") == [b"one"]


def test_exchanges_route_to_exchanges_even_in_a_circle(client: Talker) -> None:
    client.declare_exchange("x", "fanout")
    client.declare_exchange("y", "topic")
    client.bind_exchange("y", "x")
    client.bind_exchange("x", "y", "#")
    client.bind("q", "y", "a.*")
    client.bind("r", "x")
    client.put("a.b", b"one", exchange="x")
    client.put("b", b"two", exchange="x")
    assert client.bodies("q") == [b"one"]
    assert client.bodies("r") == [b"one", b"two"]


def test_unbound_exchange_gets_nothing_more(client: Talker) -> None:
    client.declare_exchange("x", "fanout")
    client.bind("q", "x")
    client.bind_exchange("x", "amq.direct", "k")
    client.put("k", b"one", exchange="amq.direct")
    client.call(1, "exchange.unbind", "x", "amq.direct", "k", False, {})
    client.put("k", b"two", exchange="amq.direct")
    assert client.bodies("q") == [b"one"]


def test_alternate_exchange_takes_what_nobody_takes(client: Talker) -> None:
    client.declare_exchange("rest", "fanout")
    client.declare_exchange("x", arguments={"alternate-exchange": "rest"})
    client.bind("q", "x", "a")
    client.bind("r", "rest")
    client.put("a", b"one", exchange="x")
    client.put("b", b"two", exchange="x", mandatory=True)
    assert client.bodies("q") == [b"one"]
    assert client.bodies("r") == [b"two"]
    assert not client.events


def test_internal_exchange_takes_messages_of_exchanges_only(client: Talker, rig: Rig) -> None:
    client.declare_exchange("inside", "fanout", internal=True)
    client.bind("q", "inside")
    client.bind_exchange("inside", "amq.fanout")
    client.put("", b"one", exchange="amq.fanout")
    assert client.bodies("q") == [b"one"]
    client.put("", b"two", exchange="inside")
    refused = client.refusal()
    text = f"ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '{rig.vhost}'"
    assert refused.args == (403, text)
    assert refused.ids == (60, 40)


def test_copies_go_to_further_keys_and_blind_ones_are_not_shown(client: Talker) -> None:
    client.declare_queue("s")
    client.put("q", b"one", Properties(headers={"CC": ["r"], "BCC": ["s", "nope"], "h": 1}))
    for queue in ("q", "r", "s"):
        event = client.got(queue)
        assert event.properties is not None
        assert event.properties.headers == {"CC": ["r"], "h": 1}
        assert event["routing_key"] == "q"


@pytest.mark.parametrize(
    ("name", "value", "kind"), [("CC", "x", "longstr"), ("BCC", 5, "signedint")]
)
def test_copies_that_are_no_list_are_406(client: Talker, name: str, value: Any, kind: str) -> None:
    client.put("q", b"", Properties(headers={name: value}))
    text = f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}'
    assert client.refusal().args == (406, f"PRECONDITION_FAILED - {text}")


def test_deleted_exchange_takes_its_bindings_along(client: Talker) -> None:
    client.declare_exchange("x", "fanout")
    client.bind("q", "x")
    client.call(1, "exchange.delete", "x", False, False)
    client.declare_exchange("x", "fanout")
    client.put("", b"lost", exchange="x")
    assert client.bodies("q") == []
    with pytest.raises(Refused):
        client.declare_exchange("gone", passive=True)


def test_taking_blind_copies_out_keeps_the_types_of_headers(client: Talker) -> None:
    blind = b"\3BCCA\0\0\0\6S\0\0\0\1r"
    client.publish_raw(1, "", "q", raw_headers(*TYPED_HEADERS[:4], blind, *TYPED_HEADERS[4:]))
    for queue in ("q", "r"):
        properties = client.got(queue).properties
        assert properties is not None
        assert properties.raw == raw_headers(*TYPED_HEADERS)


def test_bindings_whose_arguments_differ_in_type_are_two(client: Talker) -> None:
    client.bind("q", "amq.headers", "", {"a": True})
    client.bind("q", "amq.headers", "", {"a": 1})
    client.unbind("q", "amq.headers", "", {"a": 1})
    client.put("", b"number", Properties(headers={"a": 1}), exchange="amq.headers")
    client.put("", b"truth", Properties(headers={"a": True}), exchange="amq.headers")
    assert client.bodies("q") == [b"truth"]
