"""Changes that take content away: cutout, local shuffling, in- and out-painting (Models Genesis, arXiv:1908.06912).

All are batched. Boxes are outer products of intervals; shuffling is one permuted gather in jittered cells.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views.noise import mixed, sample_seeds, uniform_noise

PERMUTATIONS = 64  # a step draws so many shuffles of a cell; every cell takes one of them
BOXES = 5  # most boxes of a painting


def sample_boxes(
    rng: Rng, purpose: str, n: int, size: tuple[int, ...], count: int, edges: tuple[float, float]
) -> Int[Tensor, "b k d 2"]:
    """``count`` boxes a sample, (low, high) in voxels; ``edges``: shortest and longest edge as shares of the side."""
    sides = np.array(size)
    chance = rng.uniform(purpose, n, count, 2, len(size))
    edge = np.rint(sides * (edges[0] + (edges[1] - edges[0]) * chance[:, :, 0])).clip(1, sides)
    low = np.floor((sides - edge + 1) * chance[:, :, 1])
    return torch.from_numpy(np.stack([low, low + edge], axis=-1)).long()


def inside_boxes(boxes: Int[Tensor, "b k d 2"], size: tuple[int, ...], device: torch.device) -> Bool[Tensor, "b *s"]:
    """Union of each sample's boxes as a mask."""
    boxes = boxes.to(device)
    union = torch.zeros(len(boxes), *size, dtype=torch.bool, device=device)
    for box in boxes.unbind(1):
        one = torch.ones(len(box), *(1,) * len(size), dtype=torch.bool, device=device)
        for axis, n in enumerate(size):
            i = torch.arange(n, device=device)
            within = (i >= box[:, axis, :1]) & (i < box[:, axis, 1:])
            one = one & within.view(-1, *(n if a == axis else 1 for a in range(len(size))))
        union |= one
    return union


def sample_cutout(
    rng: Rng, purpose: str, n: int, size: tuple[int, ...], p: float, holes: int, edge: float
) -> Int[Tensor, "b k d 2"]:
    """Boxes to cut out, ``edge`` × side each; empty with probability 1 - p."""
    boxes = sample_boxes(rng, f"{purpose}/boxes", n, size, holes, (edge, edge))
    boxes[torch.from_numpy(rng.uniform(purpose, n) >= p)] = 0
    return boxes


def apply_cutout(images: Float[Tensor, "b c *s"], boxes: Int[Tensor, "b k d 2"]) -> Float[Tensor, "b c *s"]:
    """Fill the boxes with the image's mean."""
    if not boxes.any():
        return images
    holes = inside_boxes(boxes, tuple(images.shape[2:]), images.device)[:, None]
    mean = images.flatten(1).mean(1).view(-1, *(1,) * (images.ndim - 1))
    return torch.where(holes, mean, images)


@dataclass(frozen=True)
class Shuffle:
    """``cell`` (dims,) and ``orders`` (PERMUTATIONS, voxels of a cell) are one a step; the rest one a sample."""

    cell: tuple[int, ...]
    orders: Int[Tensor, "p m"]
    offset: Int[Tensor, "b d"]
    seeds: Int[Tensor, "b"]
    chosen: Bool[Tensor, "b"]


def sample_shuffle(rng: Rng, purpose: str, n: int, size: tuple[int, ...], p: float, edge: float) -> Shuffle:
    """Cells of 2 voxels to ``edge`` × side, jittered a sample."""
    once = rng.batch(f"{purpose}/cell")
    cell = tuple(int(once.integers(2, max(2, int(s * edge)) + 1)) if s > 1 else 1 for s in size)
    orders = once.random((PERMUTATIONS, prod(cell))).argsort(axis=1)
    chance = rng.uniform(purpose, n, len(size) + 1)
    return Shuffle(
        cell=cell,
        orders=torch.from_numpy(orders),
        offset=torch.from_numpy((chance[:, 1:] * np.array(cell)).astype(np.int64)),
        seeds=sample_seeds(rng, f"{purpose}/seeds", n),
        chosen=torch.from_numpy(chance[:, 0] < p),
    )


