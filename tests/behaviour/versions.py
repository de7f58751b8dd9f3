"""What a release of RabbitMQ answers, where releases differ.  No law and no answer lives here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Answer = TypeVar("Answer")
#: Major and minor number.
Version = tuple[int, int]


def parse_version(text: str) -> Version:
    """The version of ``"3.10.8"`` or ``"3.10"``."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def answer_of(version: Version, answers: Mapping[str, Answer]) -> Answer:
    """The answer of the newest release named that is not newer than ``version``.

    Args:
        answers: By the first release known to give them, such as ``"3.8"``.
    """
    by_version = {parse_version(release): answer for release, answer in answers.items()}
    return by_version[max(release for release in by_version if release <= version)]
