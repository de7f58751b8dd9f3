"""Users of the embedded broker: passwords, and what each may do in a virtual host.

No connection and no channel is known here; they ask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from evamqp.codec.fields import decode_table
from evamqp.errors import MalformedData

Right = Literal["configure", "write", "read"]
RIGHTS: tuple[Right, ...] = ("configure", "write", "read")
MECHANISMS = b"PLAIN AMQPLAIN"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Regular expressions that a name must match, as in rabbitmqctl's set_permissions."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"

    def allow(self, right: Right, name: str) -> bool:
        """Whether something of this name may be used so; "" matches nothing, as in RabbitMQ."""
        pattern: str = getattr(self, right)
        return bool(pattern) and re.search(pattern, name) is not None


@dataclass(slots=True)
class User:
    """A user; ``permissions`` are by virtual host, and without an entry it may not enter."""

    name: str
    password: str = field(repr=False)
    permissions: dict[str, Permissions] = field(default_factory=dict)


def credentials_of(mechanism: str, response: bytes) -> tuple[str, str] | None:
    """The user and the password in a SASL response; None if it makes no sense."""
    try:
        if mechanism == "PLAIN":
            _, user, password = response.decode().split("\0")
            return user, password
        if mechanism == "AMQPLAIN":
            table, _ = decode_table(len(response).to_bytes(4, "big") + response)
            return str(table["LOGIN"]), str(table["PASSWORD"])
    except (ValueError, KeyError, MalformedData):
        return None
    return None
