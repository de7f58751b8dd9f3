"""The optional arguments of queues and exchanges: which are valid, and which declares are equal.

Only values are looked at here; what an argument does is the queue's.  The words are RabbitMQ's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from evamqp.testing.broker.refusal import Refusal, precondition_failed
from evamqp.testing.broker.release import Release
from evamqp.types import FieldValue, Table

#: What RabbitMQ compares when a queue is declared again; it ignores everything else.
COMPARED = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-single-active-consumer",
    "x-queue-type",
)
#: What newer releases compare besides.
COMPARED_LATER = ("x-queue-master-locator", "x-queue-version")
#: What RabbitMQ refuses for a classic queue, since it belongs to quorum queues and streams.
FOREIGN = (
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-quorum-initial-group-size",
    "x-stream-max-segment-size-bytes",
)
LEADER_LOCATOR = "x-queue-leader-locator"
LEADERS = ("client-local", "balanced")
MASTER_LOCATOR = "x-queue-master-locator"
MASTERS_ARE_GONE = (
    "Feature `queue_master_locator` is deprecated.\n"
    "By default, this feature is not permitted anymore.\n"
    "The feature will be removed from a future major RabbitMQ version, regardless of the"
    " configuration; actual version to be determined.\nTo continue using this feature when it is"
    " not permitted by default, set the following parameter in your configuration."
)
TRANSIENTS_ARE_GONE = (
    "Feature `transient_nonexcl_queues` is deprecated.\n"
    "Its use is not permitted per the configuration (overriding the default, which is permitted):\n"
    '    "deprecated_features.permit.transient_nonexcl_queues = false"\n'
    "Its use will not be permitted by default in a future minor RabbitMQ version."
)
MATCHES = ("all", "any", "all-with-x", "any-with-x")
ALTERNATE_EXCHANGE = "alternate-exchange"
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
# Milliseconds: ten years, the longest time to live and the longest life of an unused queue.
TIME_MAX = 315_360_000_000
PRIORITY_MAX = 255

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (float, "double"),
    (str, "longstr"),
    (bytes, "binary"),
    (datetime, "timestamp"),
    (Decimal, "decimal"),
    (list, "array"),
    (dict, "table"),
)


def kind_of(value: FieldValue) -> str:
    """RabbitMQ's name of a value's type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "void")


