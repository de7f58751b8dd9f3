"""add_reader() and its siblings on the built-in loop, and pika's handlers on top of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evamqp.adapters.select import SelectAdapter
from evamqp.compat.pika.adapters.select_connection import IOLoop
from evamqp.errors import BadArgument, BadType

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def adapter() -> Iterator[SelectAdapter]:
    adapter = SelectAdapter()
    yield adapter
    adapter.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


def test_a_reader_is_called_while_there_is_something_to_read(
    adapter: SelectAdapter, pair: Pair
) -> None:
    near, far = pair
    came: list[bytes] = []
    adapter.add_reader(near.fileno(), lambda: came.append(near.recv(2)))
    far.send(b"abc")
    while sum(map(len, came)) < 3:
        adapter.turn(1)
    assert came == [b"ab", b"c"]
    assert adapter.remove_reader(near.fileno())
    assert not adapter.remove_reader(near.fileno())
    far.send(b"d")
    adapter.turn(0)
    assert came == [b"ab", b"c"]


def test_reader_and_writer_of_one_descriptor(adapter: SelectAdapter, pair: Pair) -> None:
    near, far = pair
    calls: list[str] = []
    fd = near.fileno()
    adapter.add_writer(fd, lambda: calls.append("old"))
    adapter.add_writer(fd, lambda: calls.append("write"))
    adapter.add_reader(fd, lambda: calls.append("read"))
    far.send(b"x")
    adapter.turn(1)
    assert calls == ["read", "write"]
    assert adapter.remove_writer(fd)
    adapter.turn(1)
    assert calls == ["read", "write", "read"]


def test_a_reader_may_remove_the_writer(adapter: SelectAdapter, pair: Pair) -> None:
    near, far = pair
    calls: list[str] = []
    fd = near.fileno()
    adapter.add_reader(fd, lambda: adapter.remove_writer(fd))
    adapter.add_writer(fd, lambda: calls.append("write"))
    far.send(b"x")
    adapter.turn(1)
    assert calls == []


def test_what_a_callback_raises_leaves_run_and_the_loop_goes_on(
    adapter: SelectAdapter, pair: Pair
) -> None:
    near, far = pair
    fd = near.fileno()

    def fail() -> None:
        near.recv(1)
        raise OSError("mine")

    adapter.add_reader(fd, fail)
    far.send(b"xy")
    for _ in range(2):
        with pytest.raises(OSError, match="mine"):
            adapter.run()
    adapter.call_soon(adapter.stop)
    adapter.run()


def test_the_descriptor_stays_open_when_the_loop_is_closed(pair: Pair) -> None:
    near, far = pair
    adapter = SelectAdapter()
    adapter.add_reader(near.fileno(), lambda: None)
    adapter.close()
    far.send(b"x")
    assert near.recv(1) == b"x"


@pytest.mark.parametrize(("fd", "error"), [("1", BadType), (True, BadType), (10**6, BadArgument)])
def test_what_is_no_descriptor_is_refused(
    adapter: SelectAdapter, fd: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        adapter.add_reader(fd, lambda: None)
    with pytest.raises(BadType):
        adapter.add_reader(0, None)  # type: ignore[arg-type]


def test_a_plain_file_cannot_be_watched(adapter: SelectAdapter, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(BadArgument, match="watched"):
        adapter.add_reader(file.fileno(), lambda: None)


def test_pikas_handlers_get_descriptor_and_event(pair: Pair) -> None:
    near, far = pair
    loop = IOLoop()
    calls: list[tuple[int, int]] = []

    def handle(fd: int, event: int) -> None:
        calls.append((fd, event))
        if event == IOLoop.READ:
            near.recv(1)
            loop.stop()

    loop.add_handler(near, handle, IOLoop.READ)
    with pytest.raises(ValueError, match="already"):
        loop.add_handler(near.fileno(), handle, IOLoop.READ)
    far.send(b"x")
    loop.start()
    assert calls == [(near.fileno(), IOLoop.READ)]
    loop.update_handler(near.fileno(), IOLoop.WRITE)
    loop.poll()
    assert calls[1:] == [(near.fileno(), IOLoop.WRITE)]
    loop.remove_handler(near)
    with pytest.raises(KeyError):
        loop.remove_handler(near)
    with pytest.raises(KeyError):
        loop.update_handler(near, IOLoop.READ)
    loop.close()
