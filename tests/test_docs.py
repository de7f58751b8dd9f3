"""The documents agree with the code they are made from."""

from __future__ import annotations

import make_docs


def test_pages_made_from_the_code_are_current() -> None:
    stale = [page.name for page in make_docs.stale_pages()]
    assert stale == [], "run make docs"
