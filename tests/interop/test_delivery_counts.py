"""What RabbitMQ tells of former deliveries, by release."""

from __future__ import annotations

from tests.interop.rig import OnTwoLoops, Rig, SharingVhost


class TestDeliveryCounts(SharingVhost, OnTwoLoops):
    def test_a_quorum_queue_counts_and_a_dead_letter_tells_its_death(self, rig: Rig) -> None:
        channel = rig.channel()
        arguments = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "dead",
        }
        rig.wait(channel.queue_declare("dead", durable=True))
        rig.wait(channel.queue_declare("q", durable=True, arguments=arguments))
        channel.basic_publish("", "q", b"x")
        rig.until_count(channel, "q", 1)
        counts = []
        for give_back in ("reject", "nack", "reject"):
            message = rig.get(channel, "q")
            counts.append(message.delivery_count)
            message.reject() if give_back == "reject" else message.nack()
            rig.until_count(channel, "q", 1)
        message = rig.get(channel, "q")
        counts.append(message.delivery_count)
        assert counts == [0, 1, 2, 3]
        message.reject(requeue=False)
        rig.until_count(channel, "dead", 1)
        dead = rig.get(channel, "dead")
        [death] = dead.deaths
        assert (death.queue, death.reason, death.times) == ("q", "rejected", 1)
        assert (death.exchange, death.routing_keys) == ("", ("q",))
        assert death.time is not None
        dead.ack()
