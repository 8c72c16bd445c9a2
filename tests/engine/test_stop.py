"""Signals ask; the loop decides when."""

import os
import signal
import threading
import time

import pytest

from medssl.engine.stop import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_a_stop_and_interrupts_nothing(number):
    with Stop() as stop:
        assert not stop.due()
        os.kill(os.getpid(), number)
        assert stop.due()
        assert stop.requested


@pytest.fixture
def python_interrupts():
    """SIGINT as Python starts with it; a test run in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_interrupts_at_once(python_interrupts):
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        while not stop.requested:  # two of the same signal that wait together are one
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_in_another_thread_it_leaves_signals_alone():
    seen = []

    def job() -> None:
        with Stop() as stop:
            seen.append(stop.due())

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [False]
