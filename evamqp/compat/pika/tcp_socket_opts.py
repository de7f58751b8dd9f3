"""Options of TCP sockets.  evamqp sets its own; these functions are for sockets of a program's."""

from __future__ import annotations

import logging
import socket

LOGGER = logging.getLogger(__name__)

if hasattr(socket, "TCP_KEEPIDLE"):
    tcp_keepidle: int = socket.TCP_KEEPIDLE
    tcp_keepcnt: int = socket.TCP_KEEPCNT
    tcp_keepintvl: int = socket.TCP_KEEPINTVL

_NAMES = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPCNT", "TCP_KEEPINTVL")


def socket_requires_keepalive(tcp_options: dict[str, int]) -> bool:
    """Whether one of the options means something only with keepalive."""
    return any(name.startswith("TCP_KEEP") for name in tcp_options)


def set_sock_opts(tcp_options: dict[str, int] | None, sock: socket.socket) -> None:
    """Set the options that this system knows; say so of others."""
    if not tcp_options:
        return
    if socket_requires_keepalive(tcp_options):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in tcp_options.items():
        option = getattr(socket, name, None) if name in _NAMES else None
        if option is None:
            LOGGER.warning("Unsupported TCP option %s:%s", name, value)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
