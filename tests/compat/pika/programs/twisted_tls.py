"""A message over Twisted's own TLS: PORT and AUTHORITY in the environment."""

import os
from pathlib import Path

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet import ssl
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.task import react


@inlineCallbacks
def main(reactor):
    authority = ssl.Certificate.loadPEM(Path(os.environ["AUTHORITY"]).read_bytes())
    trust = ssl.optionsForClientTLS("localhost", trustRoot=authority)
    endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", int(os.environ["PORT"]), trust)
    protocol = TwistedProtocolConnection(pika.ConnectionParameters())
    yield connectProtocol(endpoint, protocol)
    yield protocol.ready
    channel = yield protocol.channel()
    declared = yield channel.queue_declare("", exclusive=True)
    queue, _ = yield channel.basic_consume(declared.method.queue, auto_ack=True)
    yield channel.basic_publish("", declared.method.queue, b"by TLS")
    message = yield queue.get()
    print(message.body.decode(), flush=True)
    yield protocol.close()


react(main)
