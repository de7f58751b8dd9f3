"""What else Celery's worker does on evamqp, each as processes against RabbitMQ.

Its tasks and the kills of its broker are in test_celery.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import chord

from rabbitmq_node import RabbitNode, Vhost
from tests.conftest import CLIENT_NAME, Certificates
from tests.integrations.kombu.rig import (
    NAME,
    TASKS,
    TIMEOUT,
    Program,
    Worker,
    opened,
    running,
    send,
)
from tests.integrations.kombu.tasks import BLOCKED, UNBLOCKED

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]


@pytest.fixture
def connection(broker: str) -> Iterator[kombu.Connection]:
    with kombu.Connection(broker) as connection:
        yield connection


def test_priorities_order_messages(connection: kombu.Connection) -> None:
    queue = kombu.Queue("ordered", max_priority=5)(connection.default_channel)
    queue.declare()
    producer = connection.Producer(routing_key="ordered")
    for priority in (0, 5, 3):
        producer.publish(priority, priority=priority)
    assert [queue.get(no_ack=True).payload for _ in range(3)] == [5, 3, 0]


def test_a_message_that_fails_too_often_leaves_a_quorum_queue(connection: kombu.Connection) -> None:
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead",
    }
    channel = connection.default_channel
    queue = kombu.Queue("limited", queue_arguments=arguments)(channel)
    dead = kombu.Queue("dead")(channel)
    queue.declare()
    dead.declare()
    connection.Producer(routing_key="limited").publish("poison")
    got: list[Any] = []
    with connection.Consumer([queue], callbacks=[lambda _, message: got.append(message)]):
        for number in range(3):
            connection.drain_events(timeout=TIMEOUT)
            assert got[-1].headers.get("x-delivery-count", 0) == number
            got[-1].requeue()
        with connection.Consumer([dead], callbacks=[lambda _, message: got.append(message)]):
            connection.drain_events(timeout=TIMEOUT)
    assert got[3].payload == "poison"
    assert got[3].headers["x-death"][0]["reason"] == "delivery_limit"


def limits(vhost: Vhost, queue: str = "tasks") -> set[int]:
    """The prefetch limits of a queue's consumers, as the broker has them."""
    lines = vhost.ctl("list_consumers", "queue_name", "prefetch_count").splitlines()
    rows = (line.split() for line in lines)
    return {int(row[1]) for row in rows if row[0] == queue}


def test_autoscale_changes_the_limit_of_a_running_consumer(
    vhost: Vhost, broker: str, tmp_path: Path
) -> None:
    """Four messages for each process; a quorum queue's limit is its consumer's own."""
    quorum = {"task_default_queue_type": "quorum"}
    with (
        running(Worker(broker, tmp_path, options=("--autoscale=2,1",), **quorum)) as worker,
        opened(broker, **quorum) as app,
    ):
        send(app, "write", -1)
        worker.wait_for(worker.done)
        assert limits(vhost) == {8}
        for number in range(30):
            send(app, "write", number, 0.2)
        for most in (3, 1):
            assert app.control.autoscale(most, 1, reply=True, timeout=2)
            worker.wait_for(lambda: limits(vhost) == {4 * most})  # noqa: B023
        worker.wait_for(lambda: set(worker.done()) >= set(range(30)))
        assert set(worker.done().values()) == {1}
        assert worker.stop() == 0


def test_control_commands_and_events_reach_other_programs(broker: str, tmp_path: Path) -> None:
    with (
        running(Worker(broker, tmp_path, options=("-c", "2", "-E"))) as worker,
        running(Program(broker, tmp_path, "events", "--dump", settings={})) as dump,
        opened(broker) as app,
    ):
        dump.wait_for(lambda: "heartbeat:" in dump.printed())
        assert send(app, "add", 1, 2).get(timeout=TIMEOUT) == 3
        dump.wait_for(lambda: "task succeeded" in dump.printed())

        send(app, "write_and_sleep", 1, 600)
        worker.wait_for(lambda: worker.done()[1])
        (running_now,) = app.control.inspect().active()[NAME]
        app.control.revoke(running_now["id"], terminate=True)
        worker.wait_for(lambda: not app.control.inspect().active()[NAME])

        assert app.control.cancel_consumer("tasks", reply=True, timeout=2)
        send(app, "write", 2)
        assert app.control.inspect().active_queues()[NAME] == []
        assert app.control.add_consumer("tasks", reply=True, timeout=2)
        worker.wait_for(lambda: worker.done()[2])
        app.control.shutdown()
        assert worker.wait() == 0
        assert worker.done() == {1: 1, 2: 1}


