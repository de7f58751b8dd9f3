"""Doors into the broker and wrong doors: certificates, other protocols, other threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

import evamqp
from rabbitmq_node import RabbitNode
from tests.conftest import CLIENT_NAME
from tests.interop.rig import OnEveryLoopPlain, Rig, SharingVhost

THREADS = 16
PER_THREAD = 1000


class TestWrongPort(SharingVhost, OnEveryLoopPlain):
    def test_plain_client_on_the_tls_port_gets_an_error_that_says_so(self, rig: Rig) -> None:
        reason = rig.refused(rig.vhost.tls_url.replace("amqps:", "amqp:"))
        # The Erlang of 3.8.9 resets the connection; newer ones send a TLS alert.
        kinds = {"3.8": evamqp.ConnectionClosed, "3.10": evamqp.ProtocolMismatch}
        assert type(reason) is rig.answer(kinds)
        assert "TLS" in str(reason)
        assert "amqps://" in str(reason)

    def test_tls_client_on_the_plain_port_gets_an_error_that_says_so(self, rig: Rig) -> None:
        reason = rig.refused(rig.vhost.url.replace("amqp:", "amqps:"))
        assert isinstance(reason, evamqp.ConnectFailed)
        assert "TLS" in str(reason)

    def test_http_server_is_named(self, rig: Rig, http_port: int) -> None:
        reason = rig.refused(f"amqp://127.0.0.1:{http_port}")
        assert isinstance(reason, evamqp.ProtocolMismatch)
        assert "HTTP" in str(reason)

    def test_closed_port_is_named(self, rig: Rig) -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            port = unheard.getsockname()[1]
            reason = rig.refused(f"amqp://127.0.0.1:{port}")
        assert isinstance(reason, evamqp.ConnectFailed)
        assert f"127.0.0.1:{port}" in str(reason)

    def test_list_of_targets_falls_over_to_the_one_that_answers(self, rig: Rig) -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            nowhere = f"amqp://127.0.0.1:{unheard.getsockname()[1]}"
            client = rig.connect([nowhere, rig.parameters()])
            rig.wait(client.connection.wait_open())

    @pytest.fixture
    def http_port(self) -> Iterator[int]:
        """A server that answers whatever it is told as HTTP servers answer nonsense."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_answer_in_http, args=(listener,))
            thread.start()
            yield listener.getsockname()[1]
            # Wakes an accept() that nobody came to; one that was answered has ended.
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def _answer_in_http(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.recv(8)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


class TestCertificates(SharingVhost, OnEveryLoopPlain):
    @pytest.fixture
    def encryption(self) -> str:
        return "tls"

    @pytest.fixture(scope="class")
    @classmethod
    def certified(cls, rabbit: RabbitNode) -> Iterator[None]:
        """The user whom the client certificate stands for, in the default virtual host."""
        rabbit.repair()
        rabbit.ctl("add_user", CLIENT_NAME, "unused")
        rabbit.ctl("set_permissions", "-p", "/", CLIENT_NAME, ".*", ".*", ".*")
        yield
        rabbit.repair()
        rabbit.ctl("delete_user", CLIENT_NAME)

    @pytest.mark.usefixtures("certified")
    def test_client_certificate_logs_in_by_external(self, rig: Rig) -> None:
        certificate = str(rig.certificates.client)
        client = rig.open(mechanisms=["EXTERNAL"], certfile=certificate, virtual_host="/")
        properties = evamqp.Properties(user_id=CLIENT_NAME)
        channel = client.connection.channel()
        channel.confirm_select()
        channel.basic_publish("", "nowhere", b"", properties)
        # The broker accepts no other user_id than that of the connection.
        assert rig.wait(channel.wait_for_confirms()) == []

    def test_external_without_certificate_is_an_authentication_failure(self, rig: Rig) -> None:
        reason = rig.refused(mechanisms=["EXTERNAL"])
        assert isinstance(reason, evamqp.AuthenticationFailed)

    def test_unknown_authority_is_refused(self, rig: Rig) -> None:
        reason = rig.refused(rig.vhost.tls_url)
        assert isinstance(reason, evamqp.ConnectFailed)
        assert "certificate" in str(reason)


class TestThreads(SharingVhost, OnEveryLoopPlain):
    def test_publishes_from_many_threads_are_all_confirmed(self, rig: Rig) -> None:
        channel = rig.channel()
        connection = channel.connection
        channel.confirm_select()
        rig.wait(channel.queue_declare("q", durable=True))

        def publish_often() -> None:
            for _ in range(PER_THREAD):
                connection.call_soon_threadsafe(lambda: channel.basic_publish("", "q", b"body"))

        threads = [threading.Thread(target=publish_often) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        client = rig.client_of(channel)
        rig.until(lambda: len(client.confirmed) == THREADS * PER_THREAD)
        for thread in threads:
            thread.join()
        assert sorted(client.confirmed) == list(range(1, THREADS * PER_THREAD + 1))
        assert rig.wait(channel.queue_purge("q")) == THREADS * PER_THREAD

    def test_call_from_a_wrong_thread_raises_and_sends_nothing(self, rig: Rig) -> None:
        channel = rig.channel()
        raised: list[Exception] = []

        def publish() -> None:
            try:
                channel.basic_publish("", "q", b"body")
            except evamqp.WrongThread as error:
                raised.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()
        assert len(raised) == 1
        assert channel.published == 0
