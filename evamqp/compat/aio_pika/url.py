"""URL: as much of an AMQP URL as programs read and change, and the Parameters that it means.

Any other library's URL is read by its ``str()``.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import evamqp

_FALSE = ("", "0", "n", "no", "false", "off")


class URL:
    """A URL, parted.  The parts are as they are meant: nothing in them is quoted.

    Args:
        url: Text, or what has it as its ``str()``; None means an empty one.
    """

    __slots__ = ("host", "password", "path", "port", "query", "scheme", "user")

    def __init__(self, url: object = None) -> None:
        parts = urlsplit("" if url is None else str(url))
        self.scheme: str = parts.scheme
        self.user: str | None = None if parts.username is None else unquote(parts.username)
        self.password: str | None = None if parts.password is None else unquote(parts.password)
        self.host: str | None = parts.hostname
        self.port: int | None = parts.port
        self.path: str = unquote(parts.path)
        self.query: dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))

    def _with(self, **changes: Any) -> URL:
        twin = URL()
        for part in URL.__slots__:
            setattr(twin, part, changes.get(part, getattr(self, part)))
        return twin

    def with_user(self, user: str | None) -> URL:
        return self._with(user=user)

    def with_password(self, password: str | None) -> URL:
        return self._with(password=password)

    def with_query(self, query: Mapping[str, Any]) -> URL:
        return self._with(query={name: str(value) for name, value in query.items()})

    def update_query(self, query: Mapping[str, Any]) -> URL:
        return self.with_query({**self.query, **query})

    def __str__(self) -> str:
        user = "" if self.user is None else quote(self.user, "*")
        if self.password is not None:
            user += f":{quote(self.password, '*')}"
        host = self.host or ""
        host = f"[{host}]" if ":" in host else host
        port = "" if self.port is None else f":{self.port}"
        query = f"?{urlencode(self.query)}" if self.query else ""
        # A slash beyond the first belongs to the virtual host.
        path = self.path[:1] + quote(self.path[1:], "")
        return f"{self.scheme}://{user}{'@' if user else ''}{host}{port}{path}{query}"

    def __repr__(self) -> str:
        shown = self if self.password is None else self.with_password("******")
        return f"URL({str(shown)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, URL) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def make_url(
    url: object = None,
    *,
    host: str = "localhost",
    port: int = 5672,
    login: str = "guest",
    password: str = "guest",
    virtualhost: str = "/",
    ssl: bool = False,
    ssl_options: Mapping[str, Any] | None = None,
    client_properties: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> URL:
    """A URL of these parts; ``kwargs`` and options go to the query of a URL that is given, too."""
    options = {**kwargs, **(ssl_options or {}), **(client_properties or {})}
    query = {
        name: int(value) if isinstance(value, bool) else value
        for name, value in options.items()
        if value is not None
    }
    if url is not None:
        return URL(url).update_query(query)
    made = URL()
    made.scheme = "amqps" if ssl else "amqp"
    made.host, made.port, made.user, made.password = host, port, login, password
    made.path = f"/{virtualhost}"
    return made.with_query(query)


def is_true(value: object) -> bool:
    """What a flag in a query, or a keyword, means."""
    return str(value).lower() not in _FALSE


def parameters_of(
    url: URL,
    *,
    ssl_context: ssl_module.SSLContext | None = None,
    client_properties: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> evamqp.Parameters:
    """What evamqp connects with."""
    query = url.query
    is_tls = url.scheme == "amqps" or ssl_context is not None
    if is_tls and ssl_context is None:
        ssl_context = _context_of(query)
    seconds = timeout or query.get("timeout") or query.get("connection_timeout")
    wanted: dict[str, Any] = {}
    for name in ("heartbeat", "channel_max", "frame_max"):
        if query.get(name):
            wanted[name] = int(query[name])
    if seconds:
        wanted["connect_timeout"] = wanted["handshake_timeout"] = float(seconds)
    if query.get("auth"):
        wanted["mechanisms"] = tuple(query["auth"].upper().split(","))
    return evamqp.Parameters(
        url.host or "localhost",
        url.port or (5671 if is_tls else 5672),
        url.path[1:] or "/",
        credentials_of(url),
        tls=is_tls,
        ssl_context=ssl_context if is_tls else None,
        name=query.get("name"),
        client_properties=dict(client_properties or {}),
        **wanted,
    )


def credentials_of(url: URL) -> evamqp.Credentials:
    """Who we are; guest where the URL does not say."""
    return evamqp.Credentials(_or_guest(url.user), _or_guest(url.password))


def _or_guest(value: str | None) -> str:
    return "guest" if value is None else value


def _context_of(options: Mapping[str, str]) -> ssl_module.SSLContext:
    """The context that the TLS options of a query describe."""
    context = ssl_module.create_default_context(
        cafile=options.get("cafile") or options.get("ca_certs"),
        capath=options.get("capath"),
        cadata=options.get("cadata"),
    )
    if is_true(options.get("no_verify_ssl", "")) or options.get("cert_reqs") in ("0", "CERT_NONE"):
        context.check_hostname = False
        context.verify_mode = ssl_module.CERT_NONE
    if options.get("certfile"):
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    return context
