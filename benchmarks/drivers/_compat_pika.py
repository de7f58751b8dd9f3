"""pika's own drivers on evamqp's facade: the same programs, whose ``import pika`` finds it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import evamqp.compat

PEERS = Path(__file__).resolve().parent / "peers"


def facade() -> Any:
    """The facade, which answers ``import pika`` from here on."""
    evamqp.compat.substitute("pika")
    import pika

    return pika


def put_on(kind: Any, loop: Any) -> None:
    """Have programs that ask for pika's select loop run on another."""

    def connect(*arguments: Any, custom_ioloop: Any = None, **named: Any) -> Any:
        return kind(*arguments, custom_ioloop=custom_ioloop or loop, **named)

    facade().SelectConnection = connect


def run(peer: str) -> None:
    """Run one of the peers' drivers as the program that was started."""
    runpy.run_path(str(PEERS / f"{peer}.py"), run_name="__main__")