def apply_shuffle(images: Float[Tensor, "b c *s"], shuffle: Shuffle) -> Float[Tensor, "b c *s"]:
    """Permute the voxels within each cell; cells cut by the border stay as they are."""
    rows = shuffle.chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    device, size = images.device, tuple(images.shape[2:])
    offset, seeds = shuffle.offset[rows].to(device), shuffle.seeds[rows].to(device)
    place, number, start, whole = _cells(offset, shuffle.cell, size)
    cells = prod(n // c + 2 for c, n in zip(shuffle.cell, size, strict=True))
    pick = mixed(torch.arange(cells, device=device) ^ seeds[:, None]) % PERMUTATIONS  # (b, cells)
    order = (pick * prod(shuffle.cell)).gather(1, number.flatten(1)).view_as(number) + place
    source = _steps(shuffle, size).to(device).take(order) + start
    straight = torch.arange(prod(size), device=device).view(size)
    source = torch.where(whole, source, straight)
    rows = rows.to(device)
    some = images[rows].flatten(2)
    moved = some.gather(2, source.flatten(1)[:, None].expand_as(some))
    return images.index_copy(0, rows, moved.view(len(rows), *images.shape[1:]))


def _cells(offset: Tensor, cell: tuple[int, ...], size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For every voxel (b, *size): its number within its cell, the cell's number, its first voxel, is it whole."""
    place = number = start = torch.zeros((), dtype=torch.long, device=offset.device)
    whole = torch.ones((), dtype=torch.bool, device=offset.device)
    for axis, (c, n) in enumerate(zip(cell, size, strict=True)):
        i = torch.arange(n, device=offset.device) + offset[:, axis, None]  # (b, n)
        low = i // c * c - offset[:, axis, None]
        shape = (-1, *(n if a == axis else 1 for a in range(len(size))))
        place = place * c + (i % c).view(shape)
        number = number * (n // c + 2) + (i // c).view(shape)
        start = start * n + low.view(shape)
        whole = whole & ((low >= 0) & (low + c <= n)).view(shape)
    return place, number, start, whole


def _steps(shuffle: Shuffle, size: tuple[int, ...]) -> Tensor:
    """(PERMUTATIONS, voxels of a cell): how far from the cell's first voxel the new voxel is fetched."""
    far = torch.zeros(1, dtype=torch.long)
    for c, n in zip(shuffle.cell, size, strict=True):
        far = (far[:, None] * n + torch.arange(c)).flatten()
    return far[shuffle.orders]


@dataclass(frozen=True)
class Paint:
    """``inner``: noise inside the boxes (in-painting), else outside them. ``chosen``: painted at all."""

    boxes: Int[Tensor, "b k d 2"]
    inner: Bool[Tensor, "b"]
    chosen: Bool[Tensor, "b"]
    seeds: Int[Tensor, "b"]


def sample_paint_kind(rng: Rng, purpose: str, n: int, p: float, inner: float) -> tuple[Tensor, Tensor]:
    """(painted at all, in-painted), a sample; drawn once for both views of a pair."""
    chance = rng.uniform(purpose, n, 2)
    return torch.from_numpy(chance[:, 0] < p), torch.from_numpy(chance[:, 1] < inner)


def sample_paint(
    rng: Rng, purpose: str, n: int, size: tuple[int, ...], kind: tuple[Bool[Tensor, "b"], Bool[Tensor, "b"]]
) -> Paint:
    """In-painting hides 1 to 5 boxes of 1/6 to 1/3 of a side; out-painting keeps as many of 3/7 to 4/7."""
    chosen, inner = kind
    small = sample_boxes(rng, f"{purpose}/inner", n, size, BOXES, (1 / 6, 1 / 3))
    large = sample_boxes(rng, f"{purpose}/outer", n, size, BOXES, (3 / 7, 4 / 7))
    boxes = torch.where(inner.view(-1, 1, 1, 1), small, large)
    # Each further box comes with probability .95, as published: almost always all five.
    further = rng.uniform(f"{purpose}/count", n, BOXES - 1) < 0.95
    some = np.cumprod(np.concatenate([np.ones((n, 1), bool), further], axis=1), axis=1)
    boxes = boxes * torch.from_numpy(some).long()[:, :, None, None]
    return Paint(boxes, inner, chosen, sample_seeds(rng, f"{purpose}/seeds", n))


def apply_paint(
    images: Float[Tensor, "b c *s"], paint: Paint, value_range: tuple[float, float]
) -> Float[Tensor, "b c *s"]:
    """Put uniform noise of the value range inside or outside the boxes."""
    rows = paint.chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    device, size = images.device, tuple(images.shape[2:])
    inner = paint.inner[rows].to(device).view(-1, *(1,) * len(size))
    painted = inside_boxes(paint.boxes[rows], size, device) == inner
    noise = uniform_noise(paint.seeds[rows], (images.shape[1], *size), device)
    noise = noise.mul_(value_range[1] - value_range[0]).add_(value_range[0])
    rows = rows.to(device)
    return images.index_copy(0, rows, torch.where(painted[:, None], noise, images[rows]))
