"""The plugin's fixtures, as a project that has evamqp installed finds them.

It holds no tests.
"""

from __future__ import annotations

from pytest_evamqp import _amqp_server, amqp_broker, amqp_memory

__all__ = ["_amqp_server", "amqp_broker", "amqp_memory"]
