"""Row 2. Backward term by term beside one graph: bytes kept for the backward, and time."""

from collections.abc import Iterator

from benchmarks.case import Case, flops
from benchmarks.held import peak_bytes
from benchmarks.measure import Metric, paired
from benchmarks.step import cases


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """With mixed inputs, the case of the published graph, and without: fewer passes, so there is less to save."""
    for name, arguments in cases(quick, device).items():
        for mix in (True, False):
            case, told = Case(*arguments, device=device, mix=mix), f"{name}, {'with' if mix else 'without'} mix"
            assert flops(case.branchwise, "conv") == flops(case.whole, "conv")
            most = case.held_bytes if device == "cpu" else peak_bytes
            kind = "bytes kept" if device == "cpu" else "peak memory"
            ours, theirs = most(case.branchwise), most(case.whole)
            yield Metric(
                row=2, name=f"{kind}, {told}", value=ours / theirs, goal="<= 0.35" if mix else "",
                note=f"count; {ours / 2**20:.0f} MiB ÷ {theirs / 2**20:.0f} MiB",
            )  # fmt: skip
            yield paired(2, f"time, {told}", "<= 1.02", case.branchwise, case.whole, pairs, device=device)
