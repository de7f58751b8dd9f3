"""The SASL mechanisms that every AMQP broker knows, and the choice among those it offers.

No frame, no state of a connection and no storage of secrets belongs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from evamqp.credentials import Credentials, Mechanism

from ..errors import AuthenticationFailed, BadArgument, shown


class _OneStep:
    """A mechanism with one message, which answers no challenge."""

    __slots__ = ()
    name: str

    def respond(self, challenge: bytes) -> bytes:
        raise AuthenticationFailed(
            f"the broker sent a challenge, which {self.name} does not have", by="client"
        )


class Plain(_OneStep):
    """User name and password in clear; RFC 4616."""

    __slots__ = ()
    name = "PLAIN"

    def start(self, credentials: Credentials) -> bytes:
        """The initial response.

        Raises:
            BadArgument: A NUL in the user name or password, where it would end the field.
        """
        if "\0" in credentials.username or "\0" in credentials.password:
            raise BadArgument("PLAIN cannot carry a NUL in username or password")
        return f"\0{credentials.username}\0{credentials.password}".encode()


class AmqPlain(_OneStep):
    """The same in a field table, sent without the table's length; older than PLAIN in AMQP."""

    __slots__ = ()
    name = "AMQPLAIN"

    def start(self, credentials: Credentials) -> bytes:
        return _long_string(b"LOGIN", credentials.username) + _long_string(
            b"PASSWORD", credentials.password
        )


class External(_OneStep):
    """The broker identifies us by other means, such as a TLS certificate; RFC 4422, appendix A."""

    __slots__ = ()
    name = "EXTERNAL"

    def start(self, credentials: Credentials) -> bytes:
        return b""


class Anonymous(_OneStep):
    """No identity; RFC 4505.  The trace text it allows is left out."""

    __slots__ = ()
    name = "ANONYMOUS"

    def start(self, credentials: Credentials) -> bytes:
        return b""


def _long_string(key: bytes, value: str) -> bytes:
    """One entry of a field table: a short string, the type, a long string."""
    data = value.encode()
    return pack(f">B{len(key)}scI", len(key), key, b"S", len(data)) + data


BUILT_IN: dict[str, Mechanism] = {
    mechanism.name: mechanism for mechanism in (Plain(), AmqPlain(), External(), Anonymous())
}


def choose(mechanisms: Sequence[str | Mechanism], offered: str) -> Mechanism:
    """The first of ``mechanisms`` that the broker offers.

    Args:
        mechanisms: As in Parameters.
        offered: What connection.start says: names with spaces between.

    Raises:
        AuthenticationFailed: None is offered; nothing was sent.
    """
    names = offered.split()
    wanted = [BUILT_IN[entry] if isinstance(entry, str) else entry for entry in mechanisms]
    for mechanism in wanted:
        if mechanism.name in names:
            return mechanism
    raise AuthenticationFailed(
        f"no common SASL mechanism: wanted {', '.join(entry.name for entry in wanted)}; "
        f"the broker offers {shown(', '.join(names)) or 'none'}",
        by="client",
    )
