"""The world's clock: the memory adapter, and whose timers wait on it.

Law: what has ended leaves no timer.  Nothing here knows AMQP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.abc import Handle, LoopCallback
from evamqp.adapters.memory import MemoryAdapter


class Clock(MemoryAdapter):
    """A memory adapter that can tell which timers are set."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        super().__init__()
        self._set: dict[_Timer, None] = {}

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        timer = _Timer(self._set, callback)
        timer.handle = super().call_later(delay, timer.run)
        return timer

    def sleep(self, seconds: float) -> Any:
        """A future of this loop that is resolved so much later."""
        promise = self.create_future()
        self.call_later(seconds, lambda: promise.resolve(None))
        return promise.future

    @property
    def timers(self) -> list[str]:
        """Whose timers wait, by the names of their functions."""
        return [_name(timer.callback) for timer in self._set]


class _Timer:
    """A timer that is known until it fires or is cancelled."""

    __slots__ = ("_set", "callback", "handle")

    handle: Handle

    def __init__(self, known: dict[_Timer, None], callback: LoopCallback) -> None:
        self._set = known
        self.callback = callback
        known[self] = None

    def cancel(self) -> None:
        self._set.pop(self, None)
        self.handle.cancel()

    def run(self) -> None:
        self._set.pop(self, None)
        self.callback()


def _name(callback: Callable[..., object]) -> str:
    inner = getattr(callback, "func", callback)
    return str(getattr(inner, "__qualname__", inner))
