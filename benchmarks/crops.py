"""Random crops a second: the prepared store against MONAI's LoadImage and RandSpatialCrop on the file itself.

    python benchmarks/crops.py SCAN.nii.gz [--pairs 21] [--region 64 64 32]

Both arms run by turns in this process on one thread; a line of JSON a metric, ratios with a 95 % bootstrap interval.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import SimpleITK as sitk
from monai.transforms import LoadImage, RandSpatialCrop

from medssl.data import arrays
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.rng import stream
from medssl.stages import index, prepare
from medssl.stages.options.data import Index, Prepare

CROPS = 64  # of the store in one measurement


def main() -> None:
    """Prepare the scan in a temporary folder, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--region", type=int, nargs=3, default=(64, 64, 32))
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):
            store = prepared(options.scan, Path(folder))
        region = tuple(options.region)
        compare(store, options.scan, region, options.pairs)
        tell("bytes_read_per_byte_of_crop", amplification(store, region))


def prepared(scan: Path, folder: Path) -> Store:
    """The scan alone in a store, on its own grid and uncropped, so that both arms cut from equal volumes."""
    (folder / "scans").mkdir()
    (folder / "scans" / scan.name).symlink_to(scan.resolve())
    data = index.run(Index(scans=folder / "scans", out=folder / "data", modality="CT", workers=1))
    prepare.run(Prepare(data=data, plan_only=True))
    plan = data / "plan.toml"
    plan.write_text(plan.read_text().replace("crop = true", "crop = false"))
    prepare.run(Prepare(data=data, workers=1))
    return Store(data)


def compare(store: Store, scan: Path, region: tuple[int, ...], pairs: int) -> None:
    """Crops a second of both arms, and their ratio."""
    load, crop = LoadImage(image_only=True, ensure_channel_first=True), RandSpatialCrop(region, random_size=False)
    crop.set_random_state(0)
    loader = batches(store, [0], region=region, batch=CROPS, steps=pairs + 1, seed=0)

    def theirs() -> None:
        crop(load(scan))

    seconds = [(timed(lambda: next(loader)) / CROPS, timed(theirs)) for _ in range(pairs + 1)][1:]
    ours, monai = np.array(seconds).T
    tell("crops_per_s_store", float(1 / np.median(ours)))
    tell("crops_per_s_monai", float(1 / np.median(monai)))
    ratios = monai / ours
    drawn = stream(0, "bootstrap").choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    tell("crops_ratio", float(np.median(ratios)), interval=[float(low), float(high)])


def amplification(store: Store, region: tuple[int, ...]) -> float:
    """Compressed bytes of the blocks that a random crop touches, over the crop's own bytes; mean of 1000 crops."""
    array = arrays.load(store.data / "store" / store.names[0].decode())
    packed = array.schunk.cbytes / (np.prod(array.shape) * array.dtype.itemsize)
    rng, block = stream(0, "places"), np.array(array.blocks[1:])
    starts = rng.integers(0, np.array(array.shape[1:]) - region + 1, (1000, 3))
    touched = np.ceil((starts + region) / block) - starts // block
    return float((touched.prod(axis=1) * block.prod()).mean() * packed / np.prod(region))


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def tell(metric: str, value: float, **more: object) -> None:
    """A line of JSON."""
    print(json.dumps({"metric": metric, "value": round(value, 4), **more}))


if __name__ == "__main__":
    main()
