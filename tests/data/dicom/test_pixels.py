"""Values of DICOM pixels: units, inversion, windows, padding, colour."""

from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.dicom.headers import read_slices
from medssl.data.dicom.pixels import decode
from scan_files import noise, write_slice


def values(folder: Path, pixels: np.ndarray, **tags: Any) -> np.ndarray:
    write_slice(folder / "a.dcm", pixels, **tags)
    return decode(folder, read_slices(folder / "a.dcm", "a.dcm"))[0]


def test_ct_is_in_hounsfield_units_and_never_below_air(tmp_path: Path) -> None:
    stored = np.array([[0, 24, 1024, 3000]] * 2, np.uint16)
    found = values(tmp_path, stored, RescaleSlope=1, RescaleIntercept=-1524)
    np.testing.assert_array_equal(found[0, 0], [-1024, -1024, -500, 1476])


def test_padding_becomes_the_smallest_value(tmp_path: Path) -> None:
    stored = np.array([[-2000, 5, 7, 9]] * 2, np.int16)
    found = values(tmp_path, stored, Modality="MR", PixelPaddingValue=-2000)
    np.testing.assert_array_equal(found[0, 0], [5, 5, 7, 9])


def test_monochrome1_is_inverted_where_it_is_a_picture(tmp_path: Path) -> None:
    stored = noise(0, 6, 7).astype(np.uint16) % 256
    plain = values(tmp_path, stored, Modality="DX")
    turned = values(tmp_path, stored, Modality="DX", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(turned, stored.max() + float(stored.min()) - plain)
    counts = values(tmp_path, stored, Modality="PT", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(counts[0], stored)


def test_the_window_of_an_x_ray_is_respected_that_of_a_ct_is_not(tmp_path: Path) -> None:
    stored = np.linspace(0, 4000, 64).reshape(8, 8).astype(np.uint16)
    window = {"WindowCenter": 1000, "WindowWidth": 400}
    x_ray = values(tmp_path, stored, Modality="DX", **window)[0]
    inside = (stored > 810) & (stored < 1190)
    assert np.ptp(x_ray[stored < 790]) == 0
    assert np.ptp(x_ray[stored > 1210]) == 0
    assert np.corrcoef(x_ray[inside], stored[inside])[0, 1] > 0.999
    np.testing.assert_array_equal(values(tmp_path, stored, Modality="CT", **window)[0], stored)


def test_a_window_beside_all_values_is_not_believed(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    found = values(tmp_path, stored, Modality="CR", WindowCenter=30000, WindowWidth=10)
    np.testing.assert_array_equal(found[0], stored)


def test_colour_is_three_channels_of_bytes(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    found = values(tmp_path, rgb.reshape(8, 27), Rows=8, Columns=9, **tags)
    np.testing.assert_array_equal(found, rgb.transpose(2, 0, 1))
    assert found.dtype == np.uint8


def test_padding_of_an_inverted_picture_is_as_black_as_that_of_others(tmp_path: Path) -> None:
    stored = np.array([[4095, 100, 2000, 3000]] * 2, np.uint16)
    tags = {"Modality": "MG", "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095}
    np.testing.assert_array_equal(values(tmp_path, stored, **tags)[0, 0], [100, 3000, 1100, 100])
    shown = values(tmp_path, stored, WindowCenter=1500, WindowWidth=2000, **tags)[0, 0]
    assert shown[0] == shown.min() < shown[2] < shown[1]
