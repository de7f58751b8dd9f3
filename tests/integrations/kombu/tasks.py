"""A Celery application: its tasks note what they did in a file.  No test lives here."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery

import evamqp.integrations.kombu  # noqa: F401  makes evamqp:// known

NOTES = os.environ.get("TASKS_NOTES", os.devnull)


#: What is noted when the broker blocks a connection, and when it ends that.
BLOCKED, UNBLOCKED = -2, -3


def make_app(broker: str, **settings: Any) -> Celery:
    """An application as both the worker and a test hold it.

    Args:
        broker: URL, or several separated by ``;``.
        settings: Celery's, in place of those here.
    """
    app = Celery("tests.integrations.kombu.tasks", broker=broker)
    app.conf.update(
        result_backend="rpc://",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue="tasks",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=10,
        broker_transport_options={
            "on_blocked": lambda reason: note(BLOCKED),
            "on_unblocked": lambda: note(UNBLOCKED),
        },
        event_queue_exclusive=True,
        control_queue_exclusive=True,
        worker_hijack_root_logger=False,
    )
    app.conf.update(settings)
    return app


SETTINGS = json.loads(os.environ.get("TASKS_SETTINGS", "{}"))
app = make_app(os.environ.get("TASKS_BROKER", "evamqp://"), **SETTINGS)


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


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def write_and_sleep(number: int, seconds: float) -> None:
    note(number)
    time.sleep(seconds)


@app.task  # type: ignore[untyped-decorator]
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, max_retries=5)  # type: ignore[untyped-decorator]
def flaky(task: Any, number: int) -> int:
    if task.request.retries < 2:
        raise task.retry(countdown=0.1)
    return number


@app.task  # type: ignore[untyped-decorator]
def pid() -> int:
    return os.getpid()
