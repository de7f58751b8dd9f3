"""TLS through the facade, on RabbitMQ: each kind of connection; an unknown authority."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import evamqp.compat.pika as pika
from rabbitmq_node import RabbitNode
from tests.conftest import Certificates
from tests.examples.program import ROOT, Program

pytestmark = pytest.mark.rabbitmq

BODY = b"by TLS"


def tls_port(rabbit: RabbitNode) -> int:
    return int(pika.URLParameters(rabbit.tls_url).port)


def parameters(rabbit: RabbitNode, certificates: Certificates | None) -> pika.ConnectionParameters:
    """To the TLS port; without certificates only the system's authorities are trusted."""
    context = ssl.create_default_context(
        cafile=None if certificates is None else str(certificates.authority)
    )
    return pika.ConnectionParameters(
        "127.0.0.1",
        tls_port(rabbit),
        ssl_options=pika.SSLOptions(context, "localhost"),
        connection_attempts=1,
    )


class Visit:
    """Publishes a message to a queue of its own and takes it, on a callback connection."""

    def __init__(self, kind: type[Any], target: pika.ConnectionParameters, ioloop: Any) -> None:
        self.body = b""
        self.error: BaseException | None = None
        self.ioloop = ioloop
        self.connection = kind(
            target, self.on_open, self.on_open_error, self.on_close, custom_ioloop=ioloop
        )

    def on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self.on_channel_open)

    def on_open_error(self, connection: Any, error: BaseException) -> None:
        self.error = error
        self.connection.ioloop.stop()

    def on_close(self, connection: Any, reason: BaseException) -> None:
        self.connection.ioloop.stop()

    def on_channel_open(self, channel: Any) -> None:
        channel.queue_declare("", exclusive=True, callback=lambda frame: self.use(channel, frame))

    def use(self, channel: Any, frame: Any) -> None:
        queue = frame.method.queue
        channel.basic_consume(queue, self.on_message, auto_ack=True)
        channel.basic_publish("", queue, BODY)

    def on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.body = body
        self.connection.close()


def visit(name: str, target: pika.ConnectionParameters) -> Visit:
    if name == "select":
        guest = Visit(pika.SelectConnection, target, None)
        guest.connection.ioloop.start()
        guest.connection.ioloop.close()
        return guest
    loop = asyncio.new_event_loop()
    if name == "asyncio":
        guest = Visit(pika.adapters.asyncio_connection.AsyncioConnection, target, loop)
        loop.run_forever()
    else:
        from tornado.platform.asyncio import AsyncIOLoop

        ioloop = AsyncIOLoop(asyncio_loop=loop, make_current=False)
        guest = Visit(pika.adapters.tornado_connection.TornadoConnection, target, ioloop)
        ioloop.start()
    loop.close()
    return guest


@pytest.mark.parametrize("name", ["select", "asyncio", "tornado"])
def test_callback_connections(rabbit: RabbitNode, certificates: Certificates, name: str) -> None:
    guest = visit(name, parameters(rabbit, certificates))
    assert (guest.error, guest.body) == (None, BODY)


@pytest.mark.parametrize("name", ["select", "asyncio", "tornado"])
def test_an_unknown_authority_fails_the_connection(rabbit: RabbitNode, name: str) -> None:
    guest = visit(name, parameters(rabbit, None))
    assert isinstance(guest.error, pika.exceptions.AMQPConnectionError)
    assert "CERTIFICATE_VERIFY_FAILED" in repr(guest.error)


def test_blocking_connection(rabbit: RabbitNode, certificates: Certificates) -> None:
    with pika.BlockingConnection(parameters(rabbit, certificates)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, BODY)
        for _, _, body in channel.consume(queue, auto_ack=True):
            assert body == BODY
            break
    with pytest.raises(ssl.SSLCertVerificationError):  # not wrapped, as in pika
        pika.BlockingConnection(parameters(rabbit, None))


def test_url_with_ssl_options(rabbit: RabbitNode, certificates: Certificates) -> None:
    options = quote(repr({"ca_certs": str(certificates.authority), "server_hostname": "localhost"}))
    url = f"amqps://guest:guest@127.0.0.1:{tls_port(rabbit)}/%2F?ssl_options={options}"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        assert connection.is_open


@pytest.mark.parametrize("side", ["facade", "pika"])
def test_twisted_with_an_endpoint_of_tls(
    rabbit: RabbitNode, certificates: Certificates, side: str
) -> None:
    """Twisted's endpoint speaks TLS, beneath the protocol."""
    runner = ("-m", "evamqp.compat", "pika") if side == "facade" else ()
    program = str((Path(__file__).parent / "programs" / "twisted_tls.py").relative_to(ROOT))
    port = str(tls_port(rabbit))
    with Program(*runner, program, PORT=port, AUTHORITY=str(certificates.authority)) as client:
        client.end()
        assert client.lines == ["by TLS"]
