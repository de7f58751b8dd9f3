"""The SASL mechanisms byte for byte, and the choice among those a broker offers."""

from __future__ import annotations

import pytest

from evamqp.core.sasl import BUILT_IN, choose
from evamqp.credentials import MECHANISM_NAMES, Credentials, Mechanism
from evamqp.errors import AuthenticationFailed, BadArgument

ALICE = Credentials("alice", "sesam")


class Rounds:
    """A mechanism of a user's own."""

    name = "X-ROUNDS"

    def start(self, credentials: Credentials) -> bytes:
        return credentials.username.encode()

    def respond(self, challenge: bytes) -> bytes:
        return challenge[::-1]


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("PLAIN", b"\0alice\0sesam"),
        ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05alice\x08PASSWORDS\0\0\0\x05sesam"),
        ("EXTERNAL", b""),
        ("ANONYMOUS", b""),
    ],
)
def test_a_mechanism_starts_with(name: str, response: bytes) -> None:
    assert choose([name], name).start(ALICE) == response


def test_text_is_sent_as_utf8_and_its_length_counted_in_bytes() -> None:
    credentials = Credentials("jürgen", "")
    assert BUILT_IN["PLAIN"].start(credentials) == "\0jürgen\0".encode()
    assert BUILT_IN["AMQPLAIN"].start(credentials) == (
        b"\x05LOGINS\0\0\0\x07" + "jürgen".encode() + b"\x08PASSWORDS\0\0\0\0"
    )


@pytest.mark.parametrize("credentials", [Credentials("a\0", "b"), Credentials("a", "b\0sesam")])
def test_plain_refuses_a_nul_without_showing_it(credentials: Credentials) -> None:
    with pytest.raises(BadArgument, match="NUL") as caught:
        BUILT_IN["PLAIN"].start(credentials)
    assert "sesam" not in str(caught.value)


@pytest.mark.parametrize("name", MECHANISM_NAMES)
def test_a_built_in_mechanism_refuses_a_challenge(name: str) -> None:
    with pytest.raises(AuthenticationFailed, match=name) as caught:
        BUILT_IN[name].respond(b"who are you?")
    assert caught.value.by == "client"


def test_every_name_that_parameters_accept_is_built_in() -> None:
    assert tuple(BUILT_IN) == MECHANISM_NAMES
    for name, mechanism in BUILT_IN.items():
        assert isinstance(mechanism, Mechanism)
        assert mechanism.name == name


def test_the_client_order_decides_and_not_the_broker_order() -> None:
    assert choose(["EXTERNAL", "PLAIN"], "AMQPLAIN PLAIN EXTERNAL").name == "EXTERNAL"
    assert choose(["EXTERNAL", "PLAIN"], "AMQPLAIN PLAIN").name == "PLAIN"


def test_a_mechanism_of_ones_own_is_chosen_by_its_name() -> None:
    rounds = Rounds()
    assert choose([rounds, "PLAIN"], "PLAIN X-ROUNDS") is rounds
    assert choose([rounds, "PLAIN"], "PLAIN").name == "PLAIN"


@pytest.mark.parametrize("offered", ["AMQPLAIN", "XPLAIN", "plain"])
def test_what_is_not_offered_is_not_used(offered: str) -> None:
    with pytest.raises(
        AuthenticationFailed, match=f"wanted PLAIN, X-ROUNDS; the broker offers {offered}"
    ) as caught:
        choose(["PLAIN", Rounds()], offered)
    assert caught.value.by == "client"
    assert caught.value.code is None


def test_a_broker_that_offers_nothing_is_named_as_such() -> None:
    with pytest.raises(AuthenticationFailed, match="offers none"):
        choose(["PLAIN"], " ")
