"""Tutorial 6: answer with Fibonacci numbers; -1 ends it."""

import os

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="rpc_queue", durable=True)


def fibonacci(n):
    before, last = 0, 1
    for _ in range(n):
        before, last = last, before + last
    return before


def on_request(ch, method, props, body):
    number = int(body)
    ch.basic_publish(
        exchange="",
        routing_key=props.reply_to,
        properties=pika.BasicProperties(correlation_id=props.correlation_id),
        body=str(fibonacci(max(number, 0))),
    )
    ch.basic_ack(delivery_tag=method.delivery_tag)
    if number < 0:
        ch.stop_consuming()


channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="rpc_queue", on_message_callback=on_request)
print("waiting", flush=True)
channel.start_consuming()
connection.close()
