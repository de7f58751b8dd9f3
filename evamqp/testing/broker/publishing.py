"""Publishing on a channel: content frames, confirms, returns, transactions, direct reply-to.

Routing and queues are the virtual host's.
"""

from __future__ import annotations

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.methods import decode_arguments, encode_method
from evamqp.codec.spec import BY_NAME
from evamqp.errors import MalformedData
from evamqp.testing.broker.base_channel import BaseServerChannel, Content, Unpublished
from evamqp.testing.broker.frames import octets
from evamqp.testing.broker.message import Message
from evamqp.testing.broker.outcomes import Confirms, Transaction
from evamqp.testing.broker.queue import Queue
from evamqp.testing.broker.raw_properties import REPLY_TO as REPLY_TO_FLAG
from evamqp.testing.broker.refusal import (
    Refusal,
    access_refused,
    not_implemented,
    precondition_failed,
)
from evamqp.testing.broker.virtual_host import REPLY_TO

_PUBLISH = (60, 40)
# What faults say of a publish that comes to its queues all the same, and of one never confirmed.
_ROUTED = (None, "unconfirmed")
_UNCONFIRMED = ("lose", "unconfirmed")
# Publishes go to few places, so decoded ones are remembered; then the table stops filling.
_MEMORY_MAX = 1024
_known_publishes: dict[bytes, Unpublished] = {}


