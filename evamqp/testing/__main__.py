"""``python -m evamqp.testing --port 5672``: the embedded broker as a program, until a signal."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from evamqp.testing.broker import RELEASE, Broker
from evamqp.testing.broker.release import RELEASES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evamqp.testing",
        description="An AMQP broker in memory, for tests and demos.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=5672, help="port; 0 picks a free one")
    parser.add_argument(
        "--vhost", action="append", default=[], help="a virtual host besides /; may be repeated"
    )
    parser.add_argument(
        "--release", default=RELEASE, choices=RELEASES, help="the RabbitMQ to imitate"
    )
    options = parser.parse_args(arguments)
    with Broker(publishes_kept=0, release=options.release) as broker:  # nobody here would look
        for vhost in options.vhost:
            broker.add_vhost(vhost)
        try:
            broker.listen(options.host, options.port)
        except OSError as error:
            sys.stderr.write(f"evamqp.testing: {options.host}:{options.port}: {error.strerror}\n")
            return 1
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: broker.adapter.stop())
        sys.stdout.write(f"{broker.url}\n")
        sys.stdout.flush()
        broker.adapter.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
