"""What becomes of one scan: channels, values, crop, labels; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from medssl.data.plan import Plan
from medssl.errors import UserError
from medssl.rng import stream
from medssl.volume import Volume


def body_in_air() -> Volume:
    """A phantom of known HU: soft tissue 40, bone 700, in air."""
    image = np.full((1, 60, 50, 40), -1000, np.int16)
    image[0, 15:45, 12:40, 8:34] = 40
    image[0, 25:30, 20:25, 10:30] = 700
    return Volume(image, np.eye(4), "CT")


def test_a_window_knows_its_hounsfield_units(ct_plan: Plan) -> None:
    values, _ = ct_plan.adapt(body_in_air())
    found = {round(float(v), 4) for v in np.unique(values)}
    assert found == {0.0, 0.52, 0.85}


def test_air_is_cropped_and_labels_never(ct_plan: Plan) -> None:
    scan = body_in_air()
    plan = replace(ct_plan, crop=True)
    assert plan.prepare(scan).image.shape == (1, 36, 34, 32)  # the body and three voxels around it
    mask = np.zeros(scan.array.shape, np.int16)
    mask[0, 55:58, 20:22, 20:22] = 1
    prepared = plan.prepare(scan, Volume(mask, scan.affine))
    assert prepared.mask is not None
    assert prepared.mask.sum() == mask.sum()


def test_points_lie_in_what_they_are_named_after(ct_plan: Plan) -> None:
    scan = body_in_air()
    mask = np.zeros(scan.array.shape, np.int16)
    mask[0, 20:40, 20:40, 20:30] = 4
    mask[0, 30, 30, 25] = 9
    prepared = ct_plan.prepare(scan, Volume(mask, scan.affine))
    labels = prepared.points[:, 0]
    assert set(labels) == {0, 4, 9}
    assert (labels == 9).sum() == 1
    assert max((labels == label).sum() for label in (0, 4)) <= 1000
    for label, *voxel in prepared.points:
        if label:
            assert mask[(0, *voxel)] == label
        else:
            assert scan.array[(0, *voxel)] > -500


def test_pictures_of_ct_are_not_windowed(ct_plan: Plan) -> None:
    picture = Volume(stream(0, "jpeg").integers(0, 256, (1, 20, 20, 20)).astype(np.uint8), np.eye(4), "CT")
    prepared = ct_plan.prepare(picture)
    assert prepared.normalised((0, 1)).std() > 0.2
    assert "not in HU" in prepared.notes[0][0]


def test_grey_and_colour_meet_the_plan(picture_plan: Plan) -> None:
    colour = stream(0, "colour").integers(0, 256, (3, 24, 24)).astype(np.uint8)
    grey = Volume(colour[:1], np.eye(4))
    rgb = replace(picture_plan, channels=3)
    repeated = rgb.prepare(grey)
    assert (repeated.image == repeated.image[:1]).all()
    assert "repeated" in repeated.notes[0][0]
    np.testing.assert_array_equal(rgb.prepare(Volume(colour, np.eye(4))).image, colour)
    single = picture_plan.prepare(Volume(colour, np.eye(4)))
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert np.abs(single.image[0] - luma).max() <= 0.5 + 1e-3
    same = picture_plan.prepare(Volume(np.repeat(colour[:1], 3, axis=0), np.eye(4)))
    np.testing.assert_array_equal(same.image, colour[:1])
    assert same.notes == []
    with pytest.raises(UserError, match="2 channels where the plan has 1"):
        picture_plan.prepare(Volume(colour[:2], np.eye(4)))


def test_what_is_not_finite_becomes_the_lowest_value(ct_plan: Plan) -> None:
    image = body_in_air().array.astype(np.float32)
    image[0, 0, 0, :2] = np.nan, np.inf
    prepared = ct_plan.prepare(Volume(image, np.eye(4), "CT"))
    assert prepared.image[0, 0, 0, 0] == prepared.image[0, 0, 0, 1] == -1000
    assert "2 voxels" in prepared.notes[0][0]


@pytest.mark.parametrize(
    ("array", "spacing_mm", "sentence"),
    [
        (np.full((1, 5, 5, 5), np.nan, np.float32), 1.0, "no voxel is a finite number"),
        (np.full((1, 5, 5, 5), 7, np.int16), 1.0, "every voxel is 7"),
        (np.arange(125).reshape(1, 5, 5, 5), 0.0, "voxels of 0 × 0 × 0 mm"),
        (np.arange(125).reshape(1, 5, 5, 5), 900.0, "would become 4500 × 4500 × 4500 voxels"),
        (np.arange(25).reshape(1, 5, 5), 1.0, "a 2D scan under a 3D plan"),
    ],
)
def test_what_cannot_be_used_is_refused(ct_plan: Plan, array: np.ndarray, spacing_mm: float, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ct_plan.prepare(Volume(array, np.diag([spacing_mm] * 3 + [1.0]), "MR"))


def test_masks_must_fit(ct_plan: Plan) -> None:
    scan = body_in_air()
    with pytest.raises(UserError, match="the mask has shape"):
        ct_plan.prepare(scan, Volume(np.zeros((1, 4, 4, 4), np.int16), np.eye(4)))


def test_one_slice_is_a_volume_too(ct_plan: Plan) -> None:
    scan = Volume(body_in_air().array[..., 20:21], np.eye(4), "CT")
    assert replace(ct_plan, crop=True).prepare(scan).image.shape == (1, 36, 34, 1)


def test_an_image_without_a_spacing_is_not_resampled_by_it(picture_plan: Plan) -> None:
    plan = replace(picture_plan, size=None, spacing_mm=(0.5, 0.5))
    picture = stream(0, "dx").integers(0, 255, (1, 20, 30)).astype(np.uint8)
    with pytest.raises(UserError, match="no pixel spacing"):
        plan.prepare(Volume(picture, np.eye(4)))
    placed = np.diag([0.25, 0.5, 1.0, 1.0])
    assert plan.prepare(Volume(picture, placed)).image.shape == (1, 10, 30)
