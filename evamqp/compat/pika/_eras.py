"""Three eras of call style: recognized once, at a call or a registration, and translated to one.

0.9: close callbacks get one method frame.  0.x (0.10 to 0.13): the callback of a request is its
first argument, and close callbacks get code and text.  1.x: the callback is last, and close
callbacks get an exception.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from . import exceptions, spec
from .frame import Method

F = TypeVar("F", bound=Callable[..., Any])

# What a broker that says nothing, or a client that is cut off, is taken to have said.
_LOST = 320
# Keywords that only one of the styles has.
_OLD = frozenset((
    "consumer_callback", "no_ack", "all_channels", "nowait", "immediate", "type",
    "stop_ioloop_on_close",
))  # fmt: skip
_NEW = frozenset(("on_message_callback", "auto_ack", "global_qos", "ack_nack_callback"))
_RENAMED = {
    "consumer_callback": "on_message_callback",
    "no_ack": "auto_ack",
    "all_channels": "global_qos",
    "type": "exchange_type",
}


class Era:
    """Which style the program of one connection has.

    Attributes:
        seen_old: Whether something that only the 0.x styles have was seen.
    """

    __slots__ = ("seen_old",)

    def __init__(self) -> None:
        self.seen_old = False

    @property
    def is_old(self) -> bool:
        """The era to assume where a call does not show one."""
        forced = getattr(sys.modules[__package__ or ""], "ERA", None)
        if forced is None:
            return self.seen_old
        return str(forced) != "1.x"

    @property
    def is_frame(self) -> bool:
        """Whether the program was said to be of 0.9, where close callbacks get a frame."""
        return getattr(sys.modules[__package__ or ""], "ERA", None) == "0.9"

    def saw_old(self) -> None:
        """Remember the first sign of 0.x."""
        self.seen_old = True


def two_styles(old: str) -> Callable[[F], F]:
    """Let a method of 1.x's style be called in 0.x's as well.

    Args:
        old: The names of the 0.x arguments in their order, ``callback`` or ``consumer_callback``
            first.  The object has an ``_era``.
    """
    names = tuple(old.split())

    def decorate(method: F) -> F:
        @wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if args:
                first = args[0]
                is_old = callable(first) or (first is None and len(args) > 1)
            else:
                is_old = False
            if not is_old and (not kwargs or _OLD.isdisjoint(kwargs)):
                return method(self, *args, **kwargs)
            if not is_old and not _NEW.isdisjoint(kwargs):
                return method(self, *args, **kwargs)
            self._era.saw_old()
            if is_old:
                kwargs = _by_name(method.__name__, names, args, kwargs)
                args = ()
            return method(self, *args, **_renamed(kwargs))

        return call  # type: ignore[return-value]

    return decorate


def _by_name(
    what: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    if len(args) > len(names):
        raise TypeError(f"{what}() takes at most {len(names)} arguments, but got {len(args)}")
    given = dict(zip(names, args, strict=False))
    twice = given.keys() & kwargs.keys()
    if twice:
        raise TypeError(f"{what}() got multiple values for argument {min(twice)!r}")
    return {**given, **kwargs}


def _renamed(kwargs: dict[str, Any]) -> dict[str, Any]:
    renamed = {_RENAMED.get(name, name): value for name, value in kwargs.items()}
    if kwargs.get("type") is None and "exchange_type" in kwargs:
        renamed["exchange_type"] = kwargs["exchange_type"]
    return renamed


def positional_count(function: Callable[..., object]) -> int | None:
    """How many arguments a function takes by position; None if any number, or nobody knows."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return None
    return sum(
        each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters
    )


CloseCallback = Callable[[Any, BaseException], object]


def close_callback(callback: Callable[..., object], era: Era) -> CloseCallback:
    """A close callback of any style, as one that takes the object and the exception."""
    count = positional_count(callback)
    if count == 2:
        return callback
    if count == 1:
        era.saw_old()
        return _wrapping(callback, lambda closed, error: _call_with_frame(callback, closed, error))
    if count is not None and count >= 3:
        era.saw_old()
        return _wrapping(callback, lambda closed, error: callback(closed, *code_and_text(error)))
    return _wrapping(callback, lambda closed, error: _call_undecided(callback, era, closed, error))


def _wrapping(callback: Callable[..., object], function: CloseCallback) -> CloseCallback:
    """Let ``remove_on_close_callback`` find what was given."""
    function.__wrapped__ = callback  # type: ignore[attr-defined]
    return function


def _call_undecided(
    callback: Callable[..., object], era: Era, closed: Any, error: BaseException
) -> None:
    if era.is_frame:
        _call_with_frame(callback, closed, error)
    elif era.is_old:
        callback(closed, *code_and_text(error))
    else:
        callback(closed, error)


def _call_with_frame(callback: Callable[..., object], closed: Any, error: BaseException) -> None:
    """0.9: a frame; for a connection only closes by the broker are reported."""
    number = getattr(closed, "channel_number", 0)
    kind = spec.Channel.Close if number else spec.Connection.Close
    if number or isinstance(error, exceptions.ConnectionClosedByBroker):
        code, text = code_and_text(error)
        callback(Method(number, kind(code, text, 0, 0)))


def code_and_text(error: BaseException) -> tuple[int, str]:
    """What a close method says, or would have said, of this end."""
    if isinstance(error, (exceptions.ConnectionClosed, exceptions.ChannelClosed)):
        return error.reply_code, error.reply_text
    return _LOST, str(error) or repr(error)
