"""wait_ready() and ``async with``: when a client is ready, and what is said when it is not."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import evamqp
from evamqp import NotReady, Topology
from evamqp.errors import BadType
from tests.recovery.stage import HOUR, LONG, URL, Stage
from tests.support.scripted_broker import Publish

Client = evamqp.Publisher | evamqp.Consumer | evamqp.RpcClient | evamqp.RpcServer
KINDS = ("reconnector", "publisher", "consumer", "rpc client", "rpc server")
#: The methods whose answers make a client ready.
LAST_ANSWER = {
    "publisher": "confirm.select",
    "consumer": "basic.consume",
    "rpc client": "basic.consume",
    "rpc server": "basic.consume",
}


def make(stage: Stage, kind: str, target: Any = URL) -> Any:
    """A client whose topology is the queue that it uses."""
    topology = Topology()
    topology.queue("work")
    if kind == "publisher":
        return stage.publisher(target, topology=topology)
    if kind == "consumer":
        return stage.consumer(lambda message: None, target, topology=topology)
    if kind == "rpc client":
        stage.server.fill("amq.rabbitmq.reply-to")
        return evamqp.RpcClient(target, adapter=stage.adapter, topology=topology)
    if kind == "rpc server":
        return evamqp.RpcServer(
            target, "work", lambda message: b"", adapter=stage.adapter, topology=topology
        )
    return stage.reconnector(target, topology=topology)


def failure(stage: Stage, wait: evamqp.Request[None]) -> NotReady:
    with pytest.raises(NotReady) as caught:
        stage.ended(wait)
    return caught.value


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(stage: Stage, kind: str) -> Any:
    """One client of each kind in turn, before its first connection."""
    return make(stage, kind)


def test_a_client_is_ready_once_it_is_served(stage: Stage, client: Any) -> None:
    wait = client.wait_ready()
    assert not client.is_ready
    stage.turn()
    assert client.is_ready
    assert stage.ended(wait) is None
    assert stage.ended(client.wait_ready(0)) is None


@pytest.mark.parametrize("kind", LAST_ANSWER)
def test_it_is_not_ready_before_the_broker_agrees(stage: Stage, kind: str) -> None:
    stage.server.held.add(LAST_ANSWER[kind])
    client = make(stage, kind)
    wait = client.wait_ready()
    stage.turn()
    assert not client.is_ready
    assert not wait.is_done
    stage.server.release()
    stage.turn()
    assert client.is_ready
    assert wait.is_done


def test_it_is_not_ready_between_two_connections(stage: Stage, client: Any) -> None:
    stage.turn()
    stage.server.down()
    stage.turn()
    assert not client.is_ready
    wait = client.wait_ready()
    stage.server.up()
    stage.advance(LONG)
    assert client.is_ready
    assert wait.is_done


@pytest.mark.parametrize("kind", LAST_ANSWER)
def test_it_is_not_ready_between_two_channels(stage: Stage, kind: str) -> None:
    client = make(stage, kind)
    stage.turn()
    for channel in list(stage.wire.channels.values()):
        channel.close(406, "no more")
    stage.server.held.add("channel.open")
    stage.turn()
    assert not client.is_ready
    wait = client.wait_ready(5)
    assert "no more" in str(failure_after(stage, wait, 5))


def failure_after(stage: Stage, wait: evamqp.Request[None], seconds: float) -> NotReady:
    stage.advance(seconds)
    return failure(stage, wait)


def test_a_timeout_names_what_was_in_the_way(stage: Stage, client: Any) -> None:
    stage.server.down()
    wait = client.wait_ready(10)
    stage.advance(9.9)
    assert not wait.is_done
    error = failure_after(stage, wait, 0.2)
    assert "wait_ready: not ready in 10 seconds; the last error was ConnectFailed" in str(error)
    assert isinstance(error.__cause__, evamqp.ConnectFailed)
    stage.server.up()
    stage.advance(LONG)
    assert client.is_ready


def test_a_timeout_without_any_error_says_so(stage: Stage, client: Any) -> None:
    stage.server.is_mute = True
    error = failure_after(stage, client.wait_ready(1), 1)
    assert str(error).endswith("wait_ready: not ready in 1 seconds")
    assert error.__cause__ is None


def test_an_end_fails_every_wait_at_once(stage: Stage, client: Any) -> None:
    stage.server.down()
    waits = [client.wait_ready(), client.wait_ready(HOUR)]
    stage.turn()
    client.close()
    for wait in [*waits, client.wait_ready()]:
        assert "it has ended; the last error was ConnectionClosed: closed" in str(
            failure(stage, wait)
        )


def test_a_topology_that_fails_for_good_is_the_cause(stage: Stage) -> None:
    stage.server.refuse("queue.declare", 406, "PRECONDITION_FAILED - inequivalent arg")
    topology = Topology("fail")
    topology.queue("work")
    publisher = stage.publisher(topology=topology)
    assert isinstance(failure(stage, publisher.wait_ready()).__cause__, evamqp.TopologyFailed)


def test_fail_fast_ends_at_refused_credentials(stage: Stage, client: Any) -> None:
    stage.server.login_refusal = (403, "ACCESS_REFUSED")
    patient, hasty = client.wait_ready(), client.wait_ready(fail_fast=True)
    error = failure(stage, hasty)
    assert isinstance(error.__cause__, evamqp.AuthenticationFailed)
    assert "trying again does not help" in str(error)
    assert not patient.is_done
    assert failure(stage, client.wait_ready(fail_fast=True)).__cause__ is not None
    stage.server.login_refusal = None
    stage.advance(LONG)
    assert patient.is_done
    assert client.is_ready


def test_fail_fast_ends_at_an_entity_that_conflicts(stage: Stage, client: Any) -> None:
    stage.server.refuse("queue.declare", 406, "PRECONDITION_FAILED - inequivalent arg")
    error = failure(stage, client.wait_ready(fail_fast=True))
    assert isinstance(error.__cause__, evamqp.ChannelClosed)
    assert error.__cause__.code == 406
    stage.server.refusals.clear()
    stage.advance(LONG)
    assert client.is_ready


@pytest.mark.parametrize("code", [405, None])
def test_fail_fast_goes_on_over_what_passes(stage: Stage, client: Any, code: int | None) -> None:
    if code is None:
        stage.server.down()
    else:
        stage.server.refuse("queue.declare", code, "RESOURCE_LOCKED")
    wait = client.wait_ready(fail_fast=True)
    stage.advance(10)
    assert not wait.is_done
    stage.server.refusals.clear()
    if code is None:
        stage.server.up()
    stage.advance(LONG)
    assert wait.is_done
    assert client.is_ready


def test_what_the_topology_skips_is_in_nobodys_way(stage: Stage) -> None:
    stage.server.refuse("queue.declare", 406)
    topology = Topology("skip")
    topology.queue("work")
    publisher = stage.publisher(topology=topology)
    assert stage.ended(publisher.wait_ready(fail_fast=True)) is None


def test_another_members_entity_is_not_in_the_way(stage: Stage) -> None:
    stage.server.refuse("queue.declare", 406)
    reconnector = stage.reconnector()
    topology = Topology()
    topology.queue("work")
    needing = stage.publisher(reconnector, topology=topology)
    other = stage.publisher(reconnector)
    assert isinstance(
        failure(stage, needing.wait_ready(fail_fast=True)).__cause__, evamqp.ChannelClosed
    )
    assert stage.ended(other.wait_ready(fail_fast=True)) is None
    assert not needing.is_ready


def test_a_paused_consumer_is_not_ready(stage: Stage) -> None:
    consumer = make(stage, "consumer")
    stage.turn()
    consumer.pause()
    wait = consumer.wait_ready()
    stage.turn()
    assert not consumer.is_ready
    assert not wait.is_done
    consumer.resume()
    stage.turn()
    assert wait.is_done
    assert consumer.is_ready


def test_a_callback_hears_of_it(stage: Stage, client: Any) -> None:
    heard: list[object] = []
    client.wait_ready(callback=heard.append)
    stage.turn()
    assert heard == [None]
    stage.server.down()
    stage.turn()
    client.wait_ready(1, on_error=heard.append)
    stage.advance(2)
    assert isinstance(heard[1], NotReady)


def test_a_wait_that_is_cancelled_changes_nothing(stage: Stage, client: Any) -> None:
    wait = client.wait_ready(5)
    wait.cancel()
    stage.advance(10)
    assert client.is_ready
    stage.turn()


def test_bad_timeouts_are_refused(stage: Stage, client: Any) -> None:
    with pytest.raises(BadType):
        client.wait_ready("soon")
    with pytest.raises(BadType):
        client.wait_ready(fail_fast=1)


def test_the_error_can_be_copied_and_pickled(stage: Stage, client: Any) -> None:
    stage.server.down()
    error = failure_after(stage, client.wait_ready(1), 1)
    assert str(error.copy()) == str(pickle.loads(pickle.dumps(error))) == str(error)


# --- async with ---------------------------------------------------------------------------------


def run(stage: Stage, coroutine: Any, seconds: float = LONG) -> BaseException | None:
    """Run a coroutine on the loop; return what it raised."""
    ended: list[BaseException | None] = []
    stage.adapter.run_awaitable(coroutine, ended.append)
    stage.advance(seconds)
    (error,) = ended
    return error


def test_the_block_begins_without_a_connection_and_ends_with_a_close(
    stage: Stage, client: Any
) -> None:
    seen: list[object] = []

    async def program() -> None:
        async with client as entered:
            seen.append((entered is client, client.is_ready))
            await client.wait_ready()
            seen.append(client.is_ready)

    assert run(stage, program()) is None
    assert seen == [(True, False), True]
    assert "it has ended" in str(failure(stage, client.wait_ready()))
    assert not stage.wire.is_up


def test_the_end_of_a_block_waits_for_outcomes(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.server.on_publish = lambda publish: stage.adapter.call_later(30, publish.ack)

    async def program() -> None:
        async with publisher:
            stage.publish(publisher, [b"x"])

    assert run(stage, program()) is None
    assert stage.fates.names == ["x CONFIRMED"]


def test_a_block_that_raises_waits_for_five_seconds(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.server.on_publish = lambda publish: (
        stage.adapter.call_later(4, publish.ack) if publish.body == b"soon" else None
    )

    async def program() -> None:
        async with publisher:
            stage.publish(publisher, [b"soon", b"never"])
            raise ZeroDivisionError

    assert isinstance(run(stage, program(), 5.5), ZeroDivisionError)
    assert stage.fates.names == ["soon CONFIRMED", "never ABANDONED"]


def test_a_block_that_is_cancelled_does_not_wait(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.server.on_publish = Publish.nack
    ended: list[BaseException | None] = []

    async def program() -> None:
        async with publisher:
            await stage.publish(publisher, [b"x"])[0]

    task = stage.adapter.run_awaitable(program(), ended.append)
    stage.turn()
    task.cancel()
    stage.advance(1)
    assert stage.fates.names == ["x ABANDONED"]
    assert not stage.wire.is_up


def test_a_block_whose_coroutine_is_closed_does_not_wait(stage: Stage) -> None:
    publisher = stage.publisher()

    async def program() -> None:
        async with publisher:
            await stage.publish(publisher, [b"x"])[0]

    coroutine = program()
    coroutine.send(None)
    coroutine.close()
    stage.advance(1)
    assert stage.fates.names == ["x ABANDONED"]


def test_a_reconnector_whose_broker_answers_nothing_ends_soon_after_an_error(stage: Stage) -> None:
    reconnector = stage.reconnector()

    async def program() -> None:
        async with reconnector:
            await reconnector.wait_ready()
            stage.server.held.add("connection.close")
            raise ZeroDivisionError

    assert isinstance(run(stage, program(), 6), ZeroDivisionError)
