"""Coroutines that callbacks return: run on the loop, with nothing they raise dropped.

No state of a connection lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from evamqp.core.request import Request
from evamqp.errors import RequestCancelled

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle

_ASYNC = 0x0080  # CO_COROUTINE; inspect would be a heavy import for one flag of a code object
# Loops keep only weak references to what they run.
_running: set[Handle] = set()


def is_async(function: object) -> bool:
    """Whether a callable is known to return a coroutine: an async function, or one inside."""
    while isinstance(function, partial):
        function = function.func
    # Not callable(): what matters is how it would be called.
    call = "__call__"
    return _has_async_code(function) or _has_async_code(getattr(type(function), call, None))


def _has_async_code(function: object) -> bool:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & _ASYNC)


def run_if_coroutine(
    adapter: Adapter, result: object, failed: Callable[[BaseException], object]
) -> bool:
    """Run what a callback has returned, if it is a coroutine.

    Args:
        adapter: The loop.
        result: A Request is not run: it reports its own outcome, and may be ignored.
        failed: Called with what the coroutine raises, unless it was cancelled.

    Returns:
        Whether it is a coroutine.
    """
    if not isinstance(result, Coroutine) or isinstance(result, Request):
        return False

    def done(error: BaseException | None) -> None:
        _running.discard(handle)
        if error is not None and not is_interruption(error):
            failed(error)

    handle = adapter.run_awaitable(result, done)
    _running.add(handle)
    return True


def is_interruption(error: BaseException) -> bool:
    """Whether code was stopped rather than failed: it was cancelled, or the program ends."""
    if _is_cancellation(error):
        return True
    # Its ``finally`` failed while it was cancelled.  A timeout also starts as a cancellation.
    context = error.__context__
    return (
        context is not None
        and _is_cancellation(context)
        and error.__cause__ is None
        and not isinstance(error, TimeoutError)
    )


def _is_cancellation(error: BaseException) -> bool:
    if not isinstance(error, Exception) or isinstance(error, RequestCancelled):
        return True
    # Twisted's is an Exception, and Twisted may not be there to ask.
    return any(kind.__name__ == "CancelledError" for kind in type(error).__mro__)
