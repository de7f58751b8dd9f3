"""dramatiq with actors that succeed, retry and are delayed; pika is substituted, or it is not."""

import os
import sys
import threading
import time

if "substitute" in sys.argv:
    import evamqp.compat

    evamqp.compat.substitute("pika")

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ["AMQP_URL"])
dramatiq.set_broker(broker)
lock = threading.Lock()
added, tries, delays = [], [], []


@dramatiq.actor(queue_name="adding")
def add(number):
    with lock:
        added.append(number)


@dramatiq.actor(queue_name="failing", max_retries=3, min_backoff=20, max_backoff=40)
def fail_twice():
    with lock:
        tries.append(time.monotonic())
    if len(tries) < 3:
        raise RuntimeError("not yet")


@dramatiq.actor(queue_name="delaying")
def later(sent):
    with lock:
        delays.append(time.time() - sent)


worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=4)
worker.start()
for number in range(200):
    add.send(number)
fail_twice.send()
later.send_with_options(args=(time.time(),), delay=300)
deadline = time.monotonic() + 30
while time.monotonic() < deadline and not (len(added) == 200 and len(tries) == 3 and delays):
    time.sleep(0.05)
for queue in ("adding", "failing", "delaying"):
    broker.join(queue, timeout=20_000)
worker.join()
worker.stop()
broker.close()
is_late = bool(delays) and delays[0] >= 0.3
print(f"pika={pika.__name__} added={sum(added)} tries={len(tries)} delayed={is_late}", flush=True)
