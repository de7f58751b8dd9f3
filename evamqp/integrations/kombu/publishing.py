"""What is published: the message on its way out, and the publish until its confirm.

kombu calls the property ``headers`` ``application_headers``, and keeps properties in a dict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import evamqp

#: The properties but for headers; evamqp and kombu agree on these.
NAMES = frozenset((
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
))  # fmt: skip

# The last properties that had no headers, and what was made of them.
_plain: tuple[dict[str, Any], evamqp.Properties] = ({}, evamqp.Properties())


class Publication:
    """A publish until its confirm.

    Attributes:
        notices: What its caller has to deliver while it waits.
        is_settled: Whether it has its outcome.
        error: Why the broker did not take it, or why nobody knows; None if it did.
        returned: What the broker sent back because no queue took it, or None.
    """

    __slots__ = ("error", "is_settled", "notices", "returned")

    def __init__(self, notices: deque[Callable[[], object]]) -> None:
        self.notices: deque[Callable[[], object]] = notices
        self.is_settled: bool = False
        self.error: evamqp.AmqpError | None = None
        self.returned: evamqp.Returned | None = None

    def is_due(self) -> bool:
        """Whether its caller has something to do."""
        return self.is_settled or bool(self.notices)


class OutgoingMessage:
    """A message that prepare_message() made.

    Attributes:
        body: As kombu has encoded it; a str goes out in ``content_encoding``.
        properties: By name, ``application_headers`` among them; those that AMQP has are sent.
    """

    __slots__ = ("body", "properties")

    def __init__(self, body: Any, properties: dict[str, Any]) -> None:
        self.body: Any = body
        self.properties: dict[str, Any] = properties

    @property
    def headers(self) -> Any:
        """The headers, or None."""
        return self.properties.get("application_headers")

    def encode(self) -> tuple[bytes, evamqp.Properties]:
        """Body and properties as they are sent.

        Raises:
            BadType, BadArgument: A value that AMQP cannot carry; the text names it.
        """
        body, fields = self.body, self.properties
        headers = fields.get("application_headers")
        if type(body) is not bytes or headers:
            return self._encode(headers)
        # Programs without headers mostly publish with the same properties.
        global _plain
        before, properties = _plain
        if fields != before:
            _, properties = self._encode(headers)
            _plain = fields.copy(), properties
        return body, properties

    def _encode(self, headers: Any) -> tuple[bytes, evamqp.Properties]:
        fields = {name: value for name, value in self.properties.items() if name in NAMES}
        body = self.body
        if isinstance(body, str):
            encoding = fields.setdefault("content_encoding", "utf-8") or "utf-8"
            body = body.encode("utf-8" if encoding == "binary" else encoding)
        try:
            return body, evamqp.Properties(headers=headers, **fields)
        except evamqp.BadArgument:
            # kombu's programs may send times without a zone, and mean UTC.
            return body, evamqp.Properties(headers=_in_utc(headers), **_in_utc(fields))


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    if isinstance(value, Mapping):
        return {key: _in_utc(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_utc(entry) for entry in value]
    return value
