"""Stored integers and their gain and bias mean what the plan says."""

import numpy as np
import pytest

from medssl.data.scale import Intensity, Limits, foreground, limits, quantised
from medssl.errors import UserError
from medssl.rng import stream


def normalise(stored: np.ndarray, gain: float, bias: float, value_range: tuple[float, float]) -> np.ndarray:
    return np.clip(stored * gain + bias, *value_range)


def test_hounsfield_units_are_kept_and_the_window_fills_the_range() -> None:
    image = np.array([[[-2000, -1000, 0, 500, 1000, 3000]]], np.int16)
    rule = Intensity(normalise="window", low=-1000, high=1000)
    stored, gain, bias = quantised(image, limits(image, rule, (0, 1), None), (0, 1), "int16", True)
    np.testing.assert_array_equal(stored, image)
    np.testing.assert_allclose(normalise(stored, gain, bias, (0, 1))[0, 0], [0, 0, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1.7e6])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_percentiles_fill_the_range_whatever_the_unit(scale: float, value_range: tuple[float, float]) -> None:
    image = (stream(0, "mr").random((1, 40, 40, 20)) * scale).astype(np.float32)
    span = limits(image, Intensity(low=1, high=99), value_range, None)
    stored, gain, bias = quantised(image, span, value_range, "int16", False)
    found = normalise(stored, gain, bias, value_range)
    low, high = np.percentile(image, (1, 99))
    wanted = np.clip((image - low) / (high - low), 0, 1) * (value_range[1] - value_range[0]) + value_range[0]
    assert np.abs(found - wanted).max() < 1e-3


def test_zscore_over_the_foreground() -> None:
    image = np.zeros((1, 30, 30, 30), np.float32)
    tissue = stream(0, "tissue").normal(300, 40, (20, 20, 20))
    image[0, 5:25, 5:25, 5:25] = tissue
    inside = foreground(image, "")
    assert abs(inside.sum() - 8000) <= 1
    span = limits(image, Intensity(normalise="zscore", over="foreground"), (-5, 5), inside)
    stored, gain, bias = quantised(image, span, (-5, 5), "int16", False)
    values = (stored * gain + bias)[0, 5:25, 5:25, 5:25]
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01


def test_a_background_amid_the_values_is_background() -> None:
    image = np.zeros((1, 20, 20, 20), np.float32)  # z-scored tissue, then the skull set to zero
    image[0, 4:16, 4:16, 4:16] = stream(0, "z").normal(0, 1, (12, 12, 12))
    np.testing.assert_array_equal(foreground(image, ""), image[0] != 0)


def test_ct_foreground_is_above_air() -> None:
    image = np.full((1, 10, 10, 10), -1000, np.int16)
    image[0, 2:8, 2:8, 2:8] = 40
    assert foreground(image, "CT").sum() == 216


def test_eight_bits_stay_as_they_are() -> None:
    image = stream(0, "picture").integers(0, 256, (3, 20, 20)).astype(np.uint8)
    stored, gain, bias = quantised(image, Limits(5, 250), (0, 1), "uint8", True)
    np.testing.assert_array_equal(stored, image)
    assert gain * 5 + bias == pytest.approx(0)
    assert gain * 250 + bias == pytest.approx(1)


def test_sixteen_bits_in_a_store_of_eight() -> None:
    image = np.linspace(0, 60000, 400, dtype=np.float32).reshape(1, 20, 20)
    stored, gain, bias = quantised(image, Limits(0, 60000), (0, 1), "uint8", True)
    assert stored.dtype == np.uint8
    np.testing.assert_allclose(stored * gain + bias, image / 60000, atol=0.003)


def test_nearly_constant_images_use_their_extremes_and_constant_ones_are_refused() -> None:
    image = np.zeros((1, 100, 100), np.uint8)
    image[0, :3, :3] = 200
    assert limits(image, Intensity(), (0, 1), None) == Limits(0, 200)
    with pytest.raises(UserError, match="every voxel is 0"):
        limits(np.zeros((1, 5, 5)), Intensity(), (0, 1), None)
