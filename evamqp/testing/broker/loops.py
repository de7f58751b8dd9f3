"""Where the broker's code runs: on the caller's loop, or on a loop in a thread of its own.

No AMQP here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from evamqp.abc import Adapter
from evamqp.errors import WrongState

P = ParamSpec("P")
T = TypeVar("T")
# Seconds that a call into the broker's thread may take.
TIMEOUT = 30.0


class Loop(Protocol):
    """Runs a function where the broker lives."""

    def call(self, function: Callable[[], T]) -> T: ...


class OwnLoop:
    """The caller drives the loop itself: everything is called on the spot."""

    def call(self, function: Callable[[], T]) -> T:
        return function()


class BackgroundLoop:
    """A loop in a thread of its own, entered through one door.

    Args:
        adapter: Its run() becomes the thread.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="evamqp.testing", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the thread, and return or raise what it does."""
        if threading.current_thread() is self._thread:
            return function()
        call = _Call(function)
        self._adapter.call_soon_threadsafe(call.run)
        while not call.done.wait(0.5):
            if not self._thread.is_alive():
                raise WrongState("the broker's thread has ended") from self._failure
        return call.result()

    def stop(self) -> None:
        """End the thread.  Idempotent."""
        self._adapter.call_soon_threadsafe(self._adapter.stop)
        self._thread.join(TIMEOUT)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _run(self) -> None:
        try:
            self._adapter.run()
        except BaseException as error:  # raised by stop(), in the thread that can act on it
            self._failure = error


class _Call:
    """A function on its way to another thread, and what came of it."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.done = threading.Event()
        self._function = function
        self._value: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # belongs to the thread that asked
            self._error = error
        self.done.set()

    def result(self) -> T:  # type: ignore[type-var]
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class HasLoop(Protocol):
    """Something whose methods run on a loop."""

    @property
    def loop(self) -> Loop: ...


S = TypeVar("S", bound=HasLoop)


def on_loop(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that may be called from any thread, and runs where the broker lives."""

    @wraps(method)
    def call(self: S, /, *arguments: P.args, **options: P.kwargs) -> T:
        return self.loop.call(partial(method, self, *arguments, **options))

    return call
