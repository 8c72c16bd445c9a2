"""Where stored voxels lie in the world, and regions of several scans that show the same place."""

from collections.abc import Sequence

import numpy as np

LATTICE = 7  # points along each axis that an overlap is counted on


def place_of(affine: np.ndarray, dims: int, start: Sequence[int] | None = None) -> np.ndarray:
    """Voxel indices, counted from ``start``, to mm: (4, 4) into RAS, or (3, 3) along an image's own rows and columns.

    ``affine`` (4, 4) is the stored scan's. For images two of one orientation share their plane's coordinates.
    """
    place = np.asarray(affine, float)
    if dims == 2:
        axes = place[:3, :2] / np.linalg.norm(place[:3, :2], axis=0)
        place = np.block([[axes.T @ place[:3, :2], axes.T @ place[:3, 3:]], [np.array([[0.0, 0.0, 1.0]])]])
    if start is None:
        return place.copy()
    moved = place.copy()
    moved[:-1, -1] = place[:-1, :-1] @ np.asarray(start, float) + place[:-1, -1]
    return moved


def common_starts(
    places: Sequence[np.ndarray], shapes: np.ndarray, region: Sequence[int], draws: np.ndarray, apart: np.ndarray
) -> np.ndarray:
    """First voxels (m, d) of regions of one subject's m scans that show one place where the scans allow it.

    places m × (d + 1, d + 1), shapes (m, d). ``draws`` (k, d) in [0, 1) are tries: each puts a region into the scan
    with the least room and asks how far from it the others must stay to lie within their scans; the first of the best
    counts. Scans that do not meet at all get regions of their own, from ``apart`` (m, d).
    """
    size = np.asarray(region)
    room = np.asarray(shapes) - size  # (m, d)
    lead = int(np.argmin(np.prod(np.maximum(room, 0) + 1.0, axis=1)))
    half = (size - 1) / 2
    world = (_within(room[lead], draws) + half) @ places[lead][:-1, :-1].T + places[lead][:-1, -1]  # (k, d)
    starts, miss = [], np.full(len(draws), 0.51)  # rounding to a voxel is no miss
    for place, free in zip(places, room, strict=True):
        wanted = np.linalg.solve(place[:-1, :-1], (world - place[:-1, -1]).T).T - half
        start = np.where(free >= 0, np.clip(np.rint(wanted), 0, np.maximum(free, 0)), free // 2)
        miss = np.maximum(miss, (np.abs(start - wanted) / size * size.max()).max(axis=1))
        starts.append(start)
    best = int(np.argmin(miss))
    if miss[best] >= size.max():
        return np.stack([_within(free, draw[None])[0] for free, draw in zip(room, apart, strict=True)]).astype(int)
    return np.stack([start[best] for start in starts]).astype(int)


def overlap(a: np.ndarray, shape_a: Sequence[int], b: np.ndarray, shape_b: Sequence[int]) -> float:
    """Share of the smaller scan that lies within the other; places (d + 1, d + 1), shapes (d,)."""
    volumes = [abs(np.linalg.det(p[:-1, :-1])) * np.prod(s) for p, s in ((a, shape_a), (b, shape_b))]
    if volumes[1] < volumes[0]:
        a, shape_a, b, shape_b = b, shape_b, a, shape_a
    axes = [(np.arange(LATTICE) + 0.5) / LATTICE * n - 0.5 for n in shape_a]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    world = points @ a[:-1, :-1].T + a[:-1, -1]
    there = np.linalg.solve(b[:-1, :-1], (world - b[:-1, -1]).T).T
    return float(((there >= -0.5) & (there <= np.asarray(shape_b) - 0.5)).all(axis=1).mean())


def _within(room: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Starts (k, d) of regions in a scan with that much room; its middle along axes that are shorter."""
    return np.where(room >= 0, np.floor(draws * (np.maximum(room, 0) + 1)), room // 2)
