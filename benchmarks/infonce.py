"""Row 6. InfoNCE by strips beside the whole float32 matrix, forward and backward, every gradient."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.held import Live
from benchmarks.measure import Metric, paired
from medssl.losses import contrastive
from medssl.losses.contrastive import info_nce, unit
from medssl.losses.tiled import tiled_info_nce

WIDTH = 128
Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """As many negatives as queries. The whole matrix and its gradient must fit in memory, or the row has no peer."""
    error = _error(256 if quick else 1024)
    yield Metric(row=6, name="largest relative gradient error, float32 against float64", value=error, goal="< 1e-06")
    for n in (2048,) if quick else (8192,):
        parts = case(n)
        name = f"N = {n}, d = {WIDTH}"
        ours, theirs = partial(_run, tiled_info_nce, parts), partial(_run, dense, parts)
        yield paired(6, f"time, {name}", "<= 0.7", ours, theirs, pairs)
        most, whole = _peak(ours), _peak(theirs)
        note = f"count; {most / 2**20:.0f} MiB ÷ {whole / 2**20:.0f} MiB, the most that is alive beyond the inputs"
        yield Metric(row=6, name=f"memory, {name}", value=most / whole, goal="<= 0.15", note=note)


def case(n: int, dtype: torch.dtype = torch.float32) -> Case:
    """Unit vectors; a tenth of the pairs must not be negatives."""
    torch.manual_seed(0)
    query, key, negatives = (unit(torch.randn(n, WIDTH)).to(dtype).requires_grad_() for _ in range(3))
    return query, key, negatives, torch.rand(n, n) < 0.9, torch.tensor(0.2, dtype=dtype, requires_grad=True)


def dense(*parts: Tensor) -> Tensor:
    """``info_nce`` with the whole matrix, whatever the size."""
    before, contrastive.TILED = contrastive.TILED, float("inf")  # type: ignore[assignment]
    try:
        return info_nce(*parts)
    finally:
        contrastive.TILED = before


def _run(loss: Callable[..., Tensor], parts: Case) -> None:
    for part in parts:
        part.grad = None
    loss(*parts).backward()


def _error(n: int) -> float:
    narrow, wide = case(n), case(n, torch.float64)
    _run(tiled_info_nce, narrow)
    _run(dense, wide)
    pairs = [(a.grad.double(), b.grad) for a, b in zip(narrow, wide, strict=True) if a.grad is not None]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _peak(run: Callable[[], object]) -> int:
    with Live() as live:
        run()
    return live.most
