"""A Twisted program of 0.x: no_ack, four values from a queue, LoopingCall, add_timeout."""

import os
import sys

import pika
from pika.adapters import twisted_connection
from twisted.internet import defer, protocol, reactor, task

count = int(sys.argv[1])


@defer.inlineCallbacks
def run(connection):
    channel = yield connection.channel()
    yield channel.exchange_declare(exchange="topic_link", type="topic", auto_delete=True)
    yield channel.queue_declare(queue="hello", auto_delete=False, exclusive=True)
    yield channel.queue_bind(exchange="topic_link", queue="hello", routing_key="hello.world")
    yield channel.basic_qos(prefetch_count=1)
    queue, consumer_tag = yield channel.basic_consume(queue="hello", no_ack=False)
    for number in range(count):
        channel.basic_publish("topic_link", "hello.world", "message %d" % number)
    bodies = []
    looping = task.LoopingCall(lambda: read(queue, bodies, looping))
    yield looping.start(0.01)
    assert bodies == ["message %d" % number for number in range(count)], bodies
    print("read=%d" % count)
    connection.close()
    reactor.callLater(0.1, reactor.stop)


@defer.inlineCallbacks
def read(queue, bodies, looping):
    ch, method, properties, body = yield queue.get()
    if body:
        bodies.append(body.decode())
    if len(bodies) == count:
        looping.stop()
    yield ch.basic_ack(delivery_tag=method.delivery_tag)


def failed(failure):
    failure.printTraceback()
    reactor.stop()


parameters = pika.URLParameters(os.environ["AMQP_URL"])
creator = protocol.ClientCreator(reactor, twisted_connection.TwistedProtocolConnection, parameters)
connected = creator.connectTCP(parameters.host, parameters.port)
connected.addCallback(lambda protocol: protocol.ready)
connected.addCallback(run)
connected.addErrback(failed)
reactor.run()
