"""An estimate that proves wrong is corrected, once, by a clock that is not the machine's."""

import pytest

from medssl.data.feed import Pace
from medssl.engine import log
from medssl.stages.pace import PROOF_S, PROOF_STEPS, WRONG, Promise
from medssl.stages.preflight import BLOCK, measured


class Clock:
    """Every step takes ``step_s`` of it."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 100.0, step_s

    def run(self, promise: Promise, first: int, last: int) -> list[tuple[int, str]]:
        told = []
        for step in range(first, last + 1):
            self.now += self.step_s
            if sentence := promise.kept(step):
                told.append((step, sentence))
        return told


def test_an_estimate_of_a_loaded_minute_is_corrected_once() -> None:
    clock = Clock(0.5)
    promise = Promise(1000, lambda: clock.now)
    assert clock.run(promise, 1, 5) == []  # nothing was said yet
    promise.make(2.4, at=5)
    assert clock.run(promise, 6, 24) == []  # nineteen steps prove nothing
    ((step, said),) = clock.run(promise, 25, 1000)
    assert step == 25
    assert said == (
        "preflight: a step takes 0.5 s, not 2.4 s as first measured: the 975 steps that are left take about 8:08"
    )


@pytest.mark.parametrize(("ratio", "corrected"), [(1 / 1.6, 1), (1 / 1.4, 0), (1.0, 0), (1.4, 0), (1.6, 1)])
def test_only_what_is_far_off_is_corrected_either_way(ratio: float, corrected: int) -> None:
    assert 1.4 < WRONG < 1.6
    clock = Clock(2.0 * ratio)
    promise = Promise(500, lambda: clock.now)
    promise.make(2.0, at=0)
    assert len(clock.run(promise, 1, 500)) == corrected


def test_quick_steps_are_watched_for_seconds_and_a_run_that_ends_is_left_alone() -> None:
    clock = Clock(0.01)
    promise = Promise(2000, lambda: clock.now)
    promise.make(0.1, at=0)
    ((step, _),) = clock.run(promise, 1, 2000)
    assert step == pytest.approx(PROOF_S / 0.01, abs=1)
    ends = Promise(PROOF_STEPS, lambda: clock.now)
    ends.make(1e-6, at=0)
    clock.step_s = 10.0
    assert clock.run(ends, 1, PROOF_STEPS) == []


def test_probes_and_checkpoints_are_not_the_steps_time(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    clock = log.Clock(100)
    promise = Promise(100, clock.now_s)
    promise.make(1.0, at=0)
    for step in range(1, 51):
        now[0] += 1.0
        assert promise.kept(step) == ""
        with clock.paused():
            now[0] += 9.0
    assert clock.now_s() == 50.0


def test_a_measurement_is_the_median_of_blocks_and_tells_their_spread() -> None:
    assert BLOCK == 2
    calm = [(0.1, 1.0), (0.3, 1.0)]  # mean .2 and 1
    slow = [(0.1, 4.9), (0.1, 4.9)]
    pace, spread = measured([*calm, *slow, *calm, *calm, *slow])
    assert pace == Pace(pytest.approx(0.2), pytest.approx(1.0)) and spread == pytest.approx(5.0 / 1.2)
    assert measured(3 * calm)[1] == pytest.approx(1.0)
    assert measured([*calm, (9.0, 9.0)]) == measured(calm)  # no whole block
    assert measured([(2.0, 3.0)]) == (Pace(2.0, 3.0), 1.0)  # steps so slow that one was enough
