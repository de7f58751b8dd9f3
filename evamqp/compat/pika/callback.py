"""Who wants to be called for what: callbacks by channel number and by method or event.

evamqp calls most callbacks directly; this is for the rest, and for programs that
add callbacks of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from . import amqp_object

LOGGER = logging.getLogger(__name__)


def name_or_value(value: Any) -> str:
    """The key of a method, an object, a frame or a name: a str."""
    if isinstance(value, type) and issubclass(value, amqp_object.AMQPObject):
        return value.NAME
    if hasattr(value, "method"):  # a frame
        return str(value.method.NAME)
    if isinstance(value, amqp_object.AMQPObject):
        return value.NAME
    return str(value)


class _Entry(NamedTuple):
    callback: Callable[..., object]
    one_shot: bool
    only: Any
    arguments: dict[str, Any] | None


class CallbackManager:
    """Callbacks under a prefix, mostly a channel's number, and a key.

    Attributes:
        CALLS, ARGUMENTS, DUPLICATE_WARNING, CALLBACK, ONE_SHOT, ONLY_CALLER: pika's constants.
    """

    CALLS = "calls"
    ARGUMENTS = "arguments"
    DUPLICATE_WARNING = 'Duplicate callback found for "%s:%s"'
    CALLBACK = "callback"
    ONE_SHOT = "one_shot"
    ONLY_CALLER = "only"

    def __init__(self) -> None:
        self._stack: dict[str, dict[str, list[_Entry]]] = {}

    def add(
        self,
        prefix: str | int,
        key: Any,
        callback: Callable[..., object],
        one_shot: bool = True,
        only_caller: Any = None,
        arguments: dict[str, Any] | None = None,
    ) -> tuple[str | int, Any]:
        """Have ``callback`` called for ``key``; a second time it is only warned of.

        Args:
            one_shot: Once, not each time.
            only_caller: Only when ``process`` is given this caller.
            arguments: Only for a frame whose method, or a dict, that has these values.
        """
        entry = _Entry(callback, one_shot, only_caller, arguments)
        entries = self._stack.setdefault(str(prefix), {}).setdefault(name_or_value(key), [])
        if any(_is_same(entry, other) for other in entries) and not one_shot:
            LOGGER.warning(self.DUPLICATE_WARNING, prefix, name_or_value(key))
        else:
            entries.append(entry)
        return prefix, name_or_value(key)

    def clear(self) -> None:
        """Forget all."""
        self._stack = {}

    def cleanup(self, prefix: str | int) -> bool:
        """Forget all of a prefix; whether there was any."""
        return self._stack.pop(str(prefix), None) is not None

    def keys(self, prefix: str | int) -> list[str]:
        """For what somebody waits under a prefix."""
        return list(self._stack.get(str(prefix), {}))

    def pending(self, prefix: str | int, key: Any) -> int | None:
        """How many wait for ``key``; None where nobody does."""
        entries = self._stack.get(str(prefix), {}).get(name_or_value(key))
        return len(entries) if entries else None

    def process(
        self, prefix: str | int, key: Any, caller: Any, *args: Any, **keywords: Any
    ) -> bool:
        """Call all who wait for ``key``, in the order in which they were added; whether any did."""
        entries = self._stack.get(str(prefix), {}).get(name_or_value(key))
        if not entries:
            return False
        due = [entry for entry in entries if _wants(entry, caller, args)]
        for entry in due:
            if entry.one_shot and entry in entries:
                entries.remove(entry)
        for entry in due:
            entry.callback(*args, **keywords)
        return bool(due)

    def remove(
        self,
        prefix: str | int,
        key: Any,
        callback_value: Callable[..., object] | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> bool:
        """Forget a callback, or all of a key where none is named."""
        self._keep(
            prefix,
            key,
            lambda entry: (
                (callback_value is not None and entry.callback != callback_value)
                or (arguments is not None and entry.arguments != arguments)
            ),
        )
        return True

    def remove_matching(
        self, prefix: str | int, key: Any, matches: Callable[[Callable[..., object]], bool]
    ) -> bool:
        """Forget the callbacks of a key for which ``matches`` is true; whether there were any."""
        return self._keep(prefix, key, lambda entry: not matches(entry.callback))

    def _keep(self, prefix: str | int, key: Any, stays: Callable[[_Entry], bool]) -> bool:
        """Keep only the entries of a key for which ``stays`` is true; whether others went."""
        keys = self._stack.get(str(prefix), {})
        entries = keys.pop(name_or_value(key), [])
        kept = [entry for entry in entries if stays(entry)]
        if kept:
            keys[name_or_value(key)] = kept
        return len(kept) < len(entries)

    def remove_added(self, prefix: str | int, key: Any, callback: Callable[..., object]) -> bool:
        """Forget what was added for a callback, which may have been wrapped then."""
        return self.remove_matching(prefix, key, lambda added: _is_made_of(added, callback))

    def remove_all(self, prefix: str | int, key: Any) -> None:
        """Forget all of a key."""
        self._stack.get(str(prefix), {}).pop(name_or_value(key), None)


def _is_made_of(added: Any, callback: Callable[..., object]) -> bool:
    while added is not None and added != callback:
        added = getattr(added, "func", None) or getattr(added, "__wrapped__", None)
    return added is not None


def _is_same(entry: _Entry, other: _Entry) -> bool:
    return entry.callback == other.callback and entry.arguments == other.arguments


def _wants(entry: _Entry, caller: Any, args: tuple[Any, ...]) -> bool:
    if entry.only is not None and entry.only is not caller:
        return False
    if not entry.arguments:
        return True
    found = args[0] if args else None
    found = getattr(found, "method", found)
    values = found if isinstance(found, dict) else _values(found)
    return all(values.get(name) == value for name, value in entry.arguments.items())


def _values(found: object) -> dict[str, Any]:
    return found._items() if isinstance(found, amqp_object.AMQPObject) else {}
