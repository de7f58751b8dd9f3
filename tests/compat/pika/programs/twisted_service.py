"""A service for twistd: a factory that reconnects, a consumer, and a publisher with confirms.

What comes to the queue ``text`` is answered to the queue ``answers``.
"""

import os

import pika
from pika.adapters import twisted_connection
from twisted.application import internet, service
from twisted.internet import defer, protocol
from twisted.python import log


class Protocol(twisted_connection.TwistedProtocolConnection):
    def connectionReady(self):
        self.factory.resetDelay()
        self.serve().addErrback(log.err)
        return self

    @defer.inlineCallbacks
    def serve(self):
        channel = yield self.channel()
        yield channel.basic_qos(prefetch_count=10)
        yield channel.queue_declare(queue="text", durable=True)
        yield channel.queue_declare(queue="answers", durable=True)
        yield channel.confirm_delivery()
        queue, tag = yield channel.basic_consume(queue="text", auto_ack=False)
        log.msg("consuming")
        try:
            while True:
                _, method, properties, body = yield queue.get()
                yield channel.basic_publish(
                    exchange="",
                    routing_key="answers",
                    body=body.upper(),
                    properties=pika.BasicProperties(correlation_id="c"),
                    mandatory=True,
                )
                yield channel.basic_ack(delivery_tag=method.delivery_tag)
        except Exception as error:
            log.msg("lost: %s" % type(error).__name__)


class Factory(protocol.ReconnectingClientFactory):
    initialDelay = 0.1

    def __init__(self, parameters):
        self.parameters = parameters

    def buildProtocol(self, address):
        made = Protocol(self.parameters)
        made.factory = self
        return made


parameters = pika.URLParameters(os.environ["AMQP_URL"])
application = service.Application("answers")
client = internet.TCPClient(parameters.host, parameters.port, Factory(parameters))
client.setServiceParent(application)
