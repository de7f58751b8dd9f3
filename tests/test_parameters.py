"""Parameters, Credentials and the URL grammar: limits, meanings, and secrets that stay secret."""

from __future__ import annotations

import copy
import pickle
import ssl
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from evamqp.credentials import MECHANISM_NAMES, Credentials, Mechanism
from evamqp.errors import BadArgument, BadType
from evamqp.parameters import Parameters, parse_targets

MARKER = "hunter2secret"


class Token:
    """A mechanism of a user's own, whose repr would tell a secret."""

    name = "TOKEN"

    def start(self, credentials: Credentials) -> bytes:
        return b""

    def respond(self, challenge: bytes) -> bytes:
        return b""

    def __repr__(self) -> str:
        return MARKER


def ask_nobody() -> Credentials:
    return Credentials("nobody", MARKER)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Paths of an authority, a certificate and its key."""
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    return {
        "cacertfile": str(tmp_path / "ca.pem"),
        "certfile": str(tmp_path / "cert.pem"),
        "keyfile": str(tmp_path / "key.pem"),
    }


def encrypt(keyfile: str, password: str) -> None:
    from cryptography.hazmat.primitives import serialization

    path = Path(keyfile)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )


# --- Parameters ---


def test_every_default_is_the_documented_one() -> None:
    parameters = Parameters()
    assert parameters.address == "localhost:5672"
    assert parameters.virtual_host == "/"
    assert parameters.ask_credentials() == Credentials("guest", "guest")
    assert parameters.mechanisms == ("PLAIN",)
    assert not parameters.tls
    assert (parameters.heartbeat, parameters.channel_max) == (60, 2047)
    assert parameters.frame_max == 131_072
    assert (parameters.connect_timeout, parameters.address_timeout) == (10, 5)
    assert (parameters.handshake_timeout, parameters.request_timeout) == (10, 30)
    assert parameters.blocked_timeout is None
    assert (parameters.close_timeout, parameters.close_limit) == (3, 30)
    assert (parameters.output_high_water, parameters.output_max) == (2**20, 64 * 2**20)
    assert (parameters.body_max, parameters.header_max) == (128 * 2**20, 2**20)


def test_the_default_port_follows_tls_unless_it_was_chosen() -> None:
    assert Parameters(tls=True).port == 5671
    assert Parameters(tls=True, port=5672).port == 5672
    assert Parameters().replace(tls=True).port == 5671
    assert Parameters(tls=True).replace(tls=False).port == 5672
    assert Parameters(port=7000).replace(tls=True).port == 7000
    assert Parameters().replace(tls=True, port=1).port == 1


INTEGER_LIMITS = [
    ("port", 1, 65535),
    ("heartbeat", 0, 65535),
    ("channel_max", 1, 65535),
    ("frame_max", 4096, 2**32 - 1),
    ("header_max", 4096, 2**32 - 1),
    ("body_max", 1, 2**63 - 1),
    ("output_max", 1024 * 1024, 2**63 - 1),
]


@pytest.mark.parametrize(("field", "low", "high"), INTEGER_LIMITS)
def test_an_integer_is_held_to_its_limits(field: str, low: int, high: int) -> None:
    parameters = Parameters()
    assert getattr(parameters.replace(**{field: low}), field) == low
    assert getattr(parameters.replace(**{field: high}), field) == high
    with pytest.raises(BadArgument, match=field):
        parameters.replace(**{field: low - 1})
    with pytest.raises(BadArgument, match=rf"{field} must be \d+\.\.{high}, not {high + 1}"):
        parameters.replace(**{field: high + 1})
    with pytest.raises(BadArgument, match=field):
        parameters.replace(**{field: 10**5000})
    for wrong in ("7", 7.0, True):
        with pytest.raises(BadType, match=f"{field} must be int, not {type(wrong).__name__}"):
            parameters.replace(**{field: wrong})


SECONDS = [
    "connect_timeout",
    "address_timeout",
    "handshake_timeout",
    "request_timeout",
    "blocked_timeout",
    "close_timeout",
    "close_limit",
]


@pytest.mark.parametrize("field", SECONDS)
def test_seconds_are_positive_finite_numbers(field: str) -> None:
    assert getattr(Parameters().replace(**{field: 0.5}), field) == 0.5
    assert getattr(Parameters().replace(**{field: 1_000_000}), field) == 1_000_000
    for value in (0, -1, 1_000_001, 10**5000, float("nan"), float("inf")):
        with pytest.raises(BadArgument, match=field):
            Parameters().replace(**{field: value})
    for wrong in ("1", True, b"1"):
        with pytest.raises(BadType, match=field):
            Parameters().replace(**{field: wrong})


def test_only_blocked_timeout_may_be_endless() -> None:
    for field in SECONDS:
        if field != "blocked_timeout":
            with pytest.raises(BadType, match=field):
                Parameters().replace(**{field: None})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": ""}, "host"),
        ({"host": "my host"}, "blanks"),
        ({"host": "broker\n"}, "blanks"),
        ({"host": "user@broker"}, "host"),
        ({"host": "broker:5672"}, "without port"),
        ({"host": "[::1]"}, "without brackets"),
        ({"host": "h" * 256}, "at most 255 bytes"),
        ({"virtual_host": "ü" * 128}, "virtual_host must be at most 255 bytes"),
        ({"virtual_host": "\ud800"}, "virtual_host holds characters"),
        ({"name": "\ud800"}, "name holds characters"),
        ({"mechanisms": ()}, "mechanisms must name at least one"),
        ({"mechanisms": ("PLAIN", "SCRAM")}, r"mechanisms\[1\] must be one of PLAIN, AMQPLAIN"),
        ({"output_high_water": 2, "output_max": 1}, "output_high_water must not be above"),
        ({"client_properties": {"k" * 256: 1}}, "a key of client_properties"),
        ({"tls": True, "cacertfile": ""}, "cacertfile must be the path"),
        ({"tls": True, "cacertfile": "a\0b"}, "cacertfile must be the path"),
        ({"tls": True, "keyfile": "key"}, "keyfile needs certfile"),
        ({"tls": True, "keyfile_password": "x"}, "keyfile_password needs certfile"),
        ({"tls": True, "certfile": "c", "keyfile_password": "x" * 1024}, "at most 1023 bytes"),
        ({"cacertfile": "ca"}, "cacertfile needs TLS: set tls=True"),
        ({"verify": False}, "verify needs TLS"),
        ({"server_hostname": "h"}, "server_hostname needs TLS"),
    ],
)
def test_an_impossible_value_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        Parameters(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": b"h"},
        {"host": None},
        {"virtual_host": None},
        {"credentials": ("guest", "guest")},
        {"credentials": None},
        {"mechanisms": "PLAIN"},
        {"mechanisms": {"PLAIN"}},
        {"mechanisms": [object()]},
        {"tls": 1},
        {"verify": "verify_none"},
        {"ssl_context": True},
        {"ssl_context": {}},
        {"cacertfile": 3},
        {"name": 3},
        {"client_properties": [("a", 1)]},
        {"client_properties": {1: 1}},
        {"output_high_water": 1.5},
    ],
)
def test_a_wrong_type_is_refused_with_the_field_named(fields: dict[str, Any]) -> None:
    (field,) = fields
    with pytest.raises(BadType, match=field):
        Parameters(**fields)


def test_a_built_in_mechanism_is_named_in_any_case() -> None:
    names = tuple(name.lower() for name in MECHANISM_NAMES)
    assert Parameters(mechanisms=names).mechanisms == MECHANISM_NAMES


def test_a_mechanism_of_ones_own_is_kept() -> None:
    token = Token()
    assert isinstance(token, Mechanism)
    assert Parameters(mechanisms=[token, "plain"]).mechanisms == (token, "PLAIN")


def test_parameters_cannot_be_changed() -> None:
    entries: dict[str, object] = {"product": "x"}
    parameters = Parameters(client_properties=entries)
    entries["product"] = "y"
    assert parameters.client_properties["product"] == "x"
    with pytest.raises(AttributeError):
        parameters.host = "elsewhere"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del parameters.host
    # A TypeError before CPython 3.12: https://github.com/python/cpython/issues/90562
    with pytest.raises((AttributeError, TypeError)):
        parameters.new_field = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        Credentials("a", "b").password = "c"


def test_replace_changes_what_is_given_and_checks_it() -> None:
    parameters = Parameters("a", virtual_host="v", name="n", client_properties={"k": [1]})
    changed = parameters.replace(host="b", heartbeat=5)
    assert (changed.host, changed.heartbeat, changed.virtual_host) == ("b", 5, "v")
    assert changed.replace(host="a", heartbeat=60) == parameters
    with pytest.raises(TypeError, match="hots"):
        parameters.replace(hots="b")


def test_parameters_compare_by_value() -> None:
    assert Parameters("a") == Parameters("a")
    assert hash(Parameters("a")) == hash(Parameters("a"))
    assert Parameters("a") != Parameters("b")
    assert Parameters(credentials=Credentials("u", "p")) != Parameters()
    assert Parameters() != object()
    assert Credentials("u", "p") == Credentials("u", "p")
    assert hash(Credentials("u", "p")) == hash(Credentials("u", "p"))
    assert Credentials("u", "p") != Credentials("u", "q")
    assert Credentials("u", "p") != ("u", "p")


def test_a_copy_of_an_immutable_is_itself() -> None:
    parameters = Parameters(client_properties={"k": [1]})
    assert copy.copy(parameters) is parameters
    assert copy.deepcopy([parameters]) == [parameters]


def test_an_address_puts_ipv6_in_brackets() -> None:
    assert Parameters("::1", 1).address == "[::1]:1"
    assert Parameters("broker", 1).address == "broker:1"


# --- credentials ---


def test_a_callable_is_asked_every_time() -> None:
    tokens: Iterator[str] = iter(["first", "second"])
    parameters = Parameters(credentials=lambda: Credentials("", next(tokens)))
    assert parameters.ask_credentials() == Credentials("", "first")
    assert parameters.ask_credentials() == Credentials("", "second")


def test_what_a_credentials_callable_raises_comes_through() -> None:
    def fail() -> Credentials:
        raise LookupError("vault sealed")

    with pytest.raises(LookupError, match="vault sealed"):
        Parameters(credentials=fail).ask_credentials()


@pytest.mark.parametrize("answer", [None, MARKER, ("user", MARKER)])
def test_a_credentials_callable_must_return_credentials(answer: object) -> None:
    def give() -> object:
        return answer

    parameters = Parameters(credentials=give)  # type: ignore[arg-type]
    with pytest.raises(BadType, match=type(answer).__name__) as caught:
        parameters.ask_credentials()
    assert_silent(caught.value)


@pytest.mark.parametrize(("username", "password"), [(1, "p"), ("u", b"p"), ("u", None)])
def test_credentials_are_strings(username: Any, password: Any) -> None:
    with pytest.raises(BadType, match="must be str"):
        Credentials(username, password)


# --- the endpoint ---


def test_a_plain_endpoint_carries_the_limits() -> None:
    endpoint = Parameters("h", 1, connect_timeout=2, address_timeout=1).endpoint()
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("h", 1, None)
    assert (endpoint.timeout, endpoint.address_timeout) == (2, 1)
    assert endpoint.user_timeout is None


def test_the_kernel_watches_a_peer_without_heartbeat() -> None:
    assert Parameters(heartbeat=0).endpoint().user_timeout == 120
    assert Parameters(heartbeat=lambda offered: 0).endpoint().user_timeout == 120


def test_tls_verifies_certificate_and_host_name_by_default() -> None:
    context = Parameters(tls=True).endpoint().tls
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_verification_is_given_up_only_when_asked() -> None:
    context = Parameters(tls=True, verify=False).endpoint().tls
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_tls_files_are_loaded(files: dict[str, str]) -> None:
    context = Parameters(tls=True, server_hostname="name", **files).endpoint().tls  # type: ignore[arg-type]
    assert context is not None
    # Only the given authority is trusted, not those of the system.
    assert context.cert_store_stats()["x509_ca"] == 1


def test_a_tls_file_may_be_a_path() -> None:
    assert Parameters(tls=True, cacertfile=Path("/ca.pem")).cacertfile == "/ca.pem"


def test_the_sni_name_reaches_the_endpoint() -> None:
    assert Parameters(tls=True, server_hostname="name").endpoint().server_hostname == "name"


def test_a_ready_context_is_used_as_it_is() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    parameters = Parameters(tls=True, ssl_context=context, server_hostname="name")
    assert parameters.endpoint().tls is context
    for field, value in {"cacertfile": "ca", "certfile": "c", "verify": False}.items():
        with pytest.raises(BadArgument, match=f"{field} cannot change a ready ssl_context"):
            parameters.replace(**{field: value})
    with pytest.raises(BadArgument, match="ssl_context needs TLS"):
        Parameters(ssl_context=context)


@pytest.mark.parametrize("field", ["cacertfile", "certfile", "keyfile"])
def test_a_missing_tls_file_is_named(files: dict[str, str], field: str) -> None:
    missing = {**files, field: "/nonexistent/file.pem"}
    parameters = Parameters(tls=True, **missing)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match=r"/nonexistent/file\.pem") as caught:
        parameters.endpoint()
    assert isinstance(caught.value.__cause__, OSError)


def test_an_encrypted_key_is_opened_by_its_password(files: dict[str, str]) -> None:
    encrypt(files["keyfile"], MARKER)
    parameters = Parameters(tls=True, keyfile_password=MARKER, **files)  # type: ignore[arg-type]
    assert parameters.endpoint().tls is not None


def test_an_encrypted_key_without_password_is_an_error_and_no_prompt(
    files: dict[str, str],
) -> None:
    encrypt(files["keyfile"], MARKER)
    with pytest.raises(BadArgument, match="set keyfile_password"):
        Parameters(tls=True, **files).endpoint()  # type: ignore[arg-type]


def test_a_wrong_key_password_is_an_error_that_does_not_show_it(files: dict[str, str]) -> None:
    encrypt(files["keyfile"], "right")
    parameters = Parameters(tls=True, keyfile_password=MARKER, **files)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="cannot be used") as caught:
        parameters.endpoint()
    assert_silent(caught.value)


# --- secrets ---


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that hangs on it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_silent(error: BaseException) -> None:
    """The error tells nothing of MARKER, in any text or attribute of its chain."""
    # Only our own lines: a traceback also quotes the source of the test.
    shown = "".join(traceback.format_exception_only(type(error), error))
    for link in chain(error):
        shown += f"{link} {link!r} {link.args!r} {vars(link)!r} {getattr(link, 'object', '')!r}"
        assert not isinstance(link, UnicodeError)
    assert MARKER not in shown


HOLDERS: list[Callable[[], object]] = [
    lambda: Credentials("u", MARKER),
    lambda: Parameters(credentials=Credentials("u", MARKER)),
    lambda: Parameters(tls=True, certfile="c", keyfile_password=MARKER),
    lambda: Parameters.from_url(f"amqp://u:{MARKER}@h/v"),
    lambda: Parameters.from_url(f"amqps://h?certfile=c&password={MARKER}"),
]


@pytest.mark.parametrize("make", HOLDERS)
def test_a_password_is_in_no_rendering(make: Callable[[], object]) -> None:
    holder = make()
    for shown in (repr(holder), str(holder), f"{holder}", f"{holder!a}", repr([holder])):
        assert MARKER not in shown
    with pytest.raises(TypeError) as caught:
        format(holder, ">10")
    assert_silent(caught.value)
    with pytest.raises(TypeError):
        vars(holder)


@pytest.mark.parametrize("make", HOLDERS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_password_is_not_pickled(make: Callable[[], object], protocol: int) -> None:
    with pytest.raises(BadType, match="not pickled") as caught:
        pickle.dumps(make(), protocol)
    assert_silent(caught.value)


def test_parameters_without_password_are_pickled() -> None:
    parameters = Parameters("h", credentials=ask_nobody, client_properties={"a": 1}, name="n")
    assert pickle.loads(pickle.dumps(parameters)) == parameters


def test_a_repr_shows_what_differs_from_the_default_and_no_foreign_repr() -> None:
    assert repr(Parameters()) == (
        "Parameters(host='localhost', port=5672, virtual_host='/', "
        "credentials=Credentials('guest', ...))"
    )
    parameters = Parameters(
        "h", credentials=ask_nobody, mechanisms=[Token(), "PLAIN"], client_properties={"a": 1}
    )
    assert repr(parameters) == (
        "Parameters(host='h', port=5672, virtual_host='/', credentials=<function>, "
        "mechanisms=['TOKEN', 'PLAIN'], client_properties={'a': 1})"
    )


def failing(call: Callable[[], object]) -> BaseException:
    with pytest.raises((BadArgument, BadType)) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{MARKER}@h",
        f"u:{MARKER}@h",
        f"u:{MARKER}://h@x",
        f"amqp://u:{MARKER}%@h",
        f"amqp://u:{MARKER}%zz@h",
        f"amqp://u:{MARKER}%ff@h",
        f"amqp://u:{MARKER}\ud800@h",
        f"amqp://u:{MARKER}@h:port",
        f"amqp://u:{MARKER}@h:0",
        f"amqp://u:{MARKER}@h/a/b",
        f"amqp://u:{MARKER}@h/v?nonsense=1",
        f"amqp://u:{MARKER}@h/v?heartbeat=1&heartbeat=2",
        f"amqp://u:{MARKER}@h/v?heartbeat=70000",
        f"amqp://u:{MARKER}@h/v#fragment",
        f"amqp://u:{MARKER}@[::1",
        f"amqp://u:{MARKER}",
        f"amqp://u:{MARKER}/more@h",
        f"amqp://u:12/{MARKER}@h",
        f"amqp://u:12/a/{MARKER}?x@h",
        f"amqp://u:{MARKER}?more@h",
        f"amqp://u:12?{MARKER}@h",
        f"amqp://u:12?{MARKER}=1@h",
        f"amqp://u:12#{MARKER}@h",
        f"amqp://u:a@b/{MARKER}@h",
        f"amqp://u:a@b?{MARKER}@h",
        f"amqps://h?password={MARKER}",
        f"amqp://h?certfile=c&password={MARKER}",
        f"amqps://h?certfile=c&password={MARKER}&password={MARKER}",
        f"amqps://h?certfile=c&password={MARKER}%f",
    ],
)
def test_no_url_error_shows_a_password(url: str) -> None:
    assert_silent(failing(lambda: Parameters.from_url(url)))


@given(before=st.text("@/?#:%[]&=a1 \n", max_size=6), after=st.text("@/?#:%[]&=a1 \n", max_size=6))
def test_no_password_typed_without_encoding_is_shown(before: str, after: str) -> None:
    try:
        parameters = Parameters.from_url(f"amqp://u:{before}{MARKER}{after}@h/v")
    except BadArgument as error:
        assert_silent(error)
    else:
        assert MARKER not in repr(parameters)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Credentials("u", f"{MARKER}\ud800"),
        lambda: Credentials("u", MARKER.encode()),  # type: ignore[arg-type]
        lambda: Parameters(credentials=MARKER),  # type: ignore[arg-type]
        lambda: Parameters(credentials=("u", MARKER)),  # type: ignore[arg-type]
        lambda: Parameters(keyfile_password=MARKER),
        lambda: Parameters(tls=True, certfile="c", keyfile_password=f"{MARKER}\ud800"),
        lambda: Parameters.from_url(f"amqp://u:{MARKER}@h".encode()),  # type: ignore[arg-type]
        lambda: parse_targets([f"amqp://u:{MARKER}@h", f"amqp://u:{MARKER}@h:x"]),
        lambda: parse_targets({f"amqp://u:{MARKER}@h"}),  # type: ignore[arg-type]
    ],
)
def test_no_other_error_shows_a_password(call: Callable[[], object]) -> None:
    assert_silent(failing(call))


# --- the URL ---


@pytest.mark.parametrize("scheme", ["amqp", "AMQP", "amqps"])
def test_a_bare_scheme_means_all_defaults(scheme: str) -> None:
    assert Parameters.from_url(f"{scheme}://") == Parameters(tls=scheme == "amqps")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://h", Parameters("h")),
        ("amqp://h/", Parameters("h")),
        ("amqp://h/%2F", Parameters("h")),
        ("amqp://h/%2f", Parameters("h")),
        ("amqp://h/v", Parameters("h", virtual_host="v")),
        ("amqp://h/a%2Fb", Parameters("h", virtual_host="a/b")),
        ("amqp://h/%2Fa%2Fb", Parameters("h", virtual_host="/a/b")),
        ("amqp://h/%C3%BC+1", Parameters("h", virtual_host="ü+1")),
        ("amqp://h/ü", Parameters("h", virtual_host="ü")),
        ("amqp://h:1", Parameters("h", 1)),
        ("amqp://h:", Parameters("h")),
        ("amqp://:1", Parameters(port=1)),
        ("amqp:///v", Parameters(virtual_host="v")),
        ("amqp://h%2Ebroker", Parameters("h.broker")),
        ("amqp://[::1]", Parameters("::1")),
        ("amqp://[::1]:1/v", Parameters("::1", 1, "v")),
        ("amqp://[fe80::1%25eth0]:1", Parameters("fe80::1%eth0", 1)),
        ("amqp://u:p@[::1]:1", Parameters("::1", 1, credentials=Credentials("u", "p"))),
        ("amqp://u:p@h", Parameters("h", credentials=Credentials("u", "p"))),
        ("amqp://u@h", Parameters("h", credentials=Credentials("u", ""))),
        ("amqp://u:@h", Parameters("h", credentials=Credentials("u", ""))),
        ("amqp://:p@h", Parameters("h", credentials=Credentials("", "p"))),
        ("amqp://u%40x:p%3A%2F%20@h", Parameters("h", credentials=Credentials("u@x", "p:/ "))),
        ("amqp://u:a:b@h", Parameters("h", credentials=Credentials("u", "a:b"))),
        ("amqps://h", Parameters("h", 5671, tls=True)),
        ("amqp://h?", Parameters("h")),
        ("amqp://h?&", Parameters("h")),
        ("amqp://h?heartbeat=0", Parameters("h", heartbeat=0)),
        ("amqp://h?heartbeat=5&channel_max=9", Parameters("h", heartbeat=5, channel_max=9)),
        ("amqp://h?connection_timeout=10500", Parameters("h", connect_timeout=10.5)),
        ("amqp://h?frame_max=8192&name=a%26b@c", Parameters("h", frame_max=8192, name="a&b@c")),
        ("amqp://h?name=a=b", Parameters("h", name="a=b")),
        ("amqp://h?request_timeout=1.5", Parameters("h", request_timeout=1.5)),
        (
            "amqp://h?blocked_timeout=9&handshake_timeout=2",
            Parameters("h", blocked_timeout=9, handshake_timeout=2),
        ),
        (
            "amqp://h?auth_mechanism=external&auth_mechanism=plain",
            Parameters("h", mechanisms=("EXTERNAL", "PLAIN")),
        ),
        (
            "amqps://h?certfile=/c&keyfile=/k&password=s",
            Parameters("h", tls=True, certfile="/c", keyfile="/k", keyfile_password="s"),
        ),
        (
            "amqps://h?cacertfile=/ca&verify=verify_none&server_name_indication=n",
            Parameters("h", tls=True, cacertfile="/ca", verify=False, server_hostname="n"),
        ),
        ("amqps://h?verify=verify_peer", Parameters("h", tls=True)),
    ],
)
def test_a_url_means(url: str, expected: Parameters) -> None:
    assert Parameters.from_url(url) == expected


def test_overrides_win_over_the_url() -> None:
    url = "amqp://u:p@h?heartbeat=5"
    parameters = Parameters.from_url(url, heartbeat=7, credentials=ask_nobody)
    assert parameters == Parameters("h", heartbeat=7, credentials=ask_nobody)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert Parameters.from_url("amqps://h", ssl_context=context).ssl_context is context
    with pytest.raises(BadArgument, match="amqps://"):
        Parameters.from_url("amqp://h", ssl_context=context)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "begin with amqp:// or amqps://"),
        ("localhost", "begin with amqp:// or amqps://"),
        ("amqp:/h", "begin with amqp:// or amqps://"),
        ("http://h", "begin with amqp:// or amqps://"),
        ("amqp+ssl://h", "begin with amqp:// or amqps://"),
        ("amqp://h#", "write %23"),
        ("amqp://h/a/b", "/a%2Fb for a/b"),
        ("amqp://h//", "write %2F"),
        ("amqp://h/a@b", "write %40"),
        ("amqp://h/%f", "virtual host in the URL holds a '%'.*write %25"),
        ("amqp://h/%ff", "virtual host in the URL is not UTF-8"),
        ("amqp://h/%ED%A0%80", "virtual host in the URL is not UTF-8"),
        ("amqp://u%zz@h", "user in the URL holds a '%'"),
        ("amqp://u:%1@h", "password in the URL holds a '%'"),
        ("amqp://h:99999", "port in the URL must be a number, 1..65535"),
        ("amqp://h:0", "port in the URL"),
        ("amqp://h:-1", "port in the URL"),
        ("amqp://h:1:2", "port in the URL"),
        ("amqp://h:\u0661", "port in the URL"),
        ("amqp://::1", "port in the URL"),
        ("amqp://[::1", "IPv6"),
        ("amqp://[::1]x", "IPv6"),
        ("amqp://[h]", "IPv6"),
        ("amqp://[::1]:x", "port in the URL"),
        ("amqp://h ", "host must be"),
        ("amqp://h\n", "host must be"),
        ("amqp://h%2Fb", "host must be"),
        ("amqp://h?heartbeat", "as key=value"),
        ("amqp://h?hartbeat=1", "unknown query key 'hartbeat'.*known.*heartbeat"),
        ("amqp://h?Heartbeat=1", "unknown query key 'Heartbeat'"),
        ("amqp://h?heartbeat=", "heartbeat in the URL must be a whole number"),
        ("amqp://h?heartbeat=+1", "heartbeat in the URL must be a whole number"),
        ("amqp://h?heartbeat=1.5", "heartbeat in the URL must be a whole number"),
        ("amqp://h?heartbeat=" + "9" * 5000, "heartbeat in the URL must be a whole number"),
        ("amqp://h?heartbeat=65536", r"heartbeat must be 0\.\.65535, not 65536"),
        ("amqp://h?channel_max=0", "channel_max must be 1"),
        ("amqp://h?frame_max=4095", "frame_max must be 4096"),
        ("amqp://h?connection_timeout=0", "connect_timeout must be above 0"),
        ("amqp://h?connection_timeout=1.5", "connection_timeout in the URL must be a whole"),
        ("amqp://h?request_timeout=nan", "request_timeout in the URL must be a number"),
        ("amqp://h?request_timeout=.", "request_timeout in the URL must be a number"),
        ("amqp://h?request_timeout=" + "9" * 500, "request_timeout must be above 0"),
        ("amqp://h?blocked_timeout=0", "blocked_timeout must be above 0"),
        ("amqp://h?auth_mechanism=scram", r"mechanisms\[0\] must be one of"),
        ("amqp://h?name=a&name=b", "name stands in the URL twice"),
        ("amqp://h?cacertfile=/ca", "cacertfile in the URL needs TLS: use amqps://"),
        ("amqp://h?verify=verify_peer", "verify in the URL needs TLS: use amqps://"),
        ("amqp://h?server_name_indication=h", "server_name_indication in the URL needs TLS"),
        ("amqps://h?verify=no", "verify in the URL must be verify_peer or verify_none"),
        ("amqps://h?keyfile=k", "keyfile needs certfile"),
        ("amqps://h?cacertfile=", "cacertfile must be the path"),
    ],
)
def test_a_wrong_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        Parameters.from_url(url)


def test_an_unknown_key_is_a_value_error_that_lists_the_known_ones() -> None:
    documented = Parameters.__doc__ or ""
    with pytest.raises(ValueError, match="unknown query key") as caught:
        Parameters.from_url("amqp://h?x=1")
    for key in str(caught.value).partition("key=value: ")[2].split(", "):
        assert f"URL key ``{key}``" in documented


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HOSTS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    st.ip_addresses().map(str),
)
PARAMETERS = st.builds(
    Parameters,
    host=HOSTS,
    port=st.integers(1, 65535),
    virtual_host=TEXT.filter(bool),
    credentials=st.builds(Credentials, TEXT, TEXT),
    mechanisms=st.lists(st.sampled_from(MECHANISM_NAMES), min_size=1, max_size=4),
    tls=st.booleans(),
    heartbeat=st.integers(0, 65535),
    channel_max=st.integers(1, 65535),
    frame_max=st.integers(4096, 2**32 - 1),
    name=TEXT,
    connect_timeout=st.integers(1, 10**9).map(lambda value: value / 1000),
    request_timeout=st.integers(1, 10**6),
    handshake_timeout=st.floats(0.25, 1e6).map(lambda value: round(value, 3)),
)


def as_url(parameters: Parameters) -> str:
    def encode(text: str) -> str:
        return quote(text, safe="")

    credentials = parameters.ask_credentials()
    assert isinstance(credentials, Credentials)
    host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    query = [f"auth_mechanism={name}" for name in parameters.mechanisms] + [
        f"connection_timeout={round(parameters.connect_timeout * 1000)}",
        f"name={encode(parameters.name or '')}",
    ]
    numbers = ("heartbeat", "channel_max", "frame_max", "request_timeout", "handshake_timeout")
    query += [f"{field}={getattr(parameters, field)}" for field in numbers]
    return (
        f"{'amqps' if parameters.tls else 'amqp'}://"
        f"{encode(credentials.username)}:{encode(credentials.password)}@{host}:{parameters.port}"
        f"/{encode(parameters.virtual_host)}?{'&'.join(query)}"
    )


@given(PARAMETERS)
def test_a_url_brings_back_the_parameters_it_was_made_of(parameters: Parameters) -> None:
    assert Parameters.from_url(as_url(parameters)) == parameters


@given(st.text())
def test_any_text_is_a_url_or_a_bad_argument(text: str) -> None:
    for url in (text, f"amqp://{text}", f"amqps://h?{text}"):
        with suppress(BadArgument):
            assert Parameters.from_url(url).port > 0


# --- targets ---


def test_targets_come_in_order_from_urls_and_parameters() -> None:
    first, second = Parameters("a"), Parameters("b")
    assert parse_targets("amqp://a") == (first,)
    assert parse_targets(first) == (first,)
    assert parse_targets(["amqp://a", second]) == (first, second)
    assert parse_targets((second, "amqp://a")) == (second, first)


def test_an_empty_list_of_targets_is_refused() -> None:
    with pytest.raises(BadArgument, match="empty"):
        parse_targets([])


@pytest.mark.parametrize("target", [None, b"amqp://h", {"amqp://h"}, 7, [None], [["amqp://h"]]])
def test_a_target_of_another_type_is_refused(target: Any) -> None:
    with pytest.raises(BadType, match=r"target must be|the URL must be"):
        parse_targets(target)


# --- the import ---


def test_importing_parameters_loads_no_loop_and_no_socket() -> None:
    heavy = ("asyncio", "selectors", "socket", "ssl", "urllib")
    # An editable install loads some of it before the first line runs.
    code = (
        "import sys; before = set(sys.modules);"
        "import evamqp.parameters as p; p.Parameters('h', tls=True);"
        f"print([name for name in {heavy} if name in sys.modules and name not in before])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
