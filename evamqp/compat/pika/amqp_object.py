"""What every class, method, frame and property list of ``spec`` and ``frame`` has in common.

Names, representation and comparison live here; bytes are ``spec.py``'s.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AMQPObject:
    """Something of the protocol, with a name and, mostly, a number."""

    NAME = "AMQPObject"
    INDEX: int | None = None

    __slots__ = ("__dict__",)

    def _items(self) -> dict[str, Any]:
        """Every attribute by name; lazy ones are decoded for it."""
        return self.__dict__

    def __repr__(self) -> str:
        shown = [f"{name}={value}" for name, value in sorted(self._items().items())
                 if value is not None]  # fmt: skip
        return f"<{self.NAME}({shown!r})>" if shown else f"<{self.NAME}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AMQPObject) or type(self) is not type(other):
            return NotImplemented
        return self._items() == other._items()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle needs; never the message that a lazy object came with."""
        return dict(self._items())


class Class(AMQPObject):
    """A class of methods, such as ``Queue``."""

    NAME = "Unextended Class"
    __slots__ = ()


class Method(AMQPObject):
    """A method; ``spec`` makes one class for each."""

    NAME = "Unextended Method"
    __slots__ = ("_body", "_properties")

    _properties: Properties
    _body: bytes

    @property
    def synchronous(self) -> bool:
        """Whether the peer answers it."""
        return False

    def _set_content(self, properties: Properties, body: bytes) -> None:
        """Attach the content that came behind this method."""
        self._properties = properties
        self._body = body

    def get_properties(self) -> Properties:
        """The properties of the content that came behind it."""
        return self._properties

    def get_body(self) -> bytes:
        """The body of the content that came behind it."""
        return self._body

    def encode(self) -> list[bytes]:
        """The arguments as pieces of bytes.  Each method of ``spec`` has its own."""
        raise NotImplementedError(repr(self))

    def decode(self, encoded: bytes, offset: int = 0) -> Method:
        """Read the arguments from bytes.  Each method of ``spec`` has its own."""
        raise NotImplementedError(repr(self))


class Properties(AMQPObject):
    """The properties of a content; ``spec.BasicProperties`` is the only kind."""

    NAME = "Unextended Properties"
    __slots__ = ()
