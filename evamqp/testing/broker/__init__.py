"""The embedded broker, one noun per file; this file gathers what tests use.

broker  context  user  release          the broker, who may come, and what it imitates
connection  state  channel  base_channel  publishing  frames    one client's side of it
virtual_host  exchange  queue  message  consumer  arguments     what a virtual host holds
dead_letters  outcomes  raw_properties  refusal                 what messages and calls become
faults  wire  loops  inspection  publications                   what tests do and look at
"""

from evamqp.testing.broker.broker import RELEASE, Broker, ListeningAdapter
from evamqp.testing.broker.inspection import (
    BindingInfo,
    ConnectionInfo,
    ConsumerInfo,
    ExchangeInfo,
    Published,
    QueueInfo,
)
from evamqp.testing.broker.user import Permissions

__all__ = [
    "RELEASE",
    "BindingInfo",
    "Broker",
    "ConnectionInfo",
    "ConsumerInfo",
    "ExchangeInfo",
    "ListeningAdapter",
    "Permissions",
    "Published",
    "QueueInfo",
]