class PublishingChannel(BaseServerChannel):
    """What a channel does with publishes."""

    __slots__ = ()

    # Content frames

    def _begin_publish(self, payload: bytes) -> None:
        publish = _known_publishes.get(payload)
        if publish is None:
            try:
                arguments = decode_arguments(BY_NAME["basic.publish"], payload)  # in any bytes
            except MalformedData:
                raise Refusal(501, f"cannot decode {octets(payload[4:])}", _PUBLISH) from None
            exchange, key, mandatory, immediate = arguments
            publish = exchange, key, mandatory, immediate
            if len(_known_publishes) < _MEMORY_MAX:
                _known_publishes[payload] = publish
        self._content = Content(publish)
        if self._connection.broker.alarm is not None and not self._connection.blocked:
            self._connection.block()

    def receive_header(self, payload: bytes) -> None:
        content = self._content
        if not self.is_open:
            return
        if content is None:
            raise Refusal(505, "expected method frame, got non method frame instead", (0, 0))
        if content.header is not None:
            raise self._interrupted("non")
        if payload[:2] != b"\0\x3c":
            raise self._interrupted(f"class {int.from_bytes(payload[:2], 'big')}")
        content.header = payload[12:]
        content.size = int.from_bytes(payload[4:12], "big")
        if not content.size:
            self._finish_publish(content)

    def receive_body(self, payload: bytes) -> None:
        content = self._content
        if not self.is_open:
            return
        if content is None:
            raise Refusal(505, "expected method frame, got non method frame instead", (0, 0))
        if content.header is None:
            raise self._interrupted("non")
        content.body = content.body + payload if content.body else payload
        if len(content.body) > content.size and self._release.excess_body is not None:
            raise Refusal(501, self._release.excess_body, _PUBLISH)
        if len(content.body) == content.size:
            self._finish_publish(content)

    def _interrupted(self, instead: str) -> Refusal:
        assert self._content is not None
        if self._content.header is not None:
            text = "expected content body, got non content body frame instead"
        elif instead == "non":
            text = "expected content header for class 60, got non content header frame instead"
        else:
            text = f"expected content header for class 60, got one for {instead} instead"
        return Refusal(505, text, _PUBLISH)

    def _finish_publish(self, content: Content) -> None:
        self._content = None
        assert content.header is not None
        exchange, key, mandatory, immediate = content.publish
        raw, body = content.header, content.body
        try:
            self._publish(exchange, key, mandatory, immediate, raw, body)
        except Refusal as refusal:
            refusal.method = refusal.method or _PUBLISH
            if refusal.is_hard:
                raise
            self.refuse(refusal)

    # From the exchange to the queues

    def _publish(
        self, name: str, key: str, mandatory: bool, immediate: bool, raw: bytes, body: bytes
    ) -> None:
        if immediate:
            raise not_implemented("immediate=true")
        self._allow("write", "exchange", name)
        exchange = self._vhost.exchange(name)
        if exchange.internal:
            raise access_refused(
                f"cannot publish to internal exchange '{name}' in vhost '{self._vhost.name}'"
            )
        message = Message(name, key, raw, body, self._release)
        if message.user_id not in (None, self._user.name):
            raise precondition_failed(
                f"user_id property set to '{message.user_id}' but authenticated user was"
                f" '{self._user.name}'"
            )
        if message.reply_to == REPLY_TO:
            message = self._with_reply_address(message)
        if self._transaction is not None:
            names = self._vhost.names_for(exchange, message)
            self._transaction.publishes.append((message, mandatory, names))
        else:
            self._deliver(message, mandatory, self._vhost.route(exchange, message))

    def _deliver(self, message: Message, mandatory: bool, queues: tuple[Queue, ...]) -> None:
        """Bring a message to its queues, return it, and note what its confirm will say."""
        broker = self._connection.broker
        publish_fault = broker.publish_fault(message)
        is_reply = False
        if publish_fault not in _ROUTED:
            queues = ()
        elif message.routing_key.startswith(REPLY_TO) and not message.exchange:
            is_reply = True
            self._answer(message)
        broker.record(self, message, mandatory, tuple(queue.name for queue in queues))
        acked = publish_fault != "nack"
        for queue in queues:
            acked = queue.publish(message) and acked
        found = queues or (is_reply and not self._release.returns_replies)
        if mandatory and acked and not found and publish_fault != "lose":
            self._return(message)
        if self._confirms is not None:
            self._note_outcome(self._confirms, acked, publish_fault)
        elif mandatory and self._release.counts_mandatory:
            self._counted += 1

    def _note_outcome(self, confirms: Confirms, acked: bool, publish_fault: str | None) -> None:
        if publish_fault in _UNCONFIRMED:
            confirms.lose()
            return
        if not confirms.is_owed:
            self._connection.owes_confirms(self)
        confirms.add(acked)

    def _return(self, message: Message) -> None:
        method = encode_method(
            "basic.return", 312, "NO_ROUTE", message.exchange, message.routing_key
        )
        self._send_content(method, message)

    # Direct reply-to

    def _with_reply_address(self, message: Message) -> Message:
        if self.replies_as is None:
            raise precondition_failed("fast reply consumer does not exist")
        address = encode_shortstr(self.replies_as, "reply_to")
        return message.replaced(message.routing_key, {REPLY_TO_FLAG: address})

    def _answer(self, message: Message) -> None:
        """Bring an answer straight to who asked, if somebody waits for it."""
        asker = self._vhost.reply_channels.get(message.routing_key)
        if asker is not None:
            asker.take_answer(message)

    def take_answer(self, message: Message) -> None:
        """An answer came for this channel's consumer of direct reply-to."""
        self._last_tag += 1
        raw_tag = encode_method("basic.cancel-ok", self._reply_tag)[4:]
        self._send_delivery(raw_tag, self._last_tag, False, message)

    def _consume_replies(self, tag: str, no_ack: bool, no_wait: bool) -> None:
        if not no_ack:
            raise precondition_failed("reply consumer cannot acknowledge")
        if self.replies_as is not None:
            raise precondition_failed("reply consumer already set")
        self._reply_tag = tag or self._vhost.make_name("amq.ctag-")
        self.replies_as: str | None = self._vhost.make_name(f"{REPLY_TO}.")
        self._vhost.reply_channels[self.replies_as] = self
        self._reply(no_wait, "basic.consume-ok", self._reply_tag)

    # Confirms and transactions

    def _recv_confirm_select(self, no_wait: bool) -> None:
        if self._transaction is not None:
            raise precondition_failed("cannot switch from tx to confirm mode")
        if self._confirms is None:
            self._confirms = Confirms(self._counted)
        self._reply(no_wait, "confirm.select-ok")

    def _recv_tx_select(self) -> None:
        if self._confirms is not None:
            raise precondition_failed("cannot switch from confirm to tx mode")
        if self._transaction is None:
            self._transaction = Transaction()
        self.send("tx.select-ok")

    def _recv_tx_commit(self) -> None:
        transaction = self._transaction
        if transaction is None:
            raise precondition_failed("channel is not transactional")
        self._transaction = Transaction()
        for message, mandatory, names in transaction.publishes:
            self._deliver(message, mandatory, self._queues_of(names))
        for action, taken in transaction.settlements:
            action(taken)
        self.send("tx.commit-ok")

    def _queues_of(self, names: tuple[str, ...]) -> tuple[Queue, ...]:
        """The queues that a publish found when it came, as far as they are still there."""
        queues = self._vhost.queues
        gone = next((name for name in names if name not in queues), None)
        if gone is not None and self._release.lost_commit is not None:
            code, text = self._release.lost_commit
            raise Refusal(code, text.format(vhost=self._vhost.name, queue=gone))
        return tuple(queues[name] for name in names if name in queues)

    def _recv_tx_rollback(self) -> None:
        if self._transaction is None:
            raise precondition_failed("channel is not transactional")
        self._undo_settlements(self._transaction)
        self._transaction = Transaction()
        self.send("tx.rollback-ok")
