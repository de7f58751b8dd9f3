"""A decorator that logs what a function raises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def create_log_exception_decorator(logger: logging.Logger) -> Callable[[F], F]:
    """Log to ``logger`` what a function raises, with its traceback, and let it pass."""

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except BaseException:
                logger.exception("Wrapped func exited with exception. Caller's stack:")
                raise

        return call  # type: ignore[return-value]

    return decorate
