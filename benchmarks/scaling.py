"""How time and memory grow: a step with voxels, batch and ranks; indexing and preparing with scans and voxels.

    python -m benchmarks.scaling [--only ranks] [--ranks 1 2 4 8] [--repeats 5] [--quick] [--page] [--out FOLDER]

CPU seconds of one thread, the sizes by turns, the median of the repeats. Ranks have a batch of their own each: the CPU
seconds of the busiest, which leave out its waiting, and, where there is an idle core for each, the clock. Bytes are
counts. Keeps a line a point in benchmarks/results/scaling.jsonl and makes docs/results/scaling.md and its plot; with
--out all three go to that folder. --only measures what grows with these and keeps the other points; --page only makes
page and plot from the results there are.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import numpy as np
import polars as pl
import torch

from benchmarks import results, scaling_page
from benchmarks.case import Case
from benchmarks.measure import seconds
from benchmarks.ranks import seconds_a_step
from benchmarks.scaling_page import Point
from medssl.data.jobs import cores
from medssl.files import write_text
from medssl.stages import index, phantom, prepare
from medssl.stages.options.data import Index, Phantom, Prepare

WIDTH = {2: 16, 3: 8}
SIZES = {
    2: [(64, 64), (96, 96), (128, 128), (192, 192)],
    3: [(16, 16, 16), (32, 16, 16), (32, 32, 16), (32, 32, 32)],
}
BATCH = {2: 4, 3: 2}  # of the sizes
BATCHES = (2, 4, 8, 16)  # at the smallest size
SCANS = (48, 96, 192, 384)  # an index draws 48 scans at most, a cost that does not grow from there on
SIDES = {2: (64, 128, 256, 512), 3: (32, 48, 64, 96)}
SIDE, PATIENTS = {2: 128, 3: 32}, 4  # of the numbers of scans, and of the sides


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    grows = tuple(scaling_page.AGAINST)
    parser.add_argument("--only", nargs="+", choices=grows, default=grows, help="what grows; the other points stay")
    parser.add_argument("--ranks", type=int, nargs="+", default=(1, 2, 4, 8), help="numbers of processes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two small points each, to see that all runs; see --out")
    parser.add_argument("--page", action="store_true", help="only make page and plot from the results there are")
    parser.add_argument("--out", type=Path, help="folder of results, page and plot, instead of the project's")
    options = parser.parse_args(arguments)
    kept = (options.out or results.FOLDER) / "scaling.jsonl"
    if not options.page:
        torch.set_num_threads(1)
        points = []
        repeats = 1 if options.quick else options.repeats
        for point in measured(options.only, sorted(options.ranks), repeats, options.quick):
            print(scaling_page.told(point), flush=True)
            points.append(point)
        if options.quick and not options.out:
            return 0
        same = {"commit": results.commit_here(), "hardware": results.name_of()}
        stay = [line for line in results.read(kept) if line["against"] not in options.only] if kept.exists() else []
        lines = stay + [results.rounded(point.__dict__ | same) for point in points]
        write_text(kept, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    scaling_page.write(kept, options.out or results.PAGE.parent)
    return 0


def measured(only: Sequence[str], ranks: Sequence[int], repeats: int, quick: bool) -> Iterator[Point]:
    """All points of what grows with ``only``, kind by kind."""
    few = slice(2 if quick else None)
    for dims in (2, 3):
        if "voxels" in only:
            yield from _steps(dims, "voxels", [(BATCH[dims], size) for size in SIZES[dims][few]], repeats)
            yield from _prepared(dims, "voxels", [(PATIENTS, side) for side in SIDES[dims][few]], repeats)
        if "batch" in only:
            yield from _steps(dims, "batch", [(batch, SIZES[dims][0]) for batch in BATCHES[few]], repeats)
        if "scans" in only:
            yield from _prepared(dims, "scans", [(n, SIDE[dims]) for n in SCANS[few]], repeats)
    if "ranks" in only:
        case = (2, BATCH[2], WIDTH[2], SIZES[2][0])
        for world in ranks[few]:
            spent = [seconds_a_step(world, case) for _ in range(min(3, repeats))]
            yield Point.of("rank_s", "ranks", "CPU", world, [s.cpu for s in spent])
            if world <= cores():
                yield Point.of("rank_s", "ranks", "clock", world, [s.clock for s in spent])


def _steps(dims: int, against: str, sizes: list[tuple[int, tuple[int, ...]]], repeats: int) -> Iterator[Point]:
    """Seconds of a step, and the bytes that it keeps for its backward."""
    cases = [Case(dims, batch, WIDTH[dims], size) for batch, size in sizes]
    for case in cases:
        case.step()
    times = [[seconds(case.step) for case in cases] for _ in range(repeats)]
    for (batch, size), case, spent in zip(sizes, cases, zip(*times, strict=True), strict=True):
        x = batch if against == "batch" else int(np.prod(size))
        yield Point.of("step_s", against, f"{dims}D", x, spent)
        yield Point.of("kept_bytes", against, f"{dims}D", x, [case.held_bytes(case.branchwise)])


def _prepared(dims: int, against: str, sets: list[tuple[int, int]], repeats: int) -> Iterator[Point]:
    """CPU seconds to index and to prepare so many scans of such a side, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        for patients, side in sets:
            scans, data = Path(folder) / f"scans{patients}-{side}", Path(folder) / "data"
            modalities = ("CT",) if dims == 3 else ()
            times = []
            with contextlib.redirect_stdout(io.StringIO()):
                phantom.run(Phantom(out=scans, patients=patients, dims=dims, size=side, modalities=modalities))
                for _ in range(repeats):
                    shutil.rmtree(data, ignore_errors=True)
                    indexed = seconds(partial(index.run, Index(scans=scans, out=data, workers=1)))
                    times.append((indexed, seconds(partial(prepare.run, Prepare(data=data, workers=1)))))
            shapes = pl.read_parquet(data / "index.parquet", columns=["shape"])["shape"]  # of the files: what is read
            x = patients if against == "scans" else int(np.mean([np.prod(shape) for shape in shapes.to_list()]))
            for what, spent in zip(("index_s", "prepare_s"), zip(*times, strict=True), strict=True):
                yield Point.of(what, against, f"{dims}D", x, spent)


if __name__ == "__main__":
    sys.exit(main())
