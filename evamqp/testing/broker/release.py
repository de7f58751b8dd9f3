"""What releases of RabbitMQ do differently: one table, from which a broker takes its personality.

A field says what differs; the code that acts on it asks for the field, never for a version.
"""

from __future__ import annotations

from typing import NamedTuple

from evamqp.codec.frames import PROTOCOL_HEADER
from evamqp.errors import BadArgument


class Release(NamedTuple):
    """One release of RabbitMQ.

    Attributes:
        version: As the server properties have it.
        speaks_0_8: Whether it takes the protocol headers of AMQP 0-8.
        header: Answered to a protocol header that it does not take.
        frame_min: Bytes of the smallest frame_max that a client may ask for.
        counts_mandatory: Whether confirms count mandatory publishes before confirm.select as well.
        names_rights: Whether a refusal says which right was missing.
        passive_needs_right: Whether a passive declare needs any permission at all.
        unknown_exchange_type: The code for it: 503 ends the connection, 406 the channel.
        sorts_headers: Whether a message's headers come back sorted by name, each name once.
        checks_delivery_mode: Whether one but 1 and 2 is refused.
        records_last_death: Whether dead letters have the headers ``x-last-death-...``, and keep CC.
        old_words: Whether errors about queue arguments have the wording of 3.8.
        time_is_limited: Whether a time to live of more than ten years is refused.
        checks_queue_type: Whether arguments of other queue types are refused.
        matches_x: Whether headers exchanges know ``all-with-x`` and ``any-with-x``.
        matches_floats: Whether headers exchanges take a whole float for the integer.
        shows_latin_1: Whether names that are no UTF-8 stand in texts as Latin-1, not as they came.
        classic_leaders: Whether classic queues take ``x-queue-leader-locator``.
        master_locators: Whether queues take ``x-queue-master-locator``; else 541.
        transient_queues: Whether queues may be neither durable nor exclusive; else 541.
        queue_modes: Whether ``x-queue-mode`` is looked at.
        queue_versions: What ``x-queue-version`` may be.
        ha_failover: Whether a consumer's ``x-cancel-on-ha-failover`` is looked at.
        shares_limit: Whether basic.qos across the channel limits all consumers together.
        hashes_max: How many ``#`` a topic binding may have; None for any number.
        keeps_transient_exchanges: Whether a restart does.
        reject_marks: Whether basic.reject marks what it dead-letters as redelivered.
        excess_body: What is said (501) of a body longer than its header said; None if the next
            frame is blamed, which is no body then.
        lost_commit: Code and text for a commit when a queue went that it publishes to; None for
            no refusal.
        commit_needs_queue: Whether a publish in a transaction must find its queue at once.
        returns_replies: Whether each mandatory reply by direct reply-to is returned, though it was
            delivered; else none is, though nobody waits for it.
        cancel_ok: Whether it takes basic.cancel-ok, for consumers that it has.
        early_cancel: Whether a consumer may be cancelled before it is there; else 541.
    """

    version: str
    speaks_0_8: bool
    header: bytes
    frame_min: int
    counts_mandatory: bool
    names_rights: bool
    passive_needs_right: bool
    unknown_exchange_type: int
    sorts_headers: bool
    checks_delivery_mode: bool
    records_last_death: bool
    old_words: bool
    time_is_limited: bool
    checks_queue_type: bool
    matches_x: bool
    matches_floats: bool
    shows_latin_1: bool
    classic_leaders: bool
    master_locators: bool
    transient_queues: bool
    queue_modes: bool
    queue_versions: tuple[int, ...]
    ha_failover: bool
    shares_limit: bool
    hashes_max: int | None
    keeps_transient_exchanges: bool
    reject_marks: bool
    excess_body: str | None
    lost_commit: tuple[int, str] | None
    commit_needs_queue: bool
    returns_replies: bool
    cancel_ok: bool
    early_cancel: bool


_3_8 = Release(
    version="3.8.9",
    speaks_0_8=True,
    header=PROTOCOL_HEADER,
    frame_min=4096,
    counts_mandatory=True,
    names_rights=False,
    passive_needs_right=False,
    unknown_exchange_type=503,
    sorts_headers=False,
    checks_delivery_mode=True,
    records_last_death=False,
    old_words=True,
    time_is_limited=False,
    checks_queue_type=False,
    matches_x=False,
    matches_floats=True,
    shows_latin_1=False,
    classic_leaders=True,
    master_locators=True,
    transient_queues=True,
    queue_modes=True,
    queue_versions=(),
    ha_failover=True,
    shares_limit=True,
    hashes_max=None,
    keeps_transient_exchanges=False,
    reject_marks=False,
    excess_body=None,
    lost_commit=None,
    commit_needs_queue=False,
    returns_replies=True,
    cancel_ok=False,
    early_cancel=False,
)
_3_10 = _3_8._replace(
    version="3.10.8",
    counts_mandatory=False,
    old_words=False,
    time_is_limited=True,
    checks_queue_type=True,
    matches_x=True,
    classic_leaders=False,
    queue_versions=(1, 2),
)
_4_0 = _3_10._replace(
    version="4.0.5",
    speaks_0_8=False,
    header=b"AMQP\3\1\0\0",
    names_rights=True,
    unknown_exchange_type=406,
    sorts_headers=True,
    checks_delivery_mode=False,
    records_last_death=True,
    matches_floats=False,
    shows_latin_1=True,
    classic_leaders=True,
    ha_failover=False,
    lost_commit=(406, "partial tx completion"),
    commit_needs_queue=True,
)
_4_3 = _4_0._replace(
    version="4.3.6",
    frame_min=8192,
    passive_needs_right=True,
    master_locators=False,
    transient_queues=False,
    queue_modes=False,
    queue_versions=(2,),
    shares_limit=False,
    hashes_max=2,
    keeps_transient_exchanges=True,
    reject_marks=True,
    excess_body="content body frame exceeds remaining content size",
    lost_commit=(
        506,
        'failed to deliver message: {{not_found,{{resource,<<"{vhost}">>,queue,<<"{queue}">>}}}}',
    ),
    returns_replies=False,
    cancel_ok=True,
    early_cancel=True,
)
#: By major and minor number.
RELEASES = {"3.8": _3_8, "3.10": _3_10, "4.0": _4_0, "4.3": _4_3}


def release_of(name: str) -> Release:
    """The release of a name such as ``"3.10"``.

    Raises:
        BadArgument: It is not in the table.
    """
    try:
        return RELEASES[name]
    except KeyError:
        known = ", ".join(RELEASES)
        raise BadArgument(f"no release {name!r} of RabbitMQ is known here, only {known}") from None
