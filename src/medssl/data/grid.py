"""Where voxels lie: orienting, cropping and resampling a scan, and the way back for predictions.

All steps keep the voxel grid straight (permuted, flipped, cropped, rescaled axes), so each has an exact inverse or a
nearest-neighbour one, and an oblique scan keeps its obliquity in the affine.
"""

from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any, Self

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from medssl.volume import Volume

SAME_SPACING = 0.01  # relative; closer than this is not worth an interpolation
ANTIALIAS_SIGMA = 0.25  # voxels; a narrower Gaussian changes nothing


@dataclass(frozen=True)
class Grid:
    """How the stored grid came from the file's: permute by ``axes``, flip, crop to ``box``, resample to ``shape``.

    ``box`` counts oriented file voxels, (low, high) an axis. ``file_affine`` and ``affine`` (flat, 16) map the file's
    and the stored voxels to RAS mm.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    box: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    affine: tuple[float, ...]
    file_shape: tuple[int, ...]
    file_affine: tuple[float, ...]

    def table(self) -> dict[str, Any]:
        """Plain lists and numbers, for storing."""
        return {k: np.asarray(v).tolist() for k, v in asdict(self).items()}

    @classmethod
    def of(cls, table: dict[str, Any]) -> Self:
        """From ``table()``."""
        box = tuple((int(low), int(high)) for low, high in table["box"])
        return cls(**{k: tuple(table[k]) for k in cls.__dataclass_fields__ if k != "box"}, box=box)

    def forward(self, array: np.ndarray, labels: bool = False) -> np.ndarray:
        """Bring (C, *file_shape) to (C, *shape); ``labels`` takes the nearest value and keeps the type."""
        cut = oriented(array, self.axes, self.flips)[(slice(None), *(slice(*side) for side in self.box))]
        return resampled(cut, self.shape, self._step(), labels)

    def back(self, labels: np.ndarray) -> Volume:
        """Labels (*shape) on the stored grid as a Volume on the file's; 0 outside the crop."""
        sides = tuple(high - low for low, high in self.box)
        step = tuple(1 / s for s in self._step())
        full = np.zeros([self.file_shape[axis] for axis in self.axes], labels.dtype)
        full[tuple(slice(*side) for side in self.box)] = resampled(labels[None], sides, step, labels=True)[0]
        array = np.ascontiguousarray(unoriented(full[None], self.axes, self.flips))
        return Volume(array, np.reshape(self.file_affine, (4, 4)))

    def _step(self) -> tuple[float, ...]:
        """Size of a stored voxel in file voxels, an axis."""
        dims = len(self.shape)
        stored = np.linalg.norm(np.reshape(self.affine, (4, 4))[:3, :dims], axis=0)
        file = np.linalg.norm(np.reshape(self.file_affine, (4, 4))[:3, :dims], axis=0)[list(self.axes)]
        return tuple(float(s) for s in stored / file)


def orientation(affine: np.ndarray, dims: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """File axis and flip for each of R, A, S: the assignment closest to the affine. Images stay rows by columns."""
    if dims == 2:
        return (0, 1), (False, False)
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = max(permutations(range(3)), key=lambda p: sum(abs(direction[i, p[i]]) for i in range(3)))
    return axes, tuple(bool(direction[i, axes[i]] < 0) for i in range(3))


def oriented(array: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    """Permute and flip the spatial axes of (C, *spatial); a view."""
    turned = array.transpose(0, *(axis + 1 for axis in axes))
    return turned[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in flips))]


def unoriented(array: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    """The inverse of ``oriented``; a view."""
    turned = array[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in flips))]
    return turned.transpose(0, *(int(axis) + 1 for axis in np.argsort(axes)))


