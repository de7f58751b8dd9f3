"""pamqp's root exception, for programs that catch it; nothing here raises it."""


class PAMQPException(Exception):
    """Kept for ``except`` clauses."""
