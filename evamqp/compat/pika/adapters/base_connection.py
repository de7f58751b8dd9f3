"""What the connections of the callback adapters share: how they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..connection import Connection, Parameters
from .utils import connection_workflow

if TYPE_CHECKING:
    from evamqp.abc import Adapter


class BaseConnection(Connection):
    """A connection on the loop of a subclass.

    Args:
        parameters: The broker; None means a local one.
        on_open_callback: ``(connection)``.
        on_open_error_callback: ``(connection, exception)``.
        on_close_callback: ``(connection, exception)``, or as 0.x had it.
        nbio: evamqp's adapter of the loop.
        internal_connection_workflow: Connect at once.
    """

    def __init__(
        self,
        parameters: Parameters | None,
        on_open_callback: Callable[[Any], object] | None,
        on_open_error_callback: Callable[[Any, BaseException], object] | None,
        on_close_callback: Callable[..., object] | None,
        nbio: Adapter,
        internal_connection_workflow: bool = True,
    ) -> None:
        self._adapter = nbio
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            internal_connection_workflow,
        )

    @property
    def ioloop(self) -> Any:
        """The loop, as its own package has it."""
        raise NotImplementedError

    @classmethod
    def create_connection(
        cls,
        connection_configs: Sequence[Parameters],
        on_done: Callable[[Any], object],
        custom_ioloop: Any = None,
        workflow: connection_workflow.AbstractAMQPConnectionWorkflow | None = None,
    ) -> connection_workflow.AbstractAMQPConnectionWorkflow:
        """Connect to the first of several brokers that answers.

        Args:
            connection_configs: Their parameters, in the order of trying.
            on_done: Gets the open connection, or an AMQPConnectorException.
            custom_ioloop: The loop; None takes the one that the constructor would.
            workflow: Who decides what is tried when; None means AMQPConnectionWorkflow.

        Returns:
            The workflow, whose ``abort()`` gives up.
        """
        made = cls._make_idle(None, custom_ioloop)
        adapter = made._adapter
        ioloop = made.ioloop

        def dial(parameters: Parameters, done: Callable[[Any], object]) -> Any:
            return cls._make_idle(parameters, ioloop)._dial(parameters, done)

        def make_connector() -> connection_workflow.AMQPConnector:
            return connection_workflow.AMQPConnector(dial, adapter)

        if workflow is None:
            workflow = connection_workflow.AMQPConnectionWorkflow()
        if isinstance(workflow, connection_workflow.AMQPConnectionWorkflow):
            workflow.set_io_services(adapter)
        workflow.start(connection_configs, make_connector, ioloop, on_done)
        return workflow

    @classmethod
    def _make_idle(cls, parameters: Parameters | None, custom_ioloop: Any) -> BaseConnection:
        """A connection that does not connect by itself."""
        make: Any = cls
        made: BaseConnection = make(
            parameters=parameters,
            custom_ioloop=custom_ioloop,
            internal_connection_workflow=False,
        )
        return made
