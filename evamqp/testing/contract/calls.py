"""Time and calls: the clock, turns of the loop, timers, and the entry for threads and signals.

No future and no connection is checked here.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest

from evamqp.abc import Handle
from evamqp.testing.contract.rig import Contract, Rig


class CallsContract(Contract):
    """When the loop calls back, and that it never does so from inside a call."""

    def test_call_soon_never_calls_from_inside(self, rig: Rig) -> None:
        rig.adapter.call_soon(rig.note("soon"))
        assert rig.notes == []
        rig.until(lambda: rig.notes)

    def test_call_soon_keeps_the_order(self, rig: Rig) -> None:
        for number in range(100):
            rig.adapter.call_soon(rig.note(number))
        rig.until(lambda: len(rig.notes) == 100)
        assert rig.notes == list(range(100))

    def test_cancelled_call_soon_never_calls(self, rig: Rig) -> None:
        handle = rig.adapter.call_soon(rig.note("cancelled"))
        rig.adapter.call_soon(rig.note("kept"))
        handle.cancel()
        handle.cancel()
        rig.until(lambda: rig.notes)
        assert rig.notes == ["kept"]

    def test_timers_fire_in_the_order_of_their_times(self, rig: Rig) -> None:
        rig.adapter.call_later(0.03, rig.note("last"))
        rig.adapter.call_later(0.01, rig.note("first"))
        rig.adapter.call_later(0.02, rig.note("second"))
        rig.until(lambda: "last" in rig.notes)
        assert rig.notes == ["first", "second", "last"]

    def test_timer_never_fires_early(self, rig: Rig) -> None:
        fired: list[float] = []
        due = rig.adapter.time() + 0.02
        rig.adapter.call_later(0.02, lambda: fired.append(rig.adapter.time()))
        rig.until(lambda: fired)
        # asyncio lets a timer pass that is due within the resolution of the clock.
        assert fired[0] >= due - 0.001

    def test_timer_without_delay_never_calls_from_inside(self, rig: Rig) -> None:
        rig.adapter.call_later(0, rig.note("timer"))
        assert rig.notes == []
        rig.until(lambda: rig.notes)

    def test_cancelled_timer_never_fires(self, rig: Rig) -> None:
        handle = rig.adapter.call_later(0.01, rig.note("cancelled"))
        rig.adapter.call_later(0.02, rig.note("kept"))
        handle.cancel()
        handle.cancel()
        rig.until(lambda: rig.notes)
        assert rig.notes == ["kept"]

    def test_cancelling_a_timer_that_fired_does_nothing(self, rig: Rig) -> None:
        handle = rig.adapter.call_later(0, rig.note("fired"))
        rig.until(lambda: rig.notes)
        handle.cancel()
        rig.adapter.call_later(0, rig.note("next"))
        rig.until(lambda: rig.notes == ["fired", "next"])

    def test_timer_can_cancel_another_that_is_due_as_well(self, rig: Rig) -> None:
        handles: list[Handle] = []
        rig.adapter.call_later(0, lambda: handles[0].cancel())
        handles.append(rig.adapter.call_later(0.000_001, rig.note("cancelled")))
        rig.adapter.call_later(0.02, rig.note("kept"))
        rig.until(lambda: rig.notes)
        assert rig.notes == ["kept"]

    def test_time_does_not_go_back(self, rig: Rig) -> None:
        before = rig.adapter.time()
        rig.wait(0.001)
        assert rig.adapter.time() > before

    def test_threadsafe_call_runs_on_the_loops_thread(self, rig: Rig) -> None:
        idents: list[int] = []
        thread = threading.Thread(
            target=rig.adapter.call_soon_threadsafe,
            args=(lambda: idents.append(threading.get_ident()),),
        )
        thread.start()
        thread.join()
        rig.until(lambda: idents)
        assert idents == [threading.get_ident()]

    def test_threadsafe_call_wakes_a_loop_that_sleeps(self, rig: Rig) -> None:
        thread = threading.Thread(
            target=rig.adapter.call_soon_threadsafe, args=(rig.note("woken"),)
        )
        # The loop starts the thread and then has nothing to do but wait for it.
        rig.adapter.call_soon(thread.start)
        rig.until(lambda: rig.notes)
        thread.join()

    def test_threadsafe_calls_keep_each_threads_order_and_lose_none(self, rig: Rig) -> None:
        def call_often(thread_number: int) -> None:
            for number in range(1000):
                rig.adapter.call_soon_threadsafe(rig.note((thread_number, number)))

        threads = [threading.Thread(target=call_often, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        rig.until(lambda: len(rig.notes) == 4000)
        for thread in threads:
            thread.join()
        for thread_number in range(4):
            mine = [number for owner, number in rig.notes if owner == thread_number]
            assert mine == list(range(1000))

    def test_threadsafe_call_never_blocks_while_the_loop_stands_still(self, rig: Rig) -> None:
        for number in range(10_000):
            rig.adapter.call_soon_threadsafe(rig.note(number))
        rig.until(lambda: len(rig.notes) == 10_000)

    def test_closing_is_idempotent(self) -> None:
        adapter = self.make_adapter()
        adapter.close()
        adapter.close()
        self.dispose(adapter)

    @pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals here")
    def test_threadsafe_call_is_legal_in_a_signal_handler(self, rig: Rig) -> None:
        before = signal.signal(
            signal.SIGUSR1,
            lambda *_: rig.adapter.call_soon_threadsafe(rig.note("signal")),
        )
        try:
            rig.adapter.call_soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
            rig.until(lambda: rig.notes)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert rig.notes == ["signal"]
