"""Row 5. Waiting for data: steps on batches from the loader beside steps on one batch that is replayed.

The clock's time, for once: what is asked is whether the loader's processes keep up. It needs a core beside the step's.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.case import Case
from benchmarks.measure import Metric, of_ratios, seconds
from benchmarks.step import cases
from medssl.contract import Batch
from medssl.data.jobs import cores
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.stages import index, phantom, prepare
from medssl.stages.options.data import Index, Phantom, Prepare

WORKERS = min(4, max(1, cores() - 1))
BATCHES = 16


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """2D and 3D. Also what a batch costs to make, of what a step costs: the workers that are needed."""
    for name, (dims, batch, width, size) in cases(quick).items():
        case = Case(dims, batch, width, size)
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.redirect_stdout(sys.stderr):
                store = _prepared(Path(folder), dims, size)
            rows, region = range(len(store)), case.model.region()
            here = batches(store, rows, region=region, batch=batch, steps=BATCHES + 1, seed=0)
            next(here)
            making = [seconds(partial(next, here)) for _ in range(BATCHES)]
            stepping = [seconds(case.step) for _ in range(3)]
            share = float(np.median(making) / np.median(stepping))
            yield Metric(row=5, name=f"CPU time of a batch ÷ of a step, {name}", value=share)
            loader = batches(store, rows, region=region, batch=batch, steps=pairs + 3, seed=0, workers=WORKERS)
            replayed = next(loader)
            ratios = [_step(case, loader, None) / _step(case, loader, replayed) for _ in range(pairs + 2)][2:]
            stall = of_ratios(5, f"stall, {name}, {WORKERS} workers", "<= 0.02", 1 - 1 / np.array(ratios))
            loader.close()  # type: ignore[attr-defined]
        yield stall


def _prepared(folder: Path, dims: int, size: tuple[int, ...]) -> Store:
    longest = max(32, 3 * max(size) // 2)
    phantom.run(Phantom(out=folder / "scans", patients=12, dims=dims, size=longest, modalities=("CT",)[: dims - 2]))
    data = index.run(Index(scans=folder / "scans", out=folder / "data", workers=1))
    prepare.run(Prepare(data=data, workers=1))
    return Store(data)


def _step(case: Case, loader: Iterator[Batch], replayed: Batch | None) -> float:
    began = time.perf_counter()
    case.batch = next(loader) if replayed is None else replayed
    case.step()
    return time.perf_counter() - began
