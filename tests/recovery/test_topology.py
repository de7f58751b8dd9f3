"""Topology as data: what it takes, what it forgets, in which order it stands; and its recorder."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evamqp import Topology
from evamqp.errors import BadArgument, BadType
from evamqp.recovery.recorder import Recorder
from evamqp.recovery.topology import Binding, Exchange, Queue
from evamqp.types import DeclareOk

NAMES = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["", "k"])
ARGUMENTS = st.sampled_from([None, {}, {"x": 1}, {"x": 1, "y": 2}, {"y": 2, "x": 1}])
POLICIES = st.sampled_from([None, "retry", "skip", "fail"])


def test_a_topology_is_declared_exchanges_first_then_queues_then_bindings() -> None:
    topology = Topology()
    topology.bind("q", "x", "k")
    topology.queue("q")
    topology.exchange("x")
    topology.exchange("y")
    topology.bind_exchange("y", "x")
    kinds = [type(entity) for entity in topology]
    assert kinds == [Exchange, Exchange, Queue, Binding, Binding]
    assert len(topology) == 5


def test_what_is_added_again_replaces_in_place_and_keeps_its_policy() -> None:
    topology = Topology("skip")
    for name in ("p", "q", "r"):
        topology.queue(name)
    topology.queue("q", durable=False)
    topology.queue("r", policy="fail")
    topology.queue("r")
    queues = [entity for entity in topology if isinstance(entity, Queue)]
    assert [queue.name for queue in queues] == ["p", "q", "r"]
    assert [queue.durable for queue in queues] == [True, False, True]
    assert [queue.policy for queue in queues] == ["skip", "skip", "fail"]


def test_an_unnamed_queue_gets_a_name_of_its_own() -> None:
    topology = Topology()
    first, second = topology.queue(), topology.queue()
    assert first != second
    assert first.startswith("evamqp.gen-")


def test_arguments_are_copied_deeply() -> None:
    topology = Topology()
    arguments: dict[str, Any] = {"table": {"n": 1}}
    topology.queue("q", arguments=arguments)
    arguments["table"]["n"] = 2
    (queue,) = topology
    assert queue.arguments == {"table": {"n": 1}}


def test_bindings_that_differ_in_the_order_of_arguments_only_are_one() -> None:
    topology = Topology()
    topology.bind("q", "x", "k", {"a": 1, "b": 2})
    topology.bind("q", "x", "k", {"b": 2, "a": 1})
    assert len(topology) == 1
    topology.unbind("queue", "q", "x", "k", {"b": 2, "a": 1})
    assert len(topology) == 0


@pytest.mark.parametrize(
    ("method", "arguments", "options", "error"),
    [
        ("exchange", ("x" * 256,), {}, BadArgument),
        ("exchange", (b"x",), {}, BadType),
        ("exchange", ("x", 5), {}, BadType),
        ("exchange", ("x",), {"policy": "hope"}, BadArgument),
        ("exchange", ("x",), {"arguments": {"a": object()}}, BadType),
        ("exchange", ("x",), {"internal": None}, BadType),
        ("exchange", ("x",), {"durable": "yes"}, BadType),
        ("exchange", ("x",), {"auto_delete": 2}, BadType),
        ("queue", (None,), {}, BadType),
        ("queue", ("q",), {"durable": None}, BadType),
        ("queue", ("q",), {"exclusive": "no"}, BadType),
        ("queue", ("q",), {"auto_delete": []}, BadType),
        ("queue", ("q",), {"arguments": {1: 2}}, BadType),
        ("queue", ("q",), {"arguments": "table"}, BadType),
        ("queue", ("q",), {"policy": "hope"}, BadArgument),
        ("bind", ("q", "x", "k" * 256), {}, BadArgument),
        ("bind", ("q", 1), {}, BadType),
        ("bind", ("q", "x", "k", {"a": {1, 2}}), {}, BadType),
        ("bind", ("q", "x"), {"policy": "hope"}, BadArgument),
        ("bind_exchange", (None, "x"), {}, BadType),
    ],
)
def test_what_a_replay_could_not_declare_is_refused_and_changes_nothing(
    method: str, arguments: Any, options: Any, error: type[Exception]
) -> None:
    topology = Topology()
    with pytest.raises(error):
        getattr(topology, method)(*arguments, **options)
    assert list(topology) == []


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(BadArgument, match="skip, retry, fail"):
        Topology("hope")  # type: ignore[arg-type]


def test_its_repr_shows_everything() -> None:
    topology = Topology()
    topology.queue("visible")
    assert "visible" in repr(topology)


class Model(RuleBasedStateMachine):
    """A topology that is written by hand and one that is recorded, against plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.written = Topology()
        self.recorded = Topology()
        self.recorder = Recorder(self.recorded)
        self.exchanges: dict[str, bool] = {}
        self.queues: dict[str, bool] = {}
        self.bindings: set[tuple[str, str, str, str, tuple[tuple[str, int], ...]]] = set()

    @rule(name=NAMES, durable=st.booleans(), arguments=ARGUMENTS)
    def declare_exchange(self, name: str, durable: bool, arguments: Any) -> None:
        self.written.exchange(name, "topic", durable=durable, arguments=arguments)
        values = (name, "topic", False, durable, False, False, False, arguments)
        self.recorder(1, "exchange.declare", values, None)
        self.exchanges[name] = durable

    @rule(name=NAMES)
    def check_exchange(self, name: str) -> None:
        values = (name, "topic", True, False, False, False, False, None)
        self.recorder(1, "exchange.declare", values, None)

    @rule(name=NAMES, durable=st.booleans(), arguments=ARGUMENTS, channel=st.integers(1, 2))
    def declare_queue(self, name: str, durable: bool, arguments: Any, channel: int) -> None:
        self.written.queue(name, durable=durable, arguments=arguments)
        values = (name, False, durable, False, False, False, arguments)
        self.recorder(channel, "queue.declare", values, DeclareOk(name, 0, 0))
        self.queues[name] = durable

    @rule(queue=NAMES, exchange=NAMES, key=KEYS, arguments=ARGUMENTS)
    def bind(self, queue: str, exchange: str, key: str, arguments: Any) -> None:
        self.written.bind(queue, exchange, key, arguments)
        self.recorder(1, "queue.bind", (queue, exchange, key, False, arguments), None)
        self.bindings.add(("queue", queue, exchange, key, _frozen(arguments)))

    @rule(queue=NAMES, exchange=NAMES, key=KEYS, arguments=ARGUMENTS)
    def declare_and_bind(self, queue: str, exchange: str, key: str, arguments: Any) -> None:
        """The empty name is the queue that the same channel declared last."""
        self.declare_queue(queue, True, None, 3)
        self.written.bind(queue, exchange, key, arguments)
        self.recorder(3, "queue.bind", ("", exchange, key, False, arguments), None)
        self.bindings.add(("queue", queue, exchange, key, _frozen(arguments)))

    @rule(destination=NAMES, source=NAMES, key=KEYS, arguments=ARGUMENTS)
    def bind_exchange(self, destination: str, source: str, key: str, arguments: Any) -> None:
        self.written.bind_exchange(destination, source, key, arguments)
        self.recorder(1, "exchange.bind", (destination, source, key, False, arguments), None)
        self.bindings.add(("exchange", destination, source, key, _frozen(arguments)))

    @rule(queue=NAMES, exchange=NAMES, key=KEYS, arguments=ARGUMENTS)
    def unbind(self, queue: str, exchange: str, key: str, arguments: Any) -> None:
        self.written.unbind("queue", queue, exchange, key, arguments)
        self.recorder(1, "queue.unbind", (queue, exchange, key, arguments), None)
        self.bindings.discard(("queue", queue, exchange, key, _frozen(arguments)))

    @rule(destination=NAMES, source=NAMES, key=KEYS, arguments=ARGUMENTS)
    def unbind_exchange(self, destination: str, source: str, key: str, arguments: Any) -> None:
        self.written.unbind("exchange", destination, source, key, arguments)
        self.recorder(1, "exchange.unbind", (destination, source, key, False, arguments), None)
        self.bindings.discard(("exchange", destination, source, key, _frozen(arguments)))

    @rule(name=NAMES)
    def delete_queue(self, name: str) -> None:
        self.written.remove_queue(name)
        self.recorder(1, "queue.delete", (name, False, False, False), 0)
        self.queues.pop(name, None)
        self.bindings = {b for b in self.bindings if b[:2] != ("queue", name)}

    @rule(name=NAMES)
    def delete_exchange(self, name: str) -> None:
        self.written.remove_exchange(name)
        self.recorder(1, "exchange.delete", (name, False, False), None)
        self.exchanges.pop(name, None)
        self.bindings = {b for b in self.bindings if b[2] != name and b[:2] != ("exchange", name)}

    @rule()
    def update(self) -> None:
        """What is added to another is there as it was here."""
        merged = Topology()
        merged.update(self.written)
        assert list(merged) == list(self.written)

    @rule(method=st.sampled_from(["basic.qos", "tx.select", "queue.purge", "channel.open"]))
    def do_something_else(self, method: str) -> None:
        self.recorder(1, method, ("a",), None)

    @invariant()
    def agree(self) -> None:
        assert {e.name: e.durable for e in self.written if isinstance(e, Exchange)} == (
            self.exchanges
        )
        assert {q.name: q.durable for q in self.written if isinstance(q, Queue)} == self.queues
        bindings = [b for b in self.written if isinstance(b, Binding)]
        assert len(bindings) == len(self.bindings)
        assert {(*b[:4], _frozen(b.arguments)) for b in bindings} == self.bindings
        assert list(self.recorded) == list(self.written)


def _frozen(arguments: Any) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((arguments or {}).items()))


TestModel = Model.TestCase
