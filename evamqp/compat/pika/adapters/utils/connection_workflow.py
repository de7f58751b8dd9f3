"""How a connection comes about: several brokers, several attempts each, and what failed.

Dialling is evamqp's; the exceptions, the order of attempts and the pauses are pika's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class AMQPConnectorException(Exception):
    """Root of what goes wrong while a connection is made."""


class AMQPConnectorStackTimeout(AMQPConnectorException):
    """TCP, TLS and AMQP together took longer than stack_timeout."""


class AMQPConnectorAborted(AMQPConnectorException):
    """An attempt was aborted."""


class AMQPConnectorWrongState(AMQPConnectorException):
    """The connector is not in a state that allows the call."""


class AMQPConnectorPhaseErrorBase(AMQPConnectorException):
    """One phase failed; ``exception`` says why."""

    def __init__(self, exception: BaseException, *args: Any) -> None:
        super().__init__(*args)
        self.exception = exception

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.exception!r}"


class AMQPConnectorSocketConnectError(AMQPConnectorPhaseErrorBase):
    """TCP failed."""


class AMQPConnectorTransportSetupError(AMQPConnectorPhaseErrorBase):
    """TLS failed."""


class AMQPConnectorAMQPHandshakeError(AMQPConnectorPhaseErrorBase):
    """AMQP failed."""


class AMQPConnectionWorkflowAborted(AMQPConnectorException):
    """The workflow was aborted."""


class AMQPConnectionWorkflowWrongState(AMQPConnectorException):
    """The workflow is not in a state that allows the call."""


class AMQPConnectionWorkflowFailed(AMQPConnectorException):
    """Every attempt failed; ``exceptions`` says how, in order."""

    def __init__(self, exceptions: Sequence[BaseException], *args: Any) -> None:
        super().__init__(*args)
        self.exceptions: tuple[BaseException, ...] = tuple(exceptions)

    def __repr__(self) -> str:
        first = self.exceptions[0] if len(self.exceptions) > 1 else None
        last = self.exceptions[-1] if self.exceptions else None
        return (
            f"{type(self).__name__}: {len(self.exceptions)} exceptions in all; "
            f"last exception - {last!r}; first exception - {first!r}"
        )

    __str__ = __repr__


class AbstractAMQPConnectionWorkflow:
    """What ``create_connection`` takes as its ``workflow``."""

    def start(
        self,
        connection_configs: Sequence[Any],
        connector_factory: Callable[..., Any],
        native_loop: Any,
        on_done: Callable[[Any], object],
    ) -> None:
        """Begin; ``on_done`` gets the open connection, or an AMQPConnectorException.

        Args:
            connection_configs: Parameters of each broker, in the order of trying.
            connector_factory: Called without arguments; makes an AMQPConnector.
            native_loop: The loop, as the connection's ``ioloop`` gives it.
            on_done: Called once, from the loop.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Give up; ``on_done`` gets AMQPConnectionWorkflowAborted."""
        raise NotImplementedError


class AMQPConnector:
    """One attempt at one broker.

    Args:
        conn_factory: Called with parameters; begins to connect, and returns something that can be
            aborted.  Its second argument is called with the open connection or an exception.
        nbio: Whoever calls later: an adapter of evamqp's.
    """

    def __init__(self, conn_factory: Callable[[Any, Callable[[Any], object]], Any],
                 nbio: Any) -> None:  # fmt: skip
        self._conn_factory = conn_factory
        self.nbio = nbio
        self._attempt: Any = None
        self._on_done: Callable[[Any], object] | None = None

    def start(self, addr_record: Any, conn_params: Any, on_done: Callable[[Any], object]) -> None:
        """Begin.

        Args:
            addr_record: None: evamqp resolves the host by itself, and races its addresses.
            conn_params: The broker's parameters.
            on_done: Called once, from the loop, with the connection or an exception.

        Raises:
            AMQPConnectorWrongState: It was started before.
        """
        if self._on_done is not None:
            raise AMQPConnectorWrongState("Already in progress or finished")
        self._on_done = on_done
        self._attempt = self._conn_factory(conn_params, self._finished)

    def abort(self) -> None:
        """Give up; ``on_done`` gets AMQPConnectorAborted.

        Raises:
            AMQPConnectorWrongState: It was not started, or is over.
        """
        if self._attempt is None:
            raise AMQPConnectorWrongState("Not in progress")
        attempt, self._attempt = self._attempt, None
        attempt.abort()
        self.nbio.call_soon(lambda: self._report(AMQPConnectorAborted()))

    def _finished(self, result: Any) -> None:
        if self._on_done is not None and not isinstance(self._attempt, _Over):
            self._attempt = _Over()
            self._report(result)

    def _report(self, result: Any) -> None:
        on_done = self._on_done
        self._attempt = _Over()
        if on_done is not None:
            on_done(result)


class _Over:
    """In the place of an attempt that has ended."""

    def abort(self) -> None:
        raise AMQPConnectorWrongState("Already finished")


class AMQPConnectionWorkflow(AbstractAMQPConnectionWorkflow):
    """Try the brokers in order, all of them ``connection_attempts`` times, with pauses between.

    How often and how long is what the last broker's parameters say.
    """

    def __init__(self, _until_first_amqp_attempt: bool = False) -> None:
        self._until_first_amqp_attempt = _until_first_amqp_attempt
        self._failures: list[BaseException] = []
        self._configs: list[Any] = []
        self._left: list[Any] = []
        self._rounds_left = 0
        self._nbio: Any = None
        self._make: Callable[[], AMQPConnector] | None = None
        self._current: Any = None
        self._on_done: Callable[[Any], object] | None = None
        self._is_over = False

    def set_io_services(self, nbio: Any) -> None:
        """Who calls later: an adapter of evamqp's."""
        self._nbio = nbio

    def start(
        self,
        connection_configs: Sequence[Any],
        connector_factory: Callable[..., Any],
        native_loop: Any,
        on_done: Callable[[Any], object],
    ) -> None:
        """Begin; see AbstractAMQPConnectionWorkflow.

        Raises:
            AMQPConnectionWorkflowWrongState: It was started before.
            ValueError: There are no parameters.
        """
        if self._on_done is not None:
            raise AMQPConnectionWorkflowWrongState("Already in progress or finished")
        self._configs = list(connection_configs)
        if not self._configs:
            raise ValueError(f"connection_configs is empty: {connection_configs!r}")
        self._make = connector_factory
        self._on_done = on_done
        self._rounds_left = self._configs[-1].connection_attempts
        self._current = self._nbio.call_soon(self._next_round)

    def abort(self) -> None:
        """Give up; ``on_done`` gets AMQPConnectionWorkflowAborted.

        Raises:
            AMQPConnectionWorkflowWrongState: It was not started, or is over.
        """
        if self._on_done is None or self._is_over:
            raise AMQPConnectionWorkflowWrongState("Not in progress")
        current, self._current = self._current, None
        if isinstance(current, AMQPConnector):
            current.abort()
        elif current is not None:
            current.cancel()
        self._is_over = True
        on_done = self._on_done
        self._nbio.call_soon(lambda: on_done(AMQPConnectionWorkflowAborted()))

    def _next_round(self) -> None:
        self._rounds_left -= 1
        self._left = list(self._configs)
        self._next_broker()

    def _next_broker(self) -> None:
        assert self._make is not None
        parameters = self._left.pop(0)
        connector = self._current = self._make()
        connector.start(None, parameters, self._on_attempt_done)

    def _on_attempt_done(self, result: Any) -> None:
        if self._is_over:
            return
        if not isinstance(result, BaseException):
            self._end(result)
            return
        self._failures.append(result)
        if self._until_first_amqp_attempt and isinstance(result, AMQPConnectorAMQPHandshakeError):
            self._end(AMQPConnectionWorkflowFailed(self._failures))
        elif self._left:
            self._next_broker()
        elif self._rounds_left > 0:
            delay = self._configs[-1].retry_delay
            self._current = self._nbio.call_later(max(delay, 0), self._next_round)
        else:
            self._end(AMQPConnectionWorkflowFailed(self._failures))

    def _end(self, result: Any) -> None:
        self._is_over = True
        self._current = None
        assert self._on_done is not None
        self._on_done(result)
