"""A Publisher's outcomes where RabbitMQ rewrites what it returns, and where it hangs up."""

from __future__ import annotations

from decimal import Decimal
from struct import pack
from typing import Any

import evamqp
from evamqp import Outcome, Properties
from tests.interop.rig import OnTwoLoops, Rig, SharingVhost

#: Header values of every type that has one of its own in Python.
VALUES: dict[str, Any] = {
    "bool": True, "int": -5, "big": 2**40, "float": 2.5, "decimal": Decimal("1.50"), "str": "text",
    "bytes": b"\xff\x00", "none": None, "list": [1, "a", {"z": 1, "a": 2}],
    "table": {"z": 1, "a": 2},
}  # fmt: skip
#: And those that only others send: their kinds, and their bytes.
FOREIGN = {
    b"b": b"\xff", b"B": b"\xff", b"s": b"\xff\xfe", b"u": b"\xff\xfe", b"i": b"\xff" * 4,
    b"L": b"\xff" * 8, b"f": pack(">f", 1.5), b"t": b"\x02", b"T": b"\x00" * 7 + b"\x09",
}  # fmt: skip


def foreign(kind: bytes, value: bytes, number: int) -> Properties:
    """Unsorted headers: ``z`` of a foreign kind, then a number."""
    table = b"\x01z" + kind + value + b"\x01aI" + pack(">i", number)
    return Properties.from_raw(b"\x20\x00" + pack(">I", len(table)) + table)


def kinds(number: int) -> list[Properties]:
    """Properties of all kinds, each with a number that tells it from those of another."""
    named = [Properties(headers={"z": value, "a": number}) for value in VALUES.values()]
    numbered = [foreign(kind, value, number) for kind, value in FOREIGN.items()]
    everything = Properties(
        headers={**VALUES, "n": number}, content_type="t", priority=1, correlation_id="c",
        reply_to="r", expiration="60000", message_id="m", timestamp=5, type="t", app_id="a",
    )  # fmt: skip
    carbon = [
        Properties(headers={"z": 1, "CC": ["nowhere"], "n": number}),
        Properties(headers={"z": 2, "BCC": ["nowhere"], "CC": ["nowhere"], "n": number}),
        Properties(headers={"BCC": ["nowhere"], "n": number}),
    ]
    return [*named, *numbered, everything, *carbon]


class TestReturns(SharingVhost, OnTwoLoops):
    def outcomes(
        self, rig: Rig, publications: list[evamqp.Publication]
    ) -> list[evamqp.Outcome | None]:
        rig.until(lambda: all(publication.is_done for publication in publications))
        return [publication.outcome for publication in publications]

    def test_what_went_nowhere_is_returned_whatever_its_properties(self, rig: Rig) -> None:
        """Twins in exchange, key and body, of which the headers exchange routes every other one."""
        topology = evamqp.Topology()
        topology.exchange("e", "headers")
        topology.queue("q")
        topology.bind("q", "e", "", {"x-match": "any", "a": 1, "n": 1})
        publisher = evamqp.Publisher(
            rig.parameters(), adapter=rig.loop.adapter, topology=topology, max_messages=10_000
        )
        publications, expected = [], []
        for _ in range(10):
            for properties in [
                each for pair in zip(kinds(0), kinds(1), strict=True) for each in pair
            ]:
                for _ in range(2):
                    publications.append(publisher.publish("e", "", b"", properties))
                    headers = properties.headers or {}
                    is_routed = 1 in (headers.get("a"), headers.get("n"))
                    expected.append(Outcome.CONFIRMED if is_routed else Outcome.RETURNED)
        assert self.outcomes(rig, publications) == expected
        assert publisher.unmatched_returns == 0
        assert rig.wait(publisher.close()) == []

    def test_blind_copies_that_alone_decide_are_distinguished_one_at_a_time(self, rig: Rig) -> None:
        topology = evamqp.Topology()
        topology.queue("q")
        publisher = evamqp.Publisher(rig.parameters(), adapter=rig.loop.adapter, topology=topology)
        publications = [
            publisher.publish("", "nowhere", b"", Properties(headers={"BCC": [queue]}))
            for queue in ("q", "missing", "q", "q", "missing")
        ]
        outcomes = self.outcomes(rig, publications)
        assert outcomes == [
            Outcome.CONFIRMED, Outcome.RETURNED, Outcome.CONFIRMED, Outcome.CONFIRMED,
            Outcome.RETURNED,
        ]  # fmt: skip
        assert publisher.unmatched_returns >= 1
        assert rig.wait(publisher.close()) == []

    def test_a_message_over_which_the_broker_hangs_up_is_refused_alone(self, rig: Rig) -> None:
        """A float that is not finite ends the connection (541), and the broker blames nothing."""
        topology = evamqp.Topology()
        topology.queue("q")
        publisher = evamqp.Publisher(rig.parameters(), adapter=rig.loop.adapter, topology=topology)
        bad = Properties.from_raw(bytes.fromhex("2000 0000000b 0178 64") + pack(">d", float("nan")))
        bad._sendable = bad.raw  # as if no check of ours knew of it
        publications = [publisher.publish("", "q", b"%d" % number) for number in range(20)]
        culprit = publisher.publish("", "q", b"bad", bad, persistent=False)
        publications += [publisher.publish("", "q", b"%d" % number) for number in range(20)]
        assert self.outcomes(rig, publications) == [Outcome.CONFIRMED] * 40
        rig.until(lambda: culprit.is_done)
        assert culprit.outcome is Outcome.REFUSED
        assert isinstance(culprit.detail, evamqp.ChannelClosed)
        assert publisher.reconnector.epoch <= 6
        assert rig.wait(publisher.close()) == []

    def test_close_keeps_its_timeout_during_an_alarm(self, rig: Rig) -> None:
        publisher = evamqp.Publisher(rig.parameters(heartbeat=1), adapter=rig.loop.adapter)
        first = publisher.publish("", "nowhere", b"x")
        assert self.outcomes(rig, [first]) == [Outcome.RETURNED]
        rig.node.set_memory_alarm(True)
        try:
            connection = publisher.reconnector.connection
            assert connection is not None

            def is_blocked() -> bool:
                """Publish on until the alarm has come through."""
                if not publisher.pending:
                    publisher.publish("", "nowhere", b"x")
                return connection.is_blocked

            rig.until(is_blocked)
            publisher.publish("", "nowhere", b"x")
            left = rig.wait(publisher.close(timeout=1))
            assert left
            assert {publication.outcome for publication in left} == {Outcome.ABANDONED}
        finally:
            rig.node.set_memory_alarm(False)
