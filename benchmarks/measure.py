"""What every row shares: a metric with its goal, and the fair comparison of two runs."""

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medssl.rng import stream

Run = Callable[[], object]
WARM = 2  # pairs that come first and do not count
LIMITS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of the table in docs/results/performance.md. ``interval``: of the median, 95 %; none for a count."""

    row: int
    name: str
    value: float | None
    goal: str = ""
    """Such as "<= 1.1"; empty where the figure only informs."""
    interval: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether value and interval are within the goal; None where there is no value, or the interval spans it."""
        if not self.goal or self.value is None:
            return None
        sign, limit = self.goal.split()
        within = {LIMITS[sign](x, float(limit)) for x in (self.value, *(self.interval or ()))}
        return within.pop() if len(within) == 1 else None


def paired(
    row: int, name: str, goal: str, ours: Run, theirs: Run, pairs: int, note: str = "", device: str = "cpu"
) -> Metric:
    """Time of ``ours`` ÷ ``theirs``: they run by turns, the median of the ratios counts.

    CPU time of one thread each, not the clock's: on a shared machine that tells who else is there. What is left of it
    hits both. On a GPU the clock's.
    """
    times = np.array([[seconds(ours, device), seconds(theirs, device)] for _ in range(pairs + WARM)])[WARM:]
    told = f"median {np.median(times[:, 0]):.3g} s ÷ {np.median(times[:, 1]):.3g} s, {pairs} pairs"
    return of_ratios(row, name, goal, times[:, 0] / times[:, 1], "; ".join(filter(None, [note, told])))


def of_ratios(row: int, name: str, goal: str, ratios: Sequence[float] | np.ndarray, note: str = "") -> Metric:
    """The median of ratios of pairs, with the interval that 95 % of its bootstrap draws fall into."""
    ratios = np.asarray(ratios)
    draws = np.median(stream(0, "bootstrap").choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Metric(row=row, name=name, value=float(np.median(ratios)), goal=goal, interval=(low, high), note=note)


def inverse(metric: Metric, goal: str) -> Metric:
    """As speed instead of time: theirs ÷ ours."""
    low, high = metric.interval or (1.0, 1.0)
    return Metric(
        row=metric.row, name=metric.name, value=1 / (metric.value or 1), goal=goal, interval=(1 / high, 1 / low),
        note=metric.note,
    )  # fmt: skip


def missing(row: int, name: str, goal: str, package: str) -> Metric:
    """A row whose peer is not installed."""
    return Metric(row=row, name=name, value=None, goal=goal, note=f"{package} is not installed: pip install .[bench]")


def seconds(run: Run, device: str = "cpu") -> float:
    """Of one call: CPU seconds, or on a GPU the clock's until all that it queued is done."""
    began = time.process_time() if device == "cpu" else clock(device)
    run()
    return (time.process_time() if device == "cpu" else clock(device)) - began


def clock(device: str) -> float:
    """The clock's seconds, once the device has done all that is queued."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()
