"""How to reach a broker and what to ask of it: Parameters and Credentials.

No socket, no loop and no ``import ssl`` at module level belongs here.  A password that enters this
file leaves it through ``Credentials.password`` and the TLS context alone: no message quotes a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, runtime_checkable

from .adapters.base import Endpoint
from .errors import BadArgument, BadType
from .types import TableLike
from .url import parse_url

if TYPE_CHECKING:
    import ssl

PLAIN_PORT = 5672
TLS_PORT = 5671
#: The mechanisms that go by name; ``evamqp.core.sasl`` implements them.
MECHANISM_NAMES = ("PLAIN", "AMQPLAIN", "EXTERNAL", "ANONYMOUS")
# The specification's frame-min-size: no peer may refuse frames up to it.
FRAME_MIN_SIZE = 4096
# Some eleven days.  epoll_wait() counts milliseconds in 31 bits, which end after twenty-four.
LONGEST_SECONDS = 1_000_000
# OpenSSL's PEM_BUFSIZE, less the NUL at the end.
KEYFILE_PASSWORD_MAX = 1023
# Without heartbeats the kernel has to notice a dead peer.  It is given what two of our default
# heartbeat intervals would take.
SILENT_PEER_SECONDS = 120.0


class _Immutable:
    """An object that is set up once; a copy of it is itself."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; make another one")

    def __copy__(self) -> _Immutable:
        return self

    def __deepcopy__(self, memo: object) -> _Immutable:
        return self


class Credentials(_Immutable):
    """A user name and a password, or a token in its place.  The password is in no repr.

    Args:
        username: May be empty, as some token servers want it.
        password: May be empty, for mechanisms that send none.

    Raises:
        BadType: Not strings, or an attempt to pickle: a pickle would spell the password out.
        BadArgument: Text that UTF-8 cannot hold (lone surrogates).
    """

    __slots__ = ("password", "username")

    username: str
    password: str

    def __init__(self, username: str, password: str) -> None:
        object.__setattr__(self, "username", _text("username", username))
        object.__setattr__(self, "password", _text("password", password))

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


CredentialsSource: TypeAlias = Credentials | Callable[[], Credentials]


@runtime_checkable
class Mechanism(Protocol):
    """A SASL mechanism: how a client proves who it is.

    One object serves every connection made with the same Parameters, one after the other or at
    the same time, so it keeps nothing between calls that belongs to one of them.
    """

    @property
    def name(self) -> str:
        """As the broker offers it, such as ``"PLAIN"``."""

    def start(self, credentials: Credentials) -> bytes:
        """The initial response, sent with connection.start-ok."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a connection.secure."""


# --- checks: one per kind of field.  Each returns what is stored.  No message quotes text. ---

Check: TypeAlias = Callable[[str, Any], object]


def _type_name(value: object) -> str:
    return type(value).__name__


def _is_utf8(text: str) -> bool:
    # The UnicodeEncodeError carries the text, so it must not become anyone's __context__.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadType(f"{name} must be str, not {_type_name(value)}")
    if not _is_utf8(value):
        raise BadArgument(f"{name} holds characters that UTF-8 cannot encode")
    return value


def _text_up_to(limit: int) -> Callable[[str, object], str]:
    def check(name: str, value: object) -> str:
        text = _text(name, value)
        if len(text.encode()) > limit:
            raise BadArgument(f"{name} must be at most {limit} bytes in UTF-8")
        return text

    return check


_short_text = _text_up_to(255)


def _host(name: str, value: object) -> str:
    host = _short_text(name, value)
    if not host or not host.isprintable() or any(sign in host for sign in " /@?#"):
        raise BadArgument(f"{name} must be a host name or an IP address, without blanks")
    if host[0] == "[" or host.count(":") == 1:
        raise BadArgument(f"{name} must be given without brackets and without port")
    return host


