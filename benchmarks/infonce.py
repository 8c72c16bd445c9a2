"""Row 6. InfoNCE by strips beside the whole float32 matrix, forward and backward, every gradient."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.held import Live, peak_bytes
from benchmarks.measure import Metric, paired
from medssl.losses import contrastive
from medssl.losses.contrastive import info_nce, unit
from medssl.losses.tiled import tiled_info_nce

WIDTH = 128
Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """As many negatives as queries. The whole matrix and its gradient must fit in memory, or the row has no peer."""
    found = error(256 if quick else 1024, device)
    yield Metric(row=6, name="largest relative gradient error, float32 against float64", value=found, goal="< 1e-06")
    most = partial(_alive, device)
    for n in (2048,) if quick else (8192,) if device == "cpu" else (8192, 32768):
        parts = case(n, device=device)
        name = f"N = {n}, d = {WIDTH}"
        ours, theirs = partial(run, tiled_info_nce, parts), partial(run, dense, parts)
        yield paired(6, f"time, {name}", "<= 0.7", ours, theirs, pairs, device=device)
        few, whole = most(ours), most(theirs)
        note = f"count; {few / 2**20:.0f} MiB ÷ {whole / 2**20:.0f} MiB, the most that is alive beyond the inputs"
        yield Metric(row=6, name=f"memory, {name}", value=few / whole, goal="<= 0.15", note=note)


def case(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Case:
    """Unit vectors; a tenth of the pairs must not be negatives."""
    torch.manual_seed(0)
    vectors = [unit(torch.randn(n, WIDTH)).to(device, dtype).requires_grad_() for _ in range(3)]
    allowed = torch.rand(n, n, device=device) < 0.9
    query, key, negatives = vectors
    return query, key, negatives, allowed, torch.tensor(0.2, dtype=dtype, device=device, requires_grad=True)


def dense(*parts: Tensor) -> Tensor:
    """``info_nce`` with the whole matrix, whatever the size."""
    before, contrastive.TILED = contrastive.TILED, float("inf")  # type: ignore[assignment]
    try:
        return info_nce(*parts)
    finally:
        contrastive.TILED = before


def run(loss: Callable[..., Tensor], parts: Case) -> None:
    """Forward and backward."""
    for part in parts:
        part.grad = None
    loss(*parts).backward()


def error(n: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Of the gradients by strips in ``dtype``, against the whole matrix in float64: the largest relative one."""
    narrow, wide = case(n, dtype, device), case(n, torch.float64, device)
    run(tiled_info_nce, narrow)
    run(dense, wide)
    pairs = [(a.grad.double(), b.grad) for a, b in zip(narrow, wide, strict=True) if a.grad is not None]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _alive(device: str, call: Callable[[], object]) -> int:
    if device != "cpu":
        return peak_bytes(call)
    with Live() as live:
        call()
    return live.most
