"""Consume with worker threads, which acknowledge by way of the connection's thread."""

import functools
import os
import sys
import threading
import time

import pika

COUNT = int(sys.argv[1])
done = []


def ack_message(ch, delivery_tag):
    if ch.is_open:
        ch.basic_ack(delivery_tag)
    done.append(delivery_tag)
    if len(done) == COUNT:
        ch.stop_consuming()


def do_work(ch, delivery_tag, body):
    time.sleep(0.01)
    callback = functools.partial(ack_message, ch, delivery_tag)
    ch.connection.add_callback_threadsafe(callback)


def on_message(ch, method, properties, body, args):
    threads = args
    thread = threading.Thread(target=do_work, args=(ch, method.delivery_tag, body))
    thread.start()
    threads.append(thread)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="work", durable=True)
for number in range(COUNT):
    channel.basic_publish("", "work", str(number))
channel.basic_qos(prefetch_count=5)
threads = []
channel.basic_consume("work", functools.partial(on_message, args=threads))
channel.start_consuming()
for thread in threads:
    thread.join()
left = channel.queue_declare(queue="work", passive=True, durable=True).method.message_count
print(f"worked {len(done)} left {left}")
connection.close()
