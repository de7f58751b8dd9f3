"""Who a program logs in as."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

LOGGER = logging.getLogger(__name__)


class _Credentials:
    """What both kinds have in common; neither shows a password in its repr."""

    TYPE = ""
    erase_on_connect = False

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def _offered(self, start: Any) -> bool:
        offered = start.mechanisms
        text = offered.decode("utf-8") if isinstance(offered, bytes) else str(offered)
        return self.TYPE in text.split()


class PlainCredentials(_Credentials):
    """A user's name and password.

    Args:
        username: The name.
        password: The password.
        erase_on_connect: Forget both once the connection is open.  Who reconnects must not ask
            for it.
    """

    TYPE = "PLAIN"

    def __init__(self, username: str, password: str, erase_on_connect: bool = False) -> None:
        self.username: str = username
        self.password: str = password
        self.erase_on_connect = erase_on_connect

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        """Mechanism and response for a ``Connection.Start``; None twice if it is not offered."""
        if not self._offered(start):
            return None, None
        return self.TYPE, b"\0" + _as_bytes(self.username) + b"\0" + _as_bytes(self.password)

    def erase_credentials(self) -> None:
        """Forget name and password, if that was asked for."""
        if self.erase_on_connect:
            LOGGER.info("Erasing stored credentials")
            self.username = self.password = None  # type: ignore[assignment]


class ExternalCredentials(_Credentials):
    """Log in by what the transport proves: a client certificate."""

    TYPE = "EXTERNAL"

    def __init__(self) -> None:
        self.erase_on_connect = False

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        """Mechanism and response for a ``Connection.Start``; None twice if it is not offered."""
        return (self.TYPE, b"") if self._offered(start) else (None, None)

    def erase_credentials(self) -> None:
        """There is nothing to forget."""
        LOGGER.debug("Not supported by this Credentials type")


def _as_bytes(value: str | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else (value or "").encode("utf-8")


#: Programs may append types of their own: objects with ``TYPE``, ``response_for`` and
#: ``erase_credentials``.
VALID_TYPES: list[type[Any]] = [PlainCredentials, ExternalCredentials]
