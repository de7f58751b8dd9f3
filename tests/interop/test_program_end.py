"""A program that ends amid its handlers loses no message, however it ends, on every loop."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.ending_program import MESSAGES, PROGRAMS
from tests.interop.rig import OnEveryLoopPlain, Rig
from tests.support.loops import TIMEOUT, Loop, opened

ROOT = Path(__file__).parent.parent.parent
WAYS = ("interrupt", "end", "failure", "exit", "exit in a handler")
ENDS = [(program, way) for program in PROGRAMS for way in WAYS]
ENDS += [("asyncio", "cancel all"), ("asyncio", "threads")]


def run_program(program: str, way: str, url: str) -> None:
    """Run it to its end."""
    command = [sys.executable, "-m", "tests.interop.ending_program", program, way, url]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            if way in ("interrupt", "threads"):
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()


class TestProgramEnd(OnEveryLoopPlain):
    @pytest.fixture(scope="class")
    @classmethod
    def loop(cls) -> Iterator[Loop]:
        """Of the test itself; the programs have their own."""
        with opened("select") as loop:
            yield loop

    @pytest.mark.parametrize(("program", "way"), ENDS)
    def test_what_its_handlers_had_is_in_the_queue_again(
        self, rig: Rig, program: str, way: str
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        channel.confirm_select()
        for number in range(MESSAGES):
            channel.basic_publish("", "q", b"%d" % number)
        rig.wait(channel.wait_for_confirms())
        run_program(program, way, rig.vhost.url)
        rig.until_count(channel, "q", MESSAGES)
