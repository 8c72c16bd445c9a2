"""Batches of regions from the store. What lies at (seed, step, position) is a pure function of these three.

So worker counts change nothing, a run resumed at step s sees what it would have seen, and ranks share a global batch.
Workers send stored integers of one shape; everything else happens on the device.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl.contract import Batch
from medssl.data.jobs import end_with_parent
from medssl.data.store import Box, Store
from medssl.errors import UserError
from medssl.rng import stream

PREFETCH = 4  # batches a worker makes ahead


def batches(
    store: Store,
    rows: Sequence[int],
    *,
    region: tuple[int, ...],
    batch: int,
    steps: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    masks: bool = False,
    labels: np.ndarray | None = None,
    foreground: float = 0.0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of steps ``start`` to ``steps``: random regions of the store's ``rows``, epoch after epoch.

    ``batch`` counts all ranks; this one gets its share. ``labels`` (len(rows), k) float, a row for each of ``rows``.
    ``foreground``: probability that a region lies about a foreground voxel; with ``masks``, about a voxel of a
    structure, each structure of the scan being as likely. Scans smaller than the region stand in its middle, on their
    background's value.
    """
    check(store, rows, region, batch, masks, labels, world)
    places = Sampler(
        store=store, rows=np.asarray(rows, np.int64), region=tuple(region), batch=batch, seed=seed, masks=masks,
        labels=labels, foreground=foreground, rank=rank, world=world,
    )  # fmt: skip
    yield from serve(places, range(start, steps), workers)


def serve(sampler: Dataset, steps: range, workers: int) -> Iterator[Batch]:
    """``sampler[step]`` for each of ``steps``, made here or by worker processes; a UserError it returns is raised."""
    for made in map(sampler.__getitem__, steps) if workers == 0 else _loaded(sampler, steps, workers):
        if isinstance(made, UserError):
            raise made
        yield made


