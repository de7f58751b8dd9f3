"""Checks of configuration values, one per kind of value: each returns what is to be stored.

A check takes the name of the field and the value given.  No message quotes text that was given,
since it may be a password in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from evamqp.errors import BadArgument, BadType

if TYPE_CHECKING:
    import ssl

    from evamqp.types import TableLike

Check: TypeAlias = Callable[[str, Any], object]

# Some eleven days.  epoll_wait() counts milliseconds in 31 bits, which end after twenty-four.
LONGEST_SECONDS = 1_000_000


def type_name(value: object) -> str:
    return type(value).__name__


def implements(value: object, *methods: str) -> bool:
    """Whether ``value`` is an object, and no class, that has these methods."""
    return not isinstance(value, type) and all(
        callable(getattr(value, method, None)) for method in methods
    )


def optional(check: Check) -> Check:
    """The same check, and None as well."""

    def check_unless_none(name: str, value: object) -> object:
        return None if value is None else check(name, value)

    return check_unless_none


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadType(f"{name} must be bool, not {type_name(value)}")
    return value


def integer(low: int, high: int | None = None) -> Check:
    """An int within limits, both included; None is no upper limit."""
    limits = f"{low} or more" if high is None else f"{low}..{high}"

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadType(f"{name} must be int, not {type_name(value)}")
        if value < low or (high is not None and value > high):
            raise BadArgument(f"{name} must be {limits}{_but_is(value)}")
        return value

    return check


prefetch: Check = integer(1, 65535)


def seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadType(f"{name} must be seconds (int or float), not {type_name(value)}")
    if not 0 < value <= LONGEST_SECONDS:
        limits = f"above 0 and at most {LONGEST_SECONDS} s"
        raise BadArgument(f"{name} must be {limits}{_but_is(value)}")
    return value


def timeout(name: str, value: float) -> float:
    """Seconds that may be 0; a negative value becomes 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadType(f"{name} must be seconds, not {type_name(value)}")
    if not value <= LONGEST_SECONDS:
        raise BadArgument(f"{name} must be at most {LONGEST_SECONDS} seconds, not {value}")
    return max(0.0, value)


def _but_is(value: float) -> str:
    # Python refuses to print integers of some thousand digits.
    return f", not {value}" if abs(value) < 10**30 else ""


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadType(f"{name} must be str, not {type_name(value)}")
    if not _is_utf8(value):
        raise BadArgument(f"{name} holds characters that UTF-8 cannot encode")
    return value


def _is_utf8(value: str) -> bool:
    # The UnicodeEncodeError carries the text, so it must not become anyone's __context__.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_up_to(limit: int) -> Callable[[str, object], str]:
    """Text of at most ``limit`` bytes in UTF-8."""

    def check(name: str, value: object) -> str:
        checked = text(name, value)
        if len(checked.encode()) > limit:
            raise BadArgument(f"{name} must be at most {limit} bytes in UTF-8")
        return checked

    return check


short_text: Callable[[str, object], str] = text_up_to(255)


def host(name: str, value: object) -> str:
    checked = short_text(name, value)
    if not checked or not checked.isprintable() or any(sign in checked for sign in " /@?#"):
        raise BadArgument(f"{name} must be a host name or an IP address, without blanks")
    if checked[0] == "[" or checked.count(":") == 1:
        raise BadArgument(f"{name} must be given without brackets and without port")
    return checked


def file(name: str, value: object) -> str:
    path = text(name, fspath(value) if isinstance(value, PathLike) else value)
    if not path or "\0" in path:
        raise BadArgument(f"{name} must be the path of a file")
    return path


def ssl_context(name: str, value: object) -> ssl.SSLContext:
    import ssl

    if not isinstance(value, ssl.SSLContext):
        raise BadType(f"{name} must be ssl.SSLContext, not {type_name(value)}")
    return value


def table(name: str, value: object) -> TableLike:
    """A mapping with short keys; a read-only copy of it is stored."""
    if not isinstance(value, Mapping):
        raise BadType(f"{name} must be a mapping, not {type_name(value)}")
    for key in value:
        short_text(f"a key of {name}", key)
    return MappingProxyType(dict(value))
