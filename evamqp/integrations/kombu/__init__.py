"""A kombu transport, and with it Celery, on evamqp: ``broker_url = "evamqp://..."``.

Importing this module makes the schemes ``evamqp`` and ``evamqps`` known to kombu.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from evamqp.integrations.kombu.channel import Channel
from evamqp.integrations.kombu.connection import Connection
from evamqp.integrations.kombu.message import Message
from evamqp.integrations.kombu.transport import TlsTransport, Transport

__all__ = ["Channel", "Connection", "Message", "TlsTransport", "Transport"]

TRANSPORT_ALIASES["evamqp"] = f"{__name__}:Transport"
TRANSPORT_ALIASES["evamqps"] = f"{__name__}:TlsTransport"
