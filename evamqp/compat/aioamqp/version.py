"""Which aioamqp this facade is modelled on."""

__version__ = "0.15.0"
__packagename__ = "aioamqp"
