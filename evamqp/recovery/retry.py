"""Failed messages that come again after a while, through queues that hold them on the broker.

A copy of the message goes to a queue whose messages expire, and which dead-letters them back.  The
confirm of the copy acknowledges the message itself, so that at any moment one of them is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.errors import (
    AmqpError,
    BadArgument,
    BadType,
    OutputFull,
    WrongState,
    shown,
)
from evamqp.recovery.topology import Topology
from evamqp.types import DeliveryMode

if TYPE_CHECKING:
    from evamqp.core.channel import Channel, Message
    from evamqp.recovery.confirm_clock import ConfirmClock
    from evamqp.types import Tags

#: The type of the queues that hold messages.
QueueType: TypeAlias = Literal["quorum", "classic"]

#: Headers of ours: how often handlers failed, where the message was first published, and what the
#: last handler raised.
ATTEMPTS = "evamqp-attempts"
EXCHANGE = "evamqp-exchange"
ERROR = "evamqp-error"
# By this one the exchange chooses the queue.
ROUTE = "evamqp-retry"
DEAD = "dead-letter"
# Headers that the broker acts upon or writes itself.  CC would send copies to other queues again,
# and RabbitMQ drops what x-death says has been in a queue before.
_DROPPED = ("CC", "BCC")
_DROPPED_PREFIXES = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-", "x-acquired-")
# Milliseconds; RabbitMQ takes no longer TTL.
LONGEST_TTL = 2**32 - 1


class Retry:
    """When failed messages come again, and where they end.  Immutable.

    A message whose handler failed comes again after each of the delays in turn.  After the last it
    goes to the queue ``dead_letter``.  The consumer of a queue ``work`` declares an exchange
    ``work.retry``, a queue ``work.retry.MILLISECONDS`` for each delay, and an exchange
    ``work.retried`` that leads back.  Delays that you no longer use leave an empty queue behind.

    The copy that comes again has the same body, routing key and properties, except that it is
    persistent and has no ``expiration``, no ``user_id`` and no ``CC``.  Headers give the rest:
    ``evamqp-attempts`` how often handlers failed, ``evamqp-exchange`` where it was first published,
    ``evamqp-error`` what the last handler raised.

    Args:
        delays: Seconds, in order; with none, the first failure is the last.
        dead_letter: A queue; the consumer declares it as durable, of ``queue_type``, unless its
            topology has it.
        queue_type: ``"quorum"`` loses nothing when brokers die, and needs RabbitMQ 3.10.  A
            ``"classic"`` queue works with 3.8, and may lose messages that it is moving when its
            node dies.

    Raises:
        BadType, BadArgument: A delay is not above 0 or longer than 49 days, or a name is wrong.
    """

    __slots__ = ("_ttls", "dead_letter", "queue_type")

    def __init__(
        self, delays: Sequence[float], *, dead_letter: str, queue_type: QueueType = "quorum"
    ) -> None:
        encode_shortstr(dead_letter, "dead_letter")
        if not dead_letter:
            raise BadArgument("dead_letter must be the name of a queue")
        if queue_type not in ("quorum", "classic"):
            raise BadArgument(f"queue_type must be quorum or classic, not {queue_type!r}")
        if not isinstance(delays, Sequence):
            raise BadType(f"delays must be a sequence of seconds, not {type(delays).__name__}")
        self._ttls = tuple(_milliseconds(delay) for delay in delays)
        self.dead_letter: str = dead_letter
        self.queue_type: QueueType = queue_type

    def __repr__(self) -> str:
        return f"Retry({list(self.delays)}, dead_letter={self.dead_letter!r})"

    @property
    def delays(self) -> tuple[float, ...]:
        """Seconds, in order."""
        return tuple(ttl / 1000 for ttl in self._ttls)

    def topology(self, queue: str, *others: Topology | None) -> Topology:
        """What a consumer of ``queue`` declares; the dead-letter queue only if no other has it."""
        topology = Topology()
        entry, back = _names(queue)
        kind = {"x-queue-type": self.queue_type}
        topology.exchange(entry, "headers", durable=True)
        topology.exchange(back, "fanout", durable=True)
        topology.bind(queue, back)
        for ttl in sorted(set(self._ttls)):
            name = f"{entry}.{ttl}"
            arguments = {**kind, "x-message-ttl": ttl, "x-dead-letter-exchange": back}
            if self.queue_type == "quorum":
                # A message leaves the queue when the next one has confirmed it.
                arguments["x-dead-letter-strategy"] = "at-least-once"
                arguments["x-overflow"] = "reject-publish"
            topology.queue(name, arguments=arguments)
            topology.bind(name, entry, arguments={"x-match": "all", ROUTE: str(ttl)})
        if not any(other is not None and other.get_queue(self.dead_letter) for other in others):
            topology.queue(self.dead_letter, arguments=kind)
        topology.bind(self.dead_letter, entry, arguments={"x-match": "all", ROUTE: DEAD})
        return topology

    def route(self, attempts: int) -> tuple[str, str]:
        """Where a message goes after so many failures: the header's value, and that in words."""
        if attempts <= len(self._ttls):
            ttl = self._ttls[attempts - 1]
            return str(ttl), f"it comes again in {ttl / 1000:g} s, after failure {attempts}"
        return DEAD, f"it goes to queue {shown(self.dead_letter)}, after failure {attempts}"


