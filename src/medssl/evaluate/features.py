"""One feature vector a scan: the coarsest map of a frozen encoder, averaged over the whole scan."""

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from medssl.data.store import Store
from medssl.networks.pyramid import Pyramid

Loaded = tuple[Tensor, Tensor]  # images (b, C, *window), voxels that each fills (b, axes)
SPAN = 2  # an axis of up to this many patches is seen at once


@dataclass(frozen=True)
class Window:
    """A part of a scan that the encoder sees at once. ``item`` is its position among the rows asked for."""

    item: int
    start: tuple[int, ...]
    size: tuple[int, ...]


def embed(
    encoder: Pyramid,
    store: Store,
    rows: Sequence[int],
    *,
    patch: Sequence[int],
    batch: int = 16,
    device: torch.device | str = "cpu",
    most: int | None = None,
) -> np.ndarray:
    """Features (n, d) float32 of items ``rows`` of a prepared store; ``most`` windows an item, evenly spread.

    Windows of one size share a batch; the next batch is read while this one is computed.
    """
    same: dict[tuple[int, ...], list[Window]] = defaultdict(list)
    for position, row in enumerate(rows):
        for window in windows(position, store.shapes[row], patch, encoder.strides[-1], most):
            same[window.size].append(window)
    parts = [w[i : i + batch] for w in same.values() for i in range(0, len(w), batch)]

    read = partial(_read, store, rows)
    total = np.zeros((len(rows), encoder.channels[-1]))
    weight = np.zeros((len(rows), 1))
    with frozen(encoder):
        for part, (images, valid) in zip(parts, _ahead(read, parts), strict=True):
            summed, area = pool(encoder(images.to(device))[-1], valid.to(device), part[0].size)
            index = [w.item for w in part]
            np.add.at(total, index, summed.double().cpu().numpy())
            np.add.at(weight, index, area.double().cpu().numpy())
    return (total / np.maximum(weight, 1e-12)).astype(np.float32)


def embed_image(encoder: Pyramid, image: np.ndarray, *, patch: Sequence[int], low: float = 0.0) -> Tensor:
    """Feature (d,) of one normalised image (C, *spatial), as ``embed`` gives it for a stored one."""
    device = next(encoder.parameters()).device
    total, weight = torch.zeros(encoder.channels[-1], dtype=torch.float64), 0.0
    with frozen(encoder):
        for window in windows(0, image.shape[1:], patch, encoder.strides[-1]):
            box = tuple(slice(a, a + n) for a, n in zip(window.start, window.size, strict=True))
            part, valid = _padded(image[(slice(None), *box)], window.size, low)
            coarsest = encoder(torch.from_numpy(part)[None].to(device))[-1]
            summed, area = pool(coarsest, torch.tensor([valid], device=device), window.size)
            total, weight = total + summed[0].double().cpu(), weight + float(area)
    return (total / weight).float()


def windows(
    item: int, shape: Sequence[int], patch: Sequence[int], stride: Sequence[int], most: int | None = None
) -> list[Window]:
    """Cover a scan: whole where it spans at most two patches, else evenly overlapping windows of that size."""
    size, starts = [], []
    for n, p, s in zip(shape, patch, stride, strict=True):
        length = -(-min(n, SPAN * p) // s) * s
        count = -(-n // length)
        size.append(length)
        starts.append([round(i) for i in np.linspace(0, n - length, count)] if count > 1 else [0])
    all_starts = list(itertools.product(*starts))
    if most is not None and len(all_starts) > most:
        all_starts = [all_starts[round(i)] for i in np.linspace(0, len(all_starts) - 1, most)]
    return [Window(item, start, tuple(size)) for start in all_starts]


def pool(coarsest: Tensor, valid: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sum of a map (b, d, *s) over the parts of its cells that lie in the image, (b, d), and their area, (b, 1).

    ``valid`` (b, axes): voxels of each window that the image fills; the rest is padding and must not count.
    """
    area = torch.ones(len(coarsest), 1, *(1 for _ in size), device=coarsest.device)
    for axis, (cells, length) in enumerate(zip(coarsest.shape[2:], size, strict=True)):
        edge = torch.arange(cells, device=coarsest.device) * (length / cells)
        share = ((valid[:, axis, None] - edge) / (length / cells)).clamp(0, 1)  # (b, cells)
        area = area * share.view(len(coarsest), 1, *(cells if i == axis else 1 for i in range(len(size))))
    axes = tuple(range(2, coarsest.ndim))
    return (coarsest.float() * area).sum(axes), area.sum(axes)


@contextmanager
def frozen(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode is put back."""
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        encoder.train(training)


def _ahead(read: Callable[[list[Window]], Loaded], parts: Sequence[list[Window]]) -> Iterator[Loaded]:
    """``read`` of every part, in order; the next one is read while the last is in use."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[Future[Loaded]] = deque()
        for part in parts:
            waiting.append(reader.submit(read, part))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(store: Store, rows: Sequence[int], part: Sequence[Window]) -> Loaded:
    low = store.plan.value_range[0]
    cuts = []
    for window in part:
        row = rows[window.item]
        ends = [min(a + n, int(m)) for a, n, m in zip(window.start, window.size, store.shapes[row], strict=True)]
        image = store.normalised(row, tuple(slice(a, b) for a, b in zip(window.start, ends, strict=True)))
        cuts.append(_padded(image, window.size, low))
    images, valid = zip(*cuts, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(valid)


def _padded(image: np.ndarray, size: Sequence[int], low: float) -> tuple[np.ndarray, list[int]]:
    """The image (C, *spatial) padded to ``size`` with the lowest value, and how many voxels of it are its own."""
    valid = list(image.shape[1:])
    missing = [(0, n - have) for n, have in zip(size, valid, strict=True)]
    return np.pad(image, [(0, 0), *missing], constant_values=low).astype(np.float32, copy=False), valid
