"""Tutorials 3, 4 and 5: print what an exchange brings until "stop": TYPE NAME KEY..."""

import os
import sys

import pika

kind, name, *keys = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.exchange_declare(exchange=name, exchange_type=kind)
queue_name = channel.queue_declare(queue="", exclusive=True).method.queue
for key in keys:
    channel.queue_bind(exchange=name, queue=queue_name, routing_key=key)


def callback(ch, method, properties, body):
    print(f"received {method.routing_key}:{body.decode()}", flush=True)
    if body == b"stop":
        ch.stop_consuming()


channel.basic_consume(queue=queue_name, on_message_callback=callback, auto_ack=True)
print("waiting", flush=True)
channel.start_consuming()
connection.close()
