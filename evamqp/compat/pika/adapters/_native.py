"""asyncio's loop where a program names none, as pika finds it."""

from __future__ import annotations

import asyncio
import warnings


def current_asyncio_loop() -> asyncio.AbstractEventLoop:
    """The running loop, else the thread's own, which is made if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    with warnings.catch_warnings():
        # Pythons differ in when they warn, and in when they refuse.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return asyncio.get_event_loop()
        except RuntimeError:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            return loop
