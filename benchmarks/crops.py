"""Row 4. Random crops: the prepared store beside MONAI's LoadImage and RandSpatialCrop, and TorchIO, on the file.

A generated CT of 512×512×288 voxels, int16, gzipped; both read it from the page cache.
"""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.transforms import LoadImage, RandSpatialCrop

from benchmarks.measure import Metric, inverse, missing, of_ratios, seconds
from medssl.data import arrays
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.rng import stream
from medssl.stages import index, prepare
from medssl.stages.options.data import Index, Prepare

CROPS = 32  # of the store in one measurement
REGIONS = ((32, 64, 64), (64, 96, 96), (112, 112, 56))  # the last is what PCRL cuts for a view of 64×64×32
BYTES = (64, 64, 32)


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """A crop from the file costs its whole decoding, so three pairs in four would tell nothing new: a third of them."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    shape = (96, 96, 64) if quick else (512, 512, 288)
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scans" / "ct.nii.gz"
        scan.parent.mkdir()
        write_ct(scan, shape)
        with contextlib.redirect_stdout(sys.stderr):
            store = prepared(scan.parent, Path(folder) / "data")
        for region in REGIONS[:1] if quick else REGIONS:
            yield from compare(store, scan, region, max(3, pairs // 3))
        for region in (BYTES, *REGIONS)[: 1 if quick else None]:
            value, name = amplification(store, region), "×".join(map(str, region))
            yield Metric(row=4, name=f"bytes read ÷ bytes of a crop of {name}", value=value, goal="<= 3", note="count")


def write_ct(path: Path, shape: tuple[int, ...]) -> None:
    """Air, a body with soft texture, noise as a scanner has it: some 60 % of the int16 bytes remain after gzip."""
    rng = stream(0, "ct")
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    body = ((x[:, None, None] / 0.8) ** 2 + (y[:, None] / 0.6) ** 2 + 0 * z < 1).astype(np.int16)
    coarse = rng.normal(0, 60, [-(-n // 8) for n in shape]).astype(np.int16)
    texture = np.kron(coarse, np.ones((8, 8, 8), np.int16))[tuple(slice(n) for n in shape)]
    noise = rng.normal(0, 12, shape).astype(np.int16)
    image = sitk.GetImageFromArray((-1000 + body * (1040 + texture) + noise).transpose(2, 1, 0))
    image.SetSpacing((0.7, 0.7, 1.0))
    sitk.WriteImage(image, path, useCompression=True)


def prepared(scans: Path, data: Path) -> Store:
    """The scan alone in a store, on its own grid and uncropped, so that both sides cut from equal volumes."""
    index.run(Index(scans=scans, out=data, modality="CT", workers=1))
    prepare.run(Prepare(data=data, plan_only=True))
    plan = data / "plan.toml"
    plan.write_text(plan.read_text().replace("crop = true", "crop = false"))
    prepare.run(Prepare(data=data, workers=1))
    return Store(data)


def compare(store: Store, scan: Path, region: tuple[int, ...], pairs: int) -> Iterator[Metric]:
    """Crops a second of ours ÷ theirs."""
    loader = batches(store, [0], region=region, batch=CROPS, steps=2 * pairs + 2, seed=0)
    next(loader)
    name = "×".join(map(str, region))
    load, crop = LoadImage(image_only=True, ensure_channel_first=True), RandSpatialCrop(region, random_size=False)
    yield _ratio(f"crops a second ÷ MONAI, {name}", lambda: crop(load(scan)), loader, pairs, ">= 500")
    if importlib.util.find_spec("torchio") is None:
        yield missing(4, f"crops a second ÷ TorchIO, {name}", "", "torchio")
        return
    import torchio as tio

    sampler = tio.UniformSampler(region)

    def torchio() -> None:
        next(iter(sampler(tio.Subject(image=tio.ScalarImage(scan)), 1)))

    yield _ratio(f"crops a second ÷ TorchIO, {name}", torchio, loader, pairs, "")


def _ratio(name: str, theirs: Callable[[], object], loader: Iterator, pairs: int, goal: str) -> Metric:
    times = np.array([[seconds(lambda: next(loader)) / CROPS, seconds(theirs)] for _ in range(pairs)])
    ours, peer = np.median(times, axis=0)
    note = f"{1e3 * ours:.3g} ms beside {1e3 * peer:.3g} ms a crop, {pairs} pairs"
    return inverse(of_ratios(4, name, "", times[:, 0] / times[:, 1], note), goal)


def amplification(store: Store, region: tuple[int, ...]) -> float:
    """Compressed bytes of the blocks that a random crop touches, over the crop's own bytes; mean of 1000 crops."""
    array = arrays.load(store.data / "store" / store.names[0].decode())
    packed = array.schunk.cbytes / (np.prod(array.shape) * array.dtype.itemsize)
    rng, block = stream(0, "places"), np.array(array.blocks[1:])
    starts = rng.integers(0, np.array(array.shape[1:]) - region + 1, (1000, 3))
    touched = np.ceil((starts + region) / block) - starts // block
    return float((touched.prod(axis=1) * block.prod()).mean() * packed / np.prod(region))
