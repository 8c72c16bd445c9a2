"""A stack of slices as one volume on an even grid, tilt and uneven steps straightened."""

from pathlib import Path

import numpy as np

from medssl.data.dicom.headers import X_RAY, Slice, read_slices
from medssl.data.dicom.pixels import decode
from medssl.data.dicom.stacks import Layout, layout
from medssl.volume import Volume

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS


def read_stack(root: Path, files: list[str], frames: list[int] | None) -> Volume:
    """The volume (C, X, Y, Z), or for one slice the image (C, H, W), of an item's files."""
    slices = slices_of(root, files, frames)
    images = decode(root, slices)
    if len(slices) == 1:
        return Volume(images[0], _image_affine(slices[0]), slices[0].modality)
    array = np.stack(images, axis=-1).swapaxes(1, 2)  # (C, columns, rows, slices)
    if not all(s.position and s.orientation for s in slices) or slices[0].modality in X_RAY:
        spacing = slices[0].spacing_mm or (1.0, 1.0)
        return Volume(
            array, FLIP @ np.diag([spacing[1], spacing[0], slices[0].step_mm or 1.0, 1.0]), slices[0].modality
        )
    found = layout(slices)
    array, corner = _straightened(array, found, slices[0].spacing_mm)
    return Volume(array, _volume_affine(slices, found, corner), slices[0].modality)


def slices_of(root: Path, files: list[str], frames: list[int] | None) -> list[Slice]:
    """The slices of an item, in its order."""
    headers = {file: read_slices(root / file, file) for file in dict.fromkeys(files)}
    numbers = frames if frames is not None else [0] * len(files)
    return [headers[file][number] for file, number in zip(files, numbers, strict=True)]


def _straightened(array: np.ndarray, found: Layout, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Slices moved to where their positions say, on an even grid; and the corner's offset (columns, rows; voxels)."""
    corner = np.zeros(2)
    if found.shifted:
        moves = found.offsets_mm / (spacing[1], spacing[0])
        corner = np.floor(moves.min(axis=0))
        size = array.shape[1:3] + np.ceil(moves.max(axis=0) - corner).astype(int)
        background = float(array.min())
        array = np.stack(
            [_moved(array[..., k], moves[k] - corner, size, background) for k in range(len(moves))], axis=-1
        )
    if found.uneven:
        array = _even(array, found)
    return array, corner


def _moved(image: np.ndarray, move: np.ndarray, size: np.ndarray, background: float) -> np.ndarray:
    """One slice (C, columns, rows) on a larger canvas, moved by a part of a voxel: linear, one axis after the other."""
    canvas = np.full((len(image), *size), background, np.float32)
    whole = np.floor(move).astype(int)
    x, y = (slice(w, w + n) for w, n in zip(whole, image.shape[1:], strict=True))
    canvas[:, x, y] = image
    for axis, part in enumerate(move - whole, start=1):
        before = np.roll(canvas, 1, axis)
        np.moveaxis(before, axis, 0)[0] = background
        canvas = (1 - part) * canvas + part * before
    return canvas


def _even(array: np.ndarray, found: Layout) -> np.ndarray:
    """Slices at even heights, from the two neighbours of each."""
    heights = found.heights_mm
    wanted = heights[0] + found.step_mm * np.arange(round((heights[-1] - heights[0]) / found.step_mm) + 1)
    above = np.clip(np.searchsorted(heights, wanted), 1, len(heights) - 1)
    share = np.clip((wanted - heights[above - 1]) / (heights[above] - heights[above - 1]), 0, 1).astype(np.float32)
    return array[..., above - 1] * (1 - share) + array[..., above] * share


def _volume_affine(slices: list[Slice], found: Layout, corner: np.ndarray) -> np.ndarray:
    middle = slices[len(slices) // 2]
    rows_mm, columns_mm = middle.spacing_mm
    origin = middle.position - (found.heights_mm[len(slices) // 2] - found.heights_mm[0]) * middle.normal
    origin = origin + corner[0] * columns_mm * middle.across + corner[1] * rows_mm * middle.down
    steps = (middle.across * columns_mm, middle.down * rows_mm, middle.normal * found.step_mm)
    lps = np.eye(4)
    lps[:3] = np.column_stack([*steps, origin])
    return FLIP @ lps


def _image_affine(one: Slice) -> np.ndarray:
    """Rows and columns first; the identity where the header gives no spacing."""
    if not one.spacing_mm:
        return np.eye(4)
    rows_mm, columns_mm = one.spacing_mm
    if not (one.position and one.orientation) or one.modality in X_RAY:
        return np.diag([rows_mm, columns_mm, 1.0, 1.0])
    steps = (one.down * rows_mm, one.across * columns_mm, one.normal * (one.step_mm or 1.0))
    lps = np.eye(4)
    lps[:3] = np.column_stack([*steps, one.position])
    return FLIP @ lps
