"""Where views come from: boxes of a region, resampled to one size, perhaps turned a little.

Cropping and resizing act on each axis alone, so without a rotation they are one small matrix an axis: a batched
matrix product does whole batches with different boxes at once. Rotated samples go through ``grid_sample``; both
paths read the same positions and give the same images where there is no rotation (tested).
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views.turn import turn_matrix

TRIES = 24  # second boxes drawn at once; the first that overlaps enough is taken
SMALLEST = 4  # voxels a side
FIRST = "views/1/box"


@dataclass(frozen=True)
class Boxes:
    """Whole-voxel boxes of a region: ``low`` (b, dims) and ``edge`` (b, dims), kept as float32 on the CPU."""

    low: Float[Tensor, "b d"]
    edge: Float[Tensor, "b d"]


def sample_box_pair(
    rng: Rng,
    n: int,
    region: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    min_iou: float,
) -> tuple[Boxes, Boxes]:
    """Two boxes a sample whose intersection over union is at least ``min_iou``.

    ``scale``: share of the region's area or volume, uniform. ``ratio``: sides against the region's, log-uniform.
    The second box is the first of ``TRIES`` draws that overlaps enough; where none does, the last draw is pulled
    towards the first box until it does, so the promise always holds and nothing loops.
    """
    dims = len(region)
    first = _place(rng.uniform(FIRST, n, 1, 2 * dims + 1), region, scale, ratio)
    drawn = _place(rng.uniform("views/2/box", n, TRIES, 2 * dims + 1), region, scale, ratio)
    pull = np.linspace(0, 1, 17)[None, :, None]
    last = drawn[:, -1:]
    pulled = (1 - pull) * last + pull * first  # lows and edges; between two boxes of the region
    pulled[..., :dims] = np.floor(pulled[..., :dims])  # both rounded up, a box could leave the region
    pulled = np.rint(pulled)
    candidates = np.concatenate([drawn, pulled], axis=1)
    good = overlap(first, candidates) >= min_iou  # the fully pulled one is the first box: always good
    second = candidates[np.arange(n), good.argmax(axis=1)]
    return _boxes(first[:, 0]), _boxes(second)


def sample_box(
    rng: Rng, n: int, region: tuple[int, ...], scale: tuple[float, float], ratio: tuple[float, float]
) -> Boxes:
    """The first box of ``sample_box_pair``, for methods that look at one view."""
    return _boxes(_place(rng.uniform(FIRST, n, 1, 2 * len(region) + 1), region, scale, ratio)[:, 0])


def _place(
    chance: np.ndarray, region: tuple[int, ...], scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Chance (n, tries, 2·dims + 1) to whole-voxel boxes (n, tries, 2·dims): lows, then edges."""
    dims = len(region)
    sides = np.array(region, float)
    share = scale[0] + (scale[1] - scale[0]) * chance[..., :1]
    aspect = np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * chance[..., 1 : dims + 1]
    # Centred, so that the volume stays; halved, so that any two sides differ by at most ``ratio``.
    aspect = np.exp((aspect - aspect.mean(axis=-1, keepdims=True)) * 0.5)
    edge = np.rint(share ** (1 / dims) * aspect * sides).clip(np.minimum(SMALLEST, sides), sides)
    low = np.floor(chance[..., dims + 1 :] * (sides - edge + 1))
    return np.concatenate([low, edge], axis=-1)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (…, 2·dims): lows, then edges."""
    dims = a.shape[-1] // 2
    low = np.maximum(a[..., :dims], b[..., :dims])
    high = np.minimum(a[..., :dims] + a[..., dims:], b[..., :dims] + b[..., dims:])
    shared = (high - low).clip(0).prod(-1)
    return shared / (a[..., dims:].prod(-1) + b[..., dims:].prod(-1) - shared)


def _boxes(flat: np.ndarray) -> Boxes:
    low, edge = torch.from_numpy(flat).float().chunk(2, dim=1)
    return Boxes(low.contiguous(), edge.contiguous())


def sample_angles(rng: Rng, purpose: str, n: int, dims: int, p: float, most_deg: float) -> Float[Tensor, "b a"]:
    """Rotations in radians, 0 with probability 1 - p: one in 2D; about the axes z, y, x in 3D."""
    count = 1 if dims == 2 else 3
    chance = rng.uniform(purpose, n, count + 1)
    angles = (2 * chance[:, 1:] - 1) * np.radians(most_deg) * (chance[:, :1] < p)
    return torch.from_numpy(angles).float()


def apply_crop(
    images: Float[Tensor, "b c *s"], boxes: Boxes, angles: Float[Tensor, "b a"], size: tuple[int, ...]
) -> Float[Tensor, "b c *o"]:
    """Resample each image's box to ``size`` linearly, rotated about the box's centre."""
    turned = angles.ne(0).any(1)  # parameters live on the CPU: choosing rows costs no device sync
    if not turned.any():
        return crop_straight(images, boxes, size)
    if turned.all():
        return crop_turned(images, boxes, angles, size)
    out = images.new_empty(*images.shape[:2], *size)
    for rows, make in ((~turned).nonzero()[:, 0], False), (turned.nonzero()[:, 0], True):
        part, some = Boxes(boxes.low[rows], boxes.edge[rows]), images[rows.to(images.device)]
        made = crop_turned(some, part, angles[rows], size) if make else crop_straight(some, part, size)
        out[rows.to(images.device)] = made
    return out


def crop_straight(images: Float[Tensor, "b c *s"], boxes: Boxes, size: tuple[int, ...]) -> Float[Tensor, "b c *o"]:
    """Crop and resize without rotation."""
    matrices = []
    for axis, n in enumerate(images.shape[2:]):
        position = _positions(boxes, axis, size[axis], images.device)
        hat = (position[:, :, None] - torch.arange(n, device=images.device)).abs()
        matrices.append((1 - hat).clamp_(min=0))  # (b, out, in): linear interpolation
    return separable(images, matrices)


def crop_turned(
    images: Float[Tensor, "b c *s"], boxes: Boxes, angles: Float[Tensor, "b a"], size: tuple[int, ...]
) -> Float[Tensor, "b c *o"]:
    """Crop and resize with a rotation; what lies outside the region repeats its border."""
    dims, device = len(size), images.device
    centre = (boxes.low + (boxes.edge - 1) / 2).to(device)
    axes = [_positions(boxes, axis, size[axis], device) - centre[:, axis : axis + 1] for axis in range(dims)]
    rotation = rotation_matrix(angles).to(device)
    grid: list[Tensor] = []
    for i in reversed(range(dims)):  # grid_sample counts axes from the last
        point = centre[:, i].view(-1, *(1,) * dims)
        for j in range(dims):
            shape = [1] * dims
            shape[j] = size[j]
            point = point + (axes[j] * rotation[:, i, j : j + 1]).view(-1, *shape)
        grid.append((2 * point + 1) / images.shape[2 + i] - 1)
    stacked = torch.stack(grid, dim=-1)
    return F.grid_sample(images, stacked, mode="bilinear", padding_mode="border", align_corners=False)


def separable(images: Float[Tensor, "b c *s"], matrices: list[Tensor]) -> Float[Tensor, "b c *o"]:
    """Apply one matrix (b, out, in) along each spatial axis.

    Each product contracts the first spatial axis and appends the result as the last, so after ``dims`` of them the
    axes stand in their old order and nothing was ever transposed in memory.
    """
    for matrix in matrices:
        b, c, n, *rest = images.shape
        columns = images.reshape(b, c, n, prod(rest)).transpose(2, 3)  # (b, c, rest, in)
        images = (columns @ matrix.transpose(1, 2)[:, None]).view(b, c, *rest, matrix.shape[1])
    return images


def rotation_matrix(angles: Float[Tensor, "b a"]) -> Float[Tensor, "b d d"]:
    """Rotations (b, dims, dims) that take offsets in the view to offsets in the region, in voxels."""
    planes = [(0, 1)] if angles.shape[1] == 1 else [(0, 1), (0, 2), (1, 2)]
    dims = 2 if angles.shape[1] == 1 else 3
    whole = torch.eye(dims).repeat(len(angles), 1, 1)
    for angle, (i, j) in zip(angles.T.cpu(), planes, strict=True):
        one = torch.eye(dims).repeat(len(angles), 1, 1)
        one[:, i, i] = one[:, j, j] = angle.cos()
        one[:, i, j], one[:, j, i] = -angle.sin(), angle.sin()
        whole = whole @ one
    return whole


def view_matrix(
    boxes: Boxes, angles: Float[Tensor, "b a"], code: Float[Tensor, "b k"], size: tuple[int, ...]
) -> Float[Tensor, "b d1 d1"]:
    """Homogeneous matrices from voxel indices of a finished view, T included, to voxel indices of the region."""
    dims = len(size)
    step = boxes.edge / torch.tensor(size, dtype=torch.float32)
    turned = rotation_matrix(angles) * step[:, None, :]
    middle = (torch.tensor(size, dtype=torch.float32) - 1) / 2
    centre = boxes.low + (boxes.edge - 1) / 2
    crop = torch.eye(dims + 1).repeat(len(step), 1, 1)
    crop[:, :dims, :dims] = turned
    crop[:, :dims, dims] = centre - turned @ middle
    return crop @ turn_matrix(code.cpu(), size)


def equal_positions(
    first: Float[Tensor, "b d1 d1"], second: Float[Tensor, "b d1 d1"], size: tuple[int, ...], grid: tuple[int, ...]
) -> tuple[Float[Tensor, "b *g d"], Bool[Tensor, "b *g"]]:
    """Where the cells of a coarse grid of view 1 lie in view 2; both views have ``size``.

    ``first``, ``second``: their ``view_matrix``. Returns coordinates as ``grid_sample`` takes them (last axis first,
    [-1, 1] from edge to edge), good for a feature map of any stride, and whether each lies inside view 2.
    """
    device, dims = first.device, len(size)
    centres = [
        (torch.arange(g, device=device, dtype=first.dtype) + 0.5) * (s / g) - 0.5
        for g, s in zip(grid, size, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).reshape(-1, dims)
    there = torch.linalg.solve(second, first)
    mapped = points @ there[:, :dims, :dims].transpose(1, 2) + there[:, None, :dims, dims]
    sides = torch.tensor(size, dtype=torch.float32, device=device)
    coordinates = ((2 * mapped + 1) / sides - 1).view(-1, *grid, dims)
    return coordinates.flip(-1), (coordinates.abs() <= 1).all(-1)


def shared_cells(
    first: Float[Tensor, "b d1 d1"],
    second: Float[Tensor, "b d1 d1"],
    size: tuple[int, ...],
    grid: tuple[int, ...],
    count: int,
    chance: Float[Tensor, "b n"],
) -> tuple[Int[Tensor, "b a"], Float[Tensor, "b a d"], Bool[Tensor, "b a"]]:
    """Up to ``count`` cells of the ``grid`` of view 1, drawn by ``chance``, a number a cell, from those view 2 shows.

    Their flat numbers, where they lie in view 2 (see ``equal_positions``), and whether they really do: where fewer
    cells are shared, the rest are marked.
    """
    there, inside = equal_positions(first, second, size, grid)
    inside = inside.flatten(1)
    cells = (chance.to(inside.device) + inside).topk(min(count, inside.shape[1])).indices  # shared ones first
    there = there.flatten(1, -2).gather(1, cells[:, :, None].expand(-1, -1, there.shape[-1]))
    return cells, there, inside.gather(1, cells)


def cell_points(
    place: Float[Tensor, "b d1 d1"], cells: Int[Tensor, "b a"], size: tuple[int, ...], grid: tuple[int, ...]
) -> Float[Tensor, "b a d"]:
    """Where ``place`` takes the centres of numbered cells of a view's ``grid``."""
    dims = len(size)
    step = place.new_tensor(size) / place.new_tensor(grid)
    index = torch.stack(torch.unravel_index(cells, grid), dim=-1)
    return ((index + 0.5) * step - 0.5) @ place[:, :dims, :dims].transpose(1, 2) + place[:, None, :dims, dims]


def _positions(boxes: Boxes, axis: int, count: int, device: torch.device) -> Float[Tensor, "b n"]:
    """Where the ``count`` samples of an axis fall in the region; held inside the box, as a crop would."""
    low, edge = boxes.low[:, axis : axis + 1].to(device), boxes.edge[:, axis : axis + 1].to(device)
    inside = (torch.arange(count, device=device) + 0.5) * (edge / count) - 0.5
    return low + torch.minimum(inside.clamp(min=0), edge - 1)
