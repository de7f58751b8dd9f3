"""The whole channel API against RabbitMQ, on every loop, plain and TLS."""

from __future__ import annotations

import random
import secrets

import pytest

import evamqp
from evamqp import DeclareOk, DeliveryMode, Message, Properties
from tests.interop.rig import OnEveryLoop, Rig, SharingVhost

HEADERS: dict[str, object] = {
    "bool": True,
    "int": -1,
    "long": 1 << 40,
    "float": 0.5,
    "text": "é",
    "bytes": b"\x00\xff",
    "list": [1, "two", None],
    "table": {"inner": 1},
    "none": None,
}
EVERYTHING = Properties(
    content_type="text/plain",
    content_encoding="utf-8",
    headers=HEADERS,
    delivery_mode=DeliveryMode.PERSISTENT,
    priority=7,
    correlation_id="correlation",
    reply_to="reply",
    expiration="60000",
    message_id="message",
    type="type",
    user_id="guest",
    app_id="app",
)
# RabbitMQ 4 sorts the headers by their names.
AS_RECEIVED = {
    "3.8": EVERYTHING,
    "4.0": EVERYTHING.replace(headers=dict(sorted(HEADERS.items()))),
}


class TestQueuesAndExchanges(SharingVhost, OnEveryLoop):
    def test_queue_lives_from_declare_to_delete(self, rig: Rig) -> None:
        channel = rig.channel()
        assert rig.wait(channel.queue_declare("q", durable=True)) == DeclareOk("q", 0, 0)
        channel.basic_publish("", "q", b"one")
        channel.basic_publish("", "q", b"two")
        assert rig.wait(channel.queue_purge("q")) == 2
        channel.basic_publish("", "q", b"three")
        assert rig.wait(channel.queue_delete("q")) == 1
        with pytest.raises(evamqp.NotExecuted) as caught:
            rig.wait(channel.queue_declare("q", passive=True))
        assert caught.value.is_culprit

    def test_broker_names_a_queue_that_comes_without_name(self, rig: Rig) -> None:
        channel = rig.channel()
        name = rig.wait(channel.queue_declare(exclusive=True)).queue
        assert name.startswith("amq.gen-")
        channel.exchange_declare("e", "fanout")
        rig.wait(channel.queue_bind("", "e"))
        channel.basic_publish("e", "", b"to the queue last declared")
        rig.until_count(channel, name, 1)

    def test_bindings_of_queues_and_exchanges_route_until_undone(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.exchange_declare("source", "topic", durable=True)
        channel.exchange_declare("destination", "direct", internal=True, auto_delete=False)
        channel.queue_declare("q", durable=True)
        channel.exchange_bind("destination", "source", "a.*")
        channel.queue_bind("q", "destination", "a.b")
        channel.basic_publish("source", "a.b", b"routed")
        channel.basic_publish("source", "b.b", b"dropped")
        rig.until_count(channel, "q", 1)
        rig.wait(channel.queue_unbind("q", "destination", "a.b"))
        channel.basic_publish("source", "a.b", b"dropped")
        rig.until_count(channel, "q", 1)
        rig.wait(channel.exchange_unbind("destination", "source", "a.*"))
        rig.wait(channel.exchange_delete("destination"))
        rig.wait(channel.exchange_delete("source", if_unused=True))

    def test_headers_exchange_matches_arguments(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.exchange_declare("e", "headers")
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 1})
        channel.queue_bind("q", "e", arguments={"x-match": "all", "size": 3})
        channel.basic_publish("e", "", b"no", Properties(headers={"size": 4}))
        channel.basic_publish("e", "", b"yes", Properties(headers={"size": 3}))
        assert rig.get(channel, "q").body == b"yes"

    def test_nowait_is_carried_out_in_order(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.exchange_declare("e", "fanout", nowait=True)
        channel.queue_declare("q", durable=True, nowait=True)
        channel.queue_bind("q", "e", nowait=True)
        channel.confirm_select(nowait=True)
        channel.basic_publish("e", "", b"")
        rig.until_count(channel, "q", 1)
        channel.queue_purge("q", nowait=True)
        rig.until_count(channel, "q", 0)
        channel.queue_delete("q", nowait=True)
        rig.wait(channel.exchange_delete("e"))

    def test_fifty_declares_in_one_write_are_answered_in_order(self, rig: Rig) -> None:
        answered: list[str] = []

        def note(ok: DeclareOk) -> None:
            answered.append(ok.queue)

        # RabbitMQ may still be about to delete those of the loop before.
        unique = secrets.token_hex(4)
        names = [f"{unique}-{number}" for number in range(50)]
        channel = rig.open().connection.channel()
        channel.confirm_select()
        for name in names:
            channel.queue_declare(name, exclusive=True, callback=note)
        channel.basic_publish("", names[-1], b"behind them all", mandatory=True)
        assert rig.wait(channel.wait_for_confirms()) == []
        assert answered == names
        assert rig.client_of(channel).returned == []

    def test_channel_numbers_are_used_again_after_close(self, rig: Rig) -> None:
        client = rig.open(channel_max=3)
        for _ in range(4):
            channels = [client.connection.channel() for _ in range(3)]
            with pytest.raises(evamqp.WrongState):
                client.connection.channel()
            assert {channel.number for channel in channels} == {1, 2, 3}
            for channel in channels:
                channel.basic_publish("", "nowhere", b"")
                assert rig.wait(channel.close()).by == "client"
        assert client.count("on_channel_close") == 12


class TestMessages(SharingVhost, OnEveryLoop):
    def test_message_arrives_as_it_was_published(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"body", EVERYTHING)
        message = rig.get(channel, "q")
        assert message.body == b"body"
        assert (message.exchange, message.routing_key, message.redelivered) == ("", "q", False)
        assert message.properties.headers == HEADERS
        assert message.properties == rig.answer(AS_RECEIVED)

    @pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1 << 20])
    def test_body_of_any_size_arrives_whole(self, rig: Rig, size: int) -> None:
        channel = rig.channel()
        channel.confirm_select()
        channel.queue_declare("q", durable=True)
        body = bytes(range(256)) * (size // 256) + bytes(size % 256)
        channel.basic_publish("", "q", body, mandatory=True)
        messages: list[Message] = []
        channel.basic_consume("q", messages.append)
        rig.until(lambda: messages)
        assert messages[0].body == body
        assert messages[0].ack()
        assert rig.wait(channel.wait_for_confirms()) == []

    def test_bodies_of_all_sizes_arrive_in_order_and_whole(self, rig: Rig) -> None:
        """Joined, sent in pieces, cut by reads, and collected from several frames, all mixed."""
        channel = rig.channel()
        channel.confirm_select()
        channel.queue_declare("q", durable=True)
        seeded = random.Random(1)
        sizes = [seeded.choice((0, 1, 300, 16_385, 70_000, 300_000, 1 << 20)) for _ in range(60)]
        bodies = [seeded.randbytes(size) for size in sizes]
        received: list[bytes] = []
        channel.basic_consume("q", lambda message: received.append(message.body), auto_ack=True)
        for body in bodies:
            channel.basic_publish("", "q", body, mandatory=True)
        rig.until(lambda: len(received) == len(bodies))
        assert received == bodies
        assert rig.wait(channel.wait_for_confirms()) == []

    def test_small_frames_carry_a_large_body(self, rig: Rig) -> None:
        smallest = rig.answer({"3.8": 4096, "4.3": 8192})
        channel = rig.open(frame_max=smallest).connection.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"x" * 100_000)
        assert rig.get(channel, "q").body == b"x" * 100_000

    def test_get_on_an_empty_queue_is_none(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        assert rig.wait(channel.basic_get("q", auto_ack=True)) is None

    def test_cancelled_get_requeues_its_message(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"body")
        channel.basic_get("q").cancel()
        rig.until_count(channel, "q", 1)
        again = rig.get(channel, "q")
        assert again.redelivered

    def test_prefetch_bounds_what_is_unacknowledged(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        for number in range(10):
            channel.basic_publish("", "q", b"%d" % number)
        messages: list[Message] = []
        channel.basic_qos(3)
        channel.basic_consume("q", messages.append)
        rig.until(lambda: len(messages) == 3)
        rig.wait(channel.basic_qos(3))
        assert len(messages) == 3
        while len(messages) < 10:
            seen = len(messages)
            messages[seen - 3].ack()
            rig.until(lambda seen=seen: len(messages) > seen)  # type: ignore[misc]
        assert [message.body for message in messages] == [b"%d" % number for number in range(10)]

    def test_settled_messages_go_where_they_were_sent(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("dead", durable=True)
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        channel.queue_declare("q", durable=True, arguments=dead)
        for body in (b"ack", b"nack", b"reject"):
            channel.basic_publish("", "q", body)
        rig.get(channel, "q").ack()
        rig.get(channel, "q").nack(requeue=True)
        again = rig.get(channel, "q")
        assert (again.body, again.redelivered) == (b"nack", True)
        again.nack(requeue=False)
        rig.get(channel, "q").reject(requeue=False)
        rig.until_count(channel, "dead", 2)
        assert [rig.get(channel, "dead").body for _ in range(2)] == [b"nack", b"reject"]
        with pytest.raises(evamqp.AlreadySettled):
            again.ack()

    def test_raw_acknowledgements_settle_several_at_once(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        for _ in range(6):
            channel.basic_publish("", "q", b"")
        tags = [rig.get(channel, "q").delivery_tag for _ in range(6)]
        channel.basic_ack(tags[1], multiple=True)
        channel.basic_nack(tags[3], multiple=True, requeue=True)
        channel.basic_reject(tags[4], requeue=False)
        channel.basic_nack(tags[5], requeue=False)
        rig.until_count(channel, "q", 2)
        rig.wait(channel.basic_recover())

    def test_recover_delivers_again_what_was_not_acknowledged(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"body")
        messages: list[Message] = []
        channel.basic_consume("q", messages.append)
        rig.until(lambda: messages)
        rig.wait(channel.basic_recover())
        rig.until(lambda: len(messages) == 2)
        assert [message.redelivered for message in messages] == [False, True]

    def test_message_of_a_lost_channel_is_requeued_and_its_ack_harmless(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"body")
        message = rig.get(channel, "q")
        rig.wait(channel.close())
        assert not message.ack()
        other = channel.connection.channel()
        assert rig.get(other, "q").redelivered

    def test_cancelled_consumer_loses_nothing(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        for _ in range(500):
            channel.basic_publish("", "q", b"body")
        messages: list[Message] = []
        tag = channel.basic_consume("q", messages.append)
        rig.until(lambda: messages)
        assert rig.wait(channel.basic_cancel(tag)) == tag
        for message in messages:
            message.ack()
        rig.until_count(channel, "q", 500 - len(messages))

    def test_consumer_may_be_cancelled_at_once(self, rig: Rig) -> None:
        """RabbitMQ up to 4.0 closes the connection over a cancel that overtakes its consumer."""
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"body")
        tag = channel.basic_consume("q", lambda message: None)
        assert rig.wait(channel.basic_cancel(tag)) == tag
        assert rig.get(channel, "q").body == b"body"

    def test_what_follows_an_early_cancel_finds_no_consumer(self, rig: Rig) -> None:
        channel = rig.channel()
        for _ in range(20):
            channel.queue_declare("q", durable=True)
            channel.basic_cancel(channel.basic_consume("q", lambda message: None))
            declared = channel.queue_declare("q", passive=True)
            deleted = channel.queue_delete("q", if_unused=True)
            assert rig.wait(declared).consumer_count == 0
            rig.wait(deleted)

    def test_auto_ack_consumer_gets_everything_until_cancel_is_answered(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        for _ in range(500):
            channel.basic_publish("", "q", b"body")
        messages: list[Message] = []
        tag = channel.basic_consume("q", messages.append, auto_ack=True)
        rig.until(lambda: messages)
        rig.wait(channel.basic_cancel(tag))
        rig.until_count(channel, "q", 500 - len(messages))

    def test_header_frame_larger_than_frame_max_arrives(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("dead", durable=True)
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        channel.queue_declare("q", durable=True, arguments=dead)
        spare = len(Properties(headers={"filler": ""}).raw)
        properties = Properties(headers={"filler": "x" * (130_990 - spare)})
        channel.basic_publish("", "q", b"body", properties)
        rig.get(channel, "q").reject(requeue=False)
        rig.until_count(channel, "dead", 1)
        message = rig.get(channel, "dead")
        assert message.body == b"body"
        assert len(message.properties.raw) > channel.connection.frame_max
        headers = message.properties.headers
        assert headers is not None
        assert headers["filler"] == "x" * (130_990 - spare)
        assert "x-death" in headers


class TestConfirms(SharingVhost, OnEveryLoop):
    def test_every_publish_is_confirmed_once(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.confirm_select()
        channel.queue_declare("q", durable=True)
        persistent = Properties(delivery_mode=DeliveryMode.PERSISTENT)
        tags = [channel.basic_publish("", "q", b"body", persistent) for _ in range(1000)]
        assert tags == list(range(1, 1001))
        assert rig.wait(channel.wait_for_confirms()) == []
        assert sorted(rig.client_of(channel).confirmed) == tags
        assert not channel.unconfirmed

    def test_confirm_mode_may_begin_behind_mandatory_publishes(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True, arguments={"x-max-length": 4})
        channel.basic_publish("", "q", b"body", mandatory=True)
        channel.basic_publish("", "q", b"body")
        channel.basic_publish("", "nowhere", b"body", mandatory=True)
        channel.confirm_select()
        tags = [channel.basic_publish("", "q", b"body", mandatory=True) for _ in range(20)]
        assert tags == list(range(1, 21))
        assert rig.wait(channel.wait_for_confirms()) == []
        client = rig.client_of(channel)
        assert client.confirmed == tags
        assert channel.connection.stats.unknown_confirms == 0
        # One by one: the broker confirms the one that it was sent, whose tag it is.
        for tag in range(21, 24):
            assert channel.basic_publish("", "q", b"body") == tag
            rig.until(lambda tag=tag: client.confirmed[-1] == tag)  # type: ignore[misc]

    def test_refused_publish_is_nacked(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.confirm_select()
        channel.queue_declare(
            "q", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        for _ in range(3):
            channel.basic_publish("", "q", b"body")
        assert rig.wait(channel.wait_for_confirms()) == [2, 3]
        assert rig.client_of(channel).confirmed == [1]

    def test_return_comes_before_its_ack(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.confirm_select()
        for number in range(3):
            channel.basic_publish("", "nowhere", b"%d" % number, EVERYTHING, mandatory=True)
            channel.basic_publish("", "nowhere", b"dropped")
        assert rig.wait(channel.wait_for_confirms()) == []
        client = rig.client_of(channel)
        returned = client.returned
        assert [each.body for each in returned] == [b"0", b"1", b"2"]
        assert {(each.code, each.exchange, each.routing_key) for each in returned} == {
            (312, "", "nowhere")
        }
        assert returned[0].properties == rig.answer(AS_RECEIVED)
        returns, confirms = "on_return", "on_delivery_confirmation"
        told = [name for name in client.names() if name in (returns, confirms)]
        assert told[0] == returns
        assert told[-1] == confirms
        assert sorted(client.confirmed) == list(range(1, 7))

    def test_transaction_is_committed_or_rolled_back(self, rig: Rig) -> None:
        channel = rig.channel()
        channel.queue_declare("q", durable=True)
        rig.wait(channel.tx_select())
        channel.basic_publish("", "q", b"dropped")
        rig.wait(channel.tx_rollback())
        channel.basic_publish("", "q", b"kept")
        rig.wait(channel.tx_commit())
        assert rig.get(channel, "q").body == b"kept"
        assert rig.wait(channel.basic_get("q")) is None

    def test_flow_may_be_asked_for(self, rig: Rig) -> None:
        assert rig.wait(rig.channel().flow(True)) is True
