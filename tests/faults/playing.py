"""Runs a loop in this thread while what hurts it runs in another.

It holds no tests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.loops import Loop
from traffic import Account, Traffic

# Seconds, many times what a fault and its end take.
TIMEOUT = 180.0


def play(loop: Loop, traffic: Traffic, hurt: Callable[[], object]) -> Account:
    """Run the traffic to its end while ``hurt`` runs; returns what became of the messages."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            hurt()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="faults")
    thread.start()
    try:
        loop.until(lambda: not thread.is_alive() and (failures or traffic.is_done), TIMEOUT)
    finally:
        traffic.close()
        loop.until(lambda: traffic.is_over)
        thread.join()
    account = traffic.account()
    assert not failures, (failures, account)
    assert account.sent == traffic.total, account
    return account