def shown(value: FieldValue) -> str:
    """A value as RabbitMQ prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


# Validation


def check_queue(name: str, vhost: str, arguments: Table, release: Release) -> None:
    """Refuse what RabbitMQ refuses (406), and what this broker does not do (540)."""
    kind = arguments.get("x-queue-type", "classic")
    for key, value in arguments.items():
        if kind == "classic":
            _check_place(key, name, vhost, release)
        check = _CHECKS.get(key)
        if check is None:
            continue
        fault = check(value, arguments, release)
        if fault is not None:
            raise precondition_failed(
                f"invalid arg '{key}' for queue '{name}' in vhost '{vhost}': {fault}"
            )
    exchange = arguments.get("x-dead-letter-exchange", "")
    if not isinstance(exchange, str):
        raise precondition_failed(
            f"invalid type '{kind_of(exchange)}' for arg 'x-dead-letter-exchange' in queue"
            f" '{name}' in vhost '{vhost}'"
        )
    if kind != "classic":
        # RabbitMQ has them; a program that would do without goes on with its other channels.
        text = f"evamqp.testing has no {shown(kind)} queues; RabbitMQ has"
        raise Refusal(540, text, is_hard=False)


def _check_place(key: str, name: str, vhost: str, release: Release) -> None:
    """Refuse what does not belong to a classic queue."""
    is_leader = key == LEADER_LOCATOR
    if (key in FOREIGN and release.checks_queue_type) or (
        is_leader and not release.classic_leaders
    ):
        raise precondition_failed(
            f"invalid arg '{key}' for queue '{name}' in vhost '{vhost}' of queue type"
            " rabbit_classic_queue"
        )
    if key == MASTER_LOCATOR and not release.master_locators:
        raise Refusal(541, MASTERS_ARE_GONE)


Check = Callable[[FieldValue, Table, Release], "str | None"]


def _integer(value: FieldValue, release: Release) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        kind = kind_of(value)
        return (
            f"{{unacceptable_type,{kind}}}"
            if release.old_words
            else f'"expected integer, got {kind}"'
        )
    return f"{{value_negative,{value}}}" if value < 0 else None


def _count(value: FieldValue, _: Table, release: Release) -> str | None:
    return _integer(value, release)


def _time(value: FieldValue, _: Table, release: Release) -> str | None:
    fault = _integer(value, release)
    if fault is None and release.time_is_limited and isinstance(value, int) and value > TIME_MAX:
        return f"{{value_too_large,{value}}}"
    return fault


def _lifetime(value: FieldValue, arguments: Table, release: Release) -> str | None:
    return "{value_zero,0}" if value == 0 else _time(value, arguments, release)


def _priority(value: FieldValue, _: Table, release: Release) -> str | None:
    fault = _integer(value, release)
    if fault is None and isinstance(value, int) and value > PRIORITY_MAX:
        return f"{{max_value_exceeded,{value}}}"
    return fault


def _overflow(value: FieldValue, _: Table, release: Release) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{kind_of(value)}}}"
    return None if value in OVERFLOWS else "invalid_overflow"


def _routing_key(value: FieldValue, arguments: Table, release: Release) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{kind_of(value)}}}"
    return None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx_defined"


def _mode(value: FieldValue, _: Table, release: Release) -> str | None:
    return _word(value, "mode", ("default", "lazy"), release) if release.queue_modes else None


def _type(value: FieldValue, _: Table, release: Release) -> str | None:
    return _word(value, "type", ("classic", "quorum", "stream"), release)


def _word(value: FieldValue, what: str, known: tuple[str, ...], release: Release) -> str | None:
    if not isinstance(value, str):
        return f"{{unacceptable_type,{kind_of(value)}}}"
    if value in known:
        return None
    words = f"\"unsupported queue {what} '{value}'\""
    return f"invalid_queue_{what}" if release.old_words else words


def _version(value: FieldValue, _: Table, release: Release) -> str | None:
    if not release.queue_versions:
        return None
    fault = _integer(value, release)
    if fault is None and value not in release.queue_versions:
        return f"\"unsupported queue version '{shown(value)}'\""
    return fault


def _leader(value: FieldValue, _: Table, release: Release) -> str | None:
    if not release.checks_queue_type or value in LEADERS:
        return None
    return "invalid_queue_locator_arg"


def _boolean(value: FieldValue, _: Table, release: Release) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{kind_of(value)}}}"


_CHECKS: dict[str, Check] = {
    "x-message-ttl": _time,
    "x-expires": _lifetime,
    "x-max-length": _count,
    "x-max-length-bytes": _count,
    "x-max-priority": _priority,
    "x-overflow": _overflow,
    "x-dead-letter-routing-key": _routing_key,
    LEADER_LOCATOR: _leader,
    "x-queue-mode": _mode,
    "x-queue-type": _type,
    "x-queue-version": _version,
    "x-single-active-consumer": _boolean,
}


def check_expiration(text: str, release: Release) -> int:
    """The milliseconds of a message's expiration.

    Raises:
        Refusal: 406: not a whole number within 0 and ten years.
    """
    digits = text[1:] if text[:1] in "+-" else text
    leading = next((at for at, sign in enumerate(digits) if sign not in "0123456789"), len(digits))
    if not leading:
        fault = "no_integer"
    elif leading < len(digits):
        fault = f'{{leftover_string,"{digits[leading:]}"}}'
    elif int(text) < 0:
        fault = f"{{value_negative,{text}}}"
    elif int(text) > TIME_MAX and release.time_is_limited:
        fault = f"{{value_too_large,{text}}}"
    else:
        return int(text)
    raise precondition_failed(f"invalid expiration '{text}': {fault}")


def check_consumer(queue: str, vhost: str, arguments: Table, release: Release) -> int:
    """A consumer's x-priority, 0 without one; 406 for arguments that make no sense."""
    what = f"for queue '{queue}' in vhost '{vhost}'"
    if "x-stream-offset" in arguments and release.checks_queue_type:
        raise precondition_failed(
            f"invalid arg 'x-stream-offset' {what} of queue type rabbit_classic_queue"
        )
    priority = arguments.get("x-priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise precondition_failed(f"invalid arg 'x-priority' {what}: {_integer(priority, release)}")
    failover = arguments.get("x-cancel-on-ha-failover", False)
    if release.ha_failover and not isinstance(failover, bool):
        fault = f"{{unacceptable_type,{kind_of(failover)}}}"
        raise precondition_failed(f"invalid arg 'x-cancel-on-ha-failover' {what}: {fault}")
    return priority


def check_pattern(key: str, hashes_max: int) -> None:
    """Refuse (406) a pattern of a topic exchange with too many hashes."""
    count = key.split(".").count("#")
    if count > hashes_max:
        raise precondition_failed(
            f"Topic binding key '{key}' uses {count} '#' wildcards, at most {hashes_max} are"
            " allowed"
        )


def check_match(arguments: Table, release: Release) -> None:
    """Refuse (406) an x-match that a headers exchange does not know."""
    match = arguments.get("x-match", "all")
    if not isinstance(match, str):
        raise precondition_failed(
            f"Invalid x-match field type {kind_of(match)} (value {shown(match)}); expected longstr"
        )
    known = MATCHES if release.matches_x else MATCHES[:2]
    if match not in known:
        expected = "all, any, all-with-x, or any-with-x" if release.matches_x else "all or any"
        raise precondition_failed(f'Invalid x-match field value <<"{match}">>; expected {expected}')


# Equivalence


def compare(what: str, name: str, received: FieldValue, current: FieldValue) -> None:
    """Refuse (406) a declare that differs from what exists.

    Args:
        what: Such as ``"queue 'q' in vhost '/'"``.
        name: Of the argument.
        received: None if the declare had none.
        current: None if what exists has none.
    """
    if received == current and kind_of(received) == kind_of(current):
        return
    raise _inequivalent(what, name, received, current)


def _inequivalent(what: str, name: str, received: FieldValue, current: FieldValue) -> Refusal:
    if received is None:
        text = f"received none but current is {_described(current)}"
    elif current is None:
        text = f"received {_described(received)} but current is none"
    else:
        text = f"received '{shown(received)}' but current is '{shown(current)}'"
    return precondition_failed(f"inequivalent arg '{name}' for {what}: {text}")


def _described(value: FieldValue) -> str:
    return f"the value '{shown(value)}' of type '{kind_of(value)}'"
