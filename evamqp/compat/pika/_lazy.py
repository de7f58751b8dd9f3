"""Attributes of a package that are imported when they are first read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_attribute(
    package: dict[str, Any], name: str, modules: Collection[str], origins: Mapping[str, str]
) -> Any:
    """Return what a package's ``__getattr__`` is asked for.

    Args:
        package: The globals of the package.
        name: The attribute.
        modules: Submodules that are attributes without being imported.
        origins: The submodule of each other name.

    Raises:
        AttributeError: There is no such name, or the package of its loop is not installed.
    """
    home = package["__name__"]
    if name in modules:
        return import_module(f"{home}.{name}")
    if name not in origins:
        raise AttributeError(f"module {home!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{home}.{origins[name]}"), name)
    except ImportError as error:
        raise AttributeError(f"{home}.{name}: {error}") from error
    package[name] = value
    return value
