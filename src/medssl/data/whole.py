"""Whole items brought to one small shape, read once and kept: what a classifier of few labelled scans trains on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.contract import Batch
from medssl.data.store import Store
from medssl.rng import stream

KEPT_BYTES = 2**31  # beyond this, items are read anew each time


def fit_into(image: Tensor, size: Sequence[int], fill: float) -> Tensor:
    """(C, *spatial) scaled to lie within ``size``, proportions kept, in the middle of ``fill``.

    Axes that shrink are averaged over their cells, so nothing aliases; axes that grow are interpolated.
    """
    spatial = image.shape[1:]
    factor = min(s / n for s, n in zip(size, spatial, strict=True))
    goal = [max(1, min(s, round(n * factor))) for s, n in zip(size, spatial, strict=True)]
    x = image[None].float()
    if factor < 1:
        x = F.interpolate(x, goal, mode="area")
    elif factor > 1:
        x = F.interpolate(x, goal, mode="bilinear" if len(goal) == 2 else "trilinear", align_corners=False)
    gaps = [s - g for s, g in zip(size, goal, strict=True)]
    pads = [side for gap in reversed(gaps) for side in (gap // 2, gap - gap // 2)]
    return F.pad(x, pads, value=fill)[0]


def whole(stored: np.ndarray, size: Sequence[int], fill: float) -> Tensor:
    """A stored scan (C, *spatial) as ``fit_into`` scales it, in stored integers."""
    image = torch.from_numpy(np.ascontiguousarray(stored))
    return fit_into(image, size, fill).round().to(image.dtype)


def whole_size(shape: Sequence[float], voxels: int) -> tuple[int, ...]:
    """A shape in the proportions of ``shape``, of ``voxels`` voxels or fewer, each side the nearest multiple of 8."""
    factor = min(1.0, (voxels / float(np.prod(shape))) ** (1 / len(shape)))
    return tuple(max(1, round(n * factor / 8)) * 8 for n in shape)


class WholeItems:
    """Items of a store as tensors of one shape. ``labels`` (n, k), a row an item of ``rows``, if any."""

    def __init__(
        self, store: Store, rows: Sequence[int], size: Sequence[int], labels: np.ndarray | None = None
    ) -> None:
        self.store, self.rows, self.size = store, list(rows), tuple(size)
        self.labels = None if labels is None else torch.from_numpy(np.asarray(labels, np.float32))
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The items at ``positions`` among ``rows``."""
        rows = [self.rows[p] for p in positions]
        return Batch(
            torch.stack([self._image(row) for row in rows]),
            torch.from_numpy(self.store.gain[rows]),
            torch.from_numpy(self.store.bias[rows]),
            torch.tensor(rows),
            torch.from_numpy(self.store.patients[rows]),
            self.store.plan.value_range,
            label=None if self.labels is None else self.labels[list(positions)],
        )

    def _image(self, row: int) -> Tensor:
        if row in self._kept:
            return self._kept[row]
        image = whole(self.store.read(row), self.size, float(self.store.fill[row]))
        if self._room >= image.nbytes:
            self._kept[row] = image
            self._room -= image.nbytes
        return image

    def training(self, *, batch: int, steps: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Batches ``start`` to ``steps``: each epoch is a shuffle of its own, and a batch may span two epochs.

        Always full: where labels are fewer than a batch, items come more than once, each time augmented anew.
        """
        orders: dict[int, np.ndarray] = {}
        for step in range(start, steps):
            places = range(step * batch, (step + 1) * batch)
            orders = {e: orders.get(e) for e in {p // len(self) for p in places}}
            for epoch, order in orders.items():
                if order is None:
                    orders[epoch] = stream(seed, "order", epoch).permutation(len(self))
            yield self.batch([int(orders[p // len(self)][p % len(self)]) for p in places])

    def once(self, batch: int) -> Iterator[Batch]:
        """Every item once, in order."""
        for first in range(0, len(self), batch):
            yield self.batch(range(first, min(first + batch, len(self))))