class Copies:
    """Copies of failed messages that one consumer has published and the broker not yet confirmed.

    They end with the channel: the broker then delivers the messages themselves again.

    Args:
        retry: Where they go.
        queue: The consumer's.
        clock: Bounds how long a confirm may take.
        on_refused: Called with a message and its error if the copy could not be stored now.

    Attributes:
        clock: As given.
        confirms: Copies that the broker has stored.
    """

    __slots__ = ("_messages", "_on_refused", "_queue", "_retry", "clock", "confirms")

    def __init__(
        self,
        retry: Retry,
        queue: str,
        clock: ConfirmClock,
        on_refused: Callable[[Message, BaseException | None], object],
    ) -> None:
        self._retry = retry
        self._queue = queue
        self.clock: ConfirmClock = clock
        self._on_refused = on_refused
        self._messages: dict[int, tuple[Message, BaseException | None]] = {}  # by tag
        self.confirms: int = 0

    def __len__(self) -> int:
        return len(self._messages)

    def send(self, channel: Channel, message: Message, error: BaseException | None) -> str:
        """Publish a copy; return what becomes of the message.

        A message that cannot be copied as it is goes to the dead-letter queue without properties.
        """
        entry, _ = _names(self._queue)
        try:
            properties, attempts = _copied(message, error)
            route, fate = self._retry.route(attempts)
            key = message.routing_key
            tag = self._publish(channel, entry, key, message.body, properties, route)
        except (OutputFull, WrongState) as trouble:
            return self._put_off(message, error, trouble)
        except AmqpError as cause:
            route, fate = DEAD, f"it goes to {shown(self._retry.dead_letter)} bare: {cause}"
            properties = Properties(headers=_notes(message.exchange, cause, 1))
            try:
                tag = self._publish(channel, entry, "", message.body, properties, route)
            except (OutputFull, WrongState) as trouble:
                return self._put_off(message, error, trouble)
        self._messages[tag] = message, error
        return fate

    def _publish(
        self, channel: Channel, entry: str, key: str, body: bytes, given: Properties, route: str
    ) -> int:
        routed = given.with_headers({ROUTE: route})
        properties = routed.replace(delivery_mode=DeliveryMode.PERSISTENT)
        return channel.basic_publish(entry, key, body, properties, mandatory=True)

    def _put_off(self, message: Message, error: BaseException | None, trouble: AmqpError) -> str:
        if isinstance(trouble, OutputFull):
            self._on_refused(message, error)
            return "its copy waits for room in the output"
        return "its channel is ending: the broker delivers it again"

    def confirmed(self, tags: Tags, acked: bool) -> None:
        """Acknowledge the messages whose copies are stored; report those that were refused."""
        for tag in tags:
            message, error = self._messages.pop(tag, (None, None))
            if message is None or message.is_settled:
                continue
            if acked:
                self.confirms += 1
                message.ack()
            else:
                self._on_refused(message, error)

    def clear(self) -> bool:
        """Forget all, since their channel has ended; whether there were any."""
        self.clock.stop()
        messages, self._messages = self._messages, {}
        return bool(messages)


def _milliseconds(delay: float) -> int:
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise BadType(f"delays must be seconds, not {type(delay).__name__}")
    if not 0.001 <= delay <= LONGEST_TTL / 1000:
        raise BadArgument(f"delays must be 0.001 to {LONGEST_TTL // 1000} seconds, not {delay}")
    return round(delay * 1000)


def _names(queue: str) -> tuple[str, str]:
    """The exchanges that lead to the queues of the delays, and back."""
    return f"{queue}.retry", f"{queue}.retried"


def _copied(message: Message, error: BaseException | None) -> tuple[Properties, int]:
    """The properties of a copy, and how often handlers have failed with it now.

    Raises:
        MalformedData: The message's own cannot be read.
    """
    headers = message.properties.headers or {}
    before = headers.get(ATTEMPTS)
    attempts = 1 + (before if isinstance(before, int) and before > 0 else 0)
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    notes = _notes(kept.get(EXCHANGE, message.exchange), error, attempts)
    properties = message.properties.replace(
        headers={**kept, **notes}, expiration=None, user_id=None
    )
    return properties, attempts


def _notes(exchange: object, error: BaseException | None, attempts: int) -> dict[str, object]:
    text = "a forward was not confirmed" if error is None else shown(repr(error))
    return {ATTEMPTS: attempts, EXCHANGE: exchange, ERROR: text}
