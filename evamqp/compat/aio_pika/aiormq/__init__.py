"""The names of aiormq that programs of aio-pika import: exceptions, types and ``spec``.

aiormq's own connections and channels are not here: evamqp's are in their place.
"""

from __future__ import annotations

from evamqp.compat.aio_pika.aiormq import abc, exceptions
from evamqp.compat.aio_pika.pamqp import commands as spec

globals().update({name: getattr(exceptions, name) for name in exceptions.__all__})

__all__ = ["abc", "exceptions", "spec"]
