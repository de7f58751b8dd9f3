"""How a loop with a selector opens and accepts connections: the built-in one, and Twisted's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evamqp.abc import Adapter, Endpoint, Handle, Stream
from evamqp.adapters._dial import Dial
from evamqp.adapters._listener import SocketListener
from evamqp.adapters._selector import Selector
from evamqp.adapters._socket import SocketConnector
from evamqp.adapters._tcp import open_listener


class _Loop(Adapter, Protocol):
    @property
    def _selector(self) -> Selector: ...


class SelectorNetwork:
    """``connect`` and ``listen`` of an adapter; ``_selector`` watches its sockets."""

    __slots__ = ()

    def connect(self: _Loop, endpoint: Endpoint, stream: Stream) -> Handle:
        """Resolve, connect and shake hands in TLS; then call ``stream.connection_made``."""
        connector = SocketConnector(self._selector, self.call_soon, endpoint)
        return Dial(self, connector, endpoint, stream)

    def listen(self: _Loop, host: str, port: int, factory: Callable[[], Stream]) -> SocketListener:
        """Accept connections, each for a new stream.

        Args:
            host: Address to bind; a name is resolved on the spot, which may block.
            port: 0 picks a free one; see the handle's ``port``.
            factory: Makes the stream of one connection.

        Raises:
            OSError: The address cannot be bound; nothing is left open.
        """
        sock = open_listener(host, port)
        return SocketListener(self._selector, self.call_soon, self.call_later, sock, factory)
