"""Credentials, and the SASL mechanisms that present them.

The mechanisms that have names are implemented in ``core/sasl.py``; nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypeAlias, runtime_checkable

from evamqp.checks import text, timeout
from evamqp.errors import BadType

#: The mechanisms that go by name.
MECHANISM_NAMES = ("PLAIN", "AMQPLAIN", "EXTERNAL", "ANONYMOUS")


class Credentials:
    """A user name and a password, or a token in its place.  Immutable; no repr shows the password.

    Args:
        username: May be empty, as some token servers want it.
        password: May be empty, for mechanisms that send none.
        expires_in: Seconds from now for which a token is good; None means for ever.  If a function
            returned it, the function is asked again after two thirds of them, and the broker gets
            the new token on the live connection.

    Raises:
        BadType: Not strings, ``expires_in`` not a number, or an attempt to pickle: a pickle would
            spell the password out.
        BadArgument: Text that UTF-8 cannot hold (lone surrogates), or seconds that no timer can.
    """

    __slots__ = ("expires_in", "password", "username")

    username: str
    password: str
    expires_in: float | None

    def __init__(self, username: str, password: str, *, expires_in: float | None = None) -> None:
        object.__setattr__(self, "username", text("username", username))
        object.__setattr__(self, "password", text("password", password))
        expires_in = None if expires_in is None else timeout("expires_in", expires_in)
        object.__setattr__(self, "expires_in", expires_in)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("Credentials are immutable; make others")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("Credentials are immutable; make others")

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: object) -> Credentials:
        return self

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Credentials):
            return NotImplemented
        return (self.username, self.password) == (other.username, other.password)

    def __hash__(self) -> int:
        return hash((self.username, self.password))

    def __reduce__(self) -> NoReturn:
        raise BadType("Credentials are not pickled, since they hold a password")


#: Credentials, or what is asked for them at each login: a function, which may be async.
CredentialsSource: TypeAlias = (
    Credentials | Callable[[], Credentials] | Callable[[], Awaitable[Credentials]]
)


@runtime_checkable
class Mechanism(Protocol):
    """A SASL mechanism: how a client proves who it is.

    One object serves every connection made with the same Parameters, one after the other or at
    the same time, so it must keep nothing between calls that belongs to one of them.
    """

    @property
    def name(self) -> str:
        """As the broker offers it, such as ``"PLAIN"``."""

    def start(self, credentials: Credentials) -> bytes:
        """The initial response, sent with connection.start-ok."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a connection.secure."""
