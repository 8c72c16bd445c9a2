"""Random crops a second: scans held in memory against the prepared files, warm. One JSON line a metric.

    python benchmarks/resident.py [--shape 160 192 160] [--region 64 64 32] [--scans 4] [--pairs 21]

Both arms draw the same crops by turns in this process on one thread; ratios are medians with a 95 % bootstrap interval.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import SimpleITK as sitk

from medssl.data.resident import Resident
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.rng import stream
from medssl.stages import index, prepare
from medssl.stages.options.data import Index, Prepare

CROPS = 16  # a batch


def main() -> None:
    """Prepare smooth noise as CT in a temporary folder, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 192, 160))
    parser.add_argument("--region", type=int, nargs=3, default=(64, 64, 32))
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):
            store = prepared(Path(folder), tuple(options.shape), options.scans)
        compare(store, tuple(options.region), options.pairs)


def prepared(folder: Path, shape: tuple[int, ...], scans: int) -> Store:
    """A store of int16 volumes."""
    (folder / "scans").mkdir()
    for scan in range(scans):
        noise = stream(0, "scan", scan).normal(0, 300, tuple(n // 8 for n in shape))
        smooth = np.kron(noise, np.ones((8, 8, 8))) + stream(0, "fine", scan).normal(0, 20, shape)
        image = sitk.GetImageFromArray(smooth.astype(np.int16))
        sitk.WriteImage(image, str(folder / "scans" / f"{scan}.nii.gz"))
    data = index.run(Index(scans=folder / "scans", out=folder / "data", modality="CT", workers=1))
    prepare.run(Prepare(data=data, workers=1))
    return Store(data)


def compare(store: Store, region: tuple[int, ...], pairs: int) -> None:
    """Crops a second of both arms, their ratio, and what holding the scans costs."""
    rows = list(range(len(store)))
    held = Store(store.data)
    began = time.perf_counter()
    held.resident = Resident(held, rows)
    tell("resident_fill_mb_per_s", held.bytes(rows) / 1e6 / (time.perf_counter() - began))
    arms = [batches(one, rows, region=region, batch=CROPS, steps=pairs + 2, seed=0) for one in (store, held)]
    seconds = []
    for _ in range(pairs + 2):
        taken, drawn = [], []
        for arm in arms:
            began = time.perf_counter()
            drawn.append(next(arm))
            taken.append((time.perf_counter() - began) / CROPS)
        assert drawn[0].image.equal(drawn[1].image)
        seconds.append(taken)
    files, memory = np.array(seconds[2:]).T
    tell("crops_per_s_files", float(1 / np.median(files)))
    tell("crops_per_s_resident", float(1 / np.median(memory)))
    ratios = files / memory
    medians = np.median(stream(0, "bootstrap").choice(ratios, (2000, len(ratios))), axis=1)
    tell("resident_ratio", float(np.median(ratios)), interval=np.percentile(medians, (2.5, 97.5)).round(2).tolist())


def tell(metric: str, value: float, **more: object) -> None:
    """A line of JSON."""
    print(json.dumps({"metric": metric, "value": round(value, 4), **more}))


if __name__ == "__main__":
    main()
