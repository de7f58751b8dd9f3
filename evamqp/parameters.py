"""Parameters: how to reach a broker and what to negotiate with it, each field defined once.

A field's definition holds its type, default, check, URL key and documentation; validation, URLs,
``help(Parameters)`` and docs/parameters.md are made from it.  No socket, no loop and no ``import
ssl`` at module level belongs here.  A password leaves this file only through
``Credentials.password`` and the TLS context: no message quotes a URL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from evamqp import checks, url
from evamqp.abc import Endpoint
from evamqp.checks import integer, optional, type_name
from evamqp.credentials import MECHANISM_NAMES, Credentials, CredentialsSource, Mechanism
from evamqp.errors import BadArgument, BadType, shown
from evamqp.types import TableLike

if TYPE_CHECKING:
    import ssl

PLAIN_PORT = 5672
TLS_PORT = 5671
# The specification's frame-min-size: no peer may refuse frames up to it.
FRAME_MIN_SIZE = 4096
# OpenSSL's PEM_BUFSIZE, less the NUL at the end.
KEYFILE_PASSWORD_MAX = 1023
# Without heartbeats the kernel has to notice a dead peer, in the time of two default heartbeat
# intervals.
SILENT_PEER_SECONDS = 120.0
_LONG = 2**32 - 1
_BYTES = 2**63 - 1


class Setting(NamedTuple):
    """A field of Parameters, besides its name, type and default."""

    check: checks.Check
    doc: str
    url_key: str | None = None
    read_url: Callable[[str, str], object] = url.plain_text
    needs_tls: bool = False
    repeats: bool = False


def _setting(default: Any, *setting: Any, **flags: Any) -> Any:
    """A field of Parameters: its default, then the fields of its Setting."""
    return field(default=default, metadata={"setting": Setting(*setting, **flags)})


def check_answer(answer: object) -> Credentials:
    """Return what a function for ``credentials`` has returned.

    Raises:
        BadType: It is something else.
    """
    if not isinstance(answer, Credentials):
        raise BadType(f"credentials() must return Credentials, not {type_name(answer)}")
    return answer


def _check_credentials(name: str, value: object) -> object:
    if not isinstance(value, Credentials) and not callable(value):
        raise BadType(f"{name} must be Credentials or a callable, not {type_name(value)}")
    return value


def _check_mechanisms(name: str, value: object) -> tuple[str | Mechanism, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise BadType(f"{name} must be a list or tuple, not {type_name(value)}")
    if not value:
        raise BadArgument(f"{name} must name at least one mechanism")
    return tuple(_check_mechanism(f"{name}[{index}]", entry) for index, entry in enumerate(value))


def _check_mechanism(name: str, value: object) -> str | Mechanism:
    if not isinstance(value, str):
        if not isinstance(value, Mechanism):
            raise BadType(f"{name} must be a name or a Mechanism, not {type_name(value)}")
        return value
    if value.upper() not in MECHANISM_NAMES:
        known = ", ".join(MECHANISM_NAMES)
        raise BadArgument(f"{name} must be one of {known}, or a Mechanism object")
    return value.upper()


def _check_heartbeat(name: str, value: object) -> object:
    return value if callable(value) else _seconds(name, value)


_seconds = integer(0, 65535)
_port = optional(integer(1, 65535))
_optional_file = optional(checks.file)
_size = integer(1, _BYTES)


@dataclass(frozen=True, slots=True, repr=False)
class Parameters:
    """One broker: where it is, who we are, and every limit.  Immutable; compares by value.

    The repr shows no password.  A copy is the object itself.  Pickling works only without a
    password, that is, with a callable for ``credentials``.

    Raises:
        BadType: A field has the wrong type.
        BadArgument: A field is out of range, or contradicts another.
    """

    host: str = _setting("localhost", checks.host, "DNS name or IP literal; IPv6 without brackets.")
    port: int = _setting(
        None, _port, "TCP port, 1..65535; by default, and for None, 5672, or 5671 with TLS."
    )
    virtual_host: str = _setting("/", checks.short_text, "At most 255 bytes.")
    credentials: CredentialsSource = _setting(
        Credentials("guest", "guest"),
        _check_credentials,
        "The user; or a function without arguments that returns Credentials, or an awaitable of"
        " them.  Every login calls it on the loop, so it must not block; if they have an"
        " ``expires_in``, it is called again after two thirds of that, and the live connection"
        " gets the new password.",
    )
    _: KW_ONLY
    mechanisms: Sequence[str | Mechanism] = _setting(
        ("PLAIN",),
        _check_mechanisms,
        "SASL mechanisms, by name (PLAIN, AMQPLAIN, EXTERNAL, ANONYMOUS; case does not matter) or"
        " as Mechanism objects.  The first one that the broker offers is used.",
        "auth_mechanism",
        repeats=True,
    )
    tls: bool = _setting(
        False, checks.flag, "Speak TLS.  The fields from here to ``server_hostname`` need it."
    )
    ssl_context: ssl.SSLContext | None = _setting(
        None,
        optional(checks.ssl_context),
        "A context to use as it is; None makes one from the files below, for TLS 1.2 or newer.",
        needs_tls=True,
    )
    cacertfile: str | PathLike[str] | None = _setting(
        None,
        _optional_file,
        "PEM file of the trusted authorities; None means the system's.",
        "cacertfile",
        needs_tls=True,
    )
    certfile: str | PathLike[str] | None = _setting(
        None,
        _optional_file,
        "PEM file of our certificate chain; None means no client certificate.",
        "certfile",
        needs_tls=True,
    )
    keyfile: str | PathLike[str] | None = _setting(
        None,
        _optional_file,
        "PEM file of its private key; None means that ``certfile`` contains it.",
        "keyfile",
        needs_tls=True,
    )
    keyfile_password: str | None = _setting(
        None,
        optional(checks.text_up_to(KEYFILE_PASSWORD_MAX)),
        "Password of ``keyfile``; None means that it is not encrypted.",
        "password",
        needs_tls=True,
    )
    verify: bool = _setting(
        True,
        checks.flag,
        "Check the broker's certificate and host name.  False leaves the connection open to anyone"
        " in between.  In a URL ``verify_peer`` or ``verify_none``.",
        "verify",
        url.verification,
        needs_tls=True,
    )
    server_hostname: str | None = _setting(
        None,
        optional(checks.host),
        "Name sent as SNI and checked against the certificate; None means ``host``.",
        "server_name_indication",
        needs_tls=True,
    )
    heartbeat: int | Callable[[int], int] = _setting(
        60,
        _check_heartbeat,
        "Seconds to propose, 0..65535.  The smaller of our value and the broker's counts; 0 leaves"
        " it to the broker.  Or a function that takes the broker's value and returns the interval;"
        " then 0 means none.",
        "heartbeat",
        url.whole_number,
    )
    channel_max: int = _setting(
        2047, integer(1, 65535), "Channels to propose, 1..65535.", "channel_max", url.whole_number
    )
    frame_max: int = _setting(
        131_072,
        integer(FRAME_MIN_SIZE, _LONG),
        "Bytes of a frame to propose, 4096 or more.",
        "frame_max",
        url.whole_number,
    )
    name: str | None = _setting(
        None, optional(checks.text), "Name of the connection in the broker's management.", "name"
    )
    client_properties: TableLike = field(
        default_factory=dict,
        metadata={
            "setting": Setting(
                checks.table, "More client properties, which the broker's management shows."
            )
        },
    )
    connect_timeout: float = _setting(
        10,
        checks.seconds,
        "Seconds for DNS, TCP and TLS together, for this target.  In a URL in MILLISECONDS.",
        "connection_timeout",
        url.milliseconds,
    )
    address_timeout: float = _setting(
        5, checks.seconds, "Seconds for the TCP connect to one address of the host."
    )
    handshake_timeout: float = _setting(
        10,
        checks.seconds,
        "Seconds for the AMQP handshake after that.",
        "handshake_timeout",
        url.seconds,
    )
    request_timeout: float = _setting(
        30,
        checks.seconds,
        "Seconds in which the broker has to answer a request.",
        "request_timeout",
        url.seconds,
    )
    blocked_timeout: float | None = _setting(
        None,
        optional(checks.seconds),
        "Seconds that the broker may keep us blocked; None means for ever.",
        "blocked_timeout",
        url.seconds,
    )
    stall_warning: float | None = _setting(
        1,
        optional(checks.seconds),
        "Seconds for which the loop may stand still, in a callback of the library's or at a timer"
        " of the connection's, before a WARNING names it; None means never.",
        "stall_warning",
        url.seconds,
    )
    close_timeout: float = _setting(
        3, checks.seconds, "Seconds without progress after which a close is aborted."
    )
    close_limit: float = _setting(30, checks.seconds, "Seconds that a close may take in all.")
    output_high_water: int = _setting(
        1024 * 1024, _size, "Bytes of unsent output at which ``on_writable(False)`` is called."
    )
    output_max: int = _setting(
        64 * 1024 * 1024,
        _size,
        "Bytes of unsent output at which ``basic_publish`` raises OutputFull.",
    )
    body_max: int = _setting(
        128 * 1024 * 1024, _size, "Bytes of the largest message body accepted from the broker."
    )
    header_max: int = _setting(
        1024 * 1024,
        integer(FRAME_MIN_SIZE, _LONG),
        "Bytes of the largest content header frame accepted; RabbitMQ does not limit it to"
        " ``frame_max``.",
    )

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            object.__setattr__(self, name, setting.check(name, getattr(self, name)))
        port: int | None = self.port
        if port is None:
            object.__setattr__(self, "port", TLS_PORT if self.tls else PLAIN_PORT)
        if self.output_high_water > self.output_max:
            raise BadArgument("output_high_water must not be above output_max")
        self._check_tls()

    def _check_tls(self) -> None:
        made_of_files = self._given("cacertfile", "certfile", "keyfile", "keyfile_password")
        if not self.verify:
            made_of_files.append("verify")
        for name in made_of_files + self._given("ssl_context", "server_hostname"):
            if not self.tls:
                raise BadArgument(f"{name} needs TLS: set tls=True, or write amqps:// in a URL")
        if self.ssl_context is not None and made_of_files:
            raise BadArgument(f"{made_of_files[0]} cannot change a ready ssl_context")
        if self.certfile is None:
            for name in self._given("keyfile", "keyfile_password"):
                raise BadArgument(f"{name} needs certfile")

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    @classmethod
    def from_url(cls, url: str, **overrides: object) -> Parameters:
        """Read ``amqp[s]://user:password@host:port/virtual_host?key=value&...``.

        You may omit everything but the scheme.  No path and a bare ``/`` mean the virtual host
        ``/``; a user without a password has an empty one.  Write characters that would end a part
        as ``%XX`` in UTF-8, such as ``%2F`` for a slash; ``+`` is a plus.

        The keys are those that RabbitMQ documents, and a few of ours; the class lists them by
        field.

        Args:
            url: The URL.
            overrides: Fields of Parameters that override the URL.

        Raises:
            BadType: ``url`` is not a str.
            BadArgument: The URL is malformed.  The message never quotes it.
        """
        values = _parse_url(url, URL_KEYS)
        userinfo = values.pop("userinfo", None)
        if userinfo is not None:
            values["credentials"] = Credentials(*userinfo)
        return cls(**{**values, **overrides})

    def replace(self, **changes: object) -> Parameters:
        """Return a copy with some fields changed.  A default port follows a change of ``tls``.

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

    @property
    def label(self) -> str:
        """Connection name, user, host, port and virtual host, as logs show them.

        Without the user where a callable supplies the credentials.
        """
        known = self.credentials if isinstance(self.credentials, Credentials) else None
        return self.label_as(None if known is None else known.username)

    def label_as(self, user: str | None) -> str:
        """Return the label of a connection that logged in as this user."""
        name = f"{shown(self.name)}: " if self.name else ""
        who = "" if user is None else f"{shown(user)}@"
        return f"{name}{who}{self.address} vhost {shown(self.virtual_host)}"

    def ask_credentials(self) -> Credentials | Awaitable[object]:
        """Return the Credentials to use now, or what to await for them; then ``check_answer``.

        Raises:
            BadType: The callable returned something else.  Its own exceptions pass through.
        """
        if isinstance(self.credentials, Credentials):
            return self.credentials
        answer: object = self.credentials()
        return answer if isinstance(answer, Awaitable) else check_answer(answer)

    def endpoint(self) -> Endpoint:
        """Return what an adapter needs to connect.  Reads the TLS files, so renewed ones count.

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
            user_timeout=SILENT_PEER_SECONDS if self._may_do_without_heartbeat() else None,
        )

    def _may_do_without_heartbeat(self) -> bool:
        return callable(self.heartbeat) or self.heartbeat == 0

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

    def _load_certificate(self, context: ssl.SSLContext, certfile: str | PathLike[str]) -> None:
        try:
            context.load_cert_chain(certfile, self.keyfile, self._open_keyfile)
        except OSError as error:
            key = "" if self.keyfile is None else f" with keyfile {self.keyfile}"
            raise BadArgument(f"certfile {certfile}{key} cannot be used: {error}") from error

    def _open_keyfile(self) -> str:
        # Called for an encrypted key only.  Without it OpenSSL would ask on the terminal.
        if self.keyfile_password is None:
            raise BadArgument("the private key is encrypted: set keyfile_password")
        return self.keyfile_password

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS}

    def __copy__(self) -> Parameters:
        return self

    def __deepcopy__(self, memo: object) -> Parameters:
        return self

    def __repr__(self) -> str:
        changed = (
            f"{name}={_shown(name, value)}"
            for name, value in self._values().items()
            if name in ("host", "port", "virtual_host", "credentials")
            or value != getattr(_DEFAULT, name)
        )
        return f"Parameters({', '.join(changed)})"

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


#: The fields of Parameters in order, by name.
SETTINGS: dict[str, Setting] = {
    entry.name: entry.metadata["setting"] for entry in fields(Parameters)
}
#: The keys that the query of a URL may have.
URL_KEYS = {
    setting.url_key: url.UrlKey(name, setting.read_url, setting.needs_tls, setting.repeats)
    for name, setting in SETTINGS.items()
    if setting.url_key is not None
}
_parse_url = url.parse_url
_DEFAULT = Parameters()


def _documentation() -> str:
    """The Args section of the class."""
    lines = ["Args:"]
    for name, setting in SETTINGS.items():
        key = f"  URL key ``{setting.url_key}``." if setting.url_key else ""
        lines.append(f"        {name}: {setting.doc}{key}")
    return "\n".join(lines)


if Parameters.__doc__:  # python -OO drops it
    Parameters.__doc__ = Parameters.__doc__.replace("Raises:", f"{_documentation()}\n\n    Raises:")


def _shown(name: str, value: Any) -> str:
    """What repr() shows; of a foreign object only its type, since its repr may show a secret."""
    if name == "keyfile_password":
        return "..."
    if name == "mechanisms":
        return repr([entry if isinstance(entry, str) else entry.name for entry in value])
    if name == "client_properties":
        return repr(dict(value))
    if callable(value):
        return f"<{type_name(value)}>"
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
        raise BadType(f"target must be a URL, Parameters or a list, not {type_name(target)}")
    if not target:
        raise BadArgument("target is an empty list")
    return tuple(
        entry if isinstance(entry, Parameters) else Parameters.from_url(entry) for entry in target
    )
