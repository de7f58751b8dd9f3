"""How the aio_pika facade connects: URLs, keywords, TLS, timeouts, names."""

from __future__ import annotations

import asyncio
import socket
import ssl
from urllib.parse import urlsplit

import pytest

from evamqp.compat import aio_pika
from evamqp.compat.aio_pika.connection import URL, make_url
from evamqp.compat.aio_pika.exceptions import (
    AMQPConnectionError,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from evamqp.testing import Broker
from rabbitmq_node import RabbitNode
from tests.compat.asyncio_rig import run
from tests.conftest import Certificates


def test_url_is_parted_and_put_together() -> None:
    url = URL("amqps://us%2Fer:p%40ss@[::1]:5671/%2Fvhost?name=a+b&heartbeat=5")
    assert (url.scheme, url.user, url.password) == ("amqps", "us/er", "p@ss")
    assert (url.host, url.port, url.path) == ("::1", 5671, "//vhost")
    assert url.query == {"name": "a b", "heartbeat": "5"}
    assert URL(str(url)) == url
    assert "p@ss" not in repr(url)
    assert str(url.with_user(None).with_password(None)).startswith("amqps://[::1]")
    made = make_url(host="h", port=1, login="l", password="p", virtualhost="v", ssl=True, flag=True)
    assert str(made) == "amqps://l:p@h:1/v?flag=1"
    assert make_url("amqp://h/", name="x").query == {"name": "x"}


def test_keywords_and_urls_name_the_connection() -> None:
    async def scenario(broker: Broker) -> None:
        one = await aio_pika.connect(f"{broker.url}?name=by%20url&heartbeat=9", loop=None)
        two = await aio_pika.connect(
            host="127.0.0.1", port=broker.port, login="guest", password="guest", virtualhost="/",
            client_properties={"connection_name": "by keyword"}, heartbeat=8, timeout=5,
        )  # fmt: skip
        names = [each.name for each in broker.connections()]
        assert names == ["by url", "by keyword"]
        assert [each.transport.heartbeat for each in (one, two)] == [9, 8]
        assert "guest:******@" in str(one)
        await one.close()
        await two.close()

    with Broker().serve() as broker:
        run(scenario(broker))


def test_connections_that_cannot_be_made() -> None:
    async def scenario(broker: Broker) -> None:
        with pytest.raises(ProbableAuthenticationError):
            await aio_pika.connect(host="127.0.0.1", port=broker.port, password="wrong")
        with pytest.raises(ConnectionClosed):
            await aio_pika.connect(host="127.0.0.1", port=broker.port, virtualhost="missing")
        with pytest.raises(ConnectionError, match=r"refused|failed"):
            await aio_pika.connect(host="127.0.0.1", port=unheard)
        with pytest.raises(AMQPConnectionError):
            await aio_pika.connect("amqp://no-such-host.invalid/")
        for connect in (aio_pika.connect, aio_pika.connect_robust):
            task = asyncio.create_task(connect(broker.url))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        broker.wait_until(lambda broker: not broker.connections())

    with Broker().serve() as broker, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        unheard = holder.getsockname()[1]
        run(scenario(broker))


def test_silent_peer_times_out() -> None:
    async def scenario() -> None:
        for connect in (aio_pika.connect, aio_pika.connect_robust):
            with pytest.raises((asyncio.TimeoutError, AMQPConnectionError)):
                await connect(f"amqp://127.0.0.1:{port}/", timeout=0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run(scenario())


@pytest.mark.rabbitmq
def test_tls_by_options_by_url_and_by_context(
    rabbit: RabbitNode, certificates: Certificates
) -> None:
    port = urlsplit(rabbit.tls_url).port or 0
    authority = str(certificates.authority)

    async def scenario() -> None:
        context = ssl.create_default_context(cafile=authority)
        url = f"amqps://guest:guest@localhost:{port}/"
        for connection in (
            await aio_pika.connect(
                host="localhost", port=port, ssl=True, ssl_options={"cafile": authority}
            ),
            await aio_pika.connect(f"{url}?ca_certs={authority}"),
            await aio_pika.connect_robust(url, ssl_context=context),
            await aio_pika.connect(f"{url}?no_verify_ssl=1"),
        ):
            channel = await connection.channel()
            await channel.declare_queue(exclusive=True)
            await connection.close()
        with pytest.raises(AMQPConnectionError):
            await aio_pika.connect(url)

    run(scenario())
