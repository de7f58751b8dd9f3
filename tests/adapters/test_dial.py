"""The race of RFC 8305 and the deadline over it, on a clock that the test moves.

No socket and no resolver here: the network is a script, and the names are IP literals.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from evamqp.abc import Endpoint, Handle, Stream, Transport
from evamqp.adapters import _dial
from evamqp.adapters._dial import Dial, is_literal
from evamqp.adapters._happy_eyeballs import STAGGER, Address, HappyEyeballs, interleave, place
from evamqp.adapters.memory import MemoryAdapter
from evamqp.errors import ConnectFailed

V4, V6 = socket.AF_INET, socket.AF_INET6
ADDRESS_TIMEOUT = 5.0


def ipv4(number: int) -> Address:
    return Address(V4, (f"192.0.2.{number}", 5672))


def ipv6(number: int) -> Address:
    return Address(V6, (f"2001:db8::{number}", 5672, 0, 0))


class Attempt:
    """One connect that the scripted network was asked for."""

    def __init__(
        self,
        connected: Callable[[str], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.connected = connected
        self.failed = failed
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Network:
    """A Connector whose connections are strings, and which does only what the test says."""

    def __init__(self) -> None:
        self.attempts: dict[Address, Attempt] = {}
        self.unreachable: set[Address] = set()
        self.discarded: list[str] = []
        self.adopted: list[tuple[str, Stream]] = []

    def connect(
        self,
        address: Address,
        connected: Callable[[str], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        if address in self.unreachable:
            raise OSError(101, "Network is unreachable")
        attempt = Attempt(connected, failed)
        self.attempts[address] = attempt
        return attempt

    def discard(self, connection: str) -> None:
        self.discarded.append(connection)

    def adopt(self, connection: str, stream: Stream) -> None:
        self.adopted.append((connection, stream))

    def tried(self) -> list[Address]:
        return list(self.attempts)

    def open(self) -> list[Address]:
        return [address for address, attempt in self.attempts.items() if not attempt.is_cancelled]


class Track:
    """A race, and how it came out."""

    def __init__(self, *addresses: Address) -> None:
        self.clock = MemoryAdapter()
        self.network = Network()
        self.outcome: list[object] = []
        self.race: HappyEyeballs[str] = HappyEyeballs(
            addresses,
            self.network,
            self.clock.call_later,
            ADDRESS_TIMEOUT,
            lambda connection, address: self.outcome.append((connection, address)),
            lambda: self.outcome.append("lost"),
        )

    def failures(self) -> list[str]:
        return [where for where, _ in self.race.failures]


def test_families_alternate_beginning_with_the_resolvers_first() -> None:
    given = [ipv6(1), ipv6(2), ipv6(3), ipv4(1), ipv4(2)]
    assert interleave(given) == [ipv6(1), ipv4(1), ipv6(2), ipv4(2), ipv6(3)]


def test_an_address_that_comes_twice_is_tried_once() -> None:
    assert interleave([ipv4(1), ipv4(1), ipv4(2)]) == [ipv4(1), ipv4(2)]


def test_next_address_is_tried_after_the_stagger_and_not_before() -> None:
    track = Track(ipv6(1), ipv4(1), ipv4(2))
    track.race.start()
    track.clock.advance(STAGGER * 0.99)
    assert track.network.tried() == [ipv6(1)]
    track.clock.advance(STAGGER * 0.02)
    assert track.network.tried() == [ipv6(1), ipv4(1)]
    track.clock.advance(STAGGER)
    assert track.network.tried() == [ipv6(1), ipv4(1), ipv4(2)]


def test_failure_starts_the_next_address_at_once_and_restarts_the_stagger() -> None:
    track = Track(ipv6(1), ipv4(1), ipv4(2))
    track.race.start()
    track.clock.advance(STAGGER * 0.9)
    track.network.attempts[ipv6(1)].failed(OSError("refused"))
    assert track.network.tried() == [ipv6(1), ipv4(1)]
    track.clock.advance(STAGGER * 0.9)
    assert track.network.tried() == [ipv6(1), ipv4(1)]


def test_first_connection_wins_and_the_others_are_closed() -> None:
    track = Track(ipv6(1), ipv4(1), ipv4(2))
    track.race.start()
    track.clock.advance(STAGGER)
    track.network.attempts[ipv4(1)].connected("second")
    assert track.outcome == [("second", ipv4(1))]
    assert track.network.open() == [ipv4(1)]
    track.clock.advance(60)
    assert track.network.tried() == [ipv6(1), ipv4(1)]
    assert track.outcome == [("second", ipv4(1))]


def test_connection_that_comes_after_the_winner_is_discarded() -> None:
    track = Track(ipv6(1), ipv4(1))
    track.race.start()
    track.clock.advance(STAGGER)
    track.network.attempts[ipv6(1)].connected("first")
    track.network.attempts[ipv4(1)].connected("late")
    assert track.outcome == [("first", ipv6(1))]
    assert track.network.discarded == ["late"]


def test_failure_that_comes_after_the_winner_changes_nothing() -> None:
    track = Track(ipv6(1), ipv4(1))
    track.race.start()
    track.clock.advance(STAGGER)
    track.network.attempts[ipv6(1)].connected("first")
    track.network.attempts[ipv4(1)].failed(OSError("late"))
    assert track.outcome == [("first", ipv6(1))]
    assert track.failures() == []


def test_each_address_has_its_own_timeout() -> None:
    track = Track(ipv6(1), ipv4(1))
    track.race.start()
    track.clock.advance(ADDRESS_TIMEOUT)
    assert track.failures() == [str(ipv6(1))]
    assert track.network.open() == [ipv4(1)]
    track.clock.advance(STAGGER)
    assert track.failures() == [str(ipv6(1)), str(ipv4(1))]
    assert track.outcome == ["lost"]
    assert all(isinstance(error, TimeoutError) for _, error in track.race.failures)


def test_lone_address_meets_its_timeout() -> None:
    track = Track(ipv4(1))
    track.race.start()
    track.clock.advance(ADDRESS_TIMEOUT)
    assert track.outcome == ["lost"]


def test_race_is_lost_when_the_last_address_failed_and_lists_all() -> None:
    track = Track(ipv6(1), ipv4(1))
    track.race.start()
    track.network.attempts[ipv6(1)].failed(OSError("one"))
    assert track.outcome == []
    track.network.attempts[ipv4(1)].failed(OSError("two"))
    assert track.outcome == ["lost"]
    assert track.failures() == ["[2001:db8::1]:5672", "192.0.2.1:5672"]


def test_addresses_that_fail_at_once_are_passed_over() -> None:
    track = Track(ipv6(1), ipv6(2), ipv4(1))
    track.network.unreachable = {ipv6(1), ipv6(2)}
    track.race.start()
    assert track.network.tried() == [ipv4(1)]
    assert track.failures() == [str(ipv6(1)), str(ipv6(2))]


def test_race_is_lost_when_every_address_fails_at_once() -> None:
    addresses = [ipv6(number) for number in range(2000)]
    track = Track(*addresses)
    track.network.unreachable = set(addresses)
    track.race.start()
    assert track.outcome == ["lost"]
    assert len(track.failures()) == 2000


def test_race_called_off_closes_its_attempts_and_makes_no_callback() -> None:
    track = Track(ipv6(1), ipv4(1), ipv4(2))
    track.race.start()
    track.clock.advance(STAGGER)
    track.race.cancel(TimeoutError("too late"))
    assert track.network.open() == []
    track.clock.advance(60)
    assert track.outcome == []
    assert sorted(track.failures()) == sorted([str(ipv6(1)), str(ipv4(1))])


class Listener:
    """A Stream that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: BaseException | None = None

    def connection_made(self, transport: Transport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.error = exc

    def failed_attempts(self) -> list[tuple[str, str]]:
        assert isinstance(self.error, ConnectFailed)
        return [(where, type(error).__name__) for where, error in self.error.attempts]


class Call:
    """One Dial on a scripted network."""

    def __init__(self, host: str, timeout: float = 10.0) -> None:
        self.clock = MemoryAdapter()
        self.network = Network()
        self.stream = Listener()
        endpoint = Endpoint(host, 5672, timeout=timeout)
        self.dial: Dial[str] = Dial(self.clock, self.network, endpoint, self.stream)

    def attempt(self, address: Address) -> Attempt:
        self.clock.run_until_idle()
        return self.network.attempts[address]


def scripted_names(monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> list[str]:
    """Replace the system's resolver; returns the names that it is asked for."""
    asked: list[str] = []

    def answer(host: str, port: int) -> list[Address]:
        asked.append(host)
        return list(addresses)

    monkeypatch.setattr(_dial, "resolve", answer)
    return asked


def wait_for_resolver(call: Call) -> None:
    """Run the loop until the resolver's thread has answered."""
    import threading

    call.clock.run_until_idle()
    for thread in threading.enumerate():
        if thread.name.startswith("evamqp resolving"):
            assert thread.daemon
            thread.join()
    call.clock.run_until_idle()


def test_dial_gives_the_stream_the_winner() -> None:
    call = Call("192.0.2.1")
    call.attempt(ipv4(1)).connected("tcp")
    assert call.network.adopted == [("tcp", call.stream)]
    call.clock.advance(3600)
    call.dial.cancel()
    call.clock.run_until_idle()
    assert call.stream.calls == []


def test_dial_begins_on_the_next_turn() -> None:
    call = Call("192.0.2.1")
    assert call.network.tried() == []
    assert call.stream.calls == []


def test_dial_that_failed_names_target_and_cause() -> None:
    call = Call("192.0.2.1")
    call.attempt(ipv4(1)).failed(ConnectionRefusedError(111, "Connection refused"))
    assert call.stream.calls == ["lost"]
    assert str(call.stream.error) == (
        "cannot connect to 192.0.2.1:5672: Connection refused (by network)"
    )
    assert call.stream.error is not None
    assert isinstance(call.stream.error.__cause__, ConnectionRefusedError)


def test_error_without_text_is_explained_by_its_class() -> None:
    call = Call("192.0.2.1")
    call.attempt(ipv4(1)).failed(ConnectionResetError())
    assert "ConnectionResetError" in str(call.stream.error)


def test_every_address_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_names(monkeypatch, ipv6(1), ipv4(1))
    call = Call("broker.example")
    wait_for_resolver(call)
    call.attempt(ipv6(1)).failed(ConnectionRefusedError(111, "Connection refused"))
    call.attempt(ipv4(1)).failed(OSError(113, "No route to host"))
    assert str(call.stream.error) == (
        "cannot connect to broker.example:5672: [2001:db8::1]:5672: Connection refused; "
        "192.0.2.1:5672: No route to host (by network)"
    )
    assert call.stream.failed_attempts() == [
        ("[2001:db8::1]:5672", "ConnectionRefusedError"),
        ("192.0.2.1:5672", "OSError"),
    ]


def test_literal_asks_no_resolver_and_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(dial: Dial[str]) -> None:
        raise AssertionError("a thread for an IP literal")

    monkeypatch.setattr(Dial, "_resolve_in_thread", no_thread)
    for host, address in (("192.0.2.1", ipv4(1)), ("2001:db8::1", ipv6(1))):
        call = Call(host)
        call.clock.run_until_idle()
        assert call.network.tried() == [address]


def test_name_is_resolved_once_per_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted_names(monkeypatch, ipv4(1))
    for _ in range(2):
        wait_for_resolver(Call("broker.example"))
    assert asked == ["broker.example", "broker.example"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name unknown"), UnicodeError("no name")])
def test_resolver_failure_is_the_targets_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def answer(host: str, port: int) -> list[Address]:
        raise error

    monkeypatch.setattr(_dial, "resolve", answer)
    call = Call("broker.example")
    wait_for_resolver(call)
    assert call.stream.calls == ["lost"]
    assert call.stream.failed_attempts() == [("broker.example:5672", type(error).__name__)]


def test_name_without_addresses_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_names(monkeypatch)
    call = Call("broker.example")
    wait_for_resolver(call)
    assert call.stream.failed_attempts() == [("broker.example:5672", "OSError")]


def test_resolver_that_answers_after_the_deadline_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    may_answer = threading.Event()

    def answer(host: str, port: int) -> list[Address]:
        may_answer.wait(10)
        return [ipv4(1)]

    monkeypatch.setattr(_dial, "resolve", answer)
    call = Call("broker.example")
    call.clock.run_until_idle()
    call.clock.advance(10)
    assert call.stream.calls == ["lost"]
    assert call.stream.failed_attempts() == [("broker.example:5672", "TimeoutError")]
    may_answer.set()
    wait_for_resolver(call)
    assert call.stream.calls == ["lost"]
    assert call.network.tried() == []


def test_deadline_covers_the_race_and_names_what_was_under_way() -> None:
    call = Call("192.0.2.1", timeout=2.0)
    attempt = call.attempt(ipv4(1))
    call.clock.advance(2)
    assert call.stream.failed_attempts() == [("192.0.2.1:5672", "TimeoutError")]
    assert attempt.is_cancelled
    attempt.connected("late")
    assert call.network.discarded == ["late"]
    assert call.stream.calls == ["lost"]


def test_cancel_before_the_first_turn_is_lost_once() -> None:
    call = Call("192.0.2.1")
    call.dial.cancel()
    call.dial.cancel()
    assert call.stream.calls == []
    call.clock.advance(3600)
    assert call.stream.calls == ["lost"]
    assert call.network.tried() == []


def test_cancel_in_the_race_closes_the_attempts_and_is_lost_once() -> None:
    call = Call("192.0.2.1")
    attempt = call.attempt(ipv4(1))
    call.dial.cancel()
    assert call.stream.calls == []
    assert attempt.is_cancelled
    call.clock.advance(3600)
    assert call.stream.calls == ["lost"]
    assert isinstance(call.stream.error, ConnectionAbortedError)


def test_cancel_while_the_resolver_works_is_lost_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_names(monkeypatch, ipv4(1))
    call = Call("broker.example")
    call.clock.call_soon(call.dial.cancel)
    wait_for_resolver(call)
    assert call.stream.calls == ["lost"]
    assert call.network.tried() == []


def test_cancel_after_the_failure_does_nothing() -> None:
    call = Call("192.0.2.1")
    call.attempt(ipv4(1)).failed(OSError("refused"))
    call.dial.cancel()
    call.clock.run_until_idle()
    assert call.stream.calls == ["lost"]


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%1", True), ("localhost", False), ("", False)],
)
def test_literals_are_distinguished_from_names(host: str, answer: bool) -> None:
    assert is_literal(host) is answer


def test_ipv6_literal_is_bracketed() -> None:
    assert place("::1", 5672) == "[::1]:5672"
    assert place("localhost", 5672) == "localhost:5672"
