"""What every part of a channel stands on: frames out, what is unacknowledged, what a user may do.

No method of the protocol is handled here; the parts do that.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from evamqp.codec.frames import body_frames
from evamqp.codec.spec import BY_NAME
from evamqp.testing.broker.consumer import Consumer
from evamqp.testing.broker.dead_letters import REJECTED
from evamqp.testing.broker.message import Entry, Message
from evamqp.testing.broker.outcomes import Confirms, Settle, Transaction, Unacked
from evamqp.testing.broker.queue import Queue
from evamqp.testing.broker.refusal import Refusal, access_refused, precondition_failed
from evamqp.testing.broker.user import RIGHTS, Permissions, Right, User
from evamqp.testing.broker.virtual_host import VirtualHost

if TYPE_CHECKING:
    from evamqp.testing.broker.connection import ServerConnection

_DELIVER_KEY = BY_NAME["basic.deliver"].key.to_bytes(4, "big")
_pack_head = Struct(">BHI").pack
_pack_next_head = Struct(">BBHI").pack  # with the end of the frame before
_pack_tag = Struct(">QB").pack
_END = b"\xce"


#: Exchange, routing key, mandatory, immediate.
Unpublished = tuple[str, str, bool, bool]


class Content:
    """A publish whose content is coming."""

    __slots__ = ("body", "header", "publish", "size")

    def __init__(self, publish: Unpublished) -> None:
        self.publish: Unpublished = publish
        self.header: bytes | None = None
        self.size: int = 0
        self.body: bytes = b""


class BaseServerChannel:
    """The state of a channel, and what its parts share.

    Attributes:
        is_open: False from when either side closes it.
        unacked: What is out, by delivery tag.
        waiting: Frames that came before channel.open was answered; None if it is, as usually.
        replies_as: The name by which direct reply-to reaches its consumer; None without one.
    """

    __slots__ = (
        "_confirms", "_connection", "_content", "_counted", "_held", "_last_queue", "_last_tag",
        "_limit", "_prefetch", "_release", "_reply_tag", "_transaction", "_unrestricted", "_user",
        "_vhost", "consumers", "is_open", "number", "replies_as", "unacked", "waiting",
    )  # fmt: skip

    def __init__(
        self, connection: ServerConnection, number: int, vhost: VirtualHost, user: User
    ) -> None:
        self._connection = connection
        self.number: int = number
        self._release = connection.broker.release
        self._vhost = vhost
        self._user = user
        self._unrestricted = user.permissions.get(vhost.name) == Permissions()
        self.is_open: bool = True
        self.waiting: list[tuple[int, bytes]] | None = None
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Unacked] = {}
        self.replies_as: str | None = None
        self._reply_tag = ""
        self._content: Content | None = None
        self._last_queue = ""
        self._last_tag = 0
        self._prefetch = 0  # of each new consumer
        self._limit = 0  # of all consumers together
        self._held = 0  # messages that consumers here have not settled
        self._confirms: Confirms | None = None
        self._counted = 0  # publishes before confirms that their tags count all the same
        self._transaction: Transaction | None = None

    @property
    def connection(self) -> ServerConnection:
        return self._connection

    # Frames out

    def send(self, name: str, *values: object) -> None:
        """Send a method."""
        self._connection.send(self.number, name, *values)

    def _reply(self, no_wait: bool, name: str, *values: object) -> None:
        if not no_wait:
            self.send(name, *values)

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        self._last_tag = tag = self._last_tag + 1
        if not consumer.no_ack:
            self.unacked[tag] = Unacked(tag, consumer.queue, entry, consumer)
            consumer.unacked += 1
            self._held += 1
        self._send_delivery(consumer.raw_tag, tag, entry.redelivered, entry.message)

    def _send_delivery(self, raw_tag: bytes, tag: int, redelivered: bool, message: Message) -> None:
        method = b"".join((_DELIVER_KEY, raw_tag, _pack_tag(tag, redelivered), message.route))
        self._send_content(method, message)

    def _send_content(self, method: bytes, message: Message) -> None:
        """Send a method and its content, all of it at once."""
        number, header, body = self.number, message.header, message.body
        pieces = [
            _pack_head(1, number, len(method)),
            method,
            _pack_next_head(0xCE, 2, number, len(header)),
            header,
        ]
        if 0 < len(body) <= self._connection.frame_max - 8:
            pieces += (_pack_next_head(0xCE, 3, number, len(body)), body, _END)
        else:
            pieces += (_END, *map(bytes, body_frames(number, body, self._connection.frame_max)))
        self._connection.write_delivery(b"".join(pieces))

    # The end

    def refuse(self, refusal: Refusal) -> None:
        """Close the channel with a code."""
        self.flush_confirms()
        self.end()
        ids = refusal.method or (0, 0)
        text = refusal.reply_text(latin_1=self._release.shows_latin_1)
        self.send("channel.close", refusal.code, text, *ids)

    def flush_confirms(self) -> None:
        """Send the confirms that are owed."""
        if self._confirms is not None and self._confirms.is_owed:
            self._connection.write(self._confirms.take(self.number))

    def repeat_confirms(self) -> None:
        """Send the confirms that were sent last once more."""
        if self._confirms is not None:
            self._connection.write(self._confirms.taken)

    def stop(self) -> None:
        """Nothing is delivered here any more."""
        self.is_open = False

    def end(self) -> None:
        """The channel is over: what is out goes back, consumers go."""
        self.stop()
        self._content = None
        if self._transaction is not None:
            self._undo_settlements(self._transaction)
        self._confirms = self._transaction = None
        self._stop_replies()
        self._requeue(self._take_unacked())
        consumers = list(self.consumers.values())
        self.consumers.clear()
        for consumer in consumers:
            consumer.queue.remove_consumer(consumer)

    def take_waiting(self) -> list[tuple[int, bytes]]:
        """The frames that came before channel.open was answered, which it is now."""
        waiting, self.waiting = self.waiting, None
        return waiting or []

    def _stop_replies(self) -> None:
        """Direct reply-to reaches nobody here any more.  Idempotent."""
        if self.replies_as is not None:
            self._vhost.reply_channels.pop(self.replies_as, None)
            self.replies_as = None

    # Who may do what, and to which queue

    def _allow(self, right: Right, kind: str, name: str) -> None:
        """Refuse (403) what this user may not do."""
        if self._unrestricted:
            return
        name = name or "amq.default"
        permissions = self._user.permissions.get(self._vhost.name, Permissions("", "", ""))
        if not permissions.allow(right, name):
            self._deny(right, kind, name)

    def _deny(self, right: Right, kind: str, name: str) -> NoReturn:
        access = f"{right} access" if self._release.names_rights else "access"
        raise access_refused(
            f"{access} to {kind} '{name}' in vhost '{self._vhost.name}' refused for user"
            f" '{self._user.name}'"
        )

    def _allow_passive(self, kind: str, name: str) -> None:
        """Refuse (403) who may do nothing at all with it, where that matters."""
        if self._unrestricted or not self._release.passive_needs_right:
            return
        permissions = self._user.permissions.get(self._vhost.name, Permissions("", "", ""))
        if not any(permissions.allow(right, name) for right in RIGHTS):
            self._deny("configure", kind, name)

    def _expand(self, name: str) -> str:
        """A queue's name; "" is the one declared last on this channel."""
        name = name or self._last_queue
        if not name:
            raise Refusal(404, "no previously declared queue")
        return name

    # Consumers

    def can_take(self, consumer: Consumer) -> bool:
        """Whether a consumer here may be sent one more message now."""
        if not self.is_open or self._connection.is_congested:
            return False
        if consumer.is_full or (self._limit and self._held >= self._limit):
            return self._connection.broker.ignores_prefetch
        return True

    def serve_consumers(self) -> None:
        """Hand out what consumers here may take."""
        for consumer in list(self.consumers.values()):
            consumer.queue.dispatch()

    def lose_consumer(self, consumer: Consumer) -> None:
        """The broker cancels a consumer, and notifies a client that supports it."""
        if self.consumers.pop(consumer.tag, None) is not None and self._connection.can(
            "consumer_cancel_notify"
        ):
            self.send("basic.cancel", consumer.tag, True)

    # Settling

    def _collect(self, tag: int, multiple: bool) -> list[Unacked]:
        """What a tag means, taken off the list; 406 for a tag that is not out."""
        unacked = self.unacked
        if multiple and tag == 0:
            return self._take_unacked()
        if tag not in unacked:
            raise precondition_failed(f"unknown delivery tag {tag}")
        if not multiple:
            return [unacked.pop(tag)]
        return [unacked.pop(other) for other in [each for each in unacked if each <= tag]]

    def _settle_by(self, action: Settle, taken: list[Unacked]) -> None:
        """Settle now, or at the end of the transaction."""
        if self._transaction is None:
            action(taken)
        else:
            self._transaction.settlements.append((action, taken))

    def _take_unacked(self) -> list[Unacked]:
        taken = list(self.unacked.values())
        self.unacked.clear()
        return taken

    def _undo_settlements(self, transaction: Transaction) -> None:
        """What was settled and not committed is out again."""
        for _, taken in transaction.settlements:
            self.unacked.update((each.tag, each) for each in taken)
        self.unacked = dict(sorted(self.unacked.items()))

    def _settle(self, taken: list[Unacked]) -> None:
        for _, queue, entry, _ in taken:
            queue.settle(entry)
        self._free(taken)

    def _reject(self, taken: list[Unacked]) -> None:
        for _, queue, entry, _ in taken:
            queue.reject(entry, REJECTED)
        self._free(taken)

    def _reject_marked(self, taken: list[Unacked]) -> None:
        """As _reject(), and what is dead-lettered counts as delivered before."""
        for _, _, entry, _ in taken:
            entry.redelivered_when_dead = True
        self._reject(taken)

    def _requeue(self, taken: list[Unacked]) -> None:
        by_queue: dict[Queue, list[Entry]] = {}
        for _, queue, entry, _ in taken:
            by_queue.setdefault(queue, []).append(entry)
        self._free(taken, serve=False)
        for queue, entries in by_queue.items():
            queue.requeue(entries)
        self._serve_freed(taken)

    def _free(self, taken: list[Unacked], *, serve: bool = True) -> None:
        """Give consumers back the room that messages took."""
        for _, _, _, consumer in taken:
            if consumer is not None:
                consumer.unacked -= 1
                self._held -= 1
        if serve:
            self._serve_freed(taken)

    def _serve_freed(self, taken: list[Unacked]) -> None:
        if self._limit:
            self.serve_consumers()
            return
        for _, queue, _, _ in taken:
            if queue.ready:
                queue.dispatch()
