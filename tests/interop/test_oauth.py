"""Tokens of RabbitMQ's OAuth 2 plugin: a client outlives them on one connection."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import evamqp
from evamqp import Credentials, Outcome
from rabbitmq_node import HOST, RabbitNode
from tests.support.loops import Loop, opened

LIFE = 6  # seconds
SCOPES = ["rabbitmq.configure:*/*", "rabbitmq.write:*/*", "rabbitmq.read:*/*"]


class Authority:
    """Signs tokens with a key made for this run."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public = folder / "oauth.pem"
        self.public.write_bytes(
            self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(self, life: float = LIFE) -> str:
        """A token that is good for so many seconds."""
        header = {"alg": "RS256", "typ": "JWT", "kid": "local"}
        claims = {
            "sub": "daemon",
            "aud": ["rabbitmq"],
            "exp": int(time.time() + life),
            "scope": SCOPES,
        }
        signed = b".".join(_encoded(json.dumps(each).encode()) for each in (header, claims))
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _encoded(signature)).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Source:
    """Hands out tokens, at once or by a coroutine."""

    def __init__(self, authority: Authority, *, is_async: bool, is_renewed: bool = True) -> None:
        self._authority = authority
        self._is_async = is_async
        self._expires_in = LIFE if is_renewed else None
        self.asked = 0

    def __call__(self) -> object:
        self.asked += 1
        return self._fetch() if self._is_async else self._credentials()

    def _credentials(self) -> Credentials:
        return Credentials("", self._authority.token(), expires_in=self._expires_in)

    async def _fetch(self) -> Credentials:
        return self._credentials()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the tokens of this run."""
    return Authority(tmp_path_factory.mktemp("oauth"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Iterator[RabbitNode]:
    """A node that knows nobody but the authority."""
    config = [
        "auth_backends.1 = rabbit_auth_backend_oauth2",
        "auth_oauth2.resource_server_id = rabbitmq",
        "auth_oauth2.default_key = local",
        f"auth_oauth2.signing_keys.local = {authority.public}",
        "auth_oauth2.algorithms.1 = RS256",
    ]
    with RabbitNode(plugins=["rabbitmq_auth_backend_oauth2"], config=config) as node:
        yield node


@pytest.fixture(params=["select", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Two loops that have nothing in common."""
    with opened(request.param) as loop:
        yield loop


def parameters(node: RabbitNode, source: object) -> evamqp.Parameters:
    return evamqp.Parameters(HOST, node.port, credentials=source)  # type: ignore[arg-type]


class Steady:
    """Publishes a message each half second to a queue of its own."""

    def __init__(self, loop: Loop, publisher: evamqp.Publisher) -> None:
        self._adapter = loop.adapter
        self._publisher = publisher
        self.outcomes: list[Outcome | None] = []
        self._publish()

    def _publish(self) -> None:
        if len(self.outcomes) < 4 * LIFE:
            self._publisher.publish("", "steady", b"x", callback=self._ended)

    def _ended(self, publication: evamqp.Publication) -> None:
        self.outcomes.append(publication.outcome)
        self._adapter.call_later(0.5, self._publish)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_one_connection_outlives_two_tokens(
    loop: Loop, node: RabbitNode, authority: Authority, is_async: bool
) -> None:
    source = Source(authority, is_async=is_async)
    topology = evamqp.Topology()
    topology.queue("steady")
    publisher = evamqp.Publisher(parameters(node, source), adapter=loop.adapter, topology=topology)
    steady = Steady(loop, publisher)
    loop.until(lambda: len(steady.outcomes) == 4 * LIFE, 60)
    assert set(steady.outcomes) == {Outcome.CONFIRMED}
    assert publisher.reconnector.epoch == 1
    assert source.asked >= 3
    loop.wait(publisher.close(5))


def test_each_login_has_a_new_token(loop: Loop, node: RabbitNode, authority: Authority) -> None:
    source = Source(authority, is_async=True)
    reconnector = evamqp.Reconnector(parameters(node, source), adapter=loop.adapter)
    loop.wait(reconnector.wait_ready(30))
    node.close_all_connections()
    loop.until(lambda: reconnector.epoch >= 2 and reconnector.is_ready, 30)
    assert source.asked >= 2
    loop.wait(reconnector.close())


def test_without_renewal_the_broker_refuses_when_the_token_has_expired(
    loop: Loop, node: RabbitNode, authority: Authority
) -> None:
    source = Source(authority, is_async=False, is_renewed=False)
    connection = evamqp.connect(parameters(node, source), adapter=loop.adapter)
    loop.wait(connection.wait_open())
    deadline = loop.adapter.time() + LIFE + 3

    def is_late() -> bool:
        return loop.adapter.time() > deadline or not connection.is_open

    loop.until(is_late, 30)
    if connection.is_open:
        channel = connection.channel()
        channel.queue_declare("refused", durable=True)
        loop.until(lambda: channel.reason is not None or not connection.is_open, 30)
        assert channel.reason is not None or not connection.is_open
    connection.close()
    loop.wait(connection.wait_closed())


def test_an_expired_token_is_a_refused_login(
    loop: Loop, node: RabbitNode, authority: Authority
) -> None:
    expired = Credentials("", authority.token(-60))
    connection = evamqp.connect(parameters(node, expired), adapter=loop.adapter)
    assert isinstance(loop.wait(connection.wait_closed()), evamqp.AuthenticationFailed)
