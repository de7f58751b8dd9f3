"""Laws of method payloads, and of the hot methods against the table."""

from __future__ import annotations

from struct import error as StructError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evamqp.codec.frames import method_frame
from evamqp.codec.methods import (
    decode_arguments,
    encode_method,
    pack_ack,
    pack_nack,
    pack_publish,
    pack_reject,
)
from evamqp.codec.spec import BY_KEY, BY_NAME, Method
from evamqp.errors import SYNTAX_ERROR, BadArgument, BadType, MalformedData
from tests.codec.strategies import arguments_of, as_read, damaged, short_strings

every_method = pytest.mark.parametrize("method", BY_NAME.values(), ids=BY_NAME.keys())
channels = st.integers(0, 65535)
tags = st.integers(0, 2**64 - 1)


@every_method
@settings(max_examples=20)
@given(data=st.data())
def test_arguments_come_back_as_they_were(method: Method, data: st.DataObject) -> None:
    values = data.draw(arguments_of(method))
    payload = encode_method(method.name, *values)
    assert int.from_bytes(payload[:4], "big") == method.key
    assert decode_arguments(method, payload) == tuple(map(as_read, values))
    assert decode_arguments(method, b"??" + payload, 6) == tuple(map(as_read, values))


@every_method
@settings(max_examples=20)
@given(data=st.data())
def test_every_truncation_and_excess_is_a_syntax_error(method: Method, data: st.DataObject) -> None:
    payload = encode_method(method.name, *data.draw(arguments_of(method)))
    for wrong in [payload[:size] for size in range(4, len(payload))] + [payload + b"\0"]:
        with pytest.raises(MalformedData, match=method.name) as caught:
            decode_arguments(method, wrong)
        assert caught.value.code == SYNTAX_ERROR


@given(
    damaged(
        st.sampled_from(list(BY_NAME.values())).flatmap(
            lambda method: arguments_of(method).map(
                lambda values: encode_method(method.name, *values)
            )
        )
    )
)
def test_damaged_payload_gives_malformed_data_or_arguments(payload: bytes) -> None:
    method = BY_KEY.get(int.from_bytes(payload[:4], "big"))
    if method is None:
        return
    try:
        values = decode_arguments(method, payload)
    except MalformedData:
        return
    assert len(values) == len(method.arguments)


WRITTEN = [
    ("connection.tune-ok", (2047, 131072, 60), "000a001f 07ff 00020000 003c"),
    ("connection.open", ("/",), "000a0028 01 2f 00 00"),
    ("connection.open-ok", (), "000a0029 00"),
    ("connection.close", (320, "bye", 0, 0), "000a0032 0140 03 627965 0000 0000"),
    ("channel.open", (), "0014000a 00"),
    ("channel.open-ok", (), "0014000b 00000000"),
    ("channel.flow", (True,), "00140014 01"),
    (
        "exchange.declare",
        ("e", "topic", False, True, False, True, False, {"k": None}),
        "0028000a 0000 01 65 05 746f706963 0a 00000003 01 6b 56",
    ),
    ("exchange.unbind", ("d", "s", "", True, None), "00280028 0000 0164 0173 00 01 00000000"),
    (
        "queue.declare",
        ("q", True, False, True, False, True, {}),
        "0032000a 0000 01 71 15 00000000",
    ),
    ("queue.declare-ok", ("q", 3, 2**32 - 1), "0032000b 01 71 00000003 ffffffff"),
    ("queue.unbind", ("q", "e", "k", {}), "00320032 0000 0171 0165 016b 00000000"),
    ("basic.qos", (0, 200, False), "003c000a 00000000 00c8 00"),
    (
        "basic.consume",
        ("q", "t", False, True, False, False, None),
        "003c0014 0000 0171 0174 02 00000000",
    ),
    ("basic.publish", ("", "q", True, False), "003c0028 0000 00 0171 01"),
    ("basic.publish", ("x", "", True, True), "003c0028 0000 0178 00 03"),
    ("basic.deliver", ("t", 1, True, "", "q"), "003c003c 0174 0000000000000001 01 00 0171"),
    ("basic.get-empty", (), "003c0048 00"),
    ("basic.ack", (2**64 - 1, True), "003c0050 ffffffffffffffff 01"),
    ("basic.nack", (1, False, True), "003c0078 0000000000000001 02"),
    ("confirm.select", (False,), "0055000a 00"),
    ("tx.commit", (), "005a0014"),
]


@pytest.mark.parametrize(("name", "values", "written"), WRITTEN)
def test_method_is_written_as_the_specification_says(
    name: str, values: tuple[object, ...], written: str
) -> None:
    assert encode_method(name, *values) == bytes.fromhex(written)


def test_padding_after_the_bits_is_not_looked_at() -> None:
    payload = bytes.fromhex("003c0050 0000000000000001 fe")
    assert decode_arguments(BY_NAME["basic.ack"], payload) == (1, False)


