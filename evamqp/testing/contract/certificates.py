"""TLS for the checks: an authority of their own, a server it vouches for, a client that trusts it.

No connection lives here.  ``trustme`` is imported late, so that only the TLS checks need it.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme


@cache
def _authority() -> trustme.CA:
    import trustme

    return trustme.CA()


def new_server_context() -> ssl.SSLContext:
    """A TLS server whose certificate is for ``localhost``, for a check that changes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("localhost").configure_cert(context)
    return context


@cache
def server_context() -> ssl.SSLContext:
    """A TLS server whose certificate is for ``localhost``."""
    return new_server_context()


@cache
def client_context() -> ssl.SSLContext:
    """A TLS client that trusts server_context()."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
