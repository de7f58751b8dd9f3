"""The rows of a migration document, and how one is run.

It holds no tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[2] / "docs"


class Row(NamedTuple):
    """One row of a table: what the other library says, and the code that does the same here."""

    theirs: str
    codes: list[str]

    def __str__(self) -> str:
        return self.theirs


def rows(document: str, library: str) -> list[Row]:
    """All rows of a document's tables."""
    return list(_read((DOCS / document).read_text(encoding="utf-8"), library))


def _read(text: str, library: str) -> Iterator[Row]:
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(f"| {library} |"):
            theirs, ours, _ = line.strip("|").split(" | ", 2)
            yield Row(theirs.strip(), re.findall("`(.+?)`", ours))


async def run_code(code: str, names: dict[str, Any]) -> None:
    """Run one piece of code, which may await."""
    exec(f"async def row():\n    {code}", names)
    await names["row"]()
