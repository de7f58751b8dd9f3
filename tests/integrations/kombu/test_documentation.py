"""The blocks of docs/celery.md that tests/examples/test_docs_programs.py cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from rabbitmq_node import Vhost
from tests.conftest import CLIENT_NAME, Certificates
from tests.examples.program import ROOT
from tests.examples.test_docs_programs import blocks_of
from tests.examples.test_readme import URL
from tests.integrations.kombu.rig import TIMEOUT

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

APPLICATION, BY_CLASS, _, IN_TLS, ON_FOUR = (
    block.code for block in blocks_of(ROOT / "docs" / "celery.md")
)


def configured(code: str) -> Celery:
    """An application with the settings of a block."""
    app = Celery("documented", backend="rpc://")
    exec(code, {"app": app})
    return app


def test_the_application_works(vhost: Vhost, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION.replace(URL, vhost.url))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    celery = [sys.executable, "-m", "celery", "-A", "shop"]
    worker = subprocess.Popen(
        [*celery, "worker", "-P", "solo"],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    program = f"import shop; print(shop.add.delay(2, 3).get(timeout={TIMEOUT}))"
    try:
        printed = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        worker.terminate()
        status = worker.wait(TIMEOUT)
    assert (printed, status) == ("5\n", 0)


@pytest.mark.parametrize("code", [BY_CLASS, ON_FOUR])
def test_settings_reach_the_broker(vhost: Vhost, code: str) -> None:
    app = configured(code.replace(URL, vhost.url))
    if not app.conf.broker_url:
        app.conf.broker_url = vhost.url.replace("amqp", "evamqp", 1)
    with app.connection_for_write() as connection:
        assert connection.transport.driver_name == "evamqp"
        queues: Any = app.amqp.queues
        queue = queues["celery"](connection.default_channel)
        queue.declare()
        assert queue.delete() == 0


def test_settings_of_tls(vhost: Vhost, certificates: Certificates) -> None:
    code = IN_TLS.replace("amqps://guest:guest@localhost:5671/%2F", vhost.tls_url)
    for name, path in (
        ("authority.pem", certificates.authority),
        ("client.pem", certificates.client),
        ("client-key.pem", certificates.client),
    ):
        code = code.replace(f'"{name}"', repr(str(path)))
    app = configured(code)
    vhost.node.ctl("add_user", CLIENT_NAME, "unused")
    try:
        vhost.ctl("set_permissions", CLIENT_NAME, ".*", ".*", ".*")
        with app.connection_for_write() as connection:
            connection.default_channel.queue_declare("mine", exclusive=True)
            assert connection.connection.core.is_open
    finally:
        vhost.node.ctl("delete_user", CLIENT_NAME)
