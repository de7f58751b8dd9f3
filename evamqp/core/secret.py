"""The credentials of one connection: asked for at its login, and again before they expire.

Nothing is sent here, and no clock is read; the control channel does both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from evamqp.credentials import Credentials
from evamqp.errors import AuthenticationFailed
from evamqp.parameters import check_answer

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.parameters import Parameters

# The part of its life after which a token is renewed; each further attempt after so much of it.
RENEW_AT = 2 / 3
RETRY_AFTER = 1 / 12
# Seconds between two requests for a token at the least, whatever lifetime its source gives.
SHORTEST = 1.0

#: Gets the credentials, or why there are none.
Answered = Callable[[Credentials | None, AuthenticationFailed | None], object]


class Secret:
    """Asks the source of credentials, which may take its time.

    Args:
        parameters: Whose credentials.
        adapter: Runs a source that is async.
    """

    __slots__ = ("_adapter", "_handle", "_life", "_parameters")

    def __init__(self, parameters: Parameters, adapter: Adapter) -> None:
        self._parameters = parameters
        self._adapter = adapter
        self._handle: Handle | None = None
        self._life: float | None = None  # seconds, of the last credentials

    def ask(self, answered: Answered) -> None:
        """Call back with credentials: inside this call, unless the source is async."""
        try:
            answer = self._parameters.ask_credentials()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            answered(None, failure(error))
            return
        if isinstance(answer, Credentials):
            self._got(answer, answered)
        else:
            self._await(answer, answered)

    def _await(self, answer: Awaitable[Any], answered: Answered) -> None:
        results: list[Credentials] = []

        async def fetch() -> None:
            results.append(check_answer(await answer))

        def done(error: BaseException | None) -> None:
            if self._handle is None:
                return  # stopped: the connection has ended
            self._handle = None
            if error is None:
                self._got(results[0], answered)
            else:
                answered(None, failure(error))

        self._handle = self._adapter.run_awaitable(fetch(), done)

    def _got(self, credentials: Credentials, answered: Answered) -> None:
        is_renewable = callable(self._parameters.credentials)
        self._life = credentials.expires_in if is_renewable else None
        answered(credentials, None)

    @property
    def renew_after(self) -> float | None:
        """Seconds after the last credentials were asked for; None means never."""
        return None if self._life is None else max(SHORTEST, self._life * RENEW_AT)

    @property
    def retry_after(self) -> float:
        """Seconds after an attempt that failed."""
        return max(SHORTEST, (self._life or 0.0) * RETRY_AFTER)

    def stop(self) -> None:
        """Cancel what is asked for; no callback is made any more.  Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()


def failure(error: BaseException) -> AuthenticationFailed:
    """The failure of code of the user's that has to answer, as the login's."""
    if isinstance(error, AuthenticationFailed):
        return error
    # The type alone: the text may hold what must stay secret.
    text = f"the credentials or the mechanism failed: {type(error).__name__}"
    failed = AuthenticationFailed(text, by="client")
    failed.__cause__ = error
    return failed