def test_chords_of_a_result_backend_that_has_them(broker: str, tmp_path: Path) -> None:
    """On ``rpc://`` Celery itself refuses chords."""
    (tmp_path / "results").mkdir()
    settings: dict[str, Any] = {
        "result_backend": f"file://{tmp_path}/results",
        "result_chord_join_timeout": 30,
    }
    with (
        running(Worker(broker, tmp_path, **settings)),
        opened(broker, **settings) as app,
        opened(broker) as over_rpc,
    ):
        for each in (app, over_rpc):
            header = [each.signature(f"{TASKS}.add", args=(n, n)) for n in range(5)]
            body = each.signature(f"{TASKS}.total")
            if each is app:
                assert chord(header, body, app=each)().get(timeout=TIMEOUT) == 20
            else:
                with pytest.raises(NotImplementedError, match="chords"):
                    chord(header, body, app=each)()


@pytest.fixture
def certified(vhost: Vhost) -> Iterator[None]:
    """The user that the client's certificate stands for."""
    vhost.node.ctl("add_user", CLIENT_NAME, "unused")
    vhost.ctl("set_permissions", CLIENT_NAME, ".*", ".*", ".*")
    yield
    vhost.node.ctl("delete_user", CLIENT_NAME)


@pytest.mark.parametrize("login_method", ["PLAIN", "EXTERNAL"])
@pytest.mark.usefixtures("certified")
def test_a_worker_in_tls(
    vhost: Vhost, certificates: Certificates, tmp_path: Path, login_method: str
) -> None:
    tls: dict[str, Any] = {"ca_certs": str(certificates.authority)}
    if login_method == "EXTERNAL":
        tls |= {"certfile": str(certificates.client), "keyfile": str(certificates.client)}
    settings: dict[str, Any] = {"broker_use_ssl": tls, "broker_login_method": login_method}
    url = vhost.tls_url.replace("amqp", "evamqp", 1)
    with running(Worker(url, tmp_path, **settings)) as worker, opened(url, **settings) as app:
        assert send(app, "add", 1, 2).get(timeout=TIMEOUT) == 3
        lines = vhost.node.ctl("list_connections", "vhost", "user", "ssl").splitlines()
        user = CLIENT_NAME if login_method == "EXTERNAL" else "guest"
        found = {tuple(line.split()) for line in lines}
        assert {row for row in found if row[0] == vhost.name} == {(vhost.name, user, "true")}
        assert worker.stop() == 0


def test_a_worker_moves_to_the_next_broker_of_its_list(
    node: RabbitNode, rabbit: RabbitNode, broker: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"evamqp://127.0.0.1:{free.getsockname()[1]}//"
    other = rabbit.url.replace("amqp", "evamqp", 1)
    urls = f"{nobody};{broker};{other}"
    settings: dict[str, Any] = {"broker_login_method": "AMQPLAIN", "broker_heartbeat": 2}
    with running(Worker(urls, tmp_path, **settings)) as worker:
        with opened(broker) as app:
            assert send(app, "add", 1, 2).get(timeout=TIMEOUT) == 3
        node.kill()
        with opened(other) as app:
            assert send(app, "add", 3, 4).get(timeout=TIMEOUT) == 7
        assert worker.stop() == 0


def test_a_blocked_broker_delays_results_and_loses_none(
    node: RabbitNode, broker: str, tmp_path: Path
) -> None:
    with running(Worker(broker, tmp_path)) as worker, opened(broker) as app:
        assert send(app, "add", 1, 2).get(timeout=TIMEOUT) == 3
        later = [send(app, "add", number, 1, countdown=2) for number in range(3)]
        node.set_memory_alarm(True)
        worker.wait_for(lambda: worker.done()[BLOCKED])
        assert not any(each.ready() for each in later)
        node.set_memory_alarm(False)
        assert [each.get(timeout=TIMEOUT) for each in later] == [1, 2, 3]
        worker.wait_for(lambda: worker.done()[UNBLOCKED])
        assert worker.stop() == 0


def test_long_tasks_are_cancelled_with_their_connection(
    node: RabbitNode, broker: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"worker_cancel_long_running_tasks_on_connection_loss": True}
    with running(Worker(broker, tmp_path, **settings)) as worker:
        with opened(broker) as app:
            send(app, "write_and_sleep", 1, 600)
        worker.wait_for(lambda: worker.done()[1])
        node.kill()
        node.start()
        worker.wait_for(lambda: worker.done()[1] == 2)
        with opened(broker) as app:
            assert len(app.control.inspect().active()[NAME]) == 1
