"""Masks: label values as small integers, on the grid of the image they belong to."""

from collections.abc import Callable

import numpy as np

from medssl.errors import UserError
from medssl.volume import Volume

OFF_GRID = 0.02  # of direction cosines times relative spacing
HALF_VOXEL = 0.5


def labels_of(mask: Volume, lossy: bool = False) -> Volume:
    """(1, *spatial) int16 labels, 0 for background; 0 and 255 of a picture become 0 and 1."""
    array = mask.array
    if len(array) > 1:
        if (array != array[:1]).any():
            raise UserError("a mask in colours", fix="save it with one integer a structure")
        array = array[:1]
    if lossy:  # JPEG blurs edges: only black and white can be told apart
        return Volume((array > 127).astype(np.int16), mask.affine)
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise UserError("a mask with fractions", fix="save it with one integer a structure, 0 for background")
    low, high = array.min(), array.max()
    if low < 0 or high > 32767:
        raise UserError(f"mask values from {low:g} to {high:g}", fix="use 0 for background and small integers")
    if high == 255 and not ((array != 0) & (array != 255)).any():
        array = array == 255
    return Volume(array.astype(np.int16), mask.affine)


def fitted(mask: Volume, shape: tuple[int, ...], affine: np.ndarray, planar: Callable[[Volume], Volume]) -> Volume:
    """The mask on the grid (shape, affine) of its image, its axes turned where they run otherwise."""
    if len(shape) == 2:
        mask = planar(mask)
    if mask.dims != len(shape):
        raise _mismatch(mask.array.shape[1:], shape)
    if _unplaced(mask.affine) or _unplaced(affine) or np.allclose(mask.affine, affine, atol=1e-3):
        if mask.array.shape[1:] != shape:
            raise _mismatch(mask.array.shape[1:], shape)
        return Volume(mask.array, affine)
    steps = np.linalg.inv(affine) @ mask.affine  # mask indices to image indices
    turn = np.rint(steps[:3, :3])
    signed_permutation = np.array_equal(np.abs(turn) @ np.abs(turn).T, np.eye(3))
    if not signed_permutation or np.abs(steps[:3, :3] - turn).max() > OFF_GRID:
        raise UserError("a mask of another spacing or direction", fix="resample it to the grid of its image")
    order = [int(np.abs(turn[axis]).argmax()) for axis in range(mask.dims)]
    array = mask.array.transpose(0, *[1 + axis for axis in order])
    for axis, source in enumerate(order):
        if turn[axis, source] < 0:
            array = np.flip(array, axis + 1)
    if array.shape[1:] != shape:
        raise _mismatch(array.shape[1:], shape)
    corner = np.where(turn.sum(axis=1)[: len(shape)] < 0, np.array(shape) - 1.0, 0.0)
    if np.abs(steps[: len(shape), 3] - corner).max() > HALF_VOXEL:
        raise UserError("a mask that lies elsewhere than its image", fix="check that it belongs to this image")
    return Volume(np.ascontiguousarray(array), affine)


def _unplaced(affine: np.ndarray) -> bool:
    """True where a file says nothing about the patient: saved from a bare array, or a picture."""
    return np.allclose(affine, np.eye(4))


def _mismatch(mask: tuple[int, ...], image: tuple[int, ...]) -> UserError:
    texts = ["×".join(map(str, shape)) for shape in (mask, image)]
    return UserError(f"mask of shape {texts[0]}, image of shape {texts[1]}", fix="give the mask of this image")
