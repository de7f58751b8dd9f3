"""The tables of a run as one SVG: a bar for each client, a group of bars for each scenario."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, LABEL, BAR, GAP = 760, 190, 15, 26
# Pixels of the longest bar; its figure stands behind it.
LONGEST = WIDTH - LABEL - 90
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}"
    ".compiled{fill:#0b7a4b}.pure{fill:#4aa3df}.peer{fill:#b5b5b5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.peer{fill:#777}}"
)


def kind(driver: str) -> str:
    """What colour a client's bar has."""
    if driver.endswith("+compiled"):
        return "compiled"
    return "pure" if driver.startswith(("evamqp", "compat.", "kombu-evamqp")) else "peer"


def draw(tables: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG of the median CPU time per message, in microseconds, by scenario and client."""
    parts = []
    at = 0
    for title, costs in tables.items():
        if not costs:
            continue
        at += GAP
        parts.append(f'<text class="title" x="0" y="{at - 8}">{escape(title)}</text>')
        most = max(costs.values())
        for driver, cost in costs.items():
            length = max(1, round(LONGEST * cost / most))
            middle = at + BAR - 4
            parts.append(
                f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(driver)}</text>'
            )
            parts.append(
                f'<rect class="{kind(driver)}" x="{LABEL}" y="{at}" '
                f'width="{length}" height="{BAR - 3}"/>'
            )
            parts.append(f'<text x="{LABEL + length + 6}" y="{middle}">{cost:.2f} \u00b5s</text>')
            at += BAR
    size = f'width="{WIDTH}" height="{at + 10}" viewBox="0 0 {WIDTH} {at + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return "\n".join([head, *parts, "</svg>", ""])
