"""One request and its outcome: the entry of the FIFO is the object that the user holds.

The channel knows what a reply means, and the loop how to make a future.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol

from evamqp.errors import AmqpError, BadType, RequestCancelled
from evamqp.types import Callback, ErrorCallback, T

if TYPE_CHECKING:
    from evamqp.abc import Promise


class Host(Protocol):
    """What a request needs of its maker: the thread check, futures and callbacks."""

    def check_caller(self, what: str) -> None:
        """Raise WrongThread in a thread that may not use the request."""

    def create_future(self) -> Promise: ...
    def defer(self, function: Callable[..., object], *arguments: object) -> None: ...
    def invoke(self, name: str, function: Callable[..., object], *arguments: object) -> None: ...


class Numbered(Protocol):
    """The channel of a request, as far as the request knows it."""

    @property
    def number(self) -> int: ...


def check_callbacks(what: str, *functions: object) -> None:
    """Raise BadType for a callback that is neither callable nor None."""
    for function in functions:
        if function is not None and not callable(function):
            raise BadType(f"{what}: a callback must be callable, not {type(function).__name__}")


def check_reason(what: str, code: object, text: object) -> None:
    """Raise BadType for what no close method can carry."""
    if isinstance(code, bool) or not isinstance(code, int):
        raise BadType(f"{what}: code must be int, not {type(code).__name__}")
    check_text(f"{what}: text", text)


def check_text(what: str, text: object) -> None:
    """Raise BadType for what is no str."""
    if not isinstance(text, str):
        raise BadType(f"{what} must be str, not {type(text).__name__}")


class Request(Generic[T]):
    """A request that was sent, and what came of it.

    ``await request`` works on every loop that has awaitables, any number of times; ``future`` is
    the loop's own future.  A request that you ignore costs nothing and never logs.
    """

    __slots__ = (
        "_callback",
        "_discard",
        "_error",
        "_finish",
        "_future",
        "_host",
        "_is_done",
        "_on_error",
        "_promises",
        "_value",
        "channel",
        "method",
        "replies",
        "tag",
    )

    def __init__(
        self,
        host: Host,
        method: str,
        *,
        channel: Numbered | None = None,
        replies: tuple[str, ...] = (),
        finish: Callable[..., T] | None = None,
        callback: Callback[T] | None = None,
        on_error: ErrorCallback | None = None,
        discard: Callable[[T], object] | None = None,
        tag: str | None = None,
    ) -> None:
        self.method: str = method
        # The consumer tag that identifies its reply; None where order does.
        self.tag: str | None = tag
        self.channel: Numbered | None = channel
        self.replies: tuple[str, ...] = replies
        self._host = host
        self._finish = finish
        self._callback = callback
        self._on_error = on_error
        self._discard = discard
        self._promises: list[Promise] = []
        self._future: Any = None
        self._is_done = False
        self._value: Any = None
        self._error: AmqpError | None = None

    def __repr__(self) -> str:
        outcome = "pending" if not self._is_done else repr(self._error) if self._error else "done"
        return f"<Request {self} {outcome}>"

    def __str__(self) -> str:
        where = "" if self.channel is None else f" on channel {self.channel.number}"
        return self.method + where

    @property
    def is_done(self) -> bool:
        """Whether the request has its outcome."""
        return self._is_done

    @property
    def is_watched(self) -> bool:
        """Whether a callback or a future waits for the outcome."""
        return bool(self._callback or self._future is not None or self._promises)

    @property
    def future(self) -> Any:
        """The loop's own future of this request: ``asyncio.Future``, ``Deferred`` or ``Result``.

        Made when first read, and the same one from then on.
        """
        if self._future is None:
            self._future = self._new_future()
        return self._future

    def __await__(self) -> Generator[Any, Any, T]:
        value: T = yield from self._new_future().__await__()
        return value

    # It is a coroutine object as well, for code that runs nothing else: create_task(), Twisted's
    # ensureDeferred, and its inlineCallbacks, which sends any other object straight back.

    def send(self, value: object) -> Any:
        """Wait for the outcome, as ``await`` does.  For what runs coroutines."""
        if self._is_done:
            if self._error is not None:
                raise self._error.copy()
            raise StopIteration(self._value)
        return next(self._new_future().__await__())

    def throw(self, kind: Any, error: Any = None, traceback: Any = None) -> Any:
        """End a wait by an exception: it is raised."""
        if error is None:
            error = kind() if isinstance(kind, type) else kind
        raise error.with_traceback(traceback or error.__traceback__)

    def close(self) -> None:
        """End a wait.  The request goes on, and may be awaited again."""

    def cancel(self) -> None:
        """Discard the reply; the request itself cannot be recalled.

        Whoever awaits it gets RequestCancelled; its callbacks are not called.  A no-op once there
        is an outcome.  A message that a cancelled ``basic_get`` brings is requeued.

        Raises:
            WrongThread: Not the thread of the loop.
        """
        self._host.check_caller(f"{self}: cancel")
        if not self._is_done:
            self._callback = self._on_error = None
            self._is_done = True
            self._error = RequestCancelled(f"{self} was cancelled")
            self._host.defer(self._settle)

    # Called by the library, from the loop only.

    def resolve(self, value: T) -> None:
        """The request succeeded.  A no-op if it has its outcome."""
        if not self._is_done:
            self._is_done = True
            self._value = value
            self._settle()
        elif self._discard is not None:
            self._discard(value)

    def answer(self, arguments: tuple[Any, ...]) -> None:
        """The broker's reply came, with these arguments."""
        finish, self._finish = self._finish, None
        assert finish is not None
        self.resolve(finish(*arguments))

    def fail(self, error: AmqpError) -> None:
        """The request failed.  A no-op if it has its outcome."""
        if not self._is_done:
            self._is_done = True
            self._error = error
            self._settle()

    def _settle(self) -> None:
        """Settle futures first, then call the callback, each once."""
        promises, self._promises = self._promises, []
        callback, on_error = self._callback, self._on_error
        self._callback = self._on_error = None
        error = self._error
        if error is None:
            taken = [promise.resolve(self._value) for promise in promises]
            if taken and not any(taken) and callback is None and self._discard is not None:
                self._give_up()
            if callback is not None:
                self._host.invoke(f"{self.method} callback", callback, self._value)
        else:
            for promise in promises:
                promise.reject(error.copy())
            if on_error is not None:
                self._host.invoke(f"{self.method} on_error", on_error, error.copy())

    def _give_up(self) -> None:
        """All who waited have cancelled: discard the value."""
        value, self._value = self._value, None
        self._error = RequestCancelled(f"{self} was cancelled by all who waited")
        assert self._discard is not None
        self._discard(value)

    def _new_future(self) -> Any:
        promise = self._host.create_future()
        if not self._is_done:
            self._promises.append(promise)
        elif self._error is not None:
            promise.reject(self._error.copy())
        else:
            promise.resolve(self._value)
        return promise.future


class ConsumerTag(str):
    """A consumer tag, and the request that started its consumer.

    Attributes:
        request: The basic.consume; its result is the tag.
    """

    __slots__ = ("request",)

    request: Request[str]

    def __new__(cls, tag: str, request: Request[str]) -> ConsumerTag:
        self = super().__new__(cls, tag)
        self.request = request
        return self

    def __await__(self) -> Generator[Any, Any, str]:
        return self.request.__await__()

    def __reduce__(self) -> tuple[object, ...]:
        return str, (str(self),)  # a copy is the tag alone
