"""The lock of a shared loop, which no signal handler leaves locked by what it raises.

From CPython 3.14 on, handlers may run between the acquiring and the block of a ``with``, but not if
what acquires is a function in Python: so this module is never compiled.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info < (3, 14):
    Lock = threading.RLock

else:

    class Lock(type(threading.RLock())):
        """An RLock."""

        def __enter__(self) -> bool:
            try:
                return self.acquire()
            except BaseException:
                if self._is_owned():
                    self.release()
                raise
