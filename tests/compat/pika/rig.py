"""One program on two libraries: pika itself, and the facade; what each tells is compared.

It holds no tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pika as real
import pytest

import evamqp.compat.pika as facade
from tests.support.broker_url import BROKERS

everywhere = pytest.mark.parametrize("url", BROKERS, indirect=True)
embedded = pytest.mark.parametrize("url", ["embedded"], indirect=True)
#: Seconds that one program may take.
TIMEOUT = 30.0

Program = Callable[["Stage"], None]


class Stage:
    """Where a program plays: a library, an open connection of it, and a log.

    Attributes:
        pika: The library.
        connection: Open when the program is called.
        log: What was told, in order.
    """

    def __init__(self, library: Any, url: str) -> None:
        self.pika = library
        self.url = url
        self.log: list[str] = []
        self.connection: Any = None
        self.failure: BaseException | None = None

    def play(self, program: Program) -> list[str]:
        """Run a program until the connection has ended; return what it logged."""
        self.connection = self.pika.SelectConnection(
            self.pika.URLParameters(self.url),
            on_open_callback=lambda _: self._begin(program),
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
        )
        loop = self.connection.ioloop
        guard = loop.call_later(TIMEOUT, lambda: self._give_up(loop))
        loop.start()
        loop.remove_timeout(guard)
        loop.close()
        if self.failure is not None:
            raise self.failure
        return self.log

    def say(self, *words: object) -> None:
        """Log something; addresses and what only one of the two libraries has are left out."""
        self.log.append(normal(" ".join(map(str, words))))

    def told(self, name: str) -> Callable[..., None]:
        """A callback that logs its arguments."""
        return lambda *arguments: self.say(name, *map(repr, arguments))

    def last(self, frame: object) -> None:
        """A callback that logs its frame, and ends the program."""
        self.say(frame)
        self.connection.close()

    def tried(self, name: str, call: Callable[..., object], *args: Any, **named: Any) -> None:
        """Log what a call raises."""
        try:
            call(*args, **named)
        except Exception as error:
            self.say(name, "raised", type(error).__name__, error.args)
        else:
            self.say(name, "passed")

    def later(self, function: Callable[[], object], seconds: float = 0.1) -> None:
        """Call something when what is under way has come."""
        self.connection.ioloop.call_later(seconds, function)

    def _begin(self, program: Program) -> None:
        try:
            program(self)
        except BaseException as error:
            self.failure = error
            self.connection.close()

    def _closed(self, connection: Any, reason: BaseException) -> None:
        self.say("closed", repr(reason), connection.is_closed, connection.is_open)
        connection.ioloop.stop()

    def _give_up(self, loop: Any) -> None:
        self.failure = AssertionError(f"no end in {TIMEOUT} s; so far {self.log}")
        loop.stop()


def normal(text: str) -> str:
    text = re.sub(r"transport=(None|<.*?>+) ", "", text)
    text = re.sub(r"at 0x[0-9a-f]+|ctag\d+\.[0-9a-f]+|amq\.gen-[\w-]+", "*", text)
    return text.replace("evamqp.compat.", "").replace("ChannelRequests.", "Channel.")


def play_both(url: str, program: Program) -> list[str]:
    """Run a program on both libraries; both have to tell the same, which is returned."""
    theirs = Stage(real, url).play(program)
    ours = Stage(facade, url).play(program)
    # One line each, so that a difference can be read.
    assert "\n".join(ours) == "\n".join(theirs)
    return ours
