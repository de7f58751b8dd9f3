# bench: {"name": "socket-alone", "order": 2, "evamqp": false, "knows": ["tls"]}
"""No client: a blocking socket that moves the bytes that a client would, made beforehand.

Over TLS its row is what the ssl module costs, and the difference to a client's row is the client.
It knows publish without confirms, consume without acks, and confirms, one at a time.
"""

from __future__ import annotations

from _measure import Config, Meter, check, main
from _wire import CHUNK, Turns, content_frames, dial, publish_frames
from evamqp.codec.frames import method_frame


def run(config: Config, meter: Meter) -> None:
    """Send, or receive, as many bytes as ``n`` messages have."""
    dialled = dial(config)
    if config.op == "publish":
        message = publish_frames(config)
        batch = memoryview(message * max(1, CHUNK // len(message)))
        left = config.n * len(message)
        meter.start()
        while left > 0:
            dialled.sendall(batch[:left])
            left -= len(batch)
        declare = (config.queue, True, False, False, False, False, {})  # passive
        dialled.sendall(method_frame(1, "queue.declare", *declare))
        dialled.recv(CHUNK)
        meter.stop()
    elif config.op == "consume" and config.no_ack:
        head = method_frame(1, "basic.deliver", "sink-1", 1, False, "", "bench")
        left = config.n * (len(head) + len(content_frames(config)))
        consume = (config.queue, "sink-1", False, True, False, False, {})
        into = bytearray(CHUNK)
        meter.start()
        dialled.sendall(method_frame(1, "basic.consume", *consume))
        left += len(method_frame(1, "basic.consume-ok", "sink-1"))
        while left > 0:
            left -= dialled.recv_into(into)
        meter.stop()
        check(left == 0, f"{-left} bytes more came")
    elif config.op in ("latency", "confirm"):
        turns = Turns(config, dialled)
        data = turns.publish
        meter.start()
        while data:
            dialled.sendall(data)
            data = turns.take(dialled.recv(CHUNK))
        meter.stop()
    else:
        raise NotImplementedError(f"{config.op} takes a client")
    dialled.sendall(method_frame(0, "connection.close", 200, "", 0, 0))
    dialled.recv(CHUNK)
    dialled.close()


if __name__ == "__main__":
    main(run)
