"""Tutorial 1: put one message into a queue."""

import os

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="hello", durable=True)
channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
print("sent")
connection.close()
