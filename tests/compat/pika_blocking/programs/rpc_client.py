"""Tutorial 6: ask for Fibonacci numbers; ``direct`` as first argument uses direct reply-to."""

import os
import sys
import uuid

import pika


class FibonacciClient:
    def __init__(self, direct):
        self.connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
        self.channel = self.connection.channel()
        if direct:
            self.callback_queue = "amq.rabbitmq.reply-to"
        else:
            self.callback_queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        self.channel.basic_consume(
            queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True
        )
        self.response = self.corr_id = None

    def on_response(self, ch, method, props, body):
        if self.corr_id == props.correlation_id:
            self.response = body

    def call(self, n):
        self.response = None
        self.corr_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            properties=pika.BasicProperties(
                reply_to=self.callback_queue, correlation_id=self.corr_id
            ),
            body=str(n),
        )
        while self.response is None:
            self.connection.process_data_events(time_limit=None)
        return int(self.response)


client = FibonacciClient("direct" in sys.argv)
for argument in sys.argv[1:]:
    if argument != "direct":
        print(f"fib({argument}) = {client.call(int(argument))}", flush=True)
client.connection.close()