def _file(name: str, value: object) -> str:
    path = _text(name, fspath(value) if isinstance(value, PathLike) else value)
    if not path or "\0" in path:
        raise BadArgument(f"{name} must be the path of a file")
    return path


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadType(f"{name} must be bool, not {_type_name(value)}")
    return value


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadType(f"{name} must be int, not {_type_name(value)}")
        if not low <= value <= high:
            raise BadArgument(f"{name} must be {low}..{high}{_but_is(value)}")
        return value

    return check


def _but_is(value: float) -> str:
    # Python refuses to print integers of some thousand digits.
    return f", not {value}" if abs(value) < 10**30 else ""


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadType(f"{name} must be seconds (int or float), not {_type_name(value)}")
    if not 0 < value <= LONGEST_SECONDS:
        limits = f"above 0 and at most {LONGEST_SECONDS} s"
        raise BadArgument(f"{name} must be {limits}{_but_is(value)}")
    return value


def _credentials(name: str, value: object) -> object:
    if not isinstance(value, Credentials) and not callable(value):
        raise BadType(f"{name} must be Credentials or a callable, not {_type_name(value)}")
    return value


def _mechanisms(name: str, value: object) -> tuple[str | Mechanism, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise BadType(f"{name} must be a list or tuple, not {_type_name(value)}")
    if not value:
        raise BadArgument(f"{name} must name one mechanism at least")
    return tuple(_mechanism(f"{name}[{index}]", entry) for index, entry in enumerate(value))


def _mechanism(name: str, value: object) -> str | Mechanism:
    if not isinstance(value, str):
        if not isinstance(value, Mechanism):
            raise BadType(f"{name} must be a name or a Mechanism, not {_type_name(value)}")
        return value
    if value.upper() not in MECHANISM_NAMES:
        known = ", ".join(MECHANISM_NAMES)
        raise BadArgument(f"{name} must be one of {known}, or a Mechanism object")
    return value.upper()


def _ssl_context(name: str, value: object) -> ssl.SSLContext:
    import ssl

    if not isinstance(value, ssl.SSLContext):
        raise BadType(f"{name} must be ssl.SSLContext, not {_type_name(value)}")
    return value


def _properties(name: str, value: object) -> TableLike:
    if not isinstance(value, Mapping):
        raise BadType(f"{name} must be a mapping, not {_type_name(value)}")
    for key in value:
        _short_text(f"a key of {name}", key)
    return MappingProxyType(dict(value))


def _optional(check: Check) -> Check:
    def check_unless_none(name: str, value: object) -> object:
        return None if value is None else check(name, value)

    return check_unless_none


_LONG = 2**32 - 1
_BYTES = 2**63 - 1

# Every field of Parameters in order, with its check.
_FIELDS: dict[str, Check] = {
    "host": _host,
    "port": _optional(_integer(1, 65535)),
    "virtual_host": _short_text,
    "credentials": _credentials,
    "mechanisms": _mechanisms,
    "tls": _flag,
    "ssl_context": _optional(_ssl_context),
    "cacertfile": _optional(_file),
    "certfile": _optional(_file),
    "keyfile": _optional(_file),
    "keyfile_password": _optional(_text_up_to(KEYFILE_PASSWORD_MAX)),
    "verify": _flag,
    "server_hostname": _optional(_host),
    "heartbeat": _integer(0, 65535),
    "channel_max": _integer(1, 65535),
    "frame_max": _integer(FRAME_MIN_SIZE, _LONG),
    "name": _optional(_text),
    "client_properties": _properties,
    "connect_timeout": _seconds,
    "address_timeout": _seconds,
    "handshake_timeout": _seconds,
    "request_timeout": _seconds,
    "blocked_timeout": _optional(_seconds),
    "close_timeout": _seconds,
    "close_limit": _seconds,
    "output_high_water": _integer(1, _BYTES),
    "output_max": _integer(1, _BYTES),
    "body_max": _integer(1, _BYTES),
    "header_max": _integer(FRAME_MIN_SIZE, _LONG),
}

_GUEST = Credentials("guest", "guest")


class Parameters(_Immutable):
    """One broker: where it is, who we are, and every limit.  Immutable; compares by value.

    Its repr shows no password.  Copies are the object itself.  Pickling works only where no
    password is held, that is with a callable for ``credentials``.

    Args:
        host: DNS name or IP literal; IPv6 without brackets.
        port: TCP port, 1..65535; None means 5672, or 5671 with TLS.  Afterwards always an int.
        virtual_host: At most 255 bytes.
        credentials: Who we are; or a function without arguments that returns it.  The function is
            called on the loop at every attempt to connect, so it must not block nor be async.
        mechanisms: SASL mechanisms, by name (PLAIN, AMQPLAIN, EXTERNAL, ANONYMOUS; case does not
            matter) or as Mechanism objects.  The first that the broker offers is taken.
        tls: Speak TLS.  The fields from here to ``server_hostname`` need it.
        ssl_context: A ready context, used as it is; None means one made from the files below,
            for TLS 1.2 or newer.
        cacertfile: PEM file of the authorities to trust; None means those of the system.
        certfile: PEM file of our certificate chain; None means that we show none.
        keyfile: PEM file of its private key; None means that ``certfile`` holds it.
        keyfile_password: Opens ``keyfile``; None means that it is not encrypted.
        verify: Check the broker's certificate and host name.  False leaves the connection open
            to anyone in between.
        server_hostname: Name sent as SNI and looked for in the certificate; None means ``host``.
        heartbeat: Seconds asked for, 0..65535; 0 leaves it to the broker.
        channel_max: Channels asked for, 1..65535.
        frame_max: Bytes of a frame asked for, 4096 or more.
        name: What the broker shows this connection as; None means none.
        client_properties: Further entries for the client properties that the broker shows.
        connect_timeout: Seconds for DNS, TCP and TLS together, for this target.
        address_timeout: Seconds for the TCP connect to one address of the host.
        handshake_timeout: Seconds for the AMQP handshake after that.
        request_timeout: Seconds that the broker may take to answer one request.
        blocked_timeout: Seconds that the broker may keep us blocked; None means for ever.
        close_timeout: Seconds without progress after which a close is cut short.
        close_limit: Seconds that a close may take in all.
        output_high_water: Bytes waiting to be sent at which ``on_writable(False)`` comes.
        output_max: Bytes waiting to be sent at which ``basic_publish`` raises OutputFull.
        body_max: Bytes of one message body accepted from the broker.
        header_max: Bytes of one content header frame accepted, which RabbitMQ does not hold to
            ``frame_max``.

    Raises:
        BadType: A field has the wrong type.
        BadArgument: A field is out of its limits, or does not go with another.
    """

    __slots__ = tuple(_FIELDS)

    host: str
    port: int
    virtual_host: str
    credentials: CredentialsSource
    mechanisms: tuple[str | Mechanism, ...]
    tls: bool
    ssl_context: ssl.SSLContext | None
    cacertfile: str | None
    certfile: str | None
    keyfile: str | None
    keyfile_password: str | None
    verify: bool
    server_hostname: str | None
    heartbeat: int
    channel_max: int
    frame_max: int
    name: str | None
    client_properties: TableLike
    connect_timeout: float
    address_timeout: float
    handshake_timeout: float
    request_timeout: float
    blocked_timeout: float | None
    close_timeout: float
    close_limit: float
    output_high_water: int
    output_max: int
    body_max: int
    header_max: int

    def __init__(
        self,
        host: str = "localhost",
        port: int | None = None,
        virtual_host: str = "/",
        credentials: CredentialsSource = _GUEST,
        *,
        mechanisms: Sequence[str | Mechanism] = ("PLAIN",),
        tls: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        cacertfile: str | PathLike[str] | None = None,
        certfile: str | PathLike[str] | None = None,
        keyfile: str | PathLike[str] | None = None,
        keyfile_password: str | None = None,
        verify: bool = True,
        server_hostname: str | None = None,
        heartbeat: int = 60,
        channel_max: int = 2047,
        frame_max: int = 131_072,
        name: str | None = None,
        client_properties: TableLike = MappingProxyType({}),
        connect_timeout: float = 10,
        address_timeout: float = 5,
        handshake_timeout: float = 10,
        request_timeout: float = 30,
        blocked_timeout: float | None = None,
        close_timeout: float = 3,
        close_limit: float = 30,
        output_high_water: int = 1024 * 1024,
        output_max: int = 64 * 1024 * 1024,
        body_max: int = 128 * 1024 * 1024,
        header_max: int = 1024 * 1024,
    ) -> None:
        # The arguments are called as the fields are, so the table of checks serves as the body.
        given = locals()
        for field, check in _FIELDS.items():
            object.__setattr__(self, field, check(field, given[field]))
        if port is None:
            object.__setattr__(self, "port", TLS_PORT if tls else PLAIN_PORT)
        if output_high_water > output_max:
            raise BadArgument("output_high_water must not be above output_max")
        self._check_tls()

    def _check_tls(self) -> None:
        made_of_files = self._given("cacertfile", "certfile", "keyfile", "keyfile_password")
        if not self.verify:
            made_of_files.append("verify")
        for field in made_of_files + self._given("ssl_context", "server_hostname"):
            if not self.tls:
                raise BadArgument(f"{field} needs TLS: set tls=True, or write amqps:// in a URL")
        if self.ssl_context is not None and made_of_files:
            raise BadArgument(f"{made_of_files[0]} cannot change a ready ssl_context")
        if self.certfile is None:
            for field in self._given("keyfile", "keyfile_password"):
                raise BadArgument(f"{field} needs certfile")

    def _given(self, *fields: str) -> list[str]:
        return [field for field in fields if getattr(self, field) is not None]

    @classmethod
    def from_url(cls, url: str, **overrides: object) -> Parameters:
        """Read ``amqp[s]://user:password@host:port/virtual_host?key=value&...``.

        Everything but the scheme may be left out.  No path and a bare ``/`` mean the virtual host
        ``/``; a user without password has an empty one.  Signs that would end a part are written
        as ``%XX`` in UTF-8, such as ``%2F`` for a slash; ``+`` is a plus.

        Keys, as RabbitMQ documents them: ``cacertfile``, ``certfile``, ``keyfile``, ``password``
        (of the keyfile), ``verify`` (``verify_peer``, the default here, or ``verify_none``),
        ``server_name_indication``, ``auth_mechanism`` (may be repeated), ``heartbeat`` in seconds,
        ``connection_timeout`` in MILLISECONDS, ``channel_max``.  Ours, called as the fields are:
        ``frame_max`` in bytes, ``name``, and ``request_timeout``, ``blocked_timeout``,
        ``handshake_timeout`` in seconds.

        Args:
            url: The URL.
            overrides: Fields of Parameters that win over what the URL says.

        Raises:
            BadType: ``url`` is not a str.
            BadArgument: Not such a URL.  The message never quotes it.
        """
        values = parse_url(url)
        userinfo = values.pop("userinfo", None)
        if userinfo is not None:
            values["credentials"] = Credentials(*userinfo)
        return cls(**{**values, **overrides})

    def replace(self, **changes: object) -> Parameters:
        """The same with some fields changed.  A default port follows a change of ``tls``.

        Raises:
            BadType, BadArgument: As the constructor.
        """
        values = self._values()
        if self.port == (TLS_PORT if self.tls else PLAIN_PORT) and "tls" in changes:
            values["port"] = None
        return type(self)(**{**values, **changes})

    @property
    def address(self) -> str:
        """``"host:port"`` for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ask_credentials(self) -> Credentials:
        """Whom to log in as now.

        Raises:
            BadType: The callable returned something else.  What it raises itself comes through.
        """
        if isinstance(self.credentials, Credentials):
            return self.credentials
        answer: object = self.credentials()
        if not isinstance(answer, Credentials):
            raise BadType(f"credentials() must return Credentials, not {_type_name(answer)}")
        return answer

    def endpoint(self) -> Endpoint:
        """What an adapter needs to connect.  Reads the TLS files, so a renewed one takes effect.

        Raises:
            BadArgument: A TLS file is missing or unusable; the OSError is its cause.
        """
        return Endpoint(
            host=self.host,
            port=self.port,
            tls=self._context() if self.tls else None,
            server_hostname=self.server_hostname,
            timeout=self.connect_timeout,
            address_timeout=self.address_timeout,
            user_timeout=SILENT_PEER_SECONDS if self.heartbeat == 0 else None,
        )

    def _context(self) -> ssl.SSLContext:
        if self.ssl_context is not None:
            return self.ssl_context
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.cacertfile)
        except OSError as error:
            raise BadArgument(f"cacertfile {self.cacertfile!r} cannot be read: {error}") from error
        # A system policy may ask for more than TLS 1.2; it is never lowered.
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certfile is not None:
            self._load_certificate(context, self.certfile)
        return context

    def _load_certificate(self, context: ssl.SSLContext, certfile: str) -> None:
        try:
            context.load_cert_chain(certfile, self.keyfile, self._open_keyfile)
        except OSError as error:
            files = certfile if self.keyfile is None else f"{certfile} with keyfile {self.keyfile}"
            raise BadArgument(f"certfile {files} cannot be used: {error}") from error

    def _open_keyfile(self) -> str:
        # Called for an encrypted key only.  Without it OpenSSL would ask on the terminal.
        if self.keyfile_password is None:
            raise BadArgument("the private key is encrypted: set keyfile_password")
        return self.keyfile_password

    def _values(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in _FIELDS}

    def __repr__(self) -> str:
        changed = (
            f"{field}={_shown(field, value)}"
            for field, value in self._values().items()
            if field in ("host", "port", "virtual_host", "credentials")
            or value != getattr(_DEFAULT, field)
        )
        return f"Parameters({', '.join(changed)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.host, self.port, self.virtual_host))

    def __reduce__(self) -> tuple[object, ...]:
        if isinstance(self.credentials, Credentials) or self.keyfile_password is not None:
            raise BadType(
                "Parameters that hold a password are not pickled: make them where they are used, "
                "or pass a callable for credentials and an unencrypted keyfile"
            )
        values = self._values()
        values["client_properties"] = dict(self.client_properties)
        return partial(type(self), **values), ()


_DEFAULT = Parameters()


def _shown(field: str, value: Any) -> str:
    """What repr() shows: of a foreign object its type only, since its repr may hold a secret."""
    if field == "keyfile_password":
        return "..."
    if field == "mechanisms":
        return repr([entry if isinstance(entry, str) else entry.name for entry in value])
    if field == "client_properties":
        return repr(dict(value))
    if callable(value):
        return f"<{_type_name(value)}>"
    return repr(value)


def parse_targets(
    target: str | Parameters | Sequence[str | Parameters],
) -> tuple[Parameters, ...]:
    """The brokers to try, in order, from a URL, Parameters, or a list or tuple of them.

    Raises:
        BadType: Something else.
        BadArgument: A URL is wrong, or the list is empty.
    """
    if isinstance(target, (str, Parameters)):
        target = (target,)
    if not isinstance(target, (list, tuple)):
        raise BadType(f"target must be a URL, Parameters or a list, not {_type_name(target)}")
    if not target:
        raise BadArgument("target is an empty list")
    return tuple(
        entry if isinstance(entry, Parameters) else Parameters.from_url(entry) for entry in target
    )
