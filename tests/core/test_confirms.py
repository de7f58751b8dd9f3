"""Publisher confirms: what is outstanding, what a confirm settles, and who is told."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evamqp.codec.frames import method_frame
from evamqp.core.channel import Channel
from evamqp.core.confirms import Confirms
from evamqp.errors import NotExecuted, WrongState
from tests.perf.steady import count_steps
from tests.support.client import Client, opened, outcome
from tests.support.frames import ack, channel_close, nack


def published(count: int) -> tuple[Client, Channel]:
    """A channel with ``count`` publishes unconfirmed."""
    client = opened()
    channel = client.confirming_channel()
    assert [channel.basic_publish("", "q", b"x") for _ in range(count)] == list(range(1, count + 1))
    client.taken()
    return client, channel


def told(client: Client) -> list[tuple[list[int], bool]]:
    return [(tags, acked) for _, _, tags, acked in client.recorder.take()]


def test_tags_count_from_the_sending_of_confirm_select() -> None:
    client = opened()
    channel = client.channel()
    assert channel.basic_publish("", "q", b"x") == 0
    channel.confirm_select()
    assert channel.basic_publish("", "q", b"x") == 1
    channel.confirm_select()
    assert channel.basic_publish("", "q", b"x") == 2
    assert channel.published == 3
    client.serve()
    assert list(channel.unconfirmed) == [1, 2]


def test_outside_confirm_mode_nothing_is_unconfirmed() -> None:
    client = opened()
    channel = client.channel()
    channel.basic_publish("", "q", b"x")
    assert list(channel.unconfirmed) == []
    with pytest.raises(WrongState, match="confirm_select"):
        channel.wait_for_confirms()
    client.feed(ack(1, 1))
    assert client.log == []
    assert client.connection.stats.unknown_confirms == 1


def test_multiple_settles_everything_up_to_its_tag() -> None:
    client, channel = published(6)
    client.feed(ack(1, 2), nack(1, 5, multiple=True), ack(1, 6))
    assert told(client) == [([2], True), ([1, 3, 4, 5], False), ([6], True)]
    assert list(channel.unconfirmed) == []


def test_out_of_order_confirms_settle_what_they_name() -> None:
    client, channel = published(5)
    client.feed(ack(1, 4), nack(1, 2), ack(1, 5))
    assert told(client) == [([4], True), ([2], False), ([5], True)]
    assert list(channel.unconfirmed) == [1, 3]
    client.feed(ack(1, 1), ack(1, 3))
    assert list(channel.unconfirmed) == []


def test_tag_zero_with_multiple_settles_all() -> None:
    client, _ = published(3)
    client.feed(ack(1, 0, multiple=True))
    assert told(client) == [([1, 2, 3], True)]


@pytest.mark.parametrize(
    "confirm", [ack(1, 9), ack(1, 9, True), ack(1, 0), ack(1, 1), ack(1, 2, True), nack(1, 4)]
)
def test_unknown_tags_are_counted_and_make_no_callback(confirm: bytes) -> None:
    client, _ = published(3)
    client.feed(ack(1, 2, multiple=True))
    told(client)
    client.feed(confirm)
    assert client.log == []
    assert client.connection.stats.unknown_confirms == 1
    assert client.lives()


@pytest.mark.parametrize("multiple", [True, False])
def test_tags_are_a_range_when_contiguous_and_a_list_otherwise(multiple: bool) -> None:
    client, channel = published(6)
    seen: list[object] = []
    client.recorder.inside("on_delivery_confirmation", lambda _, tags, __: seen.append(tags))
    if multiple:
        client.feed(ack(1, 3), ack(1, 4, True), ack(1, 6, True))
        assert seen == [range(3, 4), [1, 2, 4], range(5, 7)]
    else:
        client.feed(ack(1, 5), ack(1, 1))
        assert seen == [range(5, 6), range(1, 2)]
        assert list(channel.unconfirmed) == [2, 3, 4, 6]
        client.feed(ack(1, 6))
        assert list(channel.unconfirmed) == [2, 3, 4]
        assert isinstance(channel.unconfirmed, range)


def test_confirms_right_behind_each_other_all_come() -> None:
    client, _ = published(200)
    client.feed(*(ack(1, tag) for tag in range(1, 201)))
    assert told(client) == [([tag], True) for tag in range(1, 201)]
    assert client.connection.stats.frames_received >= 200


def test_after_the_end_the_unconfirmed_stay_listed_and_nothing_is_made_up() -> None:
    client, channel = published(4)
    client.feed(ack(1, 2))
    client.lose()
    assert list(channel.unconfirmed) == [1, 3, 4]
    assert client.recorder.names == ["on_delivery_confirmation", "on_channel_close", "on_close"]


# --- wait_for_confirms


def test_a_wait_ends_with_the_nacked_tags_of_what_was_sent_before_it() -> None:
    client, channel = published(4)
    request = channel.wait_for_confirms()
    channel.basic_publish("", "q", b"later")
    client.feed(nack(1, 3), nack(1, 5), ack(1, 1), nack(1, 2))
    assert not request.is_done
    client.feed(ack(1, 4))
    assert outcome(request) == [2, 3]
    again = channel.wait_for_confirms()
    client.turn()
    assert outcome(again) == [5]


def test_waits_end_in_their_order() -> None:
    client, channel = published(1)
    note = client.recorder.note
    channel.wait_for_confirms(callback=note("first"))
    channel.wait_for_confirms(callback=note("second"))
    channel.basic_publish("", "q", b"x")
    channel.wait_for_confirms(callback=note("third"))
    client.feed(ack(1, 2, multiple=True))
    assert client.recorder.names == ["on_delivery_confirmation", "first", "second", "third"]


def test_a_wait_fails_with_the_channel() -> None:
    client, channel = published(1)
    request = channel.wait_for_confirms()
    client.feed(channel_close(1))
    assert isinstance(outcome(request), NotExecuted)
    assert outcome(request).__cause__ is channel.reason


def test_a_wait_goes_on_during_a_close() -> None:
    client, channel = published(1)
    request = channel.wait_for_confirms()
    channel.close()
    client.feed(ack(1, 1), method_frame(1, "channel.close-ok"))
    assert outcome(request) == []


def test_a_cancelled_wait_gets_no_callback() -> None:
    client, channel = published(1)
    channel.wait_for_confirms(callback=client.recorder.note("never")).cancel()
    client.feed(ack(1, 1))
    assert client.recorder.names == ["on_delivery_confirmation"]


def test_a_confirm_callback_that_raises_still_ends_the_wait() -> None:
    client, channel = published(1)
    request = channel.wait_for_confirms()
    client.recorder.inside("on_delivery_confirmation", lambda *_: 1 / 0)
    client.feed(ack(1, 1))
    assert outcome(request) == []


# --- cost


def test_a_confirm_that_never_comes_makes_no_later_one_remembered() -> None:
    confirms, count = Confirms(), 200_000
    tracemalloc.start()
    for tag in range(2, count + 1):
        confirms.settle(tag, False, count + 1)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(confirms.outstanding(count + 1)) == [1]
    assert kept < 10_000


@pytest.mark.parametrize("multiple", [False, True])
def test_what_confirms_overtake_is_settled_one_by_one_at_the_same_cost(multiple: bool) -> None:
    confirms, count = Confirms(), 50_000
    confirms.settle(count, False, count + 1)

    def settle(tags: int) -> None:
        first = confirms.lowest
        for tag in range(first, first + tags):
            confirms.settle(tag, multiple, count + 1)

    few = count_steps(lambda: settle(100))
    settle(count // 2)
    assert count_steps(lambda: settle(100)) < 2 * few


# --- the model: a plain set

operations = st.lists(
    st.one_of(
        st.just("publish"),
        st.tuples(st.integers(0, 40), st.booleans()),
        st.integers(1, 8).map(lambda count: ("publish", count)),
    ),
    max_size=60,
)


@given(operations)
def test_confirms_settle_what_a_plain_set_would(steps: list[object]) -> None:
    confirms, model, next_tag = Confirms(), set[int](), 1
    for step in steps:
        if isinstance(step, tuple) and isinstance(step[0], int):
            tag, multiple = step
            assert isinstance(tag, int)
            if multiple:
                known = tag < next_tag
                settled = {t for t in model if known and (t <= tag or tag == 0)}
            else:
                settled = model & {tag}
            tags = confirms.settle(tag, bool(multiple), next_tag)
            assert list(tags) == sorted(settled)
            assert isinstance(tags, range) or not tags or tags[-1] - tags[0] >= len(tags)
            model -= settled
        else:
            count = step[1] if isinstance(step, tuple) else 1
            assert isinstance(count, int)
            model |= set(range(next_tag, next_tag + count))
            next_tag += count
        assert list(confirms.outstanding(next_tag)) == sorted(model)
        assert confirms.lowest == min(model, default=next_tag)
        assert len(confirms._overtaken) <= len(model)
