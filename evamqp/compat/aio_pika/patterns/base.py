"""How the patterns write values into bodies, and what makes ``proxy.some.name(...)`` a call."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any


class Method:
    """A name that is being spelled, until it is called with keywords."""

    __slots__ = ("func", "name")

    def __init__(self, name: str, func: Callable[..., Any]) -> None:
        self.name: str = name
        self.func: Callable[..., Any] = func

    def __getattr__(self, item: str) -> Method:
        return Method(f"{self.name}.{item}", self.func)

    def __call__(self, **kwargs: Any) -> Any:
        return self.func(self.name, kwargs=kwargs)


class Proxy:
    """Calls a function with the name that is asked of it."""

    __slots__ = ("func",)

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func: Callable[..., Any] = func

    def __getattr__(self, item: str) -> Method:
        return Method(item, self.func)


class Base:
    """How values are written; pickle, unless a subclass says otherwise.

    Whoever may publish to a queue that is read by pickle can run code here: use the Json classes
    where that is not yourself alone.
    """

    SERIALIZER: Any = pickle
    CONTENT_TYPE = "application/python-pickle"

    def serialize(self, data: Any) -> bytes:
        """Bytes of a value; override it, or set SERIALIZER."""
        written: bytes = self.SERIALIZER.dumps(data)
        return written

    def deserialize(self, data: bytes) -> Any:
        """The value of bytes; override it, or set SERIALIZER."""
        return self.SERIALIZER.loads(data)


__all__ = ["Base", "Method", "Proxy"]
