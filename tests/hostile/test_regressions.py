"""Inputs that once broke something, are known to be hard, or reach what others do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from evamqp.codec.frames import content_header_frame, method_frame
from tests.hostile import corpus
from tests.hostile.attacker import Talk
from tests.hostile.targets import TARGETS
from tests.hostile.test_sockets import attacked
from tests.support.frames import deliver
from tests.support.loops import Loop

KEPT = sorted(Path(__file__).with_name("regressions").glob("*.bin"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_input_breaks_nothing_any_more(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_breaks_nothing(name: str) -> None:
    inputs = corpus.read(name)
    assert len(inputs) > 50
    for data in inputs:
        TARGETS[name](data)


def as_peer(path: Path) -> bytes:
    """What a peer would send to bring this input to its reader."""
    name, data = path.name.partition("-")[0], path.read_bytes()
    if name == "session":
        return data[2:]
    if name == "frames":
        return data
    properties = data if name == "properties" else b"\x20\x00" + len(data).to_bytes(4, "big") + data
    values = ("tag", 1, False, "", "queue")
    announce = method_frame(1, "basic.deliver", *values)
    return announce + content_header_frame(1, properties, 0)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_input_breaks_no_adapter(loop: Loop, path: Path) -> None:
    def script(talk: Talk) -> None:
        talk.shake_hands()
        talk.serve_a_consumer()
        talk.send(as_peer(path))
        talk.send(deliver(1, "tag", 2, b"good"))
        talk.hang_up()
        talk.drain()

    with attacked(loop, script) as (_, witness):
        loop.until(lambda: witness.reason is not None)
