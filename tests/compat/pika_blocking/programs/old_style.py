"""As programs were written for pika 0.10 to 0.13: the callback first, no_ack, add_timeout."""

import os

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.exchange_declare(exchange="old", type="direct")
result = channel.queue_declare(exclusive=True)
channel.queue_bind(exchange="old", queue=result.method.queue, routing_key="key")
got = []


def callback(ch, method, properties, body):
    got.append(body)
    print(" %r:%r on %i" % (method.routing_key, body, ch))
    if len(got) == 2:
        ch.stop_consuming()


channel.basic_consume(callback, queue=result.method.queue, no_ack=True)
channel.confirm_delivery()
print(channel.basic_publish(exchange="old", routing_key="key", body="one", mandatory=True))
print(channel.basic_publish(exchange="old", routing_key="none", body="lost", mandatory=True))
connection.add_timeout(0.05, lambda: channel.basic_publish("old", "key", "two"))
channel.start_consuming()
channel.close()
channel.close()
connection.close()
connection.close()
print("over")
