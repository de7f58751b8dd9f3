"""The fuzzers' corpus: few inputs that together reach all that was ever reached, one zip a target.

``make fuzz`` begins with them and the suite plays them; what they are played on is in
``targets.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

FOLDER = Path(__file__).with_name("corpus")


def read(name: str) -> list[bytes]:
    """The inputs kept for a target."""
    path = FOLDER / f"{name}.zip"
    if not path.exists():
        return []
    with ZipFile(path) as archive:
        return [archive.read(entry) for entry in archive.namelist()]


def write(name: str, inputs: Iterable[bytes]) -> int:
    """Keep these and no others; the same inputs make the same file.  Returns how many they are."""
    entries = {hashlib.sha1(data).hexdigest(): data for data in inputs}
    FOLDER.mkdir(exist_ok=True)
    with ZipFile(FOLDER / f"{name}.zip", "w", ZIP_DEFLATED) as archive:
        for digest in sorted(entries):
            archive.writestr(ZipInfo(digest), entries[digest], ZIP_DEFLATED)
    return len(entries)
