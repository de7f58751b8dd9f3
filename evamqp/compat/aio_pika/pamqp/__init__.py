"""The names of pamqp that programs of aio-pika import: results to annotate with and to compare.

Nothing is marshalled here: frames are evamqp's business.
"""

from __future__ import annotations

from evamqp.compat.aio_pika.pamqp import commands, common, exceptions, header

__all__ = ["commands", "common", "exceptions", "header"]
