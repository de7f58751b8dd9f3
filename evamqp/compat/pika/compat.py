"""The helpers that pika keeps for the differences of systems and of Python's versions."""

from __future__ import annotations

import platform
import re
import signal
import socket
import time

HAVE_SIGNAL = hasattr(signal, "SIGALRM")
RE_NUM = re.compile(r"(\d+).+")
SOCKET_ERROR = OSError
SOL_TCP = socket.IPPROTO_TCP
ON_LINUX = platform.system() == "Linux"
ON_OSX = platform.system() == "Darwin"
ON_WINDOWS = platform.system() == "Windows"

str_or_bytes: tuple[type[str], type[bytes]] = (str, bytes)


class long(int):
    """An integer of 64 bits as it came from a table; an ``int`` that prints with an L."""

    def __repr__(self) -> str:
        return f"{int(self)}L"

    def __str__(self) -> str:
        return int.__repr__(self)


def as_bytes(value: str | bytes) -> bytes:
    """``value`` in UTF-8; bytes are left alone."""
    return value if isinstance(value, bytes) else value.encode("utf-8")


def byte(*args: int) -> bytes:
    """The bytes of these numbers."""
    return bytes(args)


def time_now() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


def to_digit(value: str) -> int:
    """The number at the start of ``value``; 0 if there is none."""
    if value.isdigit():
        return int(value)
    match = RE_NUM.match(value)
    return int(match.group(1)) if match else 0


def get_linux_version(release_str: str) -> tuple[int, ...]:
    """The first three numbers of a kernel's release."""
    return tuple(to_digit(part) for part in release_str.split("-")[0].split(".")[:3])


LINUX_VERSION = get_linux_version(platform.release()) if ON_LINUX else None


def nonblocking_socketpair(
    family: int = socket.AF_INET, socket_type: int = socket.SOCK_STREAM, proto: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets on which nothing blocks."""
    pair = socket.socketpair() if family != socket.AF_INET else _inet_pair(socket_type, proto)
    for each in pair:
        each.setblocking(False)
    return pair


def _inet_pair(socket_type: int, proto: int) -> tuple[socket.socket, socket.socket]:
    with socket.socket(socket.AF_INET, socket_type, proto) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client
