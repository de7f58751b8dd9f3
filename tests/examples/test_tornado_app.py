"""The Tornado application as a process, seen through HTTP, with the broker restarted under it."""

from __future__ import annotations

import signal
from http.client import HTTPConnection, HTTPResponse

import pytest

from rabbitmq_node import Vhost, choose_ports
from tests.examples.program import TIMEOUT, Program

pytest.importorskip("tornado")


class App(Program):
    """The application, and a browser or two."""

    last_words = "stopped"

    def __init__(self, url: str) -> None:
        super().__init__("examples/tornado_app.py", "--port", "0", AMQP_URL=url)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """One request: the status and the text of the answer."""
        browser = self._browser()
        try:
            browser.request(method, path, body)
            answer = browser.getresponse()
            return answer.status, answer.read().decode()
        finally:
            browser.close()

    def publish(self, body: bytes) -> tuple[int, str]:
        return self.request("POST", "/publish", body)

    def events(self) -> Events:
        browser = self._browser()
        browser.request("GET", "/events")
        return Events(browser)

    def _browser(self) -> HTTPConnection:
        port = int(self.until_said(r"http://127.0.0.1:(\d+)/")[1])
        return HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)


class Events:
    """A browser that reads /events."""

    def __init__(self, browser: HTTPConnection) -> None:
        self._browser = browser
        self.answer: HTTPResponse = browser.getresponse()

    def next(self) -> str:
        """The next event's text; "" once the stream has ended."""
        lines = []
        while (line := self.answer.readline().decode().rstrip("\n")) != "":
            assert line.startswith("data: ")
            lines.append(line.removeprefix("data: "))
        return "\n".join(lines)

    def close(self) -> None:
        self.answer.close()
        self._browser.close()


@pytest.mark.slow
def test_application_confirms_streams_and_lives_through_a_crash_of_the_broker(
    vhost: Vhost,
) -> None:
    with App(vhost.url) as app:
        app.until(lambda: app.publish(b"first")[0] == 200)
        status, page = app.request("GET", "/")
        assert status == 200
        assert "EventSource" in page
        events = app.events()
        assert events.answer.getheader("Content-Type") == "text/event-stream"
        assert app.publish(b"hello\nworld") == (200, "CONFIRMED\n")
        assert events.next() == "hello\nworld"

        vhost.node.kill()
        app.until(lambda: app.publish(b"lost")[0] == 503)
        vhost.node.start()
        app.until(lambda: app.publish(b"back again")[0] == 200)
        assert events.next() == "back again"

        gone = app.events()
        gone.close()
        assert app.publish(b"one browser less") == (200, "CONFIRMED\n")
        assert events.next() == "one browser less"
        app.stop(signal.SIGTERM)
        assert events.next() == ""
        events.close()


@pytest.mark.slow
def test_application_without_a_broker_says_so_and_stops_at_once() -> None:
    (port,) = choose_ports(1)
    with App(f"amqp://guest:guest@127.0.0.1:{port}/%2F") as app:
        app.until_said("the next attempt is in")
        assert app.publish(b"body") == (503, "EXPIRED\n")
        app.stop(signal.SIGINT)
