"""Play a hostile broker to several clients and print, as a table, what each makes of it.

Each client runs in a process of its own: connects, consumes from a queue, and tells how it ended,
which bodies it handed over, and its memory.  Clients that are not installed are left out.

    python -m tests.hostile.compare                    # all cases, all clients
    python -m tests.hostile.compare --case "4 GiB" --client pika
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from evamqp.codec.frames import content_header_frame, frame, method_frame
from tests.hostile.attacker import HOST, Attacker, Talk
from tests.support.frames import deliver, start, tune

#: Seconds a client is given; more than any of them says that it takes.
LIMIT = 25.0
ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
CLIENTS = ("evamqp", "pika", "aio-pika")


class Peer:
    """Attacks after an honest start; the consumer tag is the client's own choice."""

    def __init__(self, attack: Callable[[Talk, str], object]) -> None:
        self._attack = attack

    def __call__(self, talk: Talk) -> None:
        talk.shake_hands()
        tag = talk.serve_any_consumer()
        self._attack(talk, tag)
        talk.drain()


def say_nothing(talk: Talk) -> None:
    talk.read()
    talk.wait()


def small_frames(talk: Talk) -> None:
    talk.send(start())
    talk.expect("connection.start-ok")
    talk.send(tune(frame_max=100))
    talk.drain()


def nested(depth: int) -> bytes:
    entries = b""
    for _ in range(depth):
        entries = b"\x01aF" + len(entries).to_bytes(4, "big") + entries
    return b"\x20\x00" + len(entries).to_bytes(4, "big") + entries


def good(tag: str) -> bytes:
    return deliver(1, tag, 9, b"good")


def announce(tag: str, size: int) -> bytes:
    method = method_frame(1, "basic.deliver", tag, 1, False, "", "q")
    return method + content_header_frame(1, b"\0\0", size)


def wrong_end(talk: Talk, tag: str) -> None:
    talk.send(deliver(1, tag, 1, b"bad")[:-1] + b"\x00", good(tag))


def four_gigabytes(talk: Talk, tag: str) -> None:
    talk.send(b"\x01\x00\x01\xff\xff\xff\xff")
    for _ in range(128):
        talk.send(bytes(MIB))


def long_body(talk: Talk, tag: str) -> None:
    talk.send(announce(tag, 3), frame(3, 1, b"too long"), good(tag))


def poison(talk: Talk, tag: str) -> None:
    talk.send(deliver(1, tag, 1, b"poison", properties=nested(5000)), good(tag))


def stranger(talk: Talk, tag: str) -> None:
    talk.send(deliver(1, "nobody", 1, b"bad"), good(tag))


def unknown_method(talk: Talk, tag: str) -> None:
    talk.send(frame(1, 1, b"\x00\x3c\x03\xe7"), good(tag))


def http(talk: Talk, tag: str) -> None:
    talk.send(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")


def endless_body(talk: Talk, tag: str) -> None:
    talk.send(announce(tag, 2**40))
    for _ in range(5000):
        talk.send(frame(3, 1, bytes(64 * 1024)))


CASES: dict[str, Callable[[Talk], object]] = {
    "silent after TCP": say_nothing,
    "tune with frame_max 100": small_frames,
    "wrong frame end": Peer(wrong_end),
    "claims 4 GiB": Peer(four_gigabytes),
    "HTTP in mid-stream": Peer(http),
    "unknown method": Peer(unknown_method),
    "8 bytes of body for 3": Peer(long_body),
    "headers 5,000 deep": Peer(poison),
    "delivery for nobody": Peer(stranger),
    "endless body": Peer(endless_body),
}


# --- clients.  Each calls ``note`` with a body and returns how the connection ended.


async def evamqp_client(port: int, note: Callable[[bytes], object]) -> str:
    import evamqp

    def consume(connection: evamqp.Connection) -> None:
        channel = connection.channel()
        channel.basic_consume("q", lambda message: note(message.body), auto_ack=True)

    connection = evamqp.connect(f"amqp://{HOST}:{port}", on_open=consume)
    reason = await connection.wait_closed()
    return f"{type(reason).__name__}: {reason}"


async def aio_pika_client(port: int, note: Callable[[bytes], object]) -> str:
    import aio_pika  # type: ignore[import-not-found, unused-ignore]

    connection = await aio_pika.connect(f"amqp://guest:guest@{HOST}:{port}/")
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_close(sender: object, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(f"{type(error).__name__}: {error}")

    connection.close_callbacks.add(on_close)
    channel = await connection.channel(publisher_confirms=False)
    queue = await channel.get_queue("q", ensure=False)
    channel.close_callbacks.add(on_close)
    await queue.consume(lambda message: note(message.body), no_ack=True)
    return await ended


def pika_client(port: int, note: Callable[[bytes], object]) -> str:
    import pika  # type: ignore[import-not-found, import-untyped, unused-ignore]

    ended: list[str] = []

    def stop(connection: Any, error: object) -> None:
        ended.append(f"{type(error).__name__}: {error}")
        connection.ioloop.stop()

    def consume(channel: Any) -> None:
        channel.basic_consume("q", lambda *call: note(call[3]), auto_ack=True)

    connection = pika.SelectConnection(
        pika.ConnectionParameters(HOST, port),
        on_open_callback=lambda opened: opened.channel(on_open_callback=consume),
        on_open_error_callback=stop,
        on_close_callback=stop,
    )
    connection.ioloop.call_later(LIMIT, connection.ioloop.stop)
    connection.ioloop.start()
    return ended[0] if ended else "no error"


async def limited(client: Any, port: int, note: Callable[[bytes], object]) -> str:
    try:
        return str(await asyncio.wait_for(client(port, note), LIMIT))
    except asyncio.TimeoutError:
        return "no error"


def run_client(name: str, port: int) -> None:
    """In a process of its own: print what became of it."""
    bodies: list[str] = []

    def note(body: bytes) -> None:
        bodies.append(body[:10].decode("latin-1"))

    importlib.import_module(name.replace("-", "_"))  # which takes memory of its own
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if name == "pika":
            end = pika_client(port, note)
        else:
            client = evamqp_client if name == "evamqp" else aio_pika_client
            end = asyncio.run(limited(client, port, note))
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    json.dump({"end": end[:160], "bodies": bodies, "grown": grown}, sys.stdout)


def play(case: str, client: str) -> dict[str, Any]:
    attacker = Attacker(CASES[case], patience=LIMIT + 5)
    try:
        command = [
            *(sys.executable, "-m", "tests.hostile.compare"),
            *("--run", client, "--port", str(attacker.port)),
        ]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT + 20, check=False
        )
        lines = done.stdout.splitlines()
        return dict(json.loads(lines[-1])) if lines else {"end": done.stderr[-160:]}
    except subprocess.TimeoutExpired:
        return {"end": "does not end"}
    finally:
        with suppress(OSError):
            attacker.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--client", choices=CLIENTS, action="append")
    parser.add_argument("--run", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_client(options.run, options.port)
        return
    for case in options.case or CASES:
        for client in options.client or CLIENTS:
            print(f"{case} | {client} | {json.dumps(play(case, client))}", flush=True)


if __name__ == "__main__":
    main()
