"""Remote procedure calls, and masters with their workers; wire-compatible with aio-pika's."""

from __future__ import annotations

from evamqp.compat.aio_pika.patterns.master import (
    JsonMaster,
    Master,
    NackMessage,
    RejectMessage,
    Worker,
)
from evamqp.compat.aio_pika.patterns.rpc import RPC, JsonRPC

__all__ = ["RPC", "JsonMaster", "JsonRPC", "Master", "NackMessage", "RejectMessage", "Worker"]
