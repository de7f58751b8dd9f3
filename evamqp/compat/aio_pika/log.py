"""The logger ``aio_pika``, which programs set the level of."""

from __future__ import annotations

import logging

logger: logging.Logger = logging.getLogger("aio_pika")


def get_logger(name: str) -> logging.Logger:
    """The logger of a module, below ``aio_pika``."""
    return logger.getChild(name.rpartition(".")[2])
