"""Tutorials 3, 4 and 5: publish to an exchange: TYPE NAME KEY MESSAGE..."""

import os
import sys

import pika

kind, name, key, *messages = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.exchange_declare(exchange=name, exchange_type=kind)
for message in messages:
    channel.basic_publish(exchange=name, routing_key=key, body=message)
print("sent")
connection.close()
