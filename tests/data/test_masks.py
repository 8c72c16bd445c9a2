"""Masks land on the grid of their image, or are refused."""

import numpy as np
import pytest

from medssl.data.masks import fitted, labels_of
from medssl.errors import UserError
from medssl.volume import Volume
from scan_files import OBLIQUE

SHAPE = (6, 7, 8)
LABELS = np.random.default_rng(0).integers(0, 4, (1, *SHAPE)).astype(np.int16)


def same(volume: Volume) -> Volume:
    return volume


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_axes_that_run_otherwise_are_turned(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    array, affine = LABELS, OBLIQUE.copy()
    for axis in flips:
        affine[:, 3] += (SHAPE[axis] - 1) * affine[:, axis]
        affine[:, axis] *= -1
        array = np.flip(array, axis + 1)
    mask = Volume(array.transpose(0, *[1 + k for k in order]), affine[:, [*order, 3]])
    np.testing.assert_array_equal(fitted(mask, SHAPE, OBLIQUE, same).array, LABELS)


def test_a_mask_without_geometry_goes_voxel_by_voxel() -> None:
    np.testing.assert_array_equal(fitted(Volume(LABELS, np.eye(4)), SHAPE, OBLIQUE, same).array, LABELS)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    moved, coarse = OBLIQUE.copy(), OBLIQUE.copy()
    moved[0, 3] += 40
    coarse[:, 0] *= 2
    for affine, what in ((moved, "elsewhere"), (coarse, "another spacing")):
        with pytest.raises(UserError, match=what):
            fitted(Volume(LABELS, affine), SHAPE, OBLIQUE, same)
    with pytest.raises(UserError, match="mask of shape 6×7×8, image of shape 6×7×9"):
        fitted(Volume(LABELS, OBLIQUE), (6, 7, 9), OBLIQUE, same)


def test_pictures_of_masks_become_labels() -> None:
    black_white = Volume(np.array([[[0, 255], [255, 0]]], np.uint8), np.eye(4))
    np.testing.assert_array_equal(labels_of(black_white).array, [[[0, 1], [1, 0]]])
    flags = Volume(np.array([[[0, 255], [129, 4]]], np.uint8), np.eye(4))
    np.testing.assert_array_equal(labels_of(flags).array, flags.array)
    blurred = Volume(np.array([[[3, 250], [100, 180]]], np.uint8), np.eye(4))
    np.testing.assert_array_equal(labels_of(blurred, lossy=True).array, [[[0, 1], [0, 1]]])


@pytest.mark.parametrize("values", [[0, 0.5], [-1, 2], [0, 70000]])
def test_values_that_are_no_labels_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError):
        labels_of(Volume(np.array([[values]], np.float32), np.eye(4)))
