"""Orientation is exact for all 48 ways to lay out a volume; resampling is exact where the answer is known."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.grid import (
    Grid,
    bounding_box,
    orientation,
    oriented,
    oriented_affine,
    plan_grid,
    resampled,
    unoriented,
)
from medssl.rng import stream
from medssl.volume import Volume

WAYS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def laid_out(reference: np.ndarray, axes: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The RAS volume (X, Y, Z) as a file whose axis k runs along patient axis ``axes[k]``, backwards where -1."""
    array = reference.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    spacing_mm = (1.0, 2.0, 3.0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, k] = sign * spacing_mm[axis]
        affine[axis, 3] = 0 if sign > 0 else (reference.shape[axis] - 1) * spacing_mm[axis]
    return Volume(array[None], affine)


@pytest.mark.parametrize(("axes", "signs"), WAYS)
def test_all_48_orientations_become_the_same_volume(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    reference = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    file = laid_out(reference, axes, signs)
    found = orientation(file.affine, 3)
    np.testing.assert_array_equal(oriented(file.array, *found)[0], reference)
    affine = oriented_affine(file.affine, file.array.shape[1:], *found)
    np.testing.assert_allclose(affine, np.diag([1.0, 2.0, 3.0, 1.0]))


@settings(max_examples=40, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
)
def test_an_oblique_scan_goes_to_its_nearest_axes_and_back(way, shape, angles) -> None:
    reference = np.arange(np.prod(shape)).reshape(shape)
    file = laid_out(reference, *way)
    oblique = _rotation(*angles) @ file.affine
    axes, flips = orientation(oblique, 3)
    turned = oriented(file.array, axes, flips)
    np.testing.assert_array_equal(turned[0], reference)
    np.testing.assert_array_equal(unoriented(turned, axes, flips), file.array)
    # A voxel keeps its place in the patient.
    affine = oriented_affine(oblique, file.array.shape[1:], axes, flips)
    index = [n // 2 for n in shape]
    [where] = np.argwhere(file.array[0] == reference[tuple(index)])
    np.testing.assert_allclose(affine @ [*index, 1], oblique @ [*where, 1], atol=1e-9)


def test_images_keep_rows_and_columns() -> None:
    affine = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert orientation(affine, 2) == ((0, 1), (False, False))


@pytest.mark.parametrize("step", [(0.5, 2.0, 1.3), (0.9, 0.7, 3.1)])
def test_resampling_keeps_a_ramp(step: tuple[float, ...]) -> None:
    shape = (24, 30, 28)
    index = np.meshgrid(*map(np.arange, shape), indexing="ij")
    ramp = (2 * index[0] - 3 * index[1] + 0.5 * index[2])[None].astype(np.float32)
    new = tuple(round(n / s) for n, s in zip(shape, step, strict=True))
    result = resampled(ramp, new, step)
    places = [
        ((n - 1) - (m - 1) * s) / 2 + np.arange(m) * s for n, m, s in zip(shape, new, step, strict=True)
    ]  # both grids about one centre
    where = np.meshgrid(*places, indexing="ij")
    wanted = 2 * where[0] - 3 * where[1] + 0.5 * where[2]
    inner = tuple(slice(m // 4, -(m // 4)) for m in new)
    np.testing.assert_allclose(result[0][inner], wanted[inner], atol=0.02)


def test_downsampling_does_not_alias() -> None:
    stripes = np.tile([0.0, 100.0], 60)[None, :, None].repeat(40, axis=2).astype(np.float32)
    image = resampled(stripes, (30, 10), (4.0, 4.0))
    assert np.abs(image - 50).max() < 8  # plain linear interpolation gives 0, 50 or 100


def test_labels_stay_labels() -> None:
    labels = np.zeros((1, 12, 12, 12), np.int16)
    labels[0, 3:9, 3:9, 3:9] = 7
    result = resampled(labels, (20, 9, 14), (0.6, 4 / 3, 6 / 7), labels=True)
    assert result.dtype == np.int16
    assert set(np.unique(result)) == {0, 7}


def test_channels_are_resampled_alike() -> None:
    image = stream(0, "image").random((3, 16, 20)).astype(np.float32)
    together = resampled(image, (11, 13), (16 / 11, 20 / 13))
    for c in range(3):
        np.testing.assert_array_equal(together[c : c + 1], resampled(image[c : c + 1], (11, 13), (16 / 11, 20 / 13)))


def test_the_box_ignores_specks_and_keeps_the_patient() -> None:
    inside = np.zeros((100, 100, 50), bool)
    inside[30:60, 40:80, 10:40] = True
    inside[5, 5, 5] = True
    assert bounding_box(inside, margin=2) == ((28, 62), (38, 82), (8, 42))
    assert bounding_box(np.zeros((4, 5), bool)) == ((0, 4), (0, 5))


@pytest.mark.parametrize("way", WAYS[::7])
def test_a_prediction_returns_to_the_grid_of_its_file(way) -> None:
    reference = np.zeros((18, 20, 16), np.int16)
    reference[4:14, 5:15, 4:12] = 1
    reference[6:10, 8:12, 5:9] = 2
    file = laid_out(reference, *way)
    grid = plan_grid(file, (0.5, 1.0, 1.5), None, ((2, 16), (3, 18), (1, 15)))
    assert grid.shape == (28, 30, 28)
    stored = grid.forward(file.array, labels=True)[0]
    back = Grid.of(grid.table()).back(stored)
    np.testing.assert_array_equal(back.array, file.array)
    np.testing.assert_allclose(back.affine, file.affine)


def test_stored_voxels_lie_where_the_affine_says() -> None:
    reference = np.zeros((20, 20, 20), np.float32)
    reference[12, 5, 9] = 1
    file = laid_out(reference, (2, 0, 1), (-1, 1, -1))
    grid = plan_grid(file, (0.5, 0.5, 0.5), None, ((4, 20), (0, 17), (3, 15)))
    stored = grid.forward(file.array)[0]
    weights = stored / stored.sum()
    index = [float((weights * axis).sum()) for axis in np.indices(stored.shape)]
    where = np.reshape(grid.affine, (4, 4)) @ [*index, 1]
    np.testing.assert_allclose(where[:3], [12 * 1.0, 5 * 2.0, 9 * 3.0], atol=0.05)


def test_images_are_brought_to_their_short_side() -> None:
    grid = plan_grid(Volume(np.zeros((1, 300, 200), np.uint8), np.eye(4)), None, 64, None)
    assert grid.shape == (96, 64)


def _rotation(a: float, b: float, c: float) -> np.ndarray:
    turn = np.eye(4)
    for angle, (i, j) in zip((a, b, c), ((0, 1), (1, 2), (0, 2)), strict=True):
        one = np.eye(4)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn
