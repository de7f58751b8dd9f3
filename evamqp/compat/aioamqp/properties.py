"""The properties of a message, as callbacks read them and as publishes give them.

A property that came is decoded when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import evamqp
from evamqp.compat.aioamqp.constants import MESSAGE_PROPERTIES

_new = object.__new__


class Properties:
    """The fourteen properties; None is unset.  ``type`` is another name of ``message_type``."""

    __slots__ = (
        "_source",
        "app_id",
        "cluster_id",
        "content_encoding",
        "content_type",
        "correlation_id",
        "delivery_mode",
        "expiration",
        "headers",
        "message_id",
        "message_type",
        "priority",
        "reply_to",
        "timestamp",
        "user_id",
    )

    _source: evamqp.Properties
    message_type: str | None

    def __init__(
        self,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | None = None,
        message_id: str | None = None,
        timestamp: datetime | None = None,
        message_type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None:
        given = locals()
        for name in _NAMES:
            setattr(self, name, given[name])

    @property
    def type(self) -> str | None:
        return self.message_type

    def __getattr__(self, name: str) -> Any:
        # A slot that is not filled yet ends here.
        if name not in _NAMES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self._source, "type" if name == "message_type" else name)
        if name == "headers" and value is not None:
            value = dict(value)
        setattr(self, name, value)
        return value


_NAMES = frozenset(MESSAGE_PROPERTIES)


def properties_of(source: evamqp.Properties) -> Properties:
    """Properties that came, which are read when they are asked for."""
    properties = _new(Properties)
    properties._source = source
    return properties


def encode(given: Mapping[str, Any] | None) -> evamqp.Properties | None:
    """What a publish gives, as it is sent."""
    if not given:
        return None
    if "message_type" in given or "timestamp" in given:
        given = {"type" if name == "message_type" else name: given[name] for name in given}
        given = {**given, "timestamp": _aware(given.get("timestamp"))}
    return evamqp.Properties(**given)


def _aware(timestamp: Any) -> Any:
    """A time without a zone has always meant UTC here."""
    if isinstance(timestamp, datetime) and timestamp.tzinfo is None:
        return timestamp.replace(tzinfo=timezone.utc)
    return timestamp
