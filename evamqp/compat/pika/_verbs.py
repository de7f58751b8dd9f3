"""Which of evamqp's verbs carries out which of pika's methods, and what answers it."""

from __future__ import annotations

from typing import Any

from . import data, spec

_RENAMED = {"type": "exchange_type", "global_qos": "across_consumers", "no_ack": "auto_ack"}
# pika's arguments that no verb of evamqp's has.
_LEFT_OUT = ("ticket", "nowait", "prefetch_size")


class Verb:
    """One request.

    Attributes:
        name: Of evamqp.Channel's method.
        reply: The class of the method that answers.
        has_nowait: Whether it may go without reply.
    """

    __slots__ = ("_flags", "has_nowait", "name", "reply")

    def __init__(self, name: str, method: Any, reply: Any) -> None:
        self.name = name
        self.reply = reply
        defaults = vars(method())
        self.has_nowait = "nowait" in defaults
        self._flags = {name for name, value in defaults.items() if isinstance(value, bool)}

    def arguments(self, method: Any) -> dict[str, Any]:
        """What evamqp's verb is called with."""
        return {
            _RENAMED.get(name, name): self._convert(name, value)
            for name, value in vars(method).items()
            if name not in _LEFT_OUT
        }

    def _convert(self, name: str, value: Any) -> Any:
        if name in self._flags:
            return bool(value)
        return self.table(value) if name == "arguments" else value

    @staticmethod
    def table(value: dict[str, Any] | None) -> dict[str, Any] | None:
        """A table as evamqp takes it: it has no datetime without a zone."""
        return None if value is None else data.with_zone(value)


VERBS: dict[Any, Verb] = {
    method: Verb(name, method, reply)
    for name, method, reply in (
        ("exchange_declare", spec.Exchange.Declare, spec.Exchange.DeclareOk),
        ("exchange_delete", spec.Exchange.Delete, spec.Exchange.DeleteOk),
        ("exchange_bind", spec.Exchange.Bind, spec.Exchange.BindOk),
        ("exchange_unbind", spec.Exchange.Unbind, spec.Exchange.UnbindOk),
        ("queue_declare", spec.Queue.Declare, spec.Queue.DeclareOk),
        ("queue_bind", spec.Queue.Bind, spec.Queue.BindOk),
        ("queue_unbind", spec.Queue.Unbind, spec.Queue.UnbindOk),
        ("queue_purge", spec.Queue.Purge, spec.Queue.PurgeOk),
        ("queue_delete", spec.Queue.Delete, spec.Queue.DeleteOk),
        ("basic_qos", spec.Basic.Qos, spec.Basic.QosOk),
        ("basic_consume", spec.Basic.Consume, spec.Basic.ConsumeOk),
        ("basic_recover", spec.Basic.Recover, spec.Basic.RecoverOk),
        ("confirm_select", spec.Confirm.Select, spec.Confirm.SelectOk),
        ("tx_select", spec.Tx.Select, spec.Tx.SelectOk),
        ("tx_commit", spec.Tx.Commit, spec.Tx.CommitOk),
        ("tx_rollback", spec.Tx.Rollback, spec.Tx.RollbackOk),
    )
}
