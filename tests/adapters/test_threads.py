"""Wrong threads are told so, and a forked child does not keep a connection open that we ended."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import evamqp
from evamqp.abc import Adapter, Endpoint
from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.adapters.memory import Peer
from evamqp.adapters.select import SelectAdapter
from evamqp.errors import WrongThread

URL = "amqp://127.0.0.1:1/"
TIMEOUT = 10.0


@pytest.fixture(params=[SelectAdapter, lambda: AsyncioAdapter(asyncio.new_event_loop())])
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    adapter: Adapter = request.param()
    yield adapter
    adapter.close()
    if isinstance(adapter, AsyncioAdapter):
        adapter.loop.close()


@pytest.fixture
def running(adapter: Adapter) -> Iterator[Adapter]:
    """An adapter whose loop runs in another thread."""
    started = threading.Event()
    adapter.call_soon(started.set)
    thread = threading.Thread(target=adapter.run)
    thread.start()
    assert started.wait(TIMEOUT)
    yield adapter
    adapter.stop()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


MAKERS: dict[str, Callable[[Adapter], object]] = {
    "connect": lambda adapter: evamqp.connect(URL, adapter=adapter),
    "Publisher": lambda adapter: evamqp.Publisher(URL, adapter=adapter),
    "Consumer": lambda adapter: evamqp.Consumer(URL, "q", print, adapter=adapter),
    "Reconnector": lambda adapter: evamqp.Reconnector(URL, adapter=adapter),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_beside_a_loop_that_runs_elsewhere_is_refused(
    running: Adapter, name: str
) -> None:
    with pytest.raises(WrongThread):
        MAKERS[name](running)


def test_a_call_from_elsewhere_is_refused_before_the_loop_has_called_back(adapter: Adapter) -> None:
    """The loop sets its mark in the first callback of a connection; until then it is asked."""
    connection = evamqp.connect(URL, adapter=adapter)
    publisher = evamqp.Publisher(URL, adapter=adapter)
    publication = publisher.publish("", "q", b"x")  # legal, since the loop does not run yet
    errors: list[str] = []

    def from_elsewhere() -> None:
        for call in (
            connection.close,
            connection.wait_open,
            publisher.close,
            lambda: publisher.publish("", "q", b"x"),
        ):
            try:
                call()
            except WrongThread:
                errors.append("refused")

    def first() -> None:
        thread = threading.Thread(target=from_elsewhere)
        thread.start()
        thread.join(TIMEOUT)
        publisher.close(0)
        connection.close()
        adapter.call_later(0.1, adapter.stop)

    adapter.call_soon(first)
    adapter.run()
    assert errors == ["refused"] * 4
    assert publication.is_done


def test_a_cancel_from_another_thread_is_refused(adapter: Adapter) -> None:
    connection = evamqp.connect(URL, adapter=adapter)
    request = connection.wait_open()
    errors: list[BaseException] = []

    def cancel() -> None:
        try:
            request.cancel()
        except WrongThread as error:
            errors.append(error)

    def in_loop() -> None:
        thread = threading.Thread(target=cancel)
        thread.start()
        thread.join(TIMEOUT)
        assert not request.is_done
        request.cancel()
        adapter.call_later(0.1, adapter.stop)

    adapter.call_soon(in_loop)
    adapter.run()
    assert len(errors) == 1
    assert request.is_done


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_peer_sees_an_end_though_a_forked_child_lives_on(adapter: Adapter, how: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stream = Peer()
    adapter.connect(Endpoint(*listener.getsockname()), stream)

    def look() -> None:
        if stream.is_connected:
            adapter.stop()
        else:
            adapter.call_later(0.01, look)

    adapter.call_soon(look)
    adapter.run()
    accepted, _ = listener.accept()
    accepted.settimeout(TIMEOUT)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # holds every descriptor until the parent lets it go
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        getattr(stream.transport, how)()
        adapter.call_later(0.1, adapter.stop)
        adapter.run()
        assert accepted.recv(1) == b""
    finally:
        os.close(writer)
        os.waitpid(child, 0)
        accepted.close()
        listener.close()