def oriented_affine(
    affine: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...], flips: tuple[bool, ...]
) -> np.ndarray:
    """Affine of the oriented grid of a file grid of ``shape``."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for i, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        turn[axis, i] = -1 if flip else 1
        turn[axis, 3] = shape[axis] - 1 if flip else 0
    for axis in range(len(axes), 3):
        turn[axis, axis] = 1
    return affine @ turn


def resampled(array: np.ndarray, shape: tuple[int, ...], step: tuple[float, ...], labels: bool = False) -> np.ndarray:
    """Resample (C, *spatial) to ``shape``, ``step`` old voxels a new one, both grids about one centre.

    Images: linear, float32, smoothed before where the step is long; labels: nearest, type kept. Beyond the border the
    nearest voxel counts.
    """
    same = array.shape[1:] == tuple(shape) and all(abs(s - 1) < 1e-6 for s in step)
    if same:
        return np.ascontiguousarray(array if labels else array.astype(np.float32))
    offset = [((old - 1) - (new - 1) * s) / 2 for old, new, s in zip(array.shape[1:], shape, step, strict=True)]
    channels = []
    for channel in array if labels else array.astype(np.float32):
        image = sitk.GetImageFromArray(np.ascontiguousarray(channel if labels else _smoothed(channel, step)))
        resample = sitk.ResampleImageFilter()
        resample.SetSize([int(n) for n in reversed(shape)])  # SimpleITK counts axes the other way round
        resample.SetOutputSpacing([float(s) for s in reversed(step)])
        resample.SetOutputOrigin([float(o) for o in reversed(offset)])
        resample.SetInterpolator(sitk.sitkNearestNeighbor if labels else sitk.sitkLinear)
        resample.UseNearestNeighborExtrapolatorOn()
        channels.append(sitk.GetArrayFromImage(resample.Execute(image)))
    return np.stack(channels)


def _smoothed(channel: np.ndarray, step: tuple[float, ...]) -> np.ndarray:
    sigma = [max(0.0, (s - 1) / 2) for s in step]
    return ndimage.gaussian_filter(channel, [s if s >= ANTIALIAS_SIGMA else 0 for s in sigma], mode="nearest")


def bounding_box(inside: np.ndarray, margin: int = 3, least: float = 5e-4) -> tuple[tuple[int, int], ...]:
    """Box of a boolean array: planes of which more than ``least`` lies inside, and ``margin`` voxels around them.

    Planes that hold a few specks do not count, so noise and a headrest's edge do not keep the air. The whole array
    where nothing is inside.
    """
    box = []
    for axis, n in enumerate(inside.shape):
        others = tuple(i for i in range(inside.ndim) if i != axis)
        planes = np.flatnonzero(inside.mean(axis=others) > least)
        box.append((max(0, int(planes[0]) - margin), min(n, int(planes[-1]) + 1 + margin)) if len(planes) else (0, n))
    return tuple(box)


def plan_grid(
    volume: Volume, target_mm: tuple[float, ...] | None, short_side: int | None, box: tuple[tuple[int, int], ...] | None
) -> Grid:
    """The stored grid of a volume: oriented, cut to ``box``, at ``target_mm`` or with a short side in pixels."""
    file_shape = volume.array.shape[1:]
    axes, flips = orientation(volume.affine, volume.dims)
    turned = oriented_affine(volume.affine, file_shape, axes, flips)
    box = box or tuple((0, file_shape[axis]) for axis in axes)
    sides = np.array([high - low for low, high in box])
    spacing = np.linalg.norm(turned[:3, : volume.dims], axis=0)
    if target_mm is not None:
        step = np.asarray(target_mm) / spacing
        step[np.abs(step - 1) < SAME_SPACING] = 1
    else:
        step = np.full(volume.dims, sides.min() / short_side if short_side else 1.0)
    shape = np.maximum(1, np.round(sides / step)).astype(int)
    start = np.array([0.0, 0.0, 0.0, 1.0])  # the first stored voxel, in oriented file voxels: one centre for both
    start[: volume.dims] = [low for low, _ in box] + ((sides - 1) - (shape - 1) * step) / 2
    affine = turned.copy()
    affine[:, : volume.dims] = turned[:, : volume.dims] * step
    affine[:, 3] = turned @ start
    return Grid(
        axes,
        flips,
        box,
        tuple(shape.tolist()),
        tuple(affine.ravel().tolist()),
        tuple(file_shape),
        tuple(np.asarray(volume.affine, float).ravel().tolist()),
    )
