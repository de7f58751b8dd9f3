"""Credentials that expire: asked for at each login, renewed on the live connection."""

from __future__ import annotations

from typing import Any

import pytest

import evamqp
from evamqp import Credentials
from evamqp.errors import AuthenticationFailed, BadArgument, BadType
from tests.recovery.stage import LONG, URL, Stage

LIFE = 300.0


class Source:
    """Gives numbered tokens; fails as often as a test wants.

    Attributes:
        asked: When, by the stage's clock.
        delay: Seconds that an async answer takes; None answers at once.
    """

    def __init__(self, stage: Stage, delay: float | None = None) -> None:
        self._stage = stage
        self.asked: list[float] = []
        self.delay = delay
        self.failures = 0
        self.expires_in: float | None = LIFE

    def __call__(self) -> Any:
        self.asked.append(self._stage.adapter.time())
        answer = self._answer if self.delay is None else self._answer_later
        return answer(len(self.asked))

    def _answer(self, number: int) -> Credentials:
        if self.failures:
            self.failures -= 1
            raise ValueError("sesam")
        return Credentials("", f"token {number}", expires_in=self.expires_in)

    async def _answer_later(self, number: int) -> Credentials:
        assert self.delay is not None
        done = self._stage.adapter.create_future()
        self._stage.adapter.call_later(self.delay, lambda: done.resolve(None))
        await done.future
        return self._answer(number)

    @property
    def waits(self) -> list[float]:
        return [round(at - self.asked[0]) for at in self.asked]


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker."""
    return Stage()


@pytest.fixture(params=[None, 2.0], ids=["sync", "async"])
def source(stage: Stage, request: pytest.FixtureRequest) -> Source:
    """A function that gives tokens, at once or later."""
    return Source(stage, request.param)


def connecting(stage: Stage, source: Source) -> evamqp.Reconnector:
    parameters = evamqp.Parameters.from_url(URL, credentials=source)
    return stage.reconnector(parameters)


def logins(stage: Stage) -> list[bytes]:
    """The tokens of all logins, in order."""
    return [
        sent.arguments[2].split(b"\0")[-1]
        for wire in stage.server.wires
        for sent in wire.sent
        if sent.name == "connection.start-ok"
    ]


def renewals(stage: Stage) -> list[bytes]:
    """The tokens that the live connection brought, in order."""
    return [
        sent.arguments[0] for sent in stage.wire.sent if sent.name == "connection.update-secret"
    ]


def test_a_token_is_renewed_after_two_thirds_of_its_life(stage: Stage, source: Source) -> None:
    connecting(stage, source)
    stage.advance(1000)
    assert source.waits == [0, 200, 400, 600, 800] + [1000] * (len(source.asked) - 5)
    assert logins(stage) == [b"token 1"]
    assert renewals(stage)[:4] == [b"token 2", b"token 3", b"token 4", b"token 5"]


def test_each_attempt_asks_anew(stage: Stage, source: Source) -> None:
    reconnector = connecting(stage, source)
    stage.advance(LONG)
    stage.wire.cut()
    stage.advance(LONG)
    assert reconnector.is_ready
    assert logins(stage) == [b"token 1", b"token 2"]
    stage.advance(LIFE / 2)
    assert renewals(stage) == [b"token 3"]  # counted from the second login


def test_without_an_expiry_nothing_is_renewed(stage: Stage, source: Source) -> None:
    source.expires_in = None
    connecting(stage, source)
    stage.advance(100_000)
    assert len(source.asked) == 1


def test_credentials_without_a_source_are_not_renewed(stage: Stage) -> None:
    credentials = Credentials("guest", "guest", expires_in=10)
    stage.reconnector(evamqp.Parameters.from_url(URL, credentials=credentials))
    stage.advance(1000)
    assert renewals(stage) == []


def test_a_renewal_that_fails_is_reported_and_tried_again(
    stage: Stage, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    reconnector = connecting(stage, source)
    stage.advance(199)
    source.failures = 2
    stage.advance(60)
    assert source.waits == [0, 200, 225, 250] if source.delay is None else len(source.asked) == 4
    assert renewals(stage) == [b"token 4"]
    assert reconnector.is_ready
    assert caplog.text.count("ValueError") >= 2
    assert "sesam" not in "".join(record.getMessage() for record in caplog.records)


def test_a_short_life_does_not_flood_source_and_broker(stage: Stage, source: Source) -> None:
    source.expires_in = 0
    connecting(stage, source)
    stage.advance(60)
    assert len(source.asked) <= 61


def test_the_end_of_a_connection_ends_its_renewals(stage: Stage, source: Source) -> None:
    reconnector = connecting(stage, source)
    stage.advance(199.5)
    closing = reconnector.close()
    stage.advance(1000)
    assert closing.is_done
    assert len(source.asked) == 1


def test_a_connection_that_ends_while_a_token_is_fetched_does_not_fail(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(stage, 5.0)
    reconnector = connecting(stage, source)
    stage.advance(1)
    reconnector.close()
    stage.advance(LONG)
    assert logins(stage) == []
    assert not caplog.records


def test_a_token_that_does_not_come_is_bounded_by_the_handshake(stage: Stage) -> None:
    source = Source(stage, 1e5)
    parameters = evamqp.Parameters.from_url(URL, credentials=source, handshake_timeout=7)
    connection = evamqp.connect(parameters, adapter=stage.adapter)
    stage.advance(8)
    assert isinstance(connection.reason, evamqp.HandshakeTimeout)


@pytest.mark.parametrize("answer", [ValueError("sesam"), "sesam"])
def test_an_async_source_that_fails_shows_no_secret(stage: Stage, answer: object) -> None:
    async def credentials() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    parameters = evamqp.Parameters.from_url(URL, credentials=credentials)
    connection = evamqp.connect(parameters, adapter=stage.adapter)
    stage.turn()
    assert isinstance(connection.reason, AuthenticationFailed)
    assert "sesam" not in str(connection.reason)


@pytest.mark.parametrize(
    ("expires_in", "error"),
    [("soon", BadType), (True, BadType), (float("nan"), BadArgument), (1e9, BadArgument)],
)
def test_impossible_expiries_are_refused(expires_in: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Credentials("", "", expires_in=expires_in)


def test_the_expiry_says_nothing_about_who_one_is() -> None:
    assert Credentials("a", "b", expires_in=3) == Credentials("a", "b")
    assert "b" not in repr(Credentials("a", "secretb", expires_in=3)).replace("Credentials", "")
