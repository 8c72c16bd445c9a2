"""What belongs together, in which order, and what is left over."""

from typing import Any

import numpy as np
import pytest

from medssl.data.dicom.headers import Slice
from medssl.data.dicom.stacks import layout, stack_up
from medssl.errors import UserError

AXIAL = (1.0, 0, 0, 0, 1, 0)
SAGITTAL = (0.0, 1, 0, 0, 0, -1)


def cut(file: str, z: float = 0.0, **values: Any) -> Slice:
    told = {
        "frame": None, "patient": "p", "study": "s", "series": "x", "modality": "CT", "uid": file, "shape": (8, 9),
        "position": (0.0, 0.0, z), "orientation": AXIAL, "spacing_mm": (1.0, 1.0),
    }  # fmt: skip
    return Slice(file, **(told | values))


def test_slices_are_sorted_by_position_over_folders() -> None:
    slices = [
        cut("b/2", 4.0, number=1),
        cut("a/1", 2.0, number=2),
        cut("b/1", 0.0, number=3),
        cut("a/2", 6.0, number=9),
    ]
    (item,), faults = stack_up(slices)
    assert item.files == ["b/1", "a/1", "b/2", "a/2"]
    assert faults == []
    assert any("sorted by position" in note for note in item.warnings)


def test_the_order_of_reading_changes_nothing() -> None:
    slices = [cut(f"{k}", z=2.0 * k) for k in range(6)] + [cut("s", 1.0, orientation=SAGITTAL)]
    assert stack_up(slices) == stack_up(slices[::-1])


def test_other_patients_series_and_shapes_stay_apart() -> None:
    slices = [cut("1"), cut("2", patient="q"), cut("3", series="y"), cut("4", shape=(8, 8))]
    assert len(stack_up(slices)[0]) == 4


def test_copies_are_named_and_left_out() -> None:
    slices = [cut("a", 0), cut("b", 1), cut("b copy", 1, uid="b"), cut("c", 2)]
    (item,), (fault,) = stack_up(slices)
    assert item.files == ["a", "b", "c"]
    assert fault.file == "b copy"
    assert "a copy of b" in fault.what


def test_equal_instance_ids_at_other_positions_are_no_copies() -> None:
    (item,), faults = stack_up([cut(str(k), float(k), uid="same") for k in range(5)])
    assert len(item.files) == 5
    assert faults == []


@pytest.mark.parametrize("tag", ["EchoTime", "TemporalPositionIdentifier", "DiffusionBValue"])
def test_repeated_positions_are_told_apart(tag: str) -> None:
    slices = [cut(f"{e}{k}", float(k), phase={tag: e, "AcquisitionTime": f"{e}{k}"}) for e in "12" for k in range(5)]
    items, faults = stack_up(slices)
    assert [item.files for item in items] == [[f"{e}{k}" for k in range(5)] for e in "12"]
    assert faults == []
    assert tag in items[0].warnings[0]


def test_repeats_without_a_tag_go_by_instance_number() -> None:
    slices = [cut(f"{k}", float(k % 5), number=k) for k in range(10)]
    items, _ = stack_up(slices)
    assert [item.files for item in items] == [[str(k) for k in range(5)], [str(k) for k in range(5, 10)]]


def test_a_stray_duplicate_position_is_a_problem() -> None:
    (item,), (fault,) = stack_up([*(cut(str(k), float(k), number=k) for k in range(5)), cut("z", 2.0, number=8)])
    assert item.files == list("01234")
    assert fault.file == "z"
    assert "position of 2" in fault.what


def test_localisers_and_mixed_orientations_come_apart() -> None:
    slices = [cut(str(k), float(k)) for k in range(5)] + [cut("l", 3.5, localiser=True)]
    slices += [cut(f"s{k}", 0, orientation=SAGITTAL, position=(float(k), 0, 0)) for k in range(4)]
    items, (fault,) = stack_up(slices)
    assert [len(item.files) for item in items] == [5, 4]
    assert all("2 orientations" in item.warnings[0] for item in items)
    assert fault.file == "l"
    assert "localiser" in fault.what


def test_x_rays_are_images_of_their_own() -> None:
    items, _ = stack_up([cut(str(k), float(k), modality="DX") for k in range(3)])
    assert [item.files for item in items] == [["0"], ["1"], ["2"]]


def test_a_cine_gives_its_middle_frame_and_placed_frames_a_volume() -> None:
    (cine,), _ = stack_up([cut("a", modality="US", position=(), frame=k) for k in range(9)])
    assert (cine.files, cine.frames) == (["a"], [4])
    (volume,), _ = stack_up([cut("a", 2.0 * (5 - k), frame=k) for k in range(6)])
    assert (volume.files, volume.frames) == (["a"] * 6, [5, 4, 3, 2, 1, 0])


def test_a_wide_gap_makes_the_series_unusable_and_names_every_file() -> None:
    heights = [0, 1, 2, 3, 9, 10]
    items, faults = stack_up([cut(str(k), float(z)) for k, z in enumerate(heights)])
    assert items == []
    assert {fault.file for fault in faults} == set("012345")
    assert "6.0 mm between 3 and the next" in faults[0].what


def test_layout_finds_uneven_steps_and_tilt() -> None:
    even = layout([cut(str(k), 2.0 * k) for k in range(5)])
    assert (even.step_mm, even.uneven, even.shifted) == (2.0, False, False)
    assert layout([cut(str(k), z) for k, z in enumerate([0.0, 2, 4, 8])]).uneven
    tilted = layout([cut(str(k), position=(0.0, 0.5 * k, 2.0 * k)) for k in range(5)])
    np.testing.assert_allclose(tilted.offsets_mm, [[0, 0.5 * k - 1.0] for k in range(5)])
    assert tilted.shifted
    assert not tilted.uneven
    with pytest.raises(UserError, match="slices missing"):
        layout([cut(str(k), z) for k, z in enumerate([0.0, 2, 4, 24])])


def test_last_digits_of_directions_do_not_move_slices_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    slices = []
    for k in range(20):
        slant = rng.normal(0, 1e-4, 2).round(5)
        direction = (1.0, 0.0, float(slant[0]), 0.0, 1.0, float(slant[1]))
        slices.append(cut(f"{k:02d}", position=(-200.0, -900.0, -1500.0 + k), number=k, orientation=direction))
    (item,), _ = stack_up(slices)
    assert item.files == [one.file for one in slices]
    assert item.warnings == []
    found = layout(slices)
    np.testing.assert_allclose(np.diff(found.heights_mm), 1.0, atol=1e-3)
