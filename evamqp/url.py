"""The URL grammar: ``amqp[s]://user:password@host:port/virtual_host?key=value`` to fields.

Split by hand, since urllib's own errors quote what they cannot read, and a URL holds a password.
Which keys the query may have, and what their fields mean, is in ``parameters.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evamqp.errors import BadArgument, BadType


class UrlKey(NamedTuple):
    """What a key of the query sets.

    Args:
        field: The field of Parameters.
        read: Turns the key and its text into a value.
        needs_tls: Whether the key makes sense with ``amqps://`` only.
        repeats: Whether the key may be repeated; the field is then a list.
    """

    field: str
    read: Callable[[str, str], object]
    needs_tls: bool = False
    repeats: bool = False


def whole_number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadArgument(f"{key} in the URL must be a whole number")
    return int(text)


def seconds(key: str, text: str) -> float:
    if not text.isascii() or not text.replace(".", "", 1).isdigit():
        raise BadArgument(f"{key} in the URL must be a number of seconds")
    return float(text)


def milliseconds(key: str, text: str) -> float:
    return whole_number(key, text) / 1000


def plain_text(key: str, text: str) -> str:
    return text


def verification(key: str, text: str) -> bool:
    if text not in ("verify_peer", "verify_none"):
        raise BadArgument(f"{key} in the URL must be verify_peer or verify_none")
    return text == "verify_peer"


_SCHEMES = {"amqp": False, "amqps": True}


def parse_url(url: object, keys: Mapping[str, UrlKey]) -> dict[str, Any]:
    """Return the fields that the URL sets; ``userinfo`` stands for the credentials.

    Args:
        url: The URL.
        keys: The keys that its query may have.

    Raises:
        BadType: Not a str.
        BadArgument: Not such a URL; the message never quotes it.
    """
    if not isinstance(url, str):
        raise BadType(f"the URL must be str, not {type(url).__name__}")
    scheme, found, rest = url.partition("://")
    tls = _SCHEMES.get(scheme.lower())
    if tls is None or not found:
        raise BadArgument("the URL must begin with amqp:// or amqps://")
    if "#" in rest:
        raise BadArgument("the URL holds a '#': write %23")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    return {
        "tls": tls,
        # The path first: a stray slash in a password would make the rest look like a port.
        **_parse_path(path),
        **_parse_authority(authority),
        **_parse_query(query, tls, keys),
    }


def _parse_path(path: str) -> dict[str, Any]:
    # An '@' here is most likely the end of a password with a bare slash in it, and connecting
    # would send the password's beginning to a wrong host.
    if "@" in path:
        raise BadArgument(
            "the URL holds an '@' behind a '/': write %40 in a virtual host, %2F in a password"
        )
    if "/" in path:
        raise BadArgument(
            "the URL's virtual host holds a '/': write %2F for each of its slashes, "
            "so /a%2Fb for a/b and /%2Fa%2Fb for /a/b"
        )
    return {"virtual_host": _decode("the virtual host", path)} if path else {}


def _parse_authority(authority: str) -> dict[str, Any]:
    userinfo, found, location = authority.rpartition("@")
    fields = _parse_location(location)
    if found:
        username, _, password = userinfo.partition(":")
        fields["userinfo"] = _decode("the user", username), _decode("the password", password)
    return fields


def _parse_location(location: str) -> dict[str, Any]:
    if location.startswith("["):
        host, found, port = location[1:].partition("]")
        if not found or host.count(":") < 2 or port[:1] not in ("", ":"):
            raise BadArgument("the URL's IPv6 address must be written as [address]:port")
        port = port[1:]
    else:
        host, _, port = location.partition(":")
    fields: dict[str, Any] = {}
    if host:
        fields["host"] = _decode("the host", host)
    if port:
        fields["port"] = _port(port)
    return fields


def _port(text: str) -> int:
    # Not quoted: in "amqp://user:password" it is a password whose '@host' was forgotten.
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise BadArgument("the port in the URL must be a number, 1..65535")
    return int(text)


def _parse_query(query: str, tls: bool, keys: Mapping[str, UrlKey]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for entry in filter(None, query.split("&")):
        name, found, text = entry.partition("=")
        key = keys.get(name)
        if key is None or not found:
            raise BadArgument(_unknown_key(query, name, keys))
        if key.needs_tls and not tls:
            raise BadArgument(f"{name} in the URL needs TLS: use amqps://")
        value = key.read(name, _decode(name, text))
        if key.repeats:
            fields.setdefault(key.field, []).append(value)
        elif key.field in fields:
            raise BadArgument(f"{name} stands in the URL twice")
        else:
            fields[key.field] = value
    return fields


def _unknown_key(query: str, key: str, keys: Mapping[str, UrlKey]) -> str:
    # With an '@' in it, the query may be the end of a password with a bare '?'.
    shown = f" {key!r}" if key.isidentifier() and "@" not in query else ""
    return f"unknown query key{shown} in the URL; known, each as key=value: {', '.join(keys)}"


def _decode(name: str, text: str) -> str:
    """Undo percent-encoding, strictly: what is not clear is not guessed, least in a password."""
    if "%" not in text and text.isascii():
        return text
    from urllib.parse import unquote_to_bytes

    hexadecimal = set("0123456789abcdefABCDEF")
    for escape in text.split("%")[1:]:
        if len(escape) < 2 or not hexadecimal.issuperset(escape[:2]):
            raise BadArgument(f"{name} in the URL holds a '%' without two hex digits: write %25")
    decoded = _utf8(unquote_to_bytes(text.encode("utf-8", "surrogatepass")))
    if decoded is None:
        raise BadArgument(f"{name} in the URL is not UTF-8 once decoded")
    return decoded


def _utf8(data: bytes) -> str | None:
    # The UnicodeDecodeError carries the text, so it must not become anyone's __context__.
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
