"""pika.connection: parameters, and what every callback connection can do."""

from __future__ import annotations

from ._parameters import ConnectionParameters, Parameters, SSLOptions, URLParameters

__all__ = ["ConnectionParameters", "Parameters", "SSLOptions", "URLParameters"]
