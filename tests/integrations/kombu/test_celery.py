"""Celery's worker on evamqp, as processes against RabbitMQ.

CI takes three pools and one kill; ``make celery`` sets EVAMQP_CELERY=all for the long run.
EVAMQP_CELERY_SCHEME=pyamqp runs the same on py-amqp, to compare.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from celery import chain

from rabbitmq_node import RabbitNode
from tests.integrations.kombu.rig import NAME, TASKS, TIMEOUT, Worker, opened, running, send

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

ALL = os.environ.get("EVAMQP_CELERY") == "all"
# Limits of a quorum queue's consumers are each one's own, which Celery changes as tasks with a time
# come in: the broker does so for the channel of a classic queue, our transport for these.
SETTINGS = [("prefork", "classic"), ("solo", "quorum"), ("gevent", "classic")]
if ALL:
    SETTINGS += [("prefork", "quorum"), ("solo", "classic"), ("threads", "classic")]
    SETTINGS += [("threads", "quorum"), ("gevent", "quorum")]
KILLS = int(os.environ.get("EVAMQP_CELERY_KILLS", "20" if ALL else "1"))
NUMBERS = 1000 if ALL else 300


@pytest.mark.parametrize(("pool", "queue_type"), SETTINGS)
def test_tasks_retries_chains_times_and_control(
    pool: str, queue_type: str, broker: str, tmp_path: Path
) -> None:
    with (
        running(Worker(broker, tmp_path, pool, task_default_queue_type=queue_type)) as worker,
        opened(broker, task_default_queue_type=queue_type) as app,
    ):
        sums = [send(app, "add", number, 1) for number in range(20)]
        assert [each.get(timeout=TIMEOUT) for each in sums] == list(range(1, 21))

        assert send(app, "flaky", 7).get(timeout=TIMEOUT) == 7

        add = app.signature(f"{TASKS}.add", args=(1, 2))
        more = app.signature(f"{TASKS}.add", args=(3,))
        assert chain(add, more, more)().get(timeout=TIMEOUT) == 9

        # More of them than the worker may hold at first: its limit has to grow while it runs.
        later = [send(app, "add", number, 0, countdown=1) for number in range(25)]
        assert [each.get(timeout=TIMEOUT) for each in later] == list(range(25))

        revoked = send(app, "write", 1, countdown=1)
        app.control.revoke(revoked.id)
        assert app.control.ping(timeout=1) == [{NAME: {"ok": "pong"}}]
        app.control.add_consumer("other", reply=True, timeout=1)
        assert send(app, "add", 1, 1, queue="other").get(timeout=TIMEOUT) == 2
        send(app, "write", 2, countdown=1)
        worker.wait_for(lambda: worker.done()[2])
        assert worker.done()[1] == 0
        assert worker.stop() == 0


def missing(worker: Worker) -> list[int]:
    """The tasks that no worker has run."""
    return sorted(set(range(NUMBERS)) - set(worker.done()))


@pytest.mark.parametrize("pool", ("prefork", "solo") if ALL else ("prefork",))
def test_no_task_is_lost_when_the_broker_is_killed(
    pool: str, node: RabbitNode, broker: str, tmp_path: Path
) -> None:
    numbers = iter(range(NUMBERS))
    with running(Worker(broker, tmp_path, pool)) as worker, opened(broker) as app:
        send(app, "write", -1)
        worker.wait_for(worker.done)
        for _ in range(KILLS):
            before = worker.done().total()
            for _, number in zip(range(NUMBERS // KILLS), numbers, strict=False):
                # One in five waits in the worker, whose limit grows by it.
                send(app, "write", number, 0.01, countdown=None if number % 5 else 1)
            worker.wait_for(lambda: worker.done().total() > before)  # noqa: B023
            node.kill()
            node.start()
            send(app, "write", -1)
        for number in numbers:
            send(app, "write", number)
        worker.wait_for(
            lambda: not missing(worker),
            missing=lambda: f"{len(missing(worker))} of {NUMBERS} tasks: {missing(worker)}",
        )
        assert worker.stop() == 0