def test_reserved_arguments_are_skipped_whatever_they_hold() -> None:
    payload = bytes.fromhex("003c0046 0009 0171 01")
    assert decode_arguments(BY_NAME["basic.get"], payload) == ("q", True)


REFUSED = [
    ("basic.qos", (0, 65536, False), BadArgument, "basic.qos: prefetch_count is 65536, not within"),
    ("basic.qos", (0, -1, False), BadArgument, "basic.qos: prefetch_count is -1"),
    ("basic.qos", (0, "1", False), BadType, "basic.qos: prefetch_count must be int, not str"),
    ("basic.qos", (0, True, False), BadType, "basic.qos: prefetch_count must be int, not bool"),
    ("basic.qos", (0, 1, "false"), BadType, "basic.qos: global must be bool, not 'false'"),
    ("basic.qos", (0, 1, 2), BadType, "basic.qos: global must be bool, not 2"),
    ("basic.qos", (0, 1), BadType, "basic.qos takes 3 arguments, not 2"),
    ("basic.ack", (2**64, False), BadArgument, "basic.ack: delivery_tag is"),
    ("queue.purge", ("q" * 256, False), BadArgument, "queue.purge: queue has 256 bytes"),
    ("queue.purge", (b"q", False), BadType, "queue.purge: queue must be str, not bytes"),
    (
        "queue.unbind",
        ("q", "e", "k", {"a": [object()]}),
        BadType,
        r"queue.unbind: arguments.a\[0\] is of type object",
    ),
    ("connection.secure-ok", (5,), BadType, "connection.secure-ok: response must be str or bytes"),
]


@pytest.mark.parametrize(("name", "values", "kind", "text"), REFUSED)
def test_bad_argument_is_named_with_its_method(
    name: str, values: tuple[object, ...], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        encode_method(name, *values)


def test_flags_may_be_one_and_zero() -> None:
    assert encode_method("basic.ack", 1, 1) == encode_method("basic.ack", 1, True)
    assert encode_method("basic.ack", 1, 0) == encode_method("basic.ack", 1, False)


# --- the hot methods ------------------------------------------------------------------------


@given(channels, short_strings, short_strings, st.booleans())
def test_publish_equals_its_twin(channel: int, exchange: str, key: str, mandatory: bool) -> None:
    twin = method_frame(channel, "basic.publish", exchange, key, mandatory, False)
    assert pack_publish(channel, exchange, key, mandatory) == twin


@given(channels, tags, st.booleans())
def test_ack_equals_its_twin(channel: int, tag: int, multiple: bool) -> None:
    assert pack_ack(channel, tag, multiple) == method_frame(channel, "basic.ack", tag, multiple)


@given(channels, tags, st.booleans(), st.booleans())
def test_nack_equals_its_twin(channel: int, tag: int, multiple: bool, requeue: bool) -> None:
    twin = method_frame(channel, "basic.nack", tag, multiple, requeue)
    assert pack_nack(channel, tag, multiple, requeue) == twin


@given(channels, tags, st.booleans())
def test_reject_equals_its_twin(channel: int, tag: int, requeue: bool) -> None:
    assert pack_reject(channel, tag, requeue) == method_frame(channel, "basic.reject", tag, requeue)


@pytest.mark.parametrize(
    ("exchange", "key", "mandatory", "kind", "text"),
    [
        (b"e", "k", False, BadType, "basic.publish: exchange must be str, not bytes"),
        (["e"], "k", False, BadType, "basic.publish: exchange must be str, not list"),
        ("e", None, False, BadType, "basic.publish: routing_key must be str, not NoneType"),
        ("e" * 256, "k", False, BadArgument, "basic.publish: exchange has 256 bytes"),
        ("e", "k" * 256, False, BadArgument, "basic.publish: routing_key has 256 bytes"),
        ("e", "\ud800", False, BadArgument, "basic.publish: routing_key has no UTF-8 form"),
        ("e", "k", "yes", BadType, "basic.publish: mandatory must be bool, not 'yes'"),
    ],
)
def test_publish_refuses_what_its_twin_refuses(
    exchange: str, key: str, mandatory: bool, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        pack_publish(1, exchange, key, mandatory)


@pytest.mark.parametrize(("tag", "kind"), [(-1, BadArgument), (2**64, BadArgument), ("1", BadType)])
def test_bad_delivery_tag_is_named(tag: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"basic.ack: delivery_tag"):
        pack_ack(1, tag, False)
    with pytest.raises(kind, match=r"basic.nack: delivery_tag"):
        pack_nack(1, tag, False, True)
    with pytest.raises(kind, match=r"basic.reject: delivery_tag"):
        pack_reject(1, tag, True)


def test_impossible_channel_is_our_own_bug_and_stays_visible() -> None:
    with pytest.raises(StructError):
        pack_publish(65536, "e", "k", False)
    with pytest.raises(StructError):
        pack_ack(65536, 1, False)
    with pytest.raises(StructError):
        pack_nack(65536, 1, False, False)
    with pytest.raises(StructError):
        pack_reject(65536, 1, False)
