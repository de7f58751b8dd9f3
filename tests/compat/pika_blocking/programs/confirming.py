"""Publish with confirms, one message that is routed and one that is not; then basic_get."""

import os

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(queue="test", durable=True, auto_delete=False)
channel.confirm_delivery()
for key in ("test", "nowhere"):
    try:
        channel.basic_publish(
            exchange="",
            routing_key=key,
            body="Hello World!",
            properties=pika.BasicProperties(
                content_type="text/plain", delivery_mode=pika.DeliveryMode.Transient
            ),
            mandatory=True,
        )
        print(f"{key}: confirmed")
    except pika.exceptions.UnroutableError as error:
        print(f"{key}: returned {error.messages[0].method.reply_code}")
for _ in range(2):
    method, header, body = channel.basic_get("test")
    if method:
        print(f"got {body.decode()} {header.content_type} {method.message_count}")
        channel.basic_ack(method.delivery_tag)
    else:
        print("no message")
connection.close()
