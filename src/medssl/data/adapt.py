"""One scan made ready: channels, orientation, foreground box, grid, integers; the same for a store and a fresh scan."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medssl.data.grid import Grid, bounding_box, oriented, plan_grid
from medssl.data.scale import Intensity, background, foreground, is_hu, limits, quantised
from medssl.errors import UserError
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.data.plan import Plan

MOST_VOXELS = 2**30  # a scan that would become larger has an absurd spacing
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
POINTS = 1000  # foreground voxels remembered for drawing crops
POINTS_OF_ALL_LABELS = 4000


Note = tuple[str, str]  # what was done to a scan that a person should know, and how to have it otherwise


@dataclass(frozen=True)
class Adapted:
    """A scan in stored integers. image (C, *spatial), mask (*spatial) or None, ``fill`` the stored value of background.

    ``points`` (n, 1 + dims) lists voxels for drawing crops: label (0: foreground of the image), then indices.
    """

    image: np.ndarray
    mask: np.ndarray | None
    grid: Grid
    gain: float
    bias: float
    fill: int
    points: np.ndarray
    notes: list[Note] = field(default_factory=list)

    def normalised(self, value_range: tuple[float, float]) -> np.ndarray:
        """Float32 (C, *spatial) as networks see it."""
        return np.clip(self.image * np.float32(self.gain) + np.float32(self.bias), *value_range, dtype=np.float32)


def adapted(volume: Volume, plan: "Plan", mask: Volume | None = None) -> Adapted:
    """Make a scan ready under a plan. Volume (C, X, Y, Z) or (C, H, W) in physical units; mask (1, …) on its grid."""
    notes: list[Note] = []
    _check(volume, plan, mask)
    image = _in_channels(_finite(volume.array, notes), plan.channels, notes)
    hu = plan.rule(volume.modality).normalise == "window" and is_hu(image)
    rule = plan.rule(volume.modality, hu)
    if rule is not plan.rule(volume.modality):
        text = f"{volume.modality} without values below 0, so not in HU: normalised by {rule.normalise}"
        notes.append((text, "correct its rescale slope and intercept, if it should be in HU"))
    inside = foreground(image, "CT" if hu else "")
    grid = _grid(volume, plan, inside, mask)
    span = limits(image, rule, plan.value_range, inside if rule.over == "foreground" else None)
    whole = hu or np.issubdtype(volume.array.dtype, np.integer)
    stored, gain, bias = quantised(grid.forward(image), span, plan.value_range, plan.dtype, whole)
    around = background(image)
    fill = stored.min() if around is None else quantised(np.array(around), span, plan.value_range, plan.dtype, whole)[0]
    low, high = ((value - bias) / gain for value in plan.value_range)
    labels = None if mask is None else _labels(grid.forward(mask.array, labels=True)[0])
    points = _points(grid.forward(inside[None].astype(np.uint8), labels=True)[0], labels)
    return Adapted(stored, labels, grid, gain, bias, int(np.rint(np.clip(fill, low, high))), points, notes)


def _check(volume: Volume, plan: "Plan", mask: Volume | None) -> None:
    if volume.dims != plan.dims:
        raise UserError(f"a {volume.dims}D scan under a {plan.dims}D plan", fix=f"prepare with --dims {volume.dims}")
    if mask is not None and mask.array.shape[1:] != volume.array.shape[1:]:
        shapes = f"{mask.array.shape[1:]} where the image has {volume.array.shape[1:]}"
        raise UserError(f"the mask has shape {shapes}", fix="give a mask on the grid of its image")
    if plan.dims == 2 and plan.spacing_mm is not None and np.array_equal(volume.affine, np.eye(4)):
        raise UserError("the image has no pixel spacing", fix="prepare by --size, not by --spacing-mm")
    if not all(1e-4 < s < 1e3 for s in volume.spacing_mm):
        sides = " × ".join(f"{s:g}" for s in volume.spacing_mm)
        raise UserError(f"voxels of {sides} mm", fix="correct the spacing in the file's header")


def _finite(array: np.ndarray, notes: list[Note]) -> np.ndarray:
    if np.issubdtype(array.dtype, np.integer):
        return array
    good = np.isfinite(array)
    if good.all():
        return array
    if not good.any():
        raise UserError("no voxel is a finite number", fix="leave this image out")
    notes.append((f"{(~good).sum()} voxels are NaN or infinite: set to the lowest value", "export it again"))
    return np.where(good, array, array[good].min())


def _in_channels(array: np.ndarray, wanted: int, notes: list[Note]) -> np.ndarray:
    found = len(array)
    if found == wanted:
        return array
    if found == 1:
        notes.append((f"grey, repeated to {wanted} channels as the plan says", "set channels = 1 in plan.toml"))
        return np.repeat(array, wanted, axis=0)
    if found == 3 and wanted == 1:
        if (array == array[:1]).all():
            return array[:1]  # grey all along
        notes.append(("in colour, stored grey as the plan says", "set channels = 3 in plan.toml to keep colours"))
        return np.tensordot(np.array(LUMA, np.float32), array, 1)[None]
    fix = "save a file for each channel, or change channels in plan.toml"
    raise UserError(f"{found} channels where the plan has {wanted}", fix=fix)


def _grid(volume: Volume, plan: "Plan", inside: np.ndarray, mask: Volume | None) -> Grid:
    grid = plan_grid(volume, plan.spacing_mm, plan.size, None)
    if plan.crop:
        kept = bounding_box(oriented(inside[None], grid.axes, grid.flips)[0])
        if mask is not None and mask.array.any():  # labels are never cut off
            marked = bounding_box(oriented(mask.array != 0, grid.axes, grid.flips)[0], margin=0, least=0)
            kept = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(kept, marked, strict=True))
        grid = plan_grid(volume, plan.spacing_mm, plan.size, kept)
    if np.prod(grid.shape, dtype=float) > MOST_VOXELS:
        sides = " × ".join(map(str, grid.shape))
        raise UserError(f"would become {sides} voxels", fix="correct the spacing in its header, or the plan's")
    return grid


def _labels(mask: np.ndarray) -> np.ndarray:
    whole = np.rint(mask)
    if whole.min() < 0 or whole.max() > np.iinfo(np.int16).max:
        raise UserError(f"labels from {whole.min():g} to {whole.max():g}", fix="number labels 1, 2, …; 0 is background")
    return whole.astype(np.uint8 if whole.max() <= 255 else np.int16)


def _points(inside: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    found = [_some(np.flatnonzero(inside), 0, POINTS, inside.shape)]
    if labels is not None:
        marked = np.flatnonzero(labels)
        values = labels.ravel()[marked]
        marked = marked[np.argsort(values, kind="stable")]  # one pass, however many structures
        present, counts = np.unique(values, return_counts=True)
        most = min(POINTS, POINTS_OF_ALL_LABELS // max(1, len(present)))
        parts = np.split(marked, np.cumsum(counts)[:-1]) if len(present) else []
        found += [_some(part, int(label), most, inside.shape) for label, part in zip(present, parts, strict=True)]
    return np.concatenate(found).astype(np.int32)


def _some(flat: np.ndarray, label: int, most: int, shape: tuple[int, ...]) -> np.ndarray:
    # Evenly through the list, which is in scan order: every part of a structure in proportion, and no chance in it.
    chosen = flat[np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)] if len(flat) else flat
    indices = np.stack(np.unravel_index(chosen, shape), axis=1)
    return np.concatenate([np.full((len(indices), 1), label), indices], axis=1)


__all__ = ["Adapted", "Intensity", "adapted"]
