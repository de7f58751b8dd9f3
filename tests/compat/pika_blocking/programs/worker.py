"""Tutorial 2: work as many seconds as a task has dots / 100, one task at a time."""

import os
import time

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="task_queue", durable=True)


def callback(ch, method, properties, body):
    time.sleep(body.count(b".") / 100)
    print(f"done {body.decode()} mode={properties.delivery_mode}", flush=True)
    ch.basic_ack(delivery_tag=method.delivery_tag)
    if body == b"stop":
        ch.stop_consuming()


channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="task_queue", on_message_callback=callback)
print("waiting", flush=True)
channel.start_consuming()
connection.close()
