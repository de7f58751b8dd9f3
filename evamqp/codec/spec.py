"""The methods of AMQP 0-9-1 and RabbitMQ's extensions, as one table that you can check by eye.

Only what the specification says lives here: names, numbers, argument types, who may send what.
``methods.py`` encodes them; the core gives them meaning.
"""

from __future__ import annotations

from typing import Literal

Sender = Literal["client", "server", "both"]

# One line per method: number, name, who sends it (> client, < server, = both), its arguments,
# "+ content" if a message follows, and after -> its replies.  An argument without a type is a bit;
# "_" is reserved: sent as zero or empty, skipped when read.  The order is the wire's.
TABLE = """
connection 10
 10 start         <  version_major:octet version_minor:octet server_properties:table \
mechanisms:longstr locales:longstr -> start-ok
 11 start-ok      >  client_properties:table mechanism:shortstr response:longstr locale:shortstr
 20 secure        <  challenge:longstr -> secure-ok
 21 secure-ok     >  response:longstr
 30 tune          <  channel_max:short frame_max:long heartbeat:short -> tune-ok
 31 tune-ok       >  channel_max:short frame_max:long heartbeat:short
 40 open          >  virtual_host:shortstr _:shortstr _ -> open-ok
 41 open-ok       <  _:shortstr
 50 close         =  reply_code:short reply_text:shortstr class_id:short method_id:short -> close-ok
 51 close-ok      =
 60 blocked       <  reason:shortstr
 61 unblocked     <
 70 update-secret >  new_secret:longstr reason:shortstr -> update-secret-ok
 71 update-secret-ok <
channel 20
 10 open          >  _:shortstr -> open-ok
 11 open-ok       <  _:longstr
 20 flow          =  active -> flow-ok
 21 flow-ok       =  active
 40 close         =  reply_code:short reply_text:shortstr class_id:short method_id:short -> close-ok
 41 close-ok      =
exchange 40
 10 declare       >  _:short exchange:shortstr type:shortstr passive durable auto_delete internal \
no_wait arguments:table -> declare-ok
 11 declare-ok    <
 20 delete        >  _:short exchange:shortstr if_unused no_wait -> delete-ok
 21 delete-ok     <
 30 bind          >  _:short destination:shortstr source:shortstr routing_key:shortstr no_wait \
arguments:table -> bind-ok
 31 bind-ok       <
 40 unbind        >  _:short destination:shortstr source:shortstr routing_key:shortstr no_wait \
arguments:table -> unbind-ok
 51 unbind-ok     <
queue 50
 10 declare       >  _:short queue:shortstr passive durable exclusive auto_delete no_wait \
arguments:table -> declare-ok
 11 declare-ok    <  queue:shortstr message_count:long consumer_count:long
 20 bind          >  _:short queue:shortstr exchange:shortstr routing_key:shortstr no_wait \
arguments:table -> bind-ok
 21 bind-ok       <
 30 purge         >  _:short queue:shortstr no_wait -> purge-ok
 31 purge-ok      <  message_count:long
 40 delete        >  _:short queue:shortstr if_unused if_empty no_wait -> delete-ok
 41 delete-ok     <  message_count:long
 50 unbind        >  _:short queue:shortstr exchange:shortstr routing_key:shortstr \
arguments:table -> unbind-ok
 51 unbind-ok     <
basic 60
 10 qos           >  prefetch_size:long prefetch_count:short global -> qos-ok
 11 qos-ok        <
 20 consume       >  _:short queue:shortstr consumer_tag:shortstr no_local no_ack exclusive \
no_wait arguments:table -> consume-ok
 21 consume-ok    <  consumer_tag:shortstr
 30 cancel        =  consumer_tag:shortstr no_wait -> cancel-ok
 31 cancel-ok     =  consumer_tag:shortstr
 40 publish       >  _:short exchange:shortstr routing_key:shortstr mandatory immediate + content
 50 return        <  reply_code:short reply_text:shortstr exchange:shortstr routing_key:shortstr \
+ content
 60 deliver       <  consumer_tag:shortstr delivery_tag:longlong redelivered exchange:shortstr \
routing_key:shortstr + content
 70 get           >  _:short queue:shortstr no_ack -> get-ok get-empty
 71 get-ok        <  delivery_tag:longlong redelivered exchange:shortstr routing_key:shortstr \
message_count:long + content
 72 get-empty     <  _:shortstr
 80 ack           =  delivery_tag:longlong multiple
 90 reject        >  delivery_tag:longlong requeue
100 recover-async >  requeue
110 recover       >  requeue -> recover-ok
111 recover-ok    <
120 nack          =  delivery_tag:longlong multiple requeue
confirm 85
 10 select        >  no_wait -> select-ok
 11 select-ok     <
tx 90
 10 select        >  -> select-ok
 11 select-ok     <
 20 commit        >  -> commit-ok
 21 commit-ok     <
 30 rollback      >  -> rollback-ok
 31 rollback-ok   <
"""

_SENDERS: dict[str, Sender] = {">": "client", "<": "server", "=": "both"}


class Method:
    """One method of the protocol.

    ``name`` is the specification's (``"queue.declare-ok"``), ``key`` the first four bytes of its
    frame's payload as an integer.  ``arguments`` are ``(name, type)`` pairs as callers give and
    receive them; ``wire`` has the reserved ones as well, named ``"_"``.  ``replies`` are names.
    """

    __slots__ = (
        "arguments",
        "class_id",
        "has_content",
        "key",
        "method_id",
        "name",
        "replies",
        "sender",
        "wire",
    )

    def __init__(self, class_name: str, class_id: int, line: str) -> None:
        line, _, replies = line.partition("->")
        line, content, _ = line.partition("+ content")
        number, name, sender, *wire = line.split()
        self.name: str = f"{class_name}.{name}"
        self.class_id: int = class_id
        self.method_id: int = int(number)
        self.key: int = class_id << 16 | self.method_id
        self.sender = _SENDERS[sender]
        self.wire: tuple[tuple[str, str], ...] = tuple(
            _parse_argument(argument) for argument in wire
        )
        self.arguments: tuple[tuple[str, str], ...] = tuple(
            argument for argument in self.wire if argument[0] != "_"
        )
        self.replies: tuple[str, ...] = tuple(f"{class_name}.{reply}" for reply in replies.split())
        self.has_content: bool = bool(content)

    def __repr__(self) -> str:
        return f"<Method {self.name} ({self.class_id}, {self.method_id})>"


def _parse_argument(text: str) -> tuple[str, str]:
    name, _, kind = text.partition(":")
    return name, kind or "bit"


def _parse(table: str) -> list[Method]:
    methods = []
    class_name, class_id = "", 0
    for line in table.strip().splitlines():
        if line[0].isalpha():
            class_name, number = line.split()
            class_id = int(number)
        else:
            methods.append(Method(class_name, class_id, line))
    return methods


_METHODS = _parse(TABLE)
BY_KEY: dict[int, Method] = {method.key: method for method in _METHODS}
BY_NAME: dict[str, Method] = {method.name: method for method in _METHODS}
