"""The broker's side of one channel: a table of methods, and what each of them does.

Publishing is ``publishing``, and what all share is ``base_channel``; exchanges and queues
are the virtual host's.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from evamqp.codec.frames import FRAME_METHOD, frame
from evamqp.codec.spec import BY_KEY, BY_NAME, Method
from evamqp.testing.broker.arguments import ALTERNATE_EXCHANGE, check_consumer
from evamqp.testing.broker.consumer import Consumer
from evamqp.testing.broker.exchange import Destination
from evamqp.testing.broker.frames import read_arguments
from evamqp.testing.broker.inspection import ConsumerInfo
from evamqp.testing.broker.outcomes import Unacked
from evamqp.testing.broker.publishing import PublishingChannel
from evamqp.testing.broker.refusal import (
    HangUp,
    Refusal,
    access_refused,
    default_exchange,
    not_implemented,
    reserved,
)
from evamqp.testing.broker.virtual_host import REPLY_TO
from evamqp.types import Table

_PUBLISH_KEY = b"\0\x3c\0\x28"
_GET_OK_KEY = BY_NAME["basic.get-ok"].key.to_bytes(4, "big")
_pack_tag = Struct(">QB").pack


# The specification dropped access tickets, and RabbitMQ hands them out to this day.
_ACCESS = (
    Method("access", 30, "10 request > realm:shortstr exclusive passive active write read"),
    Method("access", 30, "11 request-ok < ticket:short"),
)
METHODS_BY_KEY = {**BY_KEY, **{method.key: method for method in _ACCESS}}
TICKET = b"\0\x1e\0\x0b\0\x01"
# AMQP 0-8 knows no arguments of a consumer, and its open-ok has none: an empty table, a payload.
NO_ARGUMENTS = b"\0\0\0\0"
OPEN_OK_0_8 = b"\0\x14\0\x0b"


class ServerChannel(PublishingChannel):
    """One channel of a client."""

    __slots__ = ()

    def receive_method(self, payload: bytes) -> None:
        key = payload[:4]
        if self._content is not None and self.is_open:
            raise self._interrupted("non")
        if key == _PUBLISH_KEY and self.is_open:
            self._begin_publish(payload)
            return
        method = METHODS_BY_KEY.get(int.from_bytes(key, "big"))
        if method is None:
            raise HangUp
        ids = (method.class_id, method.method_id)
        if not self.is_open:
            if method.name in ("channel.close", "channel.close-ok"):
                self._recv_close_while_closing(method.name)
            return
        handler = METHODS.get(method.name)
        if handler is None:
            raise Refusal(503, "unimplemented method", ids)
        if self._connection.speaks_0_8 and method.name == "basic.consume":
            payload += NO_ARGUMENTS
        arguments = read_arguments(method, payload)
        self._attempt(lambda: handler(self, *arguments), ids)

    def _attempt(self, action: Callable[[], object], ids: tuple[int, int]) -> None:
        """Carry out a method; a refusal ends this channel, or goes on to end the connection."""
        try:
            action()
        except Refusal as refusal:
            if refusal.method is None:
                refusal.method = ids
            if refusal.is_hard:
                raise
            self.refuse(refusal)

    # Channel

    def confirm_open(self) -> None:
        """Answer channel.open."""
        if self._connection.speaks_0_8:
            self._connection.write(frame(FRAME_METHOD, self.number, OPEN_OK_0_8))
        else:
            self.send("channel.open-ok")
        waiting = self.take_waiting()
        if waiting:
            self._connection.take_late(self.number, waiting)

    def _recv_open(self) -> None:
        raise Refusal(504, "second 'channel.open' seen")

    def _recv_flow(self, active: bool) -> None:
        if not active:
            raise not_implemented("active=false")
        self.send("channel.flow-ok", True)

    def _recv_close(self, *_: object) -> None:
        self.flush_confirms()
        self.end()
        self.send("channel.close-ok")
        self._connection.remove_channel(self)

    def _recv_close_while_closing(self, name: str) -> None:
        if name == "channel.close":
            self.send("channel.close-ok")
        else:
            self._connection.remove_channel(self)

    def _recv_access_request(self, *_: object) -> None:
        self._connection.write(frame(FRAME_METHOD, self.number, TICKET))

    # Exchanges

    def _recv_exchange_declare(
        self,
        name: str,
        kind: str,
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        no_wait: bool,
        arguments: Table,
    ) -> None:
        if not name:
            raise default_exchange()
        if passive:
            self._allow_passive("exchange", name)
            self._vhost.exchange(name)
        else:
            self._allow("configure", "exchange", name)
            alternate = arguments.get(ALTERNATE_EXCHANGE)
            if isinstance(alternate, str):
                self._allow("read", "exchange", name)
                self._allow("write", "exchange", alternate)
            self._vhost.declare_exchange(
                name,
                kind,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
            )
        self._reply(no_wait, "exchange.declare-ok")

    def _recv_exchange_delete(self, name: str, if_unused: bool, no_wait: bool) -> None:
        if not name:
            raise default_exchange()
        self._allow("configure", "exchange", name)
        self._vhost.delete_exchange(name, if_unused=if_unused)
        self._reply(no_wait, "exchange.delete-ok")

    def _recv_exchange_bind(
        self, destination: str, source: str, key: str, no_wait: bool, arguments: Table
    ) -> None:
        self._check_exchange_binding(destination, source)
        target = Destination("exchange", destination)
        self._vhost.bind(source, target, key, arguments, self._connection)
        self._reply(no_wait, "exchange.bind-ok")

    def _recv_exchange_unbind(
        self, destination: str, source: str, key: str, no_wait: bool, arguments: Table
    ) -> None:
        self._check_exchange_binding(destination, source)
        target = Destination("exchange", destination)
        self._vhost.unbind(source, target, key, arguments, self._connection)
        self._reply(no_wait, "exchange.unbind-ok")

    def _check_exchange_binding(self, destination: str, source: str) -> None:
        if not destination or not source:
            raise default_exchange()
        self._allow("write", "exchange", destination)
        self._allow("read", "exchange", source)

    # Queues

    def _recv_queue_declare(
        self,
        name: str,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        no_wait: bool,
        arguments: Table,
    ) -> None:
        if name == REPLY_TO or name.startswith(f"{REPLY_TO}."):
            self._declare_reply_queue(name, no_wait)
            return
        if passive:
            self._allow_passive("queue", name)
            queue = self._vhost.queue(name, self._connection)
            queue.touch()
        else:
            if name.startswith("amq."):
                raise reserved("queue", name)
            name = name or self._vhost.make_name("amq.gen-")
            self._allow("configure", "queue", name)
            exchange = arguments.get("x-dead-letter-exchange")
            if isinstance(exchange, str):
                self._allow("read", "queue", name)
                self._allow("write", "exchange", exchange)
            queue = self._vhost.declare_queue(
                name,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=arguments,
                asker=self._connection,
            )
        self._last_queue = queue.name
        queue.dispatch()
        self._reply(no_wait, "queue.declare-ok", queue.name, len(queue.ready), queue.consumer_count)

    def _declare_reply_queue(self, name: str, no_wait: bool) -> None:
        """Ask for a queue of direct reply-to: a way to learn whether somebody waits there."""
        if name != REPLY_TO and name not in self._vhost.reply_channels:
            raise Refusal(404, f"no queue '{name}' in vhost '{self._vhost.name}'")
        self._reply(no_wait, "queue.declare-ok", name, 0, 1)

    def _recv_queue_bind(
        self, name: str, exchange: str, key: str, no_wait: bool, arguments: Table
    ) -> None:
        queue_name, key = self._expand_binding(name, key)
        self._allow("write", "queue", queue_name)
        if not exchange:
            raise default_exchange()
        self._allow("read", "exchange", exchange)
        target = Destination("queue", queue_name)
        self._vhost.bind(exchange, target, key, arguments, self._connection)
        self._reply(no_wait, "queue.bind-ok")

    def _recv_queue_unbind(self, name: str, exchange: str, key: str, arguments: Table) -> None:
        queue_name, key = self._expand_binding(name, key)
        self._allow("write", "queue", queue_name)
        self._allow("read", "exchange", exchange)
        target = Destination("queue", queue_name)
        self._vhost.unbind(exchange, target, key, arguments, self._connection)
        self.send("queue.unbind-ok")

    def _recv_queue_purge(self, name: str, no_wait: bool) -> None:
        name = self._expand(name)
        self._allow("read", "queue", name)
        count = self._vhost.queue(name, self._connection).purge()
        self._reply(no_wait, "queue.purge-ok", count)

    def _recv_queue_delete(self, name: str, if_unused: bool, if_empty: bool, no_wait: bool) -> None:
        name = self._expand(name)
        self._allow("configure", "queue", name)
        if name not in self._vhost.queues:
            self._reply(no_wait, "queue.delete-ok", 0)
            return
        queue = self._vhost.queue(name, self._connection)
        self._vhost.check_unneeded(queue, if_unused=if_unused, if_empty=if_empty)
        self._reply(no_wait, "queue.delete-ok", queue.purge())
        self._vhost.remove_queue(queue)  # which tells its consumers, and the deleter first

    def _expand_binding(self, name: str, key: str) -> tuple[str, str]:
        """The same for a binding; where both are empty the key becomes the queue's name, too."""
        expanded = self._expand(name)
        return expanded, expanded if not (name or key) else key

    # Consuming

    def _recv_qos(self, prefetch_size: int, prefetch_count: int, across_channel: bool) -> None:
        if prefetch_size:
            raise not_implemented(f"prefetch_size!=0 ({prefetch_size})")
        if across_channel and self._release.shares_limit:
            self._limit = prefetch_count
        else:
            self._prefetch = prefetch_count
            self._limit = 0
        self.send("basic.qos-ok")
        self.serve_consumers()

    def _recv_consume(
        self,
        name: str,
        tag: str,
        no_local: bool,
        no_ack: bool,
        exclusive: bool,
        no_wait: bool,
        arguments: Table,
    ) -> None:
        if tag and (tag in self.consumers or (self.replies_as and tag == self._reply_tag)):
            raise Refusal(530, f"attempt to reuse consumer tag '{tag}'")
        if name == REPLY_TO:
            self._consume_replies(tag, no_ack, no_wait)
            return
        name = self._expand(name)
        self._allow("read", "queue", name)
        queue = self._vhost.queue(name, self._connection)
        priority = check_consumer(name, self._vhost.name, arguments, self._release)
        if queue.exclusive_consumer is not None or (
            exclusive and (queue.consumer_count or queue.has_single_active)
        ):
            raise access_refused(f"queue '{name}' in vhost '{self._vhost.name}' in exclusive use")
        consumer = Consumer(
            self,
            queue,
            tag or self._vhost.make_name("amq.ctag-"),
            no_ack=no_ack,
            is_exclusive=exclusive,
            priority=priority,
            prefetch=self._prefetch,
            arguments=arguments,
        )
        consumer.begun_in = 0 if no_wait else self._connection.reads
        self.consumers[consumer.tag] = consumer
        queue.add_consumer(consumer)
        self._reply(no_wait, "basic.consume-ok", consumer.tag)
        queue.dispatch()

    def _recv_cancel(self, tag: str, no_wait: bool) -> None:
        consumer = self.consumers.pop(tag, None)
        is_early = consumer is not None and consumer.begun_in == self._connection.reads
        if is_early and not self._release.early_cancel:
            raise Refusal(541, "", (0, 0))
        if tag == self._reply_tag:
            self._stop_replies()
        self._reply(no_wait, "basic.cancel-ok", tag)
        if consumer is not None:
            consumer.queue.remove_consumer(consumer)

    def _recv_cancel_ok(self, tag: str) -> None:
        """The client has seen that its consumer is gone: few releases want to hear of it."""
        if not self._release.cancel_ok:
            raise Refusal(503, "unimplemented method")
        if tag not in self.consumers:
            raise Refusal(541, "", (0, 0))

    def _recv_get(self, name: str, no_ack: bool) -> None:
        name = self._expand(name)
        self._allow("read", "queue", name)
        queue = self._vhost.queue(name, self._connection)
        entry = queue.get(no_ack)
        if entry is None:
            self.send("basic.get-empty")
            return
        self._last_tag = tag = self._last_tag + 1
        if not no_ack:
            self.unacked[tag] = Unacked(tag, queue, entry, None)
        message = entry.message
        head = _GET_OK_KEY + _pack_tag(tag, entry.redelivered) + message.route
        self._send_content(head + len(queue.ready).to_bytes(4, "big"), message)

    # Settling

    def _recv_ack(self, tag: int, multiple: bool) -> None:
        self._settle_by(self._settle, self._collect(tag, multiple))

    def _recv_nack(self, tag: int, multiple: bool, requeue: bool) -> None:
        action = self._requeue if requeue else self._reject
        self._settle_by(action, self._collect(tag, multiple))

    def _recv_reject(self, tag: int, requeue: bool) -> None:
        if self._release.reject_marks and not requeue:
            self._settle_by(self._reject_marked, self._collect(tag, False))
        else:
            self._recv_nack(tag, False, requeue)

    def _recv_recover(self, requeue: bool) -> None:
        self._check_recover(requeue)
        self.send("basic.recover-ok")
        self._requeue(self._take_unacked())

    def _recv_recover_async(self, requeue: bool) -> None:
        self._check_recover(requeue)
        self._requeue(self._take_unacked())

    def _check_recover(self, requeue: bool) -> None:
        if not requeue:
            raise not_implemented("requeue=false")

    # Inspection

    def consumer_states(self) -> list[ConsumerInfo]:
        """What a test may look at."""
        return [
            ConsumerInfo(
                queue=consumer.queue.name,
                tag=consumer.tag,
                connection=self._connection.number,
                channel=self.number,
                prefetch=consumer.prefetch,
                unacked=consumer.unacked,
                auto_ack=consumer.no_ack,
                exclusive=consumer.is_exclusive,
                priority=consumer.priority,
            )
            for consumer in self.consumers.values()
        ]


