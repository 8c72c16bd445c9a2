"""The sheet: the right slice, the right way up, in the right window; no name on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.data.sheet import TILE, in_window, middle_slice, write_sheet
from scan_files import write_nifti

RAS = np.diag([2.0, 1.0, 1.5, 1.0])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flip", [None, 0, 2])
def test_the_axial_slice_shows_front_on_top_and_right_on_the_left(order: tuple[int, ...], flip: int | None) -> None:
    array, affine = np.zeros((1, 10, 12, 8), np.int16), RAS.copy()
    array[0, 9, :, :], array[0, :, 11, :] = 1, 2  # the patient's right, the front
    if flip is not None:
        affine[:, 3] += (array.shape[flip + 1] - 1) * affine[:, flip]
        affine[:, flip] *= -1
        array = np.flip(array, flip + 1)
    image, aspect = middle_slice(array.transpose(0, *[1 + k for k in order]), affine[:, [*order, 3]])
    assert image.shape == (1, 12, 10)
    assert (image[0, 0] == 2).all()
    assert (image[0, 1:, 0] == 1).all()
    assert aspect == 0.5


def test_thick_slices_are_shown_in_their_own_plane() -> None:
    image, aspect = middle_slice(np.zeros((1, 6, 20, 30), np.int16), np.diag([5.0, 1.0, 1.0, 1.0]))
    assert image.shape == (1, 30, 20)
    assert aspect == 1.0


def test_windows_suit_the_modality() -> None:
    row = {"modality": "CT", "min": -1000.0, "dims": 3}
    shown = in_window(np.array([[[-1000, -160, 40, 240, 3000]]], np.int16), row)
    np.testing.assert_array_equal(shown[0, 0], [0, 0, 127, 255, 255])
    row = {"modality": "MR", "min": 0.0, "dims": 3, "foreground_low": 10.0, "foreground_p005": 20.0}
    shown = in_window(np.array([[[0, 10, 110, 900]]], np.int16), row | {"foreground_p995": 210.0})
    np.testing.assert_array_equal(shown[0, 0], [0, 0, 127, 255])
    colour = np.random.default_rng(0).integers(0, 255, (3, 4, 5), np.uint8)
    assert in_window(colour, {"modality": "US"}) is colour


def test_a_sheet_is_written_whatever_the_scans_are(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32), RAS)
    row = {
        "reader": "nifti", "files": ["a.nii"], "modality": "MR", "dims": 3, "shape": [9, 9, 9], "split": "train",
        "spacing_mm": [2, 1, 1.5], "min": -3.0, "foreground_low": -1.0, "foreground_p005": -0.9, "foreground_p995": 2.0,
    }  # fmt: skip
    gone = row | {"files": ["gone.nii"], "modality": "", "spacing_mm": None}
    write_sheet(tmp_path / "sheet.png", [row, gone], tmp_path, "2 scans", workers=1)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape[1] >= 4 * TILE
    assert picture[58 : 58 + TILE].std() > 20
