"""Row 2. Backward term by term beside one graph: bytes kept for the backward, and time."""

from collections.abc import Iterator

from benchmarks.case import Case, flops
from benchmarks.measure import Metric, paired
from benchmarks.step import cases


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """With mixed inputs, the case of the published graph, and without: fewer passes, so there is less to save."""
    for name, arguments in cases(quick).items():
        for mix in (True, False):
            case, told = Case(*arguments, mix=mix), f"{name}, {'with' if mix else 'without'} mix"
            assert flops(case.branchwise, "conv") == flops(case.whole, "conv")
            ratio = case.held_bytes(case.branchwise) / case.held_bytes(case.whole)
            yield Metric(row=2, name=f"bytes kept, {told}", value=ratio, goal="<= 0.35" if mix else "", note="count")
            yield paired(2, f"time, {told}", "<= 1.02", case.branchwise, case.whole, pairs)
