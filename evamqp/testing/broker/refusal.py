"""How the embedded broker says no: codes and RabbitMQ's own words, as exceptions.

Who raises them decides what is refused; how they reach the client is the connection's business.
"""

from __future__ import annotations

NAMES = {
    311: "CONTENT_TOO_LARGE",
    320: "CONNECTION_FORCED",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}
# Bytes of a reply text, and what RabbitMQ puts at the end of a longer one.
TEXT_MAX = 255
CUT = b"..."
# These end a channel; every other code ends the connection.
SOFT = frozenset((311, 403, 404, 405, 406))


class Refusal(Exception):
    """A method that is refused.

    Args:
        code: AMQP reply code; it decides whether the channel or the connection ends.
        text: What follows the code's name in the reply text.
        method: Class and method id to blame; None blames the method that is being handled.
        is_hard: Whether the connection ends; None goes by the code.
    """

    def __init__(
        self,
        code: int,
        text: str,
        method: tuple[int, int] | None = None,
        is_hard: bool | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.method = method
        self.is_hard: bool = code not in SOFT if is_hard is None else is_hard

    def reply_text(self, *, latin_1: bool = False) -> str:
        """The text as a close method carries it: at most 255 bytes, cut anywhere.

        Args:
            latin_1: Show bytes that are no UTF-8 as Latin-1, rather than as they are.
        """
        words = [word for word in (NAMES.get(self.code), str(self)) if word]
        text = " - ".join(words)
        if latin_1:
            text = "".join(map(_latin_1, text))
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) > TEXT_MAX:
            raw = raw[: TEXT_MAX - len(CUT)] + CUT
        return raw.decode("utf-8", "surrogateescape")


def _latin_1(letter: str) -> str:
    """A letter, or the Latin-1 of a byte that came as no UTF-8 and is a surrogate since."""
    is_byte = "\udc80" <= letter <= "\udcff"
    return chr(ord(letter) & 0xFF) if is_byte else letter


class HangUp(Exception):
    """The peer is not worth an answer: the connection ends without a word."""


def missing(kind: str, name: str, vhost: str) -> Refusal:
    """404 for a queue or an exchange."""
    return Refusal(404, f"no {kind} '{name}' in vhost '{vhost}'")


def locked(queue: str, vhost: str) -> Refusal:
    """405: an exclusive queue of another connection."""
    return Refusal(
        405,
        f"cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'."
        " It could be originally declared on another connection or the exclusive property value"
        " does not match that of the original declaration.",
    )


def precondition_failed(text: str) -> Refusal:
    return Refusal(406, text)


def access_refused(text: str) -> Refusal:
    return Refusal(403, text)


def not_implemented(text: str) -> Refusal:
    """540: something RabbitMQ has, or the specification, and this broker has not."""
    return Refusal(540, text)


def reserved(kind: str, name: str) -> Refusal:
    """403 for a name that only the broker gives."""
    return access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def default_exchange() -> Refusal:
    return access_refused("operation not permitted on the default exchange")
