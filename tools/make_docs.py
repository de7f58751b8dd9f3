"""Write the pages of docs/ that are made from the code: the parameters and the state machines.

Usage: make_docs.py [--check]   With --check nothing is written; exit status 1 names what differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from evamqp.parameters import SETTINGS, Parameters

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


PAGES = {"parameters.md": parameters_page}


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
