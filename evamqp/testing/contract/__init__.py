"""The contract of ``evamqp.abc`` as a test suite that every adapter passes unchanged.

Only what is true of all loops belongs here; a loop's own habits have tests of their own.  To check
an adapter, subclass in a pytest module and say how it is made:

    class TestMyAdapter(AdapterContract):
        def make_adapter(self):
            return MyAdapter()

``AdapterContract`` needs real sockets (on 127.0.0.1), and ``trustme`` for its TLS checks.  Add
``ListenerContract`` if the adapter has ``listen()``; an adapter without sockets takes that one and
``LoopContract`` alone.  A loop whose run() cannot be called twice overrides pump(), and one whose
futures have no ``result()`` overrides outcome().

    calls  futures  connecting  ending  flow  tls  listening      the checks, by subject
    rig                                   one adapter under test, and what holds in every check
    recording_stream  loopback_server  certificates    the two ends of a connection

This file gathers the names; no check lives in it.
"""

from evamqp.testing.contract.calls import CallsContract
from evamqp.testing.contract.certificates import client_context, server_context
from evamqp.testing.contract.connecting import ConnectingContract
from evamqp.testing.contract.ending import EndingContract
from evamqp.testing.contract.flow import FlowContract
from evamqp.testing.contract.futures import FuturesContract
from evamqp.testing.contract.listening import ListenerContract
from evamqp.testing.contract.loopback_server import LoopbackServer, Peer
from evamqp.testing.contract.recording_stream import RecordingStream
from evamqp.testing.contract.rig import TOO_MUCH, Rig, pattern
from evamqp.testing.contract.tls import TlsContract

__all__ = [
    "TOO_MUCH",
    "AdapterContract",
    "ConnectionContract",
    "ListenerContract",
    "LoopContract",
    "LoopbackServer",
    "Peer",
    "RecordingStream",
    "Rig",
    "TlsContract",
    "client_context",
    "pattern",
    "server_context",
]


class LoopContract(CallsContract, FuturesContract):
    """Timers, callbacks, threads and futures: what needs no connection."""


class ConnectionContract(ConnectingContract, EndingContract, FlowContract):
    """Connections through real sockets, and all that can go wrong with them."""


class AdapterContract(LoopContract, ConnectionContract, TlsContract):
    """All that an adapter with real sockets must do; add ListenerContract if it listens."""
