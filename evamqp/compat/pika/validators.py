"""Checks of what callers pass; each raises what pika's programs expect to catch."""

from __future__ import annotations

from typing import Any


def require_string(value: Any, value_name: str) -> None:
    """Raise TypeError unless ``value`` is a str."""
    if not isinstance(value, str):
        raise TypeError(f"{value_name} must be a str or unicode str, but got {value!r}")


def require_callback(callback: Any, callback_name: str = "callback") -> None:
    """Raise TypeError unless ``callback`` is callable."""
    if not callable(callback):
        raise TypeError(f"callback {callback_name} must be callable, but got {callback!r}")


def rpc_completion_callback(callback: Any) -> bool:
    """Whether a request goes without reply, which is what no callback means.

    Raises:
        TypeError: ``callback`` is neither None nor callable.
    """
    if callback is None:
        return True
    if not callable(callback):
        raise TypeError("completion callback must be callable if not None")
    return False


def zero_or_greater(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a number of at least 0."""
    if int(value) < 0:
        raise ValueError(f"{name} must be >= 0, but got {value}")
