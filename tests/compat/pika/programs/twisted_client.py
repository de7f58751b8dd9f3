"""Asks the service, by ClientCreator, and prints what it answers."""

import os
import sys

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet import defer, protocol, task

count = int(sys.argv[1])


@defer.inlineCallbacks
def main(reactor):
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    creator = protocol.ClientCreator(reactor, TwistedProtocolConnection, parameters)
    connection = yield creator.connectTCP(parameters.host, parameters.port)
    yield connection.ready
    channel = yield connection.channel()
    yield channel.queue_declare("text", durable=True)
    yield channel.queue_declare("answers", durable=True)
    yield channel.confirm_delivery()
    queue, tag = yield channel.basic_consume("answers", auto_ack=True)
    asked = [channel.basic_publish("", "text", "question %d" % n) for n in range(count)]
    yield defer.gatherResults(asked)
    answers = []
    for _ in range(count):
        message = yield queue.get()
        answers.append(message.body.decode())
    assert answers == ["QUESTION %d" % n for n in range(count)], answers
    try:
        yield channel.basic_publish("", "nowhere", b"", mandatory=True)
    except pika.exceptions.UnroutableError as error:
        print("returned", error.messages[0].method.routing_key)
    yield connection.close()
    print("answers=%d" % len(answers))


task.react(main)
