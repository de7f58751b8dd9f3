"""What every test may ask for: settings of hypothesis, certificates, one RabbitMQ for the run.

No test lives here, and nothing that would start a broker before a test asks for it.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import trustme

from evamqp.core.unclosed import _living
from rabbitmq_node import RabbitNode, RabbitNotFound, TlsFiles

REQUIRE_RABBITMQ = "EVAMQP_REQUIRE_RABBITMQ"

# Where the shell ignores SIGINT its children do too, and theirs; tests send it to both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine under load must not fail a law: no deadline, and the same examples on every run.
hypothesis.settings.register_profile("evamqp", deadline=None, derandomize=True)
hypothesis.settings.load_profile("evamqp")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one authority: the broker's for its TLS listener, and one for a client.

    ``client`` holds certificate and key in one file; its common name is ``CLIENT_NAME``.
    """

    authority: Path
    server: TlsFiles
    client: Path


#: The user that the client certificate stands for; a test that logs in by it adds the user.
CLIENT_NAME = "certified"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test leaves unclosed is collected during another, whose log it must not enter."""
    yield
    for client in list(_living):
        client._must_close = False


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates made for this run; the server's is good for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert(f"{CLIENT_NAME}@localhost", common_name=CLIENT_NAME)
    files = TlsFiles(folder / "authority.pem", folder / "server.pem", folder / "server-key.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    for pem in server.cert_chain_pems:
        pem.write_to_path(str(files.certificate), append=True)
    server.private_key_pem.write_to_path(str(files.key))
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    return Certificates(files.authority, files, folder / "client.pem")


@pytest.fixture(scope="session")
def rabbit(certificates: Certificates) -> Iterator[RabbitNode]:
    """The run's one RabbitMQ, with a TLS listener and EXTERNAL.

    A test that hurts it takes the ``vhost`` fixture or calls ``repair()``.  Without RabbitMQ on
    the machine the test is skipped, or fails where EVAMQP_REQUIRE_RABBITMQ says that it must run.
    """
    try:
        node = RabbitNode(tls=certificates.server, external=True)
    except RabbitNotFound as error:
        missing = str(error)
    else:
        with node:
            yield node
        return
    if os.environ.get(REQUIRE_RABBITMQ, "") not in ("", "0"):
        pytest.fail(f"{REQUIRE_RABBITMQ} is set, but: {missing}", pytrace=False)
    pytest.skip(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip, however many tests it hit."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"skipped {count}: {reason}")
