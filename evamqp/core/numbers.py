"""Which number the next channel gets, and which frames may still come for one that is gone.

It knows nothing of channels, and takes the time as an argument.
"""

from __future__ import annotations

from evamqp.errors import BadArgument, BadType, WrongState

# Seconds.  RabbitMQ sends what a channel's writer still holds after the channel.close that ends
# it: some 600 frames within milliseconds, from 4.0 on even behind the open-ok of a successor, whose
# confirms and deliveries they would be taken for.
NUMBER_REST = 3.0


class ChannelNumbers:
    """Fresh numbers first, then the one that has been free for longest.

    A number is free at once when the broker has answered our close, since nothing comes behind
    that.  It rests when the broker closed the channel, from the last frame that came late; and it
    waits where our close was not answered.
    """

    __slots__ = ("_free", "_next", "_resting", "_unanswered", "_used")

    def __init__(self) -> None:
        self._next = 1  # no number below is fresh
        self._used: set[int] = set()
        self._free: list[int] = []
        self._resting: dict[int, float] = {}  # until when; in that order
        self._unanswered: set[int] = set()

    def choose(self, limit: int, now: float) -> int:
        """The next number up to ``limit``; nothing is taken yet.

        Raises:
            WrongState: There is none.
        """
        while self._next in self._used:
            self._next += 1
        if self._next <= limit:
            return self._next
        for number, until in list(self._resting.items()):
            if until > now:
                break
            del self._resting[number]
            self._free.append(number)
        if self._free:
            return self._free[0]
        rest = "" if not self._resting else f", or rest for {NUMBER_REST:g} seconds"
        raise WrongState(f"all {limit} channels of channel_max, as agreed on, are in use{rest}")

    def check(self, number: object, limit: int) -> None:
        """Look whether a channel may have a number that was asked for.

        Raises:
            BadType, BadArgument: It is none, or in use.
            WrongState: The broker has not answered the close of its last channel.
        """
        if isinstance(number, bool) or not isinstance(number, int):
            raise BadType(f"number must be int, not {type(number).__name__}")
        if not 1 <= number <= limit:
            raise BadArgument(f"number must be 1..{limit}, not {number}")
        if number in self._unanswered:
            raise WrongState(f"the broker has not answered the close of channel {number}")
        if number in self._used and number not in self._free and number not in self._resting:
            raise BadArgument(f"channel {number} is in use")

    def take(self, number: int) -> None:
        """A channel has the number."""
        if number in self._used and self._resting.pop(number, None) is None:
            self._free.remove(number)
        self._used.add(number)

    def release(self, number: int) -> None:
        """Our close was answered."""
        self._free.append(number)

    def rest(self, number: int, now: float) -> None:
        """The broker closed the channel."""
        self._resting[number] = now + NUMBER_REST

    def wait(self, number: int) -> None:
        """The channel ended without an answer to our close."""
        self._unanswered.add(number)

    def answered(self, number: int) -> None:
        """The answer to a close came after all, if it was missing."""
        if number in self._unanswered:
            self._unanswered.remove(number)
            self._free.append(number)

    def came_late(self, number: int, now: float) -> None:
        """A frame came for a number that no channel has."""
        if self._resting.pop(number, None) is not None:
            self.rest(number, now)

    def was_used(self, number: int) -> bool:
        """Whether a channel ever had it: then frames for it are late, not wrong."""
        return number in self._used
