"""What Reconnector, Publisher and Consumer share: a loop, its thread, and callbacks that may raise.

No connection is known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING

from evamqp.errors import WrongThread

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Promise
    from evamqp.core.channel import Channel

log = logging.getLogger(__name__)


class Client:
    """An object of one loop.  The thread is that of the loop's first callback."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._owner = 0

    def _bind_owner(self) -> None:
        if not self._owner:
            self._owner = get_ident()

    def _check_caller(self, what: str) -> None:
        if self._owner not in (0, get_ident()):
            raise WrongThread(f"{what}: wrong thread; use adapter.call_soon_threadsafe")

    def _create_future(self) -> Promise:
        return self.adapter.create_future()

    def _owe(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called on the next turn of the loop, in order."""
        self.adapter.call_soon(partial(function, *arguments))

    def _tell(
        self,
        name: str,
        channel: Channel | None,
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Call a function of the user's; what it raises is logged, and harms nothing."""
        try:
            function(*arguments)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            log.error("%s raised %r", name, error, exc_info=error)
