"""What a program hears of clients that it loses before they are closed: none vanishes silently.

Who is unclosed, and what is lost with it, the clients say themselves.
"""

from __future__ import annotations

import atexit
import logging
import warnings

from evamqp.core import thread_bound

log = logging.getLogger(__name__)


def report(client: thread_bound.ThreadBound, lost: int, what: str) -> None:
    """Warn once that a client was collected, or that the program ends, before its close.

    Args:
        client: Shown as its repr.
        lost: How many messages have no outcome.
        what: These messages in words.
    """
    if not client._must_close or client._is_forked:
        return
    client._must_close = False
    if lost:
        log.error("%r was not closed: %d %s", client, lost, what)
    warnings.warn(f"unclosed {client!r}", ResourceWarning, source=client, stacklevel=3)


def _report_living() -> None:
    """The program ends; what is still open never gets to its close."""
    for client in list(thread_bound._living):
        client._report_unclosed()


atexit.register(_report_living)
