"""What of the broker's crosses a close of ours: its reason is told, and nothing of it is lost."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest

import evamqp
from tests.interop.rig import OnTwoLoops, Rig, SharingVhost


class TestReasons(SharingVhost, OnTwoLoops):
    def test_a_refused_declare_is_reported_though_the_channel_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        errors: list[Exception] = []
        channel.queue_declare("q", durable=True, auto_delete=True, on_error=errors.append)
        channel.close()
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit, reason.by) == (406, "queue.declare", "broker")
        (error,) = errors
        assert isinstance(error, evamqp.NotExecuted)
        assert error.is_culprit
        assert error.reason is reason

    def test_a_refused_publish_is_reported_though_the_channel_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        channel = rig.channel()
        channel.basic_publish("missing", "", b"body")
        channel.close()
        reason = rig.closed(channel)
        assert (reason.code, reason.culprit, reason.by) == (404, "basic.publish", "broker")

    @pytest.mark.parametrize("refused", ["queue.declare", "basic.publish"])
    def test_a_refusal_is_reported_though_the_connection_was_closed_behind_it(
        self, rig: Rig, refused: str
    ) -> None:
        client = rig.open()
        channel = client.connection.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        declared = None
        if refused == "queue.declare":
            declared = channel.queue_declare("q", durable=True, auto_delete=True)
        else:
            channel.basic_publish("missing", "", b"body")
        rig.wait(client.connection.close())
        assert client.reason is not None
        assert client.reason.by == "client"
        reason = client.channel_reasons[channel]
        assert (reason.culprit, reason.by) == (refused, "broker")
        if declared is not None:
            with pytest.raises(evamqp.NotExecuted) as caught:
                rig.wait(declared)
            assert caught.value.is_culprit

    def test_what_ends_the_connection_is_reported_though_it_was_closed_behind_it(
        self, rig: Rig
    ) -> None:
        client = rig.open()
        channel = client.connection.channel()
        recover = channel.basic_recover(requeue=False)
        rig.wait(client.connection.close())
        assert client.reason is not None
        assert (client.reason.code, client.reason.by) == (540, "broker")
        with pytest.raises(evamqp.NotExecuted) as caught:
            rig.wait(recover)
        assert caught.value.is_culprit


class TestCancels(SharingVhost, OnTwoLoops):
    def test_a_consumer_that_the_broker_cancelled_is_gone_on_both_sides(self, rig: Rig) -> None:
        channel, other = rig.channel(), rig.channel()
        cancelled: list[str] = []
        for _ in range(3):
            rig.wait(channel.queue_declare("q", durable=True))
            tag = channel.basic_consume("q", print, on_cancel=cancelled.append)
            rig.wait(channel.queue_declare("q", durable=True))
            rig.wait(other.queue_delete("q"))
            rig.until(partial(cancelled.__contains__, tag))
        assert rig.wait(channel.queue_declare("q", durable=True)).consumer_count == 0
        assert channel.is_open

    def test_a_consumer_that_timed_out_is_gone_on_both_sides(self, rig: Rig) -> None:
        """From 4.3 on the broker keeps it, for as long as the client does not cancel it too."""
        channel = rig.channel()
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "q", b"slow")
        slow: list[evamqp.Message] = []
        arguments = {"x-consumer-timeout": 1000}
        tag = channel.basic_consume("q", slow.append, arguments=arguments)
        rig.until(lambda: slow)
        if rig.answer({"3.8": "kept", "4.3": "cancelled"}) == "kept":
            return  # for half an hour, and then the channel is closed
        client = rig.client_of(channel)
        rig.until(lambda: ("on_consumer_cancel", tag) in client.calls)
        quick: list[evamqp.Message] = []
        channel.basic_consume("q", quick.append)
        rig.until(lambda: quick)
        assert rig.wait(channel.queue_declare("q", passive=True)).consumer_count == 1
        for number in range(20):
            channel.basic_publish("", "q", str(number).encode())
        rig.until(lambda: len(quick) == 21)
        assert len(slow) == 1
        slow[0].ack()
        for message in quick:
            message.ack()
        rig.until_count(channel, "q", 0)
        assert channel.is_open


class TestNumbers(SharingVhost, OnTwoLoops):
    def test_what_a_closed_channel_still_sends_does_not_reach_its_successor(self, rig: Rig) -> None:
        client = rig.open(channel_max=2)
        filler = client.connection.channel()
        filler.confirm_select()
        filler.queue_declare("q", durable=True)
        for _ in range(2000):
            filler.basic_publish("", "q", bytes(100))
        assert rig.wait(filler.wait_for_confirms()) == []
        channel = client.connection.channel()
        messages: list[evamqp.Message] = []
        channel.basic_consume("q", messages.append)
        rig.until(lambda: len(messages) > 10)
        channel.basic_ack(4711)  # which ends the channel amid its deliveries
        assert rig.closed(channel).code == 406
        with pytest.raises(evamqp.WrongState, match="rest"):
            client.connection.channel()
        successors: list[evamqp.Channel] = []
        rig.until(lambda: _open(client.connection, successors))
        assert successors[0].number == channel.number
        assert rig.wait(successors[0].queue_declare("q", durable=True)).message_count == 2000
        assert client.connection.stats.unknown_deliveries == 0


def _open(connection: evamqp.Connection, channels: list[evamqp.Channel]) -> bool:
    """Open a channel if a number is free."""
    with suppress(evamqp.WrongState):
        channels.append(connection.channel())
    return bool(channels)