def whole_batches(
    store: Store,
    rows: Sequence[int],
    *,
    region: tuple[int, ...],
    batch: int,
    masks: bool = False,
    labels: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yield every one of ``rows`` once, in order: its central region. The last batch may be smaller."""
    check(store, rows, region, batch, masks, labels, 1)
    for first in range(0, len(rows), batch):
        part = np.arange(first, min(first + batch, len(rows)))
        chosen = np.asarray(rows, np.int64)[part]
        starts = [central(store.shapes[row], region) for row in chosen]
        yield cut(store, chosen, starts, region, masks, None if labels is None else labels[part])


@dataclass
class Sampler(Dataset):
    """``sampler[step]`` is the batch of that step. A UserError is returned, since workers garble what they raise."""

    store: Store
    rows: np.ndarray
    region: tuple[int, ...]
    batch: int
    seed: int
    masks: bool
    labels: np.ndarray | None
    foreground: float
    rank: int
    world: int
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, step: int) -> Batch | UserError:
        share = self.batch // self.world
        positions = range(self.rank * share, (self.rank + 1) * share)
        drawn = np.array([self._drawn(step * self.batch + p) for p in positions])
        try:
            starts = [
                self._start(int(self.rows[d]), stream(self.seed, "region", step, p))
                for d, p in zip(drawn, positions, strict=True)
            ]
            labels = None if self.labels is None else self.labels[drawn]
            return cut(self.store, self.rows[drawn], starts, self.region, self.masks, labels)
        except UserError as error:
            return error

    def _drawn(self, k: int) -> int:
        """Position in ``rows`` of the k-th sample of the run: every epoch visits all, in an order of its own."""
        epoch, place = divmod(k, len(self.rows))
        if epoch not in self._orders:
            kept = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders = kept | {epoch: stream(self.seed, "order", epoch).permutation(len(self.rows))}
        return int(self._orders[epoch][place])

    def _start(self, row: int, rng: np.random.Generator) -> tuple[int, ...]:
        """First voxel of the region; negative where the scan is smaller."""
        room = self.store.shapes[row] - np.array(self.region)
        middle = central(self.store.shapes[row], self.region)
        about, places = rng.random(), rng.random(len(room))  # always drawn, so that options shift no one's chance
        if about < self.foreground:
            low = self._about_a_voxel(row, rng, places)
        else:
            low = np.floor(places * (room + 1)).astype(int)
        return tuple(int(np.clip(a, 0, r)) if r > 0 else m for a, r, m in zip(low, room, middle, strict=True))

    def _about_a_voxel(self, row: int, rng: np.random.Generator, places: np.ndarray) -> np.ndarray:
        """The region about a drawn voxel, which lies in its central half."""
        points = self.store.points(row)
        marked = points[points[:, 0] > 0]
        if self.masks and len(marked):
            label = rng.choice(np.unique(marked[:, 0]))
            points = marked[marked[:, 0] == label]
        else:
            points = points[points[:, 0] == 0]
        if not len(points):
            return np.floor(places * (self.store.shapes[row] - np.array(self.region) + 1)).astype(int)
        voxel = points[rng.integers(len(points)), 1:]
        return np.rint(voxel - np.array(self.region) * (0.25 + 0.5 * places)).astype(int)


def cut(
    store: Store,
    rows: np.ndarray,
    starts: Sequence[tuple[int, ...]],
    region: tuple[int, ...],
    masks: bool = False,
    labels: np.ndarray | None = None,
) -> Batch:
    """The regions that begin at ``starts`` in the scans ``rows``, as one batch."""
    shape, dtype = (len(rows), store.plan.channels, *region), store.plan.dtype
    device = None if store.resident is None else store.resident.device
    image: Any = (
        np.empty(shape, dtype) if device is None else torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    )
    mask = np.zeros((len(rows), *region), np.int16) if masks else None
    for i, (row, start) in enumerate(zip(rows.tolist(), starts, strict=True)):
        inside, target = _overlap(start, region, store.shapes[row])
        whole = all(t.stop - t.start == r for t, r in zip(target, region, strict=True))
        if not whole:
            image[i] = int(store.fill[row])
        image[i][(slice(None), *target)] = store.read(row, inside) if device is None else _on_device(store, row, inside)
        if mask is not None and store.has_mask[row]:
            mask[i][target] = store.read_mask(row, inside)
    return Batch(
        image=torch.as_tensor(image),
        gain=torch.from_numpy(store.gain[rows]),
        bias=torch.from_numpy(store.bias[rows]),
        item=torch.from_numpy(np.asarray(rows, np.int64)),
        patient=torch.from_numpy(store.patients[rows]),
        value_range=store.plan.value_range,
        mask=None if mask is None else torch.from_numpy(mask),
        label=None if labels is None else torch.from_numpy(np.asarray(labels, np.float32)),
        modality=torch.from_numpy(store.modalities[rows]),
    )


def _on_device(store: Store, row: int, box: Box) -> Tensor:
    """Stored values where the scan lies; of one that is not held there, from its file."""
    held = None if store.resident is None else store.resident.on_device(row)
    return torch.from_numpy(store.read(row, box)) if held is None else held[(slice(None), *box)]


def central(shape: Sequence[int], region: Sequence[int]) -> tuple[int, ...]:
    """Start of the region in the middle of a scan; negative where the scan is smaller."""
    return tuple((int(n) - int(r)) // 2 for n, r in zip(shape, region, strict=True))


def tiles(shape: Sequence[int], region: Sequence[int], overlap: float = 0.0) -> list[tuple[int, ...]]:
    """Starts of regions that together cover a scan, evenly spread, overlapping by at least the share ``overlap``."""
    axes = []
    for n, r in zip(shape, region, strict=True):
        if n <= r:
            axes.append([(int(n) - int(r)) // 2])
            continue
        count = int(np.ceil((n - r) / max(1.0, r * (1 - overlap)))) + 1
        axes.append(np.rint(np.linspace(0, n - r, count)).astype(int).tolist())
    return list(product(*axes))


def _overlap(start: Sequence[int], region: Sequence[int], shape: Sequence[int]) -> tuple[tuple[slice, ...], ...]:
    """Slices into the scan, and into the region, of what they share."""
    inside, target = [], []
    for s, r, n in zip(start, region, shape, strict=True):
        low, high = max(0, s), min(int(n), s + r)
        inside.append(slice(low, high))
        target.append(slice(low - s, high - s))
    return tuple(inside), tuple(target)


def _loaded(sampler: Dataset, steps: range, workers: int) -> Iterator[Batch | UserError]:
    # A worker makes whole batches, so their order is the sampler's and nothing is collated in this process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "blosc2", "medssl.data.sample"])
    loader = DataLoader(
        sampler,
        batch_size=None,
        sampler=steps,
        num_workers=min(workers, max(1, len(steps))),
        prefetch_factor=PREFETCH,
        multiprocessing_context=context,
        worker_init_fn=_begin,
    )
    yield from loader


def _begin(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)


def check(
    store: Store,
    rows: Sequence[int],
    region: tuple[int, ...],
    batch: int,
    masks: bool,
    labels: np.ndarray | None,
    world: int,
) -> None:
    """Refuse what no batch can be drawn from."""
    if not len(rows):
        raise UserError("no scan to draw from", store.data, "check the split and the labels")
    if len(region) != store.plan.dims:
        fix = f"the scans have {store.plan.dims}"
        raise UserError(f"region {tuple(region)} has {len(region)} axes", store.data, fix)
    if batch < 1 or batch % world:
        raise UserError(f"a batch of {batch} on {world} ranks", "--batch", "give a multiple of the number of ranks")
    if masks and not store.has_mask[np.asarray(rows, np.int64)].all():
        raise UserError("some of the scans have no mask", store.data, "give rows whose has_mask is true")
    if labels is not None and len(labels) != len(rows):
        raise UserError(f"{len(labels)} rows of labels for {len(rows)} scans", None, "give one row for each")
