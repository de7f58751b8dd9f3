"""Publisher confirms: what is outstanding, what a confirm settles, and who is told."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evamqp.codec.frames import method_frame
from evamqp.core.channel import Channel
from evamqp.core.confirms import Confirms
from evamqp.errors import BadArgument, NotExecuted, OutputFull, WrongState
from tests.perf.steady import count_steps
from tests.support.client import Client, opened, outcome
from tests.support.frames import OPEN_OK, ack, channel_close, nack, start, tune


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


# --- publishes before confirm mode, of which old releases count the mandatory ones


def connected_to(release: str | None) -> Client:
    client = Client(output_max=100_000, output_high_water=50_000)
    client.connect()
    client.feed(start(release=release), tune(), OPEN_OK)
    client.recorder.take()
    client.taken()
    return client


def late_confirms(release: str | None) -> tuple[Client, Channel]:
    """A channel with two unconfirmed publishes, and before them four mandatory ones."""
    client = connected_to(release)
    channel = client.channel()
    for key, mandatory in [("q", True), ("q", True), ("q", False), ("r", False), ("r", True)]:
        channel.basic_publish("", key, b"x", mandatory=mandatory)
    client.fill(channel)
    with pytest.raises(OutputFull):
        channel.basic_publish("", "q", b"x", mandatory=True)
    with pytest.raises(BadArgument):
        channel.basic_publish("", "k" * 256, b"x", mandatory=True)
    client.taken()
    channel.basic_publish("", "q", b"", mandatory=True)
    before = channel.published
    channel.confirm_select()
    channel.confirm_select()
    assert [channel.basic_publish("", "q", b"x", mandatory=True) for _ in range(2)] == [1, 2]
    client.serve()
    assert channel.published == before + 2
    client.recorder.take()
    return client, channel


@pytest.mark.parametrize("release", ["3.7.0", "3.8.9", "3.9.11"])
def test_old_release_confirms_behind_the_mandatory_publishes_before(release: str) -> None:
    client, channel = late_confirms(release)
    client.feed(ack(1, 5))
    assert told(client) == [([1], True)]
    client.feed(nack(1, 6))
    assert told(client) == [([2], False)]
    assert list(channel.unconfirmed) == []


@pytest.mark.parametrize("tag", [6, 0])
def test_old_release_may_confirm_several_at_once(tag: int) -> None:
    client, _ = late_confirms("3.8.9")
    client.feed(ack(1, tag, multiple=True))
    assert told(client) == [([1, 2], True)]
    client.feed(ack(1, tag, multiple=True), ack(1, 5), ack(1, 7))
    assert told(client) == []


@pytest.mark.parametrize("release", ["3.10.0", "3.10.8", "4.3.6", None])
def test_other_releases_count_from_confirm_select(release: str | None) -> None:
    client, channel = late_confirms(release)
    client.feed(ack(1, 1))
    assert told(client) == [([1], True)]
    client.feed(ack(1, 5), ack(1, 2))
    assert told(client) == [([2], True)]
    assert list(channel.unconfirmed) == []


def test_old_release_that_counts_from_confirm_select_is_believed() -> None:
    client, channel = late_confirms("3.9.29")
    client.feed(ack(1, 1), ack(1, 2))
    assert told(client) == [([1], True), ([2], True)]
    assert list(channel.unconfirmed) == []


@pytest.mark.parametrize("publishes", [[], [False, False]])
def test_old_release_without_mandatory_publishes_before_counts_from_1(
    publishes: list[bool],
) -> None:
    client = connected_to("3.8.9")
    channel = client.channel()
    for mandatory in publishes:
        channel.basic_publish("", "q", b"x", mandatory=mandatory)
    channel.confirm_select()
    channel.basic_publish("", "q", b"x", mandatory=True)
    client.serve()
    client.feed(ack(1, 1))
    assert told(client) == [([1], True)]


# --- what a confirm settles


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
    # Compiled there may be no steps to count at all.
    assert count_steps(lambda: settle(100)) < max(1, 2 * few)


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