# What may come on an open channel; anything else is 503.  basic.publish takes a shorter way.
METHODS: dict[str, Callable[..., None]] = {
    "channel.open": ServerChannel._recv_open,
    "channel.flow": ServerChannel._recv_flow,
    "channel.close": ServerChannel._recv_close,
    "access.request": ServerChannel._recv_access_request,
    "exchange.declare": ServerChannel._recv_exchange_declare,
    "exchange.delete": ServerChannel._recv_exchange_delete,
    "exchange.bind": ServerChannel._recv_exchange_bind,
    "exchange.unbind": ServerChannel._recv_exchange_unbind,
    "queue.declare": ServerChannel._recv_queue_declare,
    "queue.bind": ServerChannel._recv_queue_bind,
    "queue.unbind": ServerChannel._recv_queue_unbind,
    "queue.purge": ServerChannel._recv_queue_purge,
    "queue.delete": ServerChannel._recv_queue_delete,
    "basic.qos": ServerChannel._recv_qos,
    "basic.consume": ServerChannel._recv_consume,
    "basic.cancel": ServerChannel._recv_cancel,
    "basic.cancel-ok": ServerChannel._recv_cancel_ok,
    "basic.get": ServerChannel._recv_get,
    "basic.ack": ServerChannel._recv_ack,
    "basic.nack": ServerChannel._recv_nack,
    "basic.reject": ServerChannel._recv_reject,
    "basic.recover": ServerChannel._recv_recover,
    "basic.recover-async": ServerChannel._recv_recover_async,
    "confirm.select": ServerChannel._recv_confirm_select,
    "tx.select": ServerChannel._recv_tx_select,
    "tx.commit": ServerChannel._recv_tx_commit,
    "tx.rollback": ServerChannel._recv_tx_rollback,
}
