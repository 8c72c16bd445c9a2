"""Regions of two scans show one place: checked voxel by voxel on volumes that hold their own world coordinates."""

import numpy as np
import pytest

from medssl.data.place import common_starts, overlap, place_of
from medssl.rng import stream

TURN = np.array([[0.98, -0.199, 0, 0], [0.199, 0.98, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def affine(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    made = np.diag([*spacing, 1.0])
    made[:3, 3] = origin
    return made


def starts_of(places, shapes, region, seed=0) -> np.ndarray:
    rng = stream(seed, "test")
    dims = len(region)
    return common_starts(places, np.array(shapes), region, rng.random((12, dims)), rng.random((len(places), dims)))


def centre(place: np.ndarray, start: np.ndarray, region) -> np.ndarray:
    return place[:-1, :-1] @ (start + (np.array(region) - 1) / 2) + place[:-1, -1]


def test_a_place_counts_from_the_region() -> None:
    full = TURN @ affine((1, 2, 3), (10, 20, 30))
    assert np.array_equal(place_of(full, 3), full)
    moved = place_of(full, 3, (4, 5, 6))
    for voxel in ((0, 0, 0), (3, 1, 2)):
        assert np.allclose(moved @ [*voxel, 1], full @ [4 + voxel[0], 5 + voxel[1], 6 + voxel[2], 1])
    assert np.array_equal(full, TURN @ affine((1, 2, 3), (10, 20, 30)))  # untouched


def test_an_image_lies_along_its_rows_and_columns_wherever_its_plane_stands() -> None:
    sagittal = np.eye(4)
    sagittal[:3, :2] = [[0, 0], [0.5, 0], [0, -2.0]]
    sagittal[:3, 3] = [7, 1, 9]
    place = place_of(sagittal, 2, (10, 4))
    assert np.allclose(place @ [0, 0, 1], [1 + 5, -9 + 8, 1]) and np.allclose(place @ [1, 1, 1], [6.5, 1, 1])
    assert np.array_equal(place_of(np.eye(4), 2, (3, 2)) @ [0, 0, 1], [3, 2, 1])


@pytest.mark.parametrize("turn", [np.eye(4), TURN])
def test_paired_regions_share_their_middle_to_a_voxel(turn) -> None:
    places = [affine(origin=(-40, -30, -20)), turn @ affine(origin=(-35, -33, -24))]
    shapes, region = [(80, 60, 40), (78, 70, 44)], (16, 16, 12)
    seen = []
    for seed in range(40):
        starts = starts_of(places, shapes, region, seed)
        a, b = (centre(p, s, region) for p, s in zip(places, starts, strict=True))
        assert np.abs(a - b).max() < 1.0, seed
        assert (starts >= 0).all() and (starts + region <= np.array(shapes)).all()
        seen.append(a)
    assert np.ptp(seen, axis=0).min() > 15  # drawn all over what they share


def test_the_smaller_scan_leads_and_a_scan_smaller_than_the_region_stands_in_its_middle() -> None:
    places, shapes, region = [affine(), affine(origin=(50, 20, 10))], [(90, 60, 40), (10, 20, 12)], (16, 16, 12)
    for seed in range(10):
        starts = starts_of(places, shapes, region, seed)
        assert starts[1][0] == -3 and np.array_equal(starts[0], starts[1] + [50, 20, 10])


def test_scans_that_only_touch_meet_as_far_as_they_can_and_those_apart_go_their_own_ways() -> None:
    shapes, region = [(60, 60, 60), (60, 60, 60)], (16, 16, 16)
    overlapping = [affine(), affine(origin=(50, 0, 0))]  # they share 10 voxels, less than a region
    starts = starts_of(overlapping, shapes, region)
    assert starts[0][0] == 44 or starts[1][0] == 0
    far = [affine(), affine(origin=(500, 0, 0))]
    drawn = np.array([starts_of(far, shapes, region, seed) for seed in range(60)])
    for scan in range(2):
        assert drawn[:, scan].min() >= 0 and drawn[:, scan].max() <= 44 and np.ptp(drawn[:, scan], axis=0).min() > 30


def test_overlap_is_the_share_of_the_smaller_scan() -> None:
    small, large = affine(), affine((2, 2, 2), (-30, -30, -30))
    assert overlap(small, (20, 20, 20), large, (50, 50, 50)) == overlap(large, (50, 50, 50), small, (20, 20, 20)) == 1
    half = overlap(small, (28, 28, 28), affine(origin=(14, 0, 0)), (28, 28, 28))
    assert half == pytest.approx(0.5, abs=0.08)
    assert overlap(small, (20, 20, 20), affine(origin=(25, 0, 0)), (20, 20, 20)) == 0
