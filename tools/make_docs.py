"""Write the pages of docs/ that are made from the code: the parameters and the state machines.

Usage: make_docs.py [--check]   With --check nothing is written; exit status 1 names what differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from evamqp.core.state import CHANNEL, CONNECTION
from evamqp.parameters import SETTINGS, Parameters
from evamqp.recovery.state import TABLE

DOCS = Path(__file__).resolve().parent.parent / "docs"

PARAMETERS = """\
# Parameters

Made from `evamqp/parameters.py` by `make docs`: every field of `evamqp.Parameters`, its default,
and the key that sets it in the query of a URL such as `amqp://user:password@host/v?heartbeat=30`.
User, password, host, port and virtual host have places of their own in a URL; `amqps://` sets
`tls`.

| field | default | URL key | meaning |
|---|---|---|---|
"""


def parameters_page() -> str:
    rows = []
    for entry in fields(Parameters):
        setting = SETTINGS[entry.name]
        default = "{}" if entry.default is MISSING else repr(entry.default)
        key = f"`{setting.url_key}`" if setting.url_key else ""
        meaning = setting.doc.replace("``", "`").replace("  ", " ")
        rows.append(f"| `{entry.name}` | `{default}` | {key} | {meaning} |")
    return PARAMETERS + "\n".join(rows) + "\n"


STATES = """\
# The state machines

Made from the tables in `evamqp/core/state.py` and `evamqp/recovery/state.py` by `make docs`.
An arrow is a method that the broker may send in that state, or an event; *italic* ones are our own
doing.  What has no arrow is an error of the peer (503), or too late to mean anything.  Methods that
leave the state as it is stand in its box.
"""


class Machine(NamedTuple):
    """A table and what it does not say: the steps that are our own."""

    title: str
    words: str
    table: Mapping[Any, Mapping[Any, Any]]
    ours: Sequence[str] = ()


MACHINES = (
    Machine(
        "A connection",
        "Made by `evamqp.connect`; it never goes back.",
        CONNECTION,
        ("CONNECTING --> STARTING: *the transport is up*", "OPEN --> CLOSING: *close()*"),
    ),
    Machine(
        "A channel",
        "Made by `connection.channel`; a number that was used before begins in REOPENING.",
        CHANNEL,
        ("[*] --> REOPENING", "OPEN --> CLOSING: *close()*"),
    ),
    Machine("A reconnector", "One connection after another.", TABLE),
)


def states_page() -> str:
    parts = [STATES]
    for machine in MACHINES:
        diagram = "\n".join(diagram_lines(machine))
        parts.append(f"\n## {machine.title}\n\n{machine.words}\n\n```mermaid\n{diagram}\n```\n")
    return "".join(parts)


def diagram_lines(machine: Machine) -> Iterator[str]:
    """A machine as mermaid draws it."""
    yield "stateDiagram-v2"
    yield f"    [*] --> {next(iter(machine.table)).value}"
    for line in machine.ours:
        yield f"    {line}"
    for state, steps in machine.table.items():
        arrows: dict[Any, list[str]] = {}
        for name, step in steps.items():
            label = name.value if isinstance(name, Enum) else name
            arrows.setdefault(step if isinstance(step, Enum) else step[1], []).append(label)
        for target, names in arrows.items():
            if target is state:
                yield f"    {state.value}: {state.value}<br/>{'<br/>'.join(shortened(names))}"
            else:
                yield f"    {state.value} --> {target.value}: {', '.join(names)}"


def shortened(names: Sequence[str]) -> list[str]:
    """A few names as they are; of many the classes, with how many methods of each."""
    if len(names) <= 6:
        return list(names)
    classes: dict[str, int] = {}
    for name in names:
        kind = name.partition(".")[0]
        classes[kind] = classes.get(kind, 0) + 1
    return [f"{count} of {kind}" for kind, count in classes.items()]


PAGES = {"states.md": states_page, "parameters.md": parameters_page}


def stale_pages() -> list[Path]:
    """The pages that are not what the code says now."""
    return [
        DOCS / name
        for name, make in PAGES.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    stale = stale_pages()
    for page in stale:
        if options.check:
            print(f"{page.name} is stale: run make docs", file=sys.stderr)
        else:
            page.write_text(PAGES[page.name](), encoding="utf-8")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
