"""fedora-messaging on the facade: publish, consume, nack, drop, and a loss in between."""

import os
import sys

import evamqp.compat

evamqp.compat.substitute("pika")

COUNT = 20
os.environ["FEDORA_MESSAGING_CONF"] = sys.argv[1]
with open(sys.argv[1], "w") as conf:
    conf.write(f"""
amqp_url = "{os.environ["AMQP_URL"]}"
topic_prefix = ""
[exchanges."amq.topic"]
type = "topic"
durable = true
auto_delete = false
arguments = {{}}
[queues.fedora]
durable = true
auto_delete = false
exclusive = false
arguments = {{}}
[[bindings]]
queue = "fedora"
exchange = "amq.topic"
routing_keys = ["#"]
""")

import pika  # noqa: E402
from fedora_messaging import api, config, exceptions, message  # noqa: E402
from twisted.internet import defer, reactor, task  # noqa: E402

got = []
phase = ["first"]


def on_message(incoming):
    number = incoming.body["number"]
    again = number in got
    got.append(number)
    if number == 3 and not again:
        print("nacked 3", flush=True)
        raise exceptions.Nack()
    if number == 5:
        print("dropped 5", flush=True)
        raise exceptions.Drop()


@defer.inlineCallbacks
def until(condition):
    while not condition():
        yield task.deferLater(reactor, 0.05, lambda: None)


@defer.inlineCallbacks
def publish(numbers):
    for number in numbers:
        made = message.Message(topic="a.b", body={"number": number})
        while True:
            try:
                yield api.twisted_publish(made)
            except exceptions.ConnectionException:
                yield task.deferLater(reactor, 0.1, lambda: None)
            else:
                break


@defer.inlineCallbacks
def main():
    yield api.twisted_consume(
        on_message, bindings=config.conf["bindings"], queues=config.conf["queues"]
    )
    yield publish(range(COUNT))
    yield until(lambda: len(set(got)) == COUNT and got.count(3) == 2)
    print("half", flush=True)
    yield until(lambda: os.path.exists(sys.argv[2]))
    yield publish(range(COUNT, 2 * COUNT))
    yield until(lambda: len(set(got)) == 2 * COUNT)
    print(f"{pika.__name__} got={len(set(got))}", flush=True)


def begin():
    ended = main()
    ended.addErrback(lambda failure: failure.printTraceback())
    ended.addBoth(lambda _: reactor.stop())


reactor.callWhenRunning(begin)
reactor.run()
