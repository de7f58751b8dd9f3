"""AMQP's classes, methods and constants under pika's names, made at import from the codec's table.

Nothing of the protocol is written down here twice: this file holds only what pika calls otherwise,
the defaults of its arguments, and constants that no method carries.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable
from typing import Any

from evamqp import MalformedData
from evamqp.codec import methods as _codec
from evamqp.codec.spec import BY_KEY
from evamqp.codec.spec import Method as _Entry

from . import amqp_object, data
from ._properties import BasicProperties as BasicProperties
from .compat import str_or_bytes
from .delivery_mode import DeliveryMode as DeliveryMode
from .exceptions import InvalidFrameError
from .exchange_type import ExchangeType

PROTOCOL_VERSION = (0, 9, 1)
PORT = 5672

REPLY_SUCCESS = 200
CONTENT_TOO_LARGE = 311
NO_ROUTE = 312
NO_CONSUMERS = 313
CONNECTION_FORCED = 320
INVALID_PATH = 402
ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
FRAME_ERROR = 501
SYNTAX_ERROR = 502
COMMAND_INVALID = 503
CHANNEL_ERROR = 504
UNEXPECTED_FRAME = 505
RESOURCE_ERROR = 506
NOT_ALLOWED = 530
NOT_IMPLEMENTED = 540
INTERNAL_ERROR = 541

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_MIN_SIZE = 4096
FRAME_MAX_SIZE = 131072
FRAME_HEADER_SIZE = 7
FRAME_END_SIZE = 1
FRAME_END = 206

TRANSIENT_DELIVERY_MODE = 1
PERSISTENT_DELIVERY_MODE = 2

# Brokers have had no use for it since AMQP 0-9, so the codec does not know it.
_ACCESS = (
    _Entry(
        "access", 30,
        "10 request > realm:shortstr exclusive passive active write read -> request-ok",
    ),
    _Entry("access", 30, "11 request-ok < ticket:short"),
)  # fmt: skip

_RENAMED = {"no_wait": "nowait", "global": "global_qos"}
# What the table only marks as reserved; where a method is not here, it is the ticket.
_RESERVED = {
    "connection.open": ("capabilities", "insist"),
    "connection.open-ok": ("known_hosts",),
    "channel.open": ("out_of_band",),
    "channel.open-ok": ("channel_id",),
    "basic.get-empty": ("cluster_id",),
}
# Where an argument is not here it is None by default, or False if it is a bit.
_DEFAULTS: dict[str, Any] = {
    "ticket": 0, "capabilities": "", "known_hosts": "", "out_of_band": "", "channel_id": "",
    "cluster_id": "", "reply_text": "", "queue": "", "routing_key": "", "prefetch_size": 0,
    "prefetch_count": 0, "reason": "",
}  # fmt: skip
_DEFAULTS_OF: dict[str, dict[str, Any]] = {
    "connection.start": {
        "version_major": 0, "version_minor": 9, "mechanisms": "PLAIN", "locales": "en_US",
    },
    "connection.start-ok": {"mechanism": "PLAIN", "locale": "en_US"},
    "connection.tune": {"channel_max": 0, "frame_max": 0, "heartbeat": 0},
    "connection.tune-ok": {"channel_max": 0, "frame_max": 0, "heartbeat": 0},
    "connection.open": {"virtual_host": "/"},
    "connection.update-secret": {"new_secret": ..., "reason": ...},
    "channel.flow": {"active": None},
    "channel.flow-ok": {"active": None},
    "access.request": {
        "realm": "/data", "passive": True, "active": True, "write": True, "read": True,
    },
    "access.request-ok": {"ticket": 1},
    "exchange.declare": {"type": ExchangeType.direct},
    "queue.declare-ok": {"queue": None},
    "basic.consume": {"consumer_tag": ""},
    "basic.publish": {"exchange": ""},
    "basic.return": {"routing_key": None},
    "basic.deliver": {"routing_key": None},
    "basic.get-ok": {"routing_key": None},
    "basic.ack": {"delivery_tag": 0},
    "basic.nack": {"delivery_tag": 0, "requeue": True},
    "basic.reject": {"requeue": True},
}  # fmt: skip
# The methods that come with a message, and decode themselves when they are read.
_LAZY = ("basic.deliver", "basic.get-ok")

_NUMBERS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q"}


class _Wire:
    """How one method's arguments are written: ``(name, kind)`` pairs, reserved ones included."""

    __slots__ = ("arguments", "defaults", "entry")

    def __init__(self, entry: _Entry) -> None:
        reserved = iter(_RESERVED.get(entry.name, ("ticket", "", "")))
        named = [
            (next(reserved) if name == "_" else _RENAMED.get(name, name), kind)
            for name, kind in entry.wire
        ]
        # An unnamed bit of connection.open and the like has no argument.
        self.arguments = [(name, kind) for name, kind in named if name]
        self.entry = entry
        of_method = _DEFAULTS_OF.get(entry.name, {})
        self.defaults = {
            name: of_method.get(name, _DEFAULTS.get(name, False if kind == "bit" else None))
            for name, kind in self.arguments
        }

    def signature(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([
            inspect.Parameter("self", kind),
            *(
                inspect.Parameter(name, kind, default=inspect.Parameter.empty if value is ...
                                  else value)
                for name, value in self.defaults.items()
            ),
        ])  # fmt: skip

    def encode(self, method: amqp_object.Method) -> list[bytes]:
        pieces: list[bytes] = []
        bits = bit = 0
        for name, kind in self.arguments:
            value = getattr(method, name)
            if kind == "bit":
                bits |= bool(value) << bit
                bit += 1
                continue
            if bit:
                pieces.append(bytes((bits,)))
                bits = bit = 0
            _encode_argument(pieces, name, kind, value)
        if bit:
            pieces.append(bytes((bits,)))
        return pieces

    def decode(self, encoded: bytes, offset: int) -> dict[str, Any]:
        try:
            values = _codec.decode_arguments(self.entry, encoded, offset)
        except MalformedData as error:
            raise InvalidFrameError(str(error)) from error
        names = [_RENAMED.get(name, name) for name, _ in self.entry.arguments]
        return {**self.defaults, **dict(zip(names, values, strict=True))}


def _encode_argument(pieces: list[bytes], name: str, kind: str, value: Any) -> None:
    if kind == "table":
        data.encode_table(pieces, value)
    elif kind in _NUMBERS:
        pieces.append(struct.pack(_NUMBERS[kind], value))
    elif not isinstance(value, str_or_bytes):
        raise AssertionError(f"A non-string value was supplied for self.{name}")
    elif kind == "shortstr":
        data.encode_short_string(pieces, value)
    else:
        encoded = value if isinstance(value, bytes) else value.encode("utf-8")
        pieces.append(struct.pack(">I", len(encoded)))
        pieces.append(encoded)


def _make_method(entry: _Entry) -> type[amqp_object.Method]:
    """The class of one method, such as ``Queue.Declare``."""
    class_name, _, name = entry.name.partition(".")
    owner, short = class_name.capitalize(), _camel(name)
    wire = _Wire(entry)
    namespace: dict[str, Any] = {
        "__slots__": ("_message",) if entry.name in _LAZY else (),
        "__doc__": f"The method {entry.name}, ({entry.class_id}, {entry.method_id}).",
        "__module__": __name__,
        "__qualname__": f"{owner}.{short}",
        "__init__": _make_init(wire),
        "INDEX": entry.key,
        "NAME": f"{owner}.{short}",
        "synchronous": property(lambda self: bool(entry.replies), doc="Whether it is answered."),
        "encode": lambda self: wire.encode(self),
        "decode": _make_decode(wire),
    }
    if entry.name in _LAZY:
        namespace.update(_lazy_reading(tuple(wire.defaults)))
    return type(short, (amqp_object.Method,), namespace)


def _make_init(wire: _Wire) -> Callable[..., None]:
    names = tuple(wire.defaults)
    required = [name for name, value in wire.defaults.items() if value is ...]

    def __init__(self: amqp_object.Method, *arguments: Any, **named: Any) -> None:
        if len(arguments) > len(names):
            raise TypeError(f"{self.NAME} takes at most {len(names)} arguments")
        given = dict(zip(names, arguments, strict=False))
        for name, value in named.items():
            if name in given or name not in wire.defaults:
                raise TypeError(f"{self.NAME}: unexpected or repeated argument {name!r}")
            given[name] = value
        missing = [name for name in required if name not in given]
        if missing:
            raise TypeError(f"{self.NAME}: missing {', '.join(missing)}")
        self.__dict__.update({**wire.defaults, **given})

    vars(__init__)["__signature__"] = wire.signature()
    return __init__


def _make_decode(wire: _Wire) -> Callable[..., amqp_object.Method]:
    def decode(self: amqp_object.Method, encoded: bytes, offset: int = 0) -> amqp_object.Method:
        """Read the arguments from ``offset`` to the end; return this object."""
        self.__dict__.update(wire.decode(encoded, offset))
        return self

    return decode


def _lazy_reading(names: tuple[str, ...]) -> dict[str, Any]:
    """What makes a method read its arguments from the message that it came with."""

    def __getattr__(self: Any, name: str) -> Any:
        if name not in names:
            raise AttributeError(f"{self.NAME} has no attribute {name!r}")
        value = self.__dict__[name] = getattr(self._message, name)
        return value

    def _items(self: Any) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    return {"__getattr__": __getattr__, "_items": _items}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _make_classes() -> dict[str, Any]:
    """``Connection``, ``Channel`` and so on, each with its methods."""
    made: dict[str, Any] = {}
    for entry in (*BY_KEY.values(), *_ACCESS):
        name = entry.name.partition(".")[0].capitalize()
        if name not in made:
            made[name] = type(name, (amqp_object.Class,), {
                "__doc__": f"The class {name.lower()}.", "__module__": __name__,
                "INDEX": entry.class_id, "NAME": name,
            })  # fmt: skip
        method = _make_method(entry)
        setattr(made[name], method.__name__, method)
        methods[method.INDEX] = method
    return made


methods: dict[int | None, type[amqp_object.Method]] = {}
props: dict[int, type[BasicProperties]] = {60: BasicProperties}

_classes = _make_classes()
Connection: Any = _classes["Connection"]
Channel: Any = _classes["Channel"]
Access: Any = _classes["Access"]
Exchange: Any = _classes["Exchange"]
Queue: Any = _classes["Queue"]
Basic: Any = _classes["Basic"]
Tx: Any = _classes["Tx"]
Confirm: Any = _classes["Confirm"]

BasicProperties.CLASS = Basic

_WITH_CONTENT = frozenset(key for key, entry in BY_KEY.items() if entry.has_content)


def has_content(methodNumber: int) -> bool:
    """Whether a content follows the method of this index."""
    return methodNumber in _WITH_CONTENT
