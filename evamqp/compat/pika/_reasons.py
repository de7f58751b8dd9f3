"""Why something ended: evamqp's reasons as pika's exceptions."""

from __future__ import annotations

import evamqp

from . import exceptions
from .adapters.utils import connection_workflow as workflow


def connection_closed(reason: evamqp.ConnectionClosed) -> exceptions.AMQPConnectionError:
    """Why a connection that was open ended."""
    if isinstance(reason, evamqp.HeartbeatTimeout):
        return exceptions.AMQPHeartbeatTimeout(reason.text)
    if isinstance(reason, evamqp.BlockedTimeout):
        return exceptions.ConnectionBlockedTimeout("Blocked connection timeout expired.")
    if type(reason) is evamqp.ConnectionClosed and reason.code is not None:
        if reason.by == "client":
            return exceptions.ConnectionClosedByClient(reason.code, reason.text)
        return exceptions.ConnectionClosedByBroker(reason.code, reason.text)
    return _lost(reason)


def _lost(reason: evamqp.ConnectionClosed) -> exceptions.StreamLostError:
    cause = reason.__cause__
    if cause is not None:
        return exceptions.StreamLostError(f"Stream connection lost: {cause!r}")
    if type(reason) is evamqp.ConnectionClosed:
        return exceptions.StreamLostError("Transport indicated EOF")
    return exceptions.StreamLostError(f"Stream connection lost: {reason}")


def channel_closed(reason: evamqp.ChannelClosed) -> exceptions.ChannelClosed:
    """Why a channel ended by itself, and not with its connection."""
    if reason.by == "client":
        return exceptions.ChannelClosedByClient(reason.code or 0, reason.text)
    return exceptions.ChannelClosedByBroker(reason.code or 0, reason.text)


def open_failed(
    reason: evamqp.AmqpError, mechanism: str = "PLAIN"
) -> workflow.AMQPConnectorException | BaseException:
    """Why one attempt failed, as pika's connector says it: what failed wraps why."""
    if isinstance(reason, evamqp.ConnectFailed):
        return _connect_failed(reason)
    if isinstance(reason, evamqp.ConnectionClosed):
        return workflow.AMQPConnectorAMQPHandshakeError(_handshake_failed(reason, mechanism))
    return workflow.AMQPConnectorSocketConnectError(reason)


def _connect_failed(reason: evamqp.ConnectFailed) -> BaseException:
    import socket
    import ssl

    cause = reason.attempts[-1][1] if reason.attempts else reason
    if isinstance(cause, socket.gaierror):
        return cause
    if isinstance(cause, ssl.SSLError):
        return workflow.AMQPConnectorTransportSetupError(cause)
    return workflow.AMQPConnectorSocketConnectError(cause)


def _handshake_failed(
    reason: evamqp.ConnectionClosed, mechanism: str
) -> exceptions.AMQPConnectionError:
    if isinstance(reason, evamqp.AuthenticationFailed) and reason.by == "client":
        return exceptions.AuthenticationError(mechanism)
    if isinstance(reason, evamqp.HandshakeTimeout):
        return exceptions.ConnectionOpenAborted(f"Timeout while setting up AMQP: {reason}")
    cause = repr(_as_closed(reason))
    if isinstance(reason, evamqp.AuthenticationFailed):
        return exceptions.ProbableAuthenticationError(cause)
    if isinstance(reason, evamqp.VhostRefused):
        return exceptions.ProbableAccessDeniedError(cause)
    if reason.by == "client":
        return exceptions.ConnectionOpenAborted(
            f"Connection.close() called before connection finished opening: {reason.text}"
        )
    if reason.code is not None:
        return connection_closed(reason)
    return exceptions.IncompatibleProtocolError(cause)


def _as_closed(reason: evamqp.ConnectionClosed) -> exceptions.AMQPConnectionError:
    if reason.by == "broker" and reason.code is not None:
        return exceptions.ConnectionClosedByBroker(reason.code, reason.text)
    return _lost(reason)
