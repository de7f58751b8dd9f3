"""How to reach a broker, in pika's words: Parameters, ConnectionParameters, URLParameters.

What these become for evamqp is ``_targets.py``'s.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from . import credentials as pika_credentials

if TYPE_CHECKING:
    import ssl

_FIELDS = (
    "blocked_connection_timeout", "channel_max", "client_properties", "connection_attempts",
    "credentials", "frame_max", "heartbeat", "host", "locale", "port", "retry_delay",
    "socket_timeout", "ssl_options", "stack_timeout", "tcp_options", "virtual_host",
)  # fmt: skip
# Keywords of the 0.x era; evamqp sees to both by itself.
_FORGOTTEN = ("backpressure_detection",)


class SSLOptions:
    """TLS: a context, and the name to look for in the broker's certificate.

    Args:
        context: A ready ``ssl.SSLContext``.
        server_hostname: None means the host that is connected to.
    """

    __slots__ = ("context", "server_hostname")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        import ssl

        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"context must be of ssl.SSLContext type, but got {context!r}")
        self.context: ssl.SSLContext = context
        self.server_hostname: str | None = server_hostname


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or unicode str, but got {value!r}")
    return value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, but got {value!r}")
    return value


def _port(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an int, but got {value!r}") from None


def _channel_max(name: str, value: Any) -> int:
    if not 0 < _integer(name, value) <= 65535:
        raise ValueError(f"{name} must be <= 65535 and > 0, but got {value!r}")
    return int(value)


def _frame_max(name: str, value: Any) -> int:
    if _integer(name, value) < 4096:
        raise ValueError(f"Min AMQP 0.9.1 Frame Size is 4096, but got {value!r}")
    if value > 131072:
        raise ValueError(f"Max AMQP 0.9.1 Frame Size is 131072, but got {value!r}")
    return int(value)


def _attempts(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int")
    if value < 1:
        raise ValueError(f"{name} must be > 0, but got {value!r}")
    return value


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a float or int, but got {value!r}")
    return value  # type: ignore[return-value]


def _timeout(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if _number(name, value) <= 0:
        raise ValueError(f"{name} must be > 0, but got {value!r}")
    return float(value) if not isinstance(value, int) else value


def _blocked_timeout(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a Real number, but got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be >= 0, but got {value!r}")
    return value  # type: ignore[return-value]


def _heartbeat(name: str, value: Any) -> int | Callable[..., int] | None:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or a callable function, but got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must >= 0, but got {value!r}")
    return value


def _credentials(name: str, value: Any) -> Any:
    if not isinstance(value, tuple(pika_credentials.VALID_TYPES)):
        raise TypeError(
            f"{name} must be an object of type: {pika_credentials.VALID_TYPES!r}, but got {value!r}"
        )
    return value


def _ssl_options(name: str, value: Any) -> SSLOptions | None:
    if value is not None and not isinstance(value, SSLOptions):
        raise TypeError(f"{name} must be None or SSLOptions but got {value!r}")
    return value


def _table(what: str) -> Callable[[str, Any], dict[str, Any] | None]:
    def check(name: str, value: Any) -> dict[str, Any] | None:
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{name} must be {what} or None, but got {value!r}")
        return value

    return check


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "blocked_connection_timeout": _blocked_timeout,
    "channel_max": _channel_max,
    "client_properties": _table("dict"),
    "connection_attempts": _attempts,
    "credentials": _credentials,
    "frame_max": _frame_max,
    "heartbeat": _heartbeat,
    "host": _text,
    "locale": _text,
    "port": _port,
    "retry_delay": _number,
    "socket_timeout": _timeout,
    "ssl_options": _ssl_options,
    "stack_timeout": _timeout,
    "tcp_options": _table("a dict"),
    "virtual_host": _text,
}


def _field(name: str) -> Any:
    check, slot = _CHECKS[name], f"_{name}"

    def read(self: Parameters) -> Any:
        return getattr(self, slot)

    def write(self: Parameters, value: Any) -> None:
        setattr(self, slot, check(name, value))

    return property(read, write, doc=f"See ConnectionParameters: ``{name}``.")


class Parameters:
    """How to reach one broker.  Attributes may be set later; each is checked when it is."""

    __slots__ = tuple(f"_{name}" for name in _FIELDS)

    DEFAULT_USERNAME = "guest"
    DEFAULT_PASSWORD = "guest"
    DEFAULT_BLOCKED_CONNECTION_TIMEOUT = None
    DEFAULT_CHANNEL_MAX = 65535
    DEFAULT_CLIENT_PROPERTIES = None
    DEFAULT_CREDENTIALS = pika_credentials.PlainCredentials(DEFAULT_USERNAME, DEFAULT_PASSWORD)
    DEFAULT_CONNECTION_ATTEMPTS = 1
    DEFAULT_FRAME_MAX = 131072
    DEFAULT_HEARTBEAT_TIMEOUT = None
    DEFAULT_HOST = "localhost"
    DEFAULT_LOCALE = "en_US"
    DEFAULT_PORT = 5672
    DEFAULT_RETRY_DELAY = 2.0
    DEFAULT_SOCKET_TIMEOUT = 10.0
    DEFAULT_STACK_TIMEOUT = 15.0
    DEFAULT_SSL = False
    DEFAULT_SSL_OPTIONS = None
    DEFAULT_SSL_PORT = 5671
    DEFAULT_VIRTUAL_HOST = "/"
    DEFAULT_TCP_OPTIONS = None

    def __init__(self) -> None:
        self.blocked_connection_timeout = self.DEFAULT_BLOCKED_CONNECTION_TIMEOUT
        self.channel_max = self.DEFAULT_CHANNEL_MAX
        self.client_properties = self.DEFAULT_CLIENT_PROPERTIES
        self.connection_attempts = self.DEFAULT_CONNECTION_ATTEMPTS
        # A copy, since one may be erased.
        self.credentials = type(self.DEFAULT_CREDENTIALS)(
            self.DEFAULT_USERNAME, self.DEFAULT_PASSWORD
        )
        self.frame_max = self.DEFAULT_FRAME_MAX
        self.heartbeat = self.DEFAULT_HEARTBEAT_TIMEOUT
        self.host = self.DEFAULT_HOST
        self.locale = self.DEFAULT_LOCALE
        self.port = self.DEFAULT_PORT
        self.retry_delay = self.DEFAULT_RETRY_DELAY
        self.socket_timeout = self.DEFAULT_SOCKET_TIMEOUT
        self.ssl_options = self.DEFAULT_SSL_OPTIONS
        self.stack_timeout = self.DEFAULT_STACK_TIMEOUT
        self.tcp_options = self.DEFAULT_TCP_OPTIONS
        self.virtual_host = self.DEFAULT_VIRTUAL_HOST

    blocked_connection_timeout: Any = _field("blocked_connection_timeout")
    channel_max: Any = _field("channel_max")
    client_properties: Any = _field("client_properties")
    connection_attempts: Any = _field("connection_attempts")
    credentials: Any = _field("credentials")
    frame_max: Any = _field("frame_max")
    heartbeat: Any = _field("heartbeat")
    host: Any = _field("host")
    locale: Any = _field("locale")
    port: Any = _field("port")
    retry_delay: Any = _field("retry_delay")
    socket_timeout: Any = _field("socket_timeout")
    ssl_options: Any = _field("ssl_options")
    stack_timeout: Any = _field("stack_timeout")
    tcp_options: Any = _field("tcp_options")
    virtual_host: Any = _field("virtual_host")

    @property
    def ssl(self) -> bool:
        """Whether TLS is spoken; the name that programs of the 0.x era read."""
        return self.ssl_options is not None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} host={self.host} port={self.port} "
            f"virtual_host={self.virtual_host} ssl={self.ssl}>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters):
            return NotImplemented
        return bool(self.host == other.host and self.port == other.port)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]


class ConnectionParameters(Parameters):
    """How to reach one broker, argument by argument.

    Args:
        host: Name or address.
        port: 5672, or 5671 with ``ssl_options``.
        virtual_host: Its name.
        credentials: PlainCredentials, ExternalCredentials, or an object like these.
        channel_max: Channels asked for, 1..65535.
        frame_max: Bytes of a frame asked for, 4096..131072.
        heartbeat: Seconds; None takes what the broker wants, 0 asks for none.  Or a function of
            the connection and the broker's wish that returns what to ask for.
        ssl_options: SSLOptions; None means no TLS.
        connection_attempts: Attempts in all.
        retry_delay: Seconds between two attempts.
        socket_timeout: Seconds for the TCP connect to one address; None means a long time.
        stack_timeout: Seconds for TCP, TLS and AMQP together; None means a long time.
        locale: Brokers know only ``en_US``, which is what evamqp sends.
        blocked_connection_timeout: Seconds that the broker may keep us blocked; None and 0 mean
            for ever.
        client_properties: Entries that win over our own.
        tcp_options: For the socket.  evamqp sets TCP_NODELAY and keepalive by itself; these are
            accepted and have no effect.

    Raises:
        TypeError: A wrong type, or an unknown keyword.
        ValueError: Out of range.
    """

    __slots__ = ()

    class _DEFAULT:
        """Stands for an argument that was not given."""

    def __init__(
        self,
        host: Any = _DEFAULT,
        port: Any = _DEFAULT,
        virtual_host: Any = _DEFAULT,
        credentials: Any = _DEFAULT,
        channel_max: Any = _DEFAULT,
        frame_max: Any = _DEFAULT,
        heartbeat: Any = _DEFAULT,
        ssl_options: Any = _DEFAULT,
        connection_attempts: Any = _DEFAULT,
        retry_delay: Any = _DEFAULT,
        socket_timeout: Any = _DEFAULT,
        stack_timeout: Any = _DEFAULT,
        locale: Any = _DEFAULT,
        blocked_connection_timeout: Any = _DEFAULT,
        client_properties: Any = _DEFAULT,
        tcp_options: Any = _DEFAULT,
        **kwargs: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _FIELDS}
        super().__init__()
        _take_old_keywords(kwargs, given, self._DEFAULT)
        if kwargs:
            raise TypeError(f"unexpected kwargs: {kwargs!r}")
        for name, value in given.items():
            if value is not self._DEFAULT:
                setattr(self, name, value)
        if port is self._DEFAULT and self.ssl_options is not None:
            self.port: Any = self.DEFAULT_SSL_PORT


def _take_old_keywords(kwargs: dict[str, Any], given: dict[str, Any], default: Any) -> None:
    """Move what the 0.x era called otherwise from ``kwargs`` to ``given``."""
    if "heartbeat_interval" in kwargs:
        interval = kwargs.pop("heartbeat_interval")
        if given["heartbeat"] is default:
            given["heartbeat"] = interval
    for name in _FORGOTTEN:
        kwargs.pop(name, None)
    # There, TLS was a flag, and its options the keywords of ssl.wrap_socket().
    options = given["ssl_options"]
    if "ssl" in kwargs or isinstance(options, dict):
        wanted = kwargs.pop("ssl", True)
        if not isinstance(options, SSLOptions):
            old = options if isinstance(options, dict) else {}
            given["ssl_options"] = SSLOptions(context_of(old)) if wanted else None


def context_of(options: dict[str, Any]) -> ssl.SSLContext:
    """A context from the keywords of the former ``ssl.wrap_socket()``: certfile, ca_certs, ..."""
    import ssl

    context = ssl.create_default_context(cafile=options.get("ca_certs"))
    if options.get("cert_reqs", ssl.CERT_NONE) == ssl.CERT_NONE and "ca_certs" not in options:
        # What it did there, where nothing else was asked for.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.get("certfile"):
        context.load_cert_chain(options["certfile"], options.get("keyfile"),
                                options.get("password"))  # fmt: skip
    if options.get("ciphers"):
        context.set_ciphers(options["ciphers"])
    return context


class URLParameters(Parameters):
    """How to reach one broker, from ``amqp[s]://user:password@host:port/virtual_host?key=value``.

    Keys are the arguments of ConnectionParameters; tables are written as Python's or JSON's.

    Raises:
        ValueError: Another scheme, an unknown key, or a value that does not read.
    """

    __slots__ = ()

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit("http" + url[4:] if url[:4].lower() == "amqp" else url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(
                f"Unexpected URL scheme {parts.scheme!r}; supported scheme values: amqp, amqps"
            )
        if parts.scheme == "https":
            self.ssl_options: Any = SSLOptions(_default_context())
            self.port: Any = self.DEFAULT_SSL_PORT
        if parts.hostname:
            self.host: Any = parts.hostname
        if parts.port:
            self.port = parts.port
        if parts.username is not None:
            self.credentials: Any = pika_credentials.PlainCredentials(
                unquote(parts.username), unquote(parts.password or "")
            )
        virtual_host = parts.path.split("/")[1] if "/" in parts.path else ""
        if virtual_host:
            self.virtual_host: Any = unquote(virtual_host)
        for name, values in parse_qs(parts.query).items():
            self._take(name, values)

    def _take(self, name: str, values: list[str]) -> None:
        reader = _URL_READERS.get(name)
        if reader is None:
            if name in _FORGOTTEN:
                return
            raise ValueError(f"Unknown URL parameter: {name!r}")
        if len(values) != 1:
            raise ValueError(
                f"Expected exactly one value for URL parameter {name}, "
                f"but got {len(values)} values: {values!r}"
            )
        field = "heartbeat" if name == "heartbeat_interval" else name
        try:
            value = reader(values[0])
        except (ValueError, SyntaxError, TypeError) as error:
            if name == "ssl_options":  # which may hold a password
                raise ValueError(f"Invalid {name} value: {type(error).__name__}") from None
            raise ValueError(f"Invalid {name} value {values[0]!r}: {error!r}") from error
        setattr(self, field, value)


def _default_context() -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context()


def _literal(text: str) -> Any:
    return ast.literal_eval(text)


def _url_ssl_options(text: str) -> SSLOptions:
    """The options as a table, with the names that pika documents for URLs."""
    import ssl

    options = _literal(text)
    if not isinstance(options, dict):
        raise TypeError(f"ssl_options must be a dict, but got {options!r}")
    context = ssl.create_default_context(
        cafile=options.get("ca_certs") or options.get("cafile"), capath=options.get("ca_path")
    )
    if options.get("certfile"):
        context.load_cert_chain(options["certfile"], options.get("keyfile"),
                                options.get("password"))  # fmt: skip
    if options.get("ciphers"):
        context.set_ciphers(options["ciphers"])
    if "cert_reqs" in options:
        mode = ssl.VerifyMode(int(options["cert_reqs"]))
        context.check_hostname = mode is not ssl.CERT_NONE and context.check_hostname
        context.verify_mode = mode
    return SSLOptions(context, options.get("server_hostname"))


_URL_READERS: dict[str, Callable[[str], Any]] = {
    "blocked_connection_timeout": float,
    "channel_max": int,
    "client_properties": _literal,
    "connection_attempts": int,
    "frame_max": int,
    "heartbeat": int,
    "heartbeat_interval": int,
    "locale": str,
    "retry_delay": float,
    "socket_timeout": float,
    "ssl_options": _url_ssl_options,
    "stack_timeout": float,
    "tcp_options": _literal,
}
