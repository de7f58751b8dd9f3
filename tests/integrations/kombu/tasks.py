"""A Celery application: its tasks note what they did in a file.  No test lives here."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

import evamqp.integrations.kombu  # noqa: F401  makes evamqp:// known

NOTES = os.environ.get("TASKS_NOTES", os.devnull)


def make_app(broker: str, queue_type: str = "classic") -> Celery:
    """An application as both the worker and a test hold it.

    Args:
        broker: URL.
        queue_type: ``classic`` or ``quorum``.
    """
    app = Celery("tests.integrations.kombu.tasks", broker=broker, backend="rpc://")
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue="tasks",
        task_default_queue_type=queue_type,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=10,
        event_queue_exclusive=True,
        control_queue_exclusive=True,
        worker_hijack_root_logger=False,
    )
    return app


app = make_app(
    os.environ.get("TASKS_BROKER", "evamqp://"), os.environ.get("TASKS_QUEUE_TYPE", "classic")
)


def note(text: object) -> None:
    """One line, written at once, so that processes may share the file."""
    file = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)


@app.task  # type: ignore[untyped-decorator]
def add(left: int, right: int) -> int:
    return left + right


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def write(number: int, seconds: float = 0.0) -> None:
    time.sleep(seconds)
    note(number)


@app.task(bind=True, max_retries=5)  # type: ignore[untyped-decorator]
def flaky(task: Any, number: int) -> int:
    if task.request.retries < 2:
        raise task.retry(countdown=0.1)
    return number


@app.task  # type: ignore[untyped-decorator]
def pid() -> int:
    return os.getpid()
